//! The engines of a session: our backends and the peers' scripts.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::case::{Case, Mode};
use crate::engine::FROZEN;

/// A program that speaks the protocol.
#[derive(Clone, Debug)]
pub struct Program {
    /// Name in the tables.
    pub engine: String,
    /// Executable and fixed arguments.
    words: Vec<PathBuf>,
    /// Why it cannot run, if so.
    pub missing: Option<String>,
    /// Whether it is a peer, not ours.
    pub peer: bool,
    train: bool,
    infer: bool,
}

impl Program {
    /// One of our backends, run by `binary`, or the reason why it may not be timed.
    pub fn own(engine: &str, binary: &Path, missing: Option<String>) -> Self {
        let words = vec![binary.to_owned(), "--engine".into(), engine.into()];
        let train = !engine.ends_with(FROZEN);
        Self { engine: engine.to_owned(), words, missing, peer: false, train, infer: true }
    }

    /// Whether the engine has the case's mode at all. The sweep over widths is beside eager PyTorch alone: the
    /// other peers compile for minutes.
    pub fn offers(&self, case: &Case) -> bool {
        if self.peer && case.workload.starts_with('W') && self.engine != "torch-eager" {
            return false;
        }
        if case.precision == "int8" && self.engine != "onnxruntime" && !self.engine.ends_with(FROZEN) {
            return false;
        }
        // The precision of a backend is part of its id; a frozen model brings its own.
        let rounds = self.engine.trim_end_matches(FROZEN).ends_with("-bf16");
        let frozen = self.engine.ends_with(FROZEN);
        if !self.peer && (case.precision == "bf16") != rounds && (rounds || !frozen) {
            return false;
        }
        match case.mode {
            Mode::Train => self.train,
            Mode::Infer(_) => self.infer,
        }
    }

    /// The command for one case.
    pub fn command(&self, case: &Case, threads: usize, seconds: f64) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command.args(["--case", &case.to_string(), "--threads", &threads.to_string(), "--paced"]);
        command.args(["--min-seconds", &seconds.to_string()]);
        command
    }
}

/// The peers, run by `python`; without one, each says why it is missing.
pub fn peers(folder: &Path, python: Option<&Path>) -> Vec<Program> {
    let peer = |engine: &str, script: &str, train: bool, infer: bool| Program {
        engine: engine.to_owned(),
        words: vec![python.unwrap_or(Path::new("python3")).to_owned(), folder.join(script)],
        missing: python.is_none().then(|| "not asked for: run with --peers".to_owned()),
        peer: true,
        train,
        infer,
    };
    vec![
        peer("torch-eager", "torch_eager.py", true, true),
        peer("torch-compile", "torch_compile.py", true, true),
        peer("jax", "jax_scan.py", true, true),
        peer("keras", "keras_fit.py", true, false),
        peer("onnxruntime", "onnxruntime_infer.py", false, true),
    ]
}

/// The Python of the peers' environment at `venv`, made from the committed requirements if it is not there.
///
/// # Errors
/// No Python, or packages that cannot be installed.
pub fn environment(venv: &Path, requirements: &Path) -> Result<PathBuf> {
    let python = venv.join("bin/python");
    let stamp = venv.join("installed-requirements.txt");
    let wanted = std::fs::read(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    if std::fs::read(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    eprintln!("making {} for the peers (some gigabytes, once)", venv.display());
    let run = |command: &mut Command| -> Result<()> {
        let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
        if !status.success() {
            bail!("{command:?} failed");
        }
        Ok(())
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(venv))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements))?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}
