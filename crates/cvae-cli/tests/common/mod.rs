//! Starting the program and looking at what it leaves behind.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cvae_data::{LoadOptions, Source};

/// The program, to be run in `folder`.
pub fn command(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cvae"));
    command.current_dir(folder).stdin(Stdio::null()).args(line.split_whitespace());
    command
}

/// What a finished program left.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Runs the program in `folder` to its end.
pub fn cvae(folder: &Path, line: &str) -> Finished {
    command(folder, line).output().unwrap().into()
}

/// Runs the program, which must succeed, and returns its standard output.
pub fn succeed(folder: &Path, line: &str) -> String {
    let finished = cvae(folder, line);
    assert_eq!(finished.code, Some(0), "cvae {line}: {}", finished.stderr);
    finished.stdout
}

/// The JSON object on the last line of standard output of a run that must succeed.
pub fn json(folder: &Path, line: &str) -> serde_json::Value {
    let stdout = succeed(folder, line);
    let value: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert!(value.is_object(), "{value}");
    value
}

/// A number of a JSON object.
pub fn number(value: &serde_json::Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("`{key}` is no number in {value}"))
}

/// Rows, width and values of an array file.
pub fn array(path: &Path) -> (usize, usize, Vec<f32>) {
    let source: Source = path.to_str().unwrap().parse().unwrap();
    let data = source.load(&LoadOptions::default()).unwrap();
    (data.rows(), data.width(), data.to_f32().into_owned())
}

/// Every file below `folder` with its length.
pub fn listing(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => drop(files.insert(entry.path(), entry.metadata().unwrap().len())),
            }
        }
    }
    files
}

/// What is wrong with a failure that should have exit code 1, one sentence on standard error that holds all of
/// `parts`, and nothing on standard output.
pub fn refusal_fault(line: &str, finished: &Finished, parts: &[&str]) -> Option<String> {
    let Finished { code, stdout, stderr } = finished;
    let fault = |what: String| Some(format!("cvae {line}: {what}: {stderr}"));
    if *code != Some(1) {
        return fault(format!("exit code {code:?}"));
    }
    if stderr.lines().count() != 1 || !stderr.starts_with("error: ") {
        return fault("not one sentence".to_owned());
    }
    if let Some(part) = parts.iter().find(|part| !stderr.contains(**part)) {
        return fault(format!("no `{part}`"));
    }
    if let Some(word) = ["panicked", "RUST_BACKTRACE", "unwrap", "Error {"].iter().find(|word| stderr.contains(**word))
    {
        return fault(format!("says `{word}`"));
    }
    if !stdout.is_empty() { fault(format!("standard output `{stdout}`")) } else { None }
}

/// Asserts that there is no [`refusal_fault`].
pub fn check_refusal(line: &str, finished: &Finished, parts: &[&str]) {
    let fault = refusal_fault(line, finished, parts);
    assert!(fault.is_none(), "{}", fault.unwrap_or_default());
}
