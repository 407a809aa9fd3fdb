//! Starting other programs.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{self, Stdio};

use anyhow::{Context, Result, bail};

/// A program with its arguments, printed before it runs.
#[derive(Debug)]
pub(crate) struct Command {
    inner: process::Command,
    words: Vec<OsString>,
}

impl Command {
    /// The program `program`, found as the shell would.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut inner = process::Command::new(program.as_ref());
        inner.stdin(Stdio::null());
        let name = Path::new(program.as_ref()).file_name().unwrap_or(program.as_ref());
        Self { inner, words: vec![name.to_owned()] }
    }

    /// The folder to run in.
    pub(crate) fn folder(mut self, folder: &Path) -> Self {
        self.inner.current_dir(folder);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<I>(mut self, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        for argument in arguments {
            self.inner.arg(argument.as_ref());
            self.words.push(argument.as_ref().to_owned());
        }
        self
    }

    /// Sets a variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.inner.env(name, value);
        self
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// A program that cannot be started or does not succeed.
    pub(crate) fn run(mut self) -> Result<()> {
        eprintln!("$ {self}");
        let status = self.inner.status().with_context(|| format!("starting `{self}`"))?;
        if !status.success() {
            bail!("`{self}` failed ({status})");
        }
        Ok(())
    }

    /// Runs to the end, passes standard output on and hands each of its lines to `line`. Says whether the
    /// program succeeded.
    ///
    /// # Errors
    /// A program that cannot be started or read.
    pub(crate) fn run_lines(mut self, mut line: impl FnMut(&str)) -> Result<bool> {
        eprintln!("$ {self}");
        let mut child = self.inner.stdout(Stdio::piped()).spawn().with_context(|| format!("starting `{self}`"))?;
        let output = child.stdout.take().with_context(|| format!("reading from `{self}`"))?;
        let mut stdout = std::io::stdout().lock();
        for bytes in BufReader::new(output).split(b'\n') {
            let bytes = bytes.with_context(|| format!("reading from `{self}`"))?;
            let text = String::from_utf8_lossy(&bytes);
            writeln!(stdout, "{text}")?;
            line(&text);
        }
        let status = child.wait().with_context(|| format!("waiting for `{self}`"))?;
        Ok(status.success())
    }

    /// Runs to the end and returns standard output, whether or not the program succeeded; its messages pass on.
    ///
    /// # Errors
    /// A program that cannot be started, or prints something other than text.
    pub(crate) fn answer(mut self) -> Result<String> {
        eprintln!("$ {self}");
        let output = self.inner.stderr(Stdio::inherit()).output().with_context(|| format!("starting `{self}`"))?;
        String::from_utf8(output.stdout).with_context(|| format!("reading from `{self}`"))
    }

    /// Runs to the end and returns standard output.
    ///
    /// # Errors
    /// A program that cannot be started, does not succeed, or prints something other than text.
    pub(crate) fn output(mut self) -> Result<String> {
        let output = self.inner.output().with_context(|| format!("starting `{self}`"))?;
        if !output.status.success() {
            bail!("`{self}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).with_context(|| format!("reading from `{self}`"))
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.words.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{}", word.to_string_lossy())?;
        }
        Ok(())
    }
}
