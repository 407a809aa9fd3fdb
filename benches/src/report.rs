//! The generated parts of the documentation: tables and pictures from committed records.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::chart;
use crate::record::{Record, Session};
use crate::table::{case_table, machine_line, roofline, sweep_table};

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// Cases of the README and of the pictures.
const HIGHLIGHTS: [&str; 4] = ["S/train/32", "F/train/128", "F/reconstruct/1", "F/reconstruct/1024"];

/// Writes the generated parts under `root`, or only checks them.
///
/// # Errors
/// Missing records or markers; with `check`, a part that differs from what the records give.
pub fn generate(root: &Path, check: bool) -> Result<()> {
    let folder = root.join("benches/records");
    let [sessions, sweeps, rooflines] = sessions(&folder)?;
    if sessions.is_empty() {
        bail!("{} holds no records", folder.display());
    }
    let section = |case: &str, records: &[&Record]| format!("### {case}\n\n{}\n", case_table(records));
    let (mut readme, mut tables) = (String::new(), String::new());
    for (index, session) in sessions.iter().enumerate() {
        let newer = |case: &str| sessions[index + 1..].iter().any(|newer| newer.records.iter().any(|r| r.case == case));
        let cases: Vec<_> = by_case(session).into_iter().filter(|(case, _)| !newer(case)).collect();
        let machine = format!("{}.\n\n", machine_line(&session.machine));
        if cases.iter().any(|(case, _)| HIGHLIGHTS.contains(case)) {
            readme += &machine;
        }
        if !cases.is_empty() {
            tables += &machine;
        }
        for (case, records) in cases {
            tables += &section(case, &records);
            if HIGHLIGHTS.contains(&case) {
                readme += &section(case, &records);
                let name = format!("speed-{}.svg", case.replace('/', "-").to_lowercase());
                if records.iter().any(|record| record.per_second.is_some()) {
                    picture(root, case, &records, &name, check)?;
                    tables += &format!("![{case}]({name})\n\n");
                }
            }
        }
    }
    if let Some(sweep) = sweeps.last() {
        let machine = machine_line(&sweep.machine);
        tables += &format!("### Widths and batches\n\n{machine}.\n\n{}", sweep_table(&by_case(sweep)));
    }
    if let Some(session) = rooflines.last() {
        let table = roofline(&session.records, session.machine.peaks);
        let text = format!("{}.\n\n{table}\n", machine_line(&session.machine));
        splice(&root.join("docs/PERFORMANCE.md"), &text, check)?;
    }
    splice(&root.join("README.md"), &readme, check)?;
    splice(&root.join("docs/BENCHMARKS.md"), &tables, check)?;
    for folder in entries(&folder)?.into_iter().filter(|path| path.is_dir()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let records = self::sessions(&folder)?;
        if records.iter().any(|sessions| !sessions.is_empty()) {
            let page = root.join("docs").join(format!("benchmarks-{name}.md"));
            write(&page, &elsewhere(&name, &records), check)?;
        }
    }
    Ok(())
}

/// The page of another machine, whose records lie in a folder of their own: all of them, those of a repeated case too.
fn elsewhere(name: &str, [sessions, sweeps, rooflines]: &[Vec<Session>; 3]) -> String {
    let mut text = format!(
        "# Speed: {name}\n\nWritten by `cargo xtask report` from `benches/records/{name}/`; what cases and columns mean, and \
         the rules, are in [BENCHMARKS.md](BENCHMARKS.md).\n"
    );
    for session in sessions {
        text += &format!("\n{}.\n", machine_line(&session.machine));
        for (case, records) in by_case(session) {
            text += &format!("\n## {case}\n\n{}", case_table(&records));
        }
    }
    for sweep in sweeps {
        let machine = machine_line(&sweep.machine);
        text += &format!("\n## Widths and batches\n\n{machine}.\n\n{}", sweep_table(&by_case(sweep)));
    }
    for session in rooflines {
        let table = roofline(&session.records, session.machine.peaks);
        text += &format!("\n## Where the time goes\n\n{}.\n\n{table}", machine_line(&session.machine));
    }
    text
}

/// What a folder holds, by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    Ok(paths)
}

/// Writes a page that is generated as a whole, or only compares it.
fn write(path: &Path, text: &str, check: bool) -> Result<()> {
    if !check {
        return std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()));
    }
    if std::fs::read_to_string(path).unwrap_or_default() != text {
        bail!("{} is not what the records give; run `cargo xtask report`", path.display());
    }
    Ok(())
}

/// The records of each case, in the order of the file.
fn by_case(session: &Session) -> Vec<(&str, Vec<&Record>)> {
    let mut cases: Vec<(&str, Vec<&Record>)> = vec![];
    for record in &session.records {
        match cases.iter_mut().find(|(case, _)| *case == record.case) {
            Some((_, records)) => records.push(record),
            None => cases.push((&record.case, vec![record])),
        }
    }
    cases
}

/// The record files of the standard cases, of sweeps and of profiles, oldest first: names start with the date, those of
/// a sweep end in `-sweep`, those of a profile in `-roofline`. Of a case in several files the last one counts.
fn sessions(folder: &Path) -> Result<[Vec<Session>; 3]> {
    let mut files = entries(folder)?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    let mut sessions = [const { vec![] }; 3];
    for path in files {
        let ends = |suffix| path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(suffix));
        let kind = if ends("-sweep") { 1 } else { 2 * usize::from(ends("-roofline")) };
        sessions[kind].push(Session::read(&path)?);
    }
    Ok(sessions)
}

fn picture(root: &Path, case: &str, records: &[&Record], name: &str, check: bool) -> Result<()> {
    let path = root.join("docs").join(name);
    let fresh = if check { std::env::temp_dir().join(format!("{}-{name}", std::process::id())) } else { path.clone() };
    chart::bars(&format!("{case}: per second, more is better"), records, &fresh)?;
    if check {
        let same = std::fs::read(&fresh)? == std::fs::read(&path).unwrap_or_default();
        std::fs::remove_file(&fresh)?;
        if !same {
            bail!("{} is not what the records give; run `cargo xtask report`", path.display());
        }
    }
    Ok(())
}

/// Replaces what stands between the markers of a file.
fn splice(path: &Path, content: &str, check: bool) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (Some(begin), Some(end)) = (text.find(BEGIN), text.find(END)) else {
        bail!("{} lacks the markers {BEGIN} and {END}", path.display());
    };
    if begin > end {
        bail!("the markers of {} are in the wrong order", path.display());
    }
    let fresh = format!("{}{BEGIN}\n{content}{}", &text[..begin], &text[end..]);
    write(path, &fresh, check)
}
