//! Finished figures, kept in a file that is committed: the page is written from it alone.
//!
//! One JSON object a line, in the order in which they were finished. A run has its objective, seed, settings, commit
//! and figures; what an example or a peer gave has its name, commit and figures. The newest line of a key counts.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Fields of a configuration that differ between runs of equal settings, or say nothing of them.
const NOT_SETTINGS: [&str; 4] = ["seed", "version", "format", "backend"];

/// The file with its lines.
#[derive(Debug)]
pub(super) struct Records {
    path: PathBuf,
    lines: Vec<Value>,
}

impl Records {
    /// Reads the file; one that does not exist has no lines.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is not JSON.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let line = |(index, line): (usize, &str)| {
            serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), index + 1))
        };
        let lines = text.lines().enumerate().map(line).collect::<Result<_>>()?;
        Ok(Self { path: path.to_owned(), lines })
    }

    /// Takes in what another call has added since.
    ///
    /// # Errors
    /// As [`Records::open`].
    pub(super) fn reload(&mut self) -> Result<()> {
        *self = Self::open(&self.path)?;
        Ok(())
    }

    /// The figures of a run.
    pub(super) fn run(&self, objective: &str, seed: u64) -> Option<&Value> {
        self.lines.iter().rfind(|line| line["objective"] == objective && line["seed"] == seed)
    }

    /// The figures of an example or a peer.
    pub(super) fn figures(&self, name: &str) -> Option<&Value> {
        self.lines.iter().rfind(|line| line["name"] == name).map(|line| &line["figures"])
    }

    /// The runs of an objective with seeds from 0 up to `seeds`, those that are finished.
    ///
    /// # Errors
    /// Runs of unequal settings: their mean would be of nothing.
    pub(super) fn runs(&self, objective: &str, seeds: u64) -> Result<Vec<Value>> {
        let runs: Vec<Value> = (0..seeds).filter_map(|seed| self.run(objective, seed)).cloned().collect();
        if let Some(other) = runs.iter().find(|run| run["settings"] != runs[0]["settings"]) {
            bail!(
                "{objective}: the settings of the seeds {} and {} differ; train it again with --again",
                runs[0]["seed"],
                other["seed"]
            );
        }
        Ok(runs)
    }

    /// Appends a line, to the file too.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn add(&mut self, line: Value) -> Result<()> {
        let writing = || format!("writing {}", self.path.display());
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.path).with_context(writing)?;
        // One write: lines of two programs do not mix.
        file.write_all(format!("{line}\n").as_bytes()).with_context(writing)?;
        self.lines.push(line);
        Ok(())
    }

    /// Takes lines out, of the file too, as it is now: another call may have changed it.
    ///
    /// # Errors
    /// As [`Records::open`], and a file that cannot be written.
    pub(super) fn remove(&mut self, unwanted: impl Fn(&Value) -> bool) -> Result<()> {
        self.reload()?;
        let before = self.lines.len();
        self.lines.retain(|line| !unwanted(line));
        if self.lines.len() == before {
            return Ok(());
        }
        let text: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&self.path, text).with_context(|| format!("writing {}", self.path.display()))
    }
}

/// What a run was trained with, from its `config.toml`: all but the seed and what does not change figures.
///
/// # Errors
/// A text that is not TOML.
pub(super) fn settings(config: &str) -> Result<Value> {
    let mut table: toml::Table = toml::from_str(config).context("reading a run's configuration")?;
    for field in NOT_SETTINGS {
        table.remove(field);
    }
    Ok(serde_json::to_value(table)?)
}

/// Whether the line of a run has the distances of samples of these densities.
pub(super) fn has_densities(line: &Value, densities: &[&str]) -> bool {
    densities.iter().all(|density| line["frechet"]["samples"][density].is_number())
}

