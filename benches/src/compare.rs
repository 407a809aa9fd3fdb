//! Two record files side by side.

use std::fmt::Write;

use crate::record::{Record, Session};
use crate::stats;

/// Ratios of times, `a` over `b`, with the spread of the rounds' ratios; above 1 means `b` is faster.
pub fn compare(a: &Session, b: &Session) -> String {
    let mut text = String::from("| case | engine | A µs | B µs | A/B | spread |\n|---|---|--:|--:|--:|--:|\n");
    for old in &a.records {
        let same = |new: &&Record| new.case == old.case && new.engine == old.engine;
        let Some(new) = b.records.iter().find(same) else { continue };
        let (Some(x), Some(y)) = (old.median_us, new.median_us) else { continue };
        let ratios: Vec<f64> = old.rounds_us.iter().zip(&new.rounds_us).map(|(a, b)| a / b).collect();
        let spread = if ratios.is_empty() { f64::NAN } else { stats::spread(&ratios) };
        let _ = writeln!(
            text,
            "| {} | {} | {x:.1} | {y:.1} | {:.3} | {:.0} % |",
            old.case,
            old.engine,
            x / y,
            spread * 100.0
        );
    }
    let (p, q) = (a.machine.peaks, b.machine.peaks);
    let _ = writeln!(
        text,
        "\nPeaks of A and B: {:.0} and {:.0} GFLOP/s, {:.0} and {:.0} ns between cores.",
        p.gflops, q.gflops, p.ping_pong_ns, q.ping_pong_ns
    );
    text
}
