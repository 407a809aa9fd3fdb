//! The generated parts of the documentation: tables and pictures from committed records.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::chart;
use crate::record::{Record, Session};
use crate::table::{case_table, machine_line};

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// Cases of the README and of the pictures.
const HIGHLIGHTS: [&str; 4] = ["S/train/32", "F/train/128", "F/reconstruct/1", "F/reconstruct/1024"];

/// Writes the generated parts under `root`, or only checks them.
///
/// # Errors
/// Missing records or markers; with `check`, a part that differs from what the records give.
pub fn generate(root: &Path, check: bool) -> Result<()> {
    let session = Session::read(&newest(&root.join("benches/records"))?)?;
    let mut cases: BTreeMap<usize, (&str, Vec<&Record>)> = BTreeMap::new();
    let mut order: Vec<&str> = vec![];
    for record in &session.records {
        let position = order.iter().position(|case| *case == record.case).unwrap_or_else(|| {
            order.push(&record.case);
            order.len() - 1
        });
        cases.entry(position).or_insert_with(|| (&record.case, vec![])).1.push(record);
    }
    let section = |case: &str, records: &[&Record]| format!("### {case}\n\n{}\n", case_table(records));
    let machine = machine_line(&session.machine);

    let mut readme = format!("{machine}.\n\n");
    let mut tables = String::new();
    for (case, records) in cases.values() {
        tables += &section(case, records);
        if HIGHLIGHTS.contains(case) {
            readme += &section(case, records);
            let name = format!("speed-{}.svg", case.replace('/', "-").to_lowercase());
            if records.iter().any(|record| record.per_second.is_some()) {
                picture(root, case, records, &name, check)?;
            }
        }
    }
    splice(&root.join("README.md"), &readme, check)?;
    splice(&root.join("docs/BENCHMARKS.md"), &format!("{machine}.\n\n{tables}"), check)
}

/// The record file whose name sorts last; names start with the date.
fn newest(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.max().with_context(|| format!("{} holds no records", folder.display()))
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
    if check && fresh != text {
        bail!("{} is not what the records give; run `cargo xtask report`", path.display());
    }
    if !check {
        std::fs::write(path, fresh).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