/// The line of a run, with those figures of `cvae train` and `cvae eval` that the page shows.
pub(super) fn run_line(
    (objective, seed): (&str, u64),
    (commit, settings): (&str, Value),
    (trained, evaluated): (&Value, &Value),
) -> Value {
    let densities = evaluated["generation"]["densities"].as_array().map_or(&[][..], Vec::as_slice);
    let mut frechet = serde_json::Map::new();
    for density in densities {
        let name = density["density"].as_str().unwrap_or_default();
        frechet.insert(name.to_owned(), density["frechet"].clone());
        if density["automatic"] == true {
            frechet.insert(format!("{}:auto", name.split(':').next().unwrap_or_default()), density["frechet"].clone());
        }
    }
    json!({
        "objective": objective,
        "seed": seed,
        "commit": commit,
        "settings": settings,
        "train_seconds": trained["train_seconds"],
        "mse": evaluated["mse"],
        "knn5": evaluated["knn5"],
        "linear_probe": evaluated["linear_probe"],
        "latent_rms": evaluated["latent_rms"],
        "frechet": { "reconstructions": evaluated["generation"]["reconstructions"], "samples": frechet },
        "baselines": evaluated["baselines"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_and_the_newest_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quality.jsonl");
        let mut records = Records::open(&path).unwrap();
        let run =
            |seed: u64, mse: f64| json!({ "objective": "ae", "seed": seed, "settings": { "epochs": 1 }, "mse": mse });
        for line in [run(0, 0.5), run(1, 0.25), run(0, 0.125), json!({ "name": "peer", "figures": [1] })] {
            records.add(line).unwrap();
        }
        let mut back = Records::open(&path).unwrap();
        back.add(run(2, 1.0)).unwrap();
        assert!(records.run("ae", 2).is_none());
        records.reload().unwrap();
        assert!(records.run("ae", 2).is_some());
        back.remove(|line| line["seed"] == 2).unwrap();
        let errors = |records: &Records| -> Vec<Value> {
            records.runs("ae", 3).unwrap().iter().map(|run| run["mse"].clone()).collect()
        };
        assert_eq!(errors(&back), [0.125, 0.25]);
        assert_eq!((back.figures("peer"), back.figures("other")), (Some(&json!([1])), None));
        back.remove(|line| line["objective"] == "ae" && line["seed"] == 0).unwrap();
        let back = Records::open(&path).unwrap();
        assert_eq!(errors(&back), [0.25]);
        assert!(back.figures("peer").is_some());
    }

    #[test]
    fn runs_of_unequal_settings_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut records = Records::open(&folder.path().join("quality.jsonl")).unwrap();
        for (seed, config) in [(0, "seed = 0\nepochs = 20"), (1, "seed = 1\nepochs = 20"), (2, "seed = 2\nepochs = 9")]
        {
            let line = run_line(("ae", seed), ("abc", settings(config).unwrap()), (&Value::Null, &Value::Null));
            records.add(line).unwrap();
        }
        assert_eq!(records.runs("ae", 2).unwrap().len(), 2);
        let error = records.runs("ae", 3).unwrap_err().to_string();
        assert!(error.contains("seeds 0 and 2"), "{error}");
    }

    #[test]
    fn a_chosen_mixture_is_found_by_its_size_and_by_the_choice() {
        let sampled = |density: &str, automatic: bool, frechet: f64| json!({ "density": density, "automatic": automatic, "frechet": frechet });
        let densities = [sampled("prior", false, 8.0), sampled("gmm:10", false, 4.0), sampled("gmm:30", true, 2.0)];
        let line = |densities: &[Value]| {
            let evaluated = json!({ "generation": { "densities": densities } });
            run_line(("ae", 0), ("abc", Value::Null), (&Value::Null, &evaluated))
        };
        let samples = json!({ "prior": 8.0, "gmm:10": 4.0, "gmm:30": 2.0, "gmm:auto": 2.0 });
        assert_eq!(line(&densities)["frechet"]["samples"], samples);
        assert!(has_densities(&line(&densities), &["gmm:10", "gmm:auto"]));
        assert!(!has_densities(&line(&densities[..2]), &["gmm:10", "gmm:auto"]));
    }

    #[test]
    fn a_line_that_is_not_json_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quality.jsonl");
        fs::write(&path, "{}\nno\n").unwrap();
        let error = format!("{:#}", Records::open(&path).unwrap_err());
        assert!(error.contains("line 2"), "{error}");
    }
}
