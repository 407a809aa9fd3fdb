//! What a measurement leaves behind: one JSON object a line.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use cvae_core::OpProfile;
use serde::{Deserialize, Serialize};

use crate::peak::{Peaks, RoundPeaks};

/// A case on an engine: figures, or the reason why there are none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The case's name.
    pub case: String,
    /// The engine: a backend id, or a peer.
    pub engine: String,
    /// Median over rounds of the time of a step or call, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_us: Option<f64>,
    /// Distance of the 10 % and 90 % quantiles of the rounds, over the median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// Steps or calls a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// Arithmetic of the matrix products over the machine's measured peak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_peak: Option<f64>,
    /// Time of the fastest peer over this engine's, round by round; above 1 is faster than every peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio_to_best_peer: Option<f64>,
    /// Median time of each round, in microseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds_us: Vec<f64>,
    /// Why there are no figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Version of the engine.
    #[serde(default)]
    pub version: String,
    /// Threads it was given.
    #[serde(default)]
    pub threads: usize,
    /// Floating-point operations of a step or call.
    #[serde(default)]
    pub flops: f64,
    /// Bytes of parameters and moments that a step or call moves.
    #[serde(default)]
    pub bytes: f64,
    /// Largest resident set of the process, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_mib: Option<f64>,
    /// Size on disk, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_mib: Option<f64>,
    /// Whether the engine is not ours.
    #[serde(default)]
    pub peer: bool,
    /// Rows of the case.
    #[serde(default)]
    pub data: String,
    /// Kernels that ran, for our own engines.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub kernels: BTreeSet<String>,
    /// Where the time went, for our own engines under `--profile`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<OpProfile>,
    /// The machine during the rounds of the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<RoundPeaks>,
    /// Settings that made a peer fast.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
}

/// The first line of a record file: where and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor.
    pub cpu: String,
    /// Instruction sets of interest.
    pub features: Vec<String>,
    /// Logical processors.
    pub cores: usize,
    /// Measured before and after the session; the larger of each.
    pub peaks: Peaks,
    /// Commit of the measured tree.
    pub commit: String,
    /// Whether the tree differed from that commit.
    pub modified: bool,
    /// Day, as year-month-day.
    pub date: String,
}

/// A record file.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Where and when.
    pub machine: Machine,
    /// What was measured.
    pub records: Vec<Record>,
}

impl Session {
    /// Reads a file of records.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is no record.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut lines = text.lines().enumerate();
        let at = |line: usize| format!("{}, line {}", path.display(), line + 1);
        let (_, first) = lines.next().with_context(|| format!("{} is empty", path.display()))?;
        let machine = serde_json::from_str(first).with_context(|| at(0))?;
        let records =
            lines.map(|(n, line)| serde_json::from_str(line).with_context(|| at(n))).collect::<Result<_>>()?;
        Ok(Self { machine, records })
    }

    /// Writes a file of records.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string(&self.machine)? + "\n";
        for record in &self.records {
            text += &(serde_json::to_string(record)? + "\n");
        }
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}
