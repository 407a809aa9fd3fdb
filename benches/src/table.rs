//! Records as Markdown tables.

use std::fmt::Write;

use crate::peak::Peaks;
use crate::record::{Machine, Record};

/// A sentence about the machine during the rounds of a case, where it was sampled.
fn rounds_line(records: &[&Record]) -> Option<String> {
    let machine = records.iter().find_map(|record| record.machine)?;
    Some(format!(
        "In these rounds: {:.0} GFLOP/s at the multiply-add peak ({:.0} to {:.0}), {:.0} ns between cores.\n\n",
        machine.gflops, machine.gflops_low, machine.gflops_high, machine.ping_pong_ns
    ))
}

/// One table of a case's records, fastest first, below the machine's peaks; rows without figures say why.
pub fn case_table(records: &[&Record]) -> String {
    let mut sorted = records.to_vec();
    sorted.sort_by(|a, b| a.median_us.unwrap_or(f64::MAX).total_cmp(&b.median_us.unwrap_or(f64::MAX)));
    let mut text = rounds_line(records).unwrap_or_default();
    text.push_str(
        "| engine | median | spread | per second | × best peer | of peak | peak MiB |\n|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for record in sorted {
        let line = match (record.median_us, &record.reason) {
            (None, None) if record.size_mib.is_some() => {
                format!("| {} | {:.1} MiB on disk | | | | | |\n", record.engine, record.size_mib.unwrap_or_default())
            }
            (Some(median), _) => format!(
                "| {} | {} | {} | {} | {} | {} | {} |\n",
                record.engine,
                duration(median),
                percent(record.spread),
                rate(record.per_second),
                record.ratio_to_best_peer.map_or("–".to_owned(), |ratio| format!("{ratio:.2}")),
                percent(record.of_peak),
                record.peak_memory_mib.map_or("–".to_owned(), |mib| format!("{mib:.0}")),
            ),
            (None, reason) => {
                format!("| {} | {} | | | | | |\n", record.engine, reason.as_deref().unwrap_or("no figures"))
            }
        };
        text += &line;
    }
    text
}

/// How close each kernel of our own engines comes to the machine's limits in the session.
pub fn roofline<'r>(records: impl IntoIterator<Item = &'r Record>, peaks: Peaks) -> String {
    let mut text = String::from(
        "| case | engine | kernel | µs a call | share | GFLOP/s | of peak | GB/s | of memory |\n\
         |---|---|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for record in records {
        let whole: f64 = record.ops.iter().map(|op| op.seconds).sum();
        for op in &record.ops {
            let (flops, bytes) = (op.flops / op.seconds / 1e9, op.bytes / op.seconds / 1e9);
            let rates = match op.flops > 0.0 {
                true => format!(
                    "{flops:.0} | {} | {bytes:.0} | {}",
                    percent(Some(flops / peaks.gflops)),
                    percent(Some(bytes / peaks.memory_gbs))
                ),
                false => "| | |".to_owned(),
            };
            let micros = 1e6 * op.seconds / op.calls.max(1) as f64;
            let (case, engine) = (&record.case, &record.engine);
            let share = percent(Some(op.seconds / whole));
            let _ = writeln!(text, "| {case} | {engine} | {} | {micros:.1} | {share} | {rates} |", op.op);
        }
    }
    text
}

/// The sweep over widths and batches, a line a case: our fastest backend beside eager PyTorch.
pub fn sweep_table(cases: &[(&str, Vec<&Record>)]) -> String {
    let mut text =
        String::from("| case | engine | median | of peak | torch-eager | × torch-eager |\n|---|---|--:|--:|--:|--:|\n");
    for (case, records) in cases {
        let own = records.iter().filter(|record| record.engine.starts_with("cpu-") && record.median_us.is_some());
        let own = own.min_by(|a, b| a.median_us.unwrap_or(f64::MAX).total_cmp(&b.median_us.unwrap_or(f64::MAX)));
        let Some(own) = own else { continue };
        let peer = records.iter().find(|record| record.engine == "torch-eager").and_then(|record| record.median_us);
        let _ = writeln!(
            text,
            "| {case} | {} | {} | {} | {} | {} |",
            own.engine,
            own.median_us.map_or("–".to_owned(), duration),
            percent(own.of_peak),
            peer.map_or("–".to_owned(), duration),
            own.ratio_to_best_peer.map_or("–".to_owned(), |ratio| format!("{ratio:.2}")),
        );
    }
    text
}

/// A sentence about the machine.
pub fn machine_line(machine: &Machine) -> String {
    let mut text = format!("{}, {} cores", machine.cpu, machine.cores);
    if !machine.features.is_empty() {
        let _ = write!(text, " ({})", machine.features.join(", "));
    }
    let peaks = machine.peaks;
    let _ = write!(
        text,
        "; measured beside: {:.0} GFLOP/s of f32 multiply-adds ({:.0} on one thread), {:.1} GB/s from memory, {:.0} ns \
         between cores; {}, commit {}{}",
        peaks.gflops,
        peaks.gflops_one,
        peaks.memory_gbs,
        peaks.ping_pong_ns,
        machine.date,
        machine.commit,
        if machine.modified { " with changes" } else { "" }
    );
    text
}

/// Microseconds in the unit that suits them.
fn duration(micros: f64) -> String {
    match micros {
        micros if micros < 100.0 => format!("{micros:.1} µs"),
        micros if micros < 1e4 => format!("{micros:.0} µs"),
        micros if micros < 1e6 => format!("{:.1} ms", micros / 1e3),
        micros => format!("{:.2} s", micros / 1e6),
    }
}

fn rate(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") })
}

fn percent(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{:.0} %", value * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_reasons_shown() {
        let timed = |engine: &str, median: f64| Record {
            engine: engine.to_owned(),
            median_us: Some(median),
            spread: Some(0.04),
            per_second: Some(1e6 / median),
            ..Record::default()
        };
        let missing = Record { engine: "jax".into(), reason: Some("not installed".into()), ..Record::default() };
        let (slow, fast) = (timed("slow", 2000.0), timed("fast", 12.34));
        let table = case_table(&[&missing, &slow, &fast]);
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(lines[0], "| fast | 12.3 µs | 4 % | 81037 | – | – | – |");
        assert_eq!(lines[1], "| slow | 2000 µs | 4 % | 500 | – | – | – |");
        assert_eq!(lines[2], "| jax | not installed | | | | | |");
    }
}
