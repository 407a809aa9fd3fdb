//! The rows that a configuration names.

use cvae_data::{DataError, Dataset, LoadOptions, Source};

use crate::config::Config;

/// The seed of the division into training and test rows: the same for every run, so that runs of different
/// seeds are tested on the same rows.
const TEST_SEED: u64 = 0;

/// Training and test rows.
#[derive(Clone, Debug)]
pub struct LoadedRows {
    /// Rows to train on; validation rows are among them.
    pub train: Dataset,
    /// Rows to test on; absent when the configuration holds none out.
    pub test: Option<Dataset>,
}

impl Config {
    /// Reads the rows that [`Config::data`] names. Test rows are, in this order: those of `data.test`; the
    /// published test part of the source; a share `data.test_fraction` of its rows; none. Missing values are allowed
    /// where the objective knows of them.
    ///
    /// # Errors
    /// A source that does not exist or cannot be read, or rows that cannot be divided.
    pub fn load_rows(&self, options: &LoadOptions) -> Result<LoadedRows, DataError> {
        let options = &LoadOptions { allow_nan: options.allow_nan || self.objective.missing, ..options.clone() };
        let source: Source = self.data.source.parse()?;
        let train = source.load(options)?;
        let test = match &self.data.test {
            Some(name) => Some(name.parse::<Source>()?),
            None => source.test_part(),
        };
        if let Some(test) = test {
            let test = test.load(options)?;
            test.expect_width(train.width())?;
            return Ok(LoadedRows { train, test: Some(test) });
        }
        if self.data.test_fraction == 0.0 {
            return Ok(LoadedRows { train, test: None });
        }
        let (train, test) = train.split(self.data.test_fraction, TEST_SEED)?;
        Ok(LoadedRows { train, test: Some(test) })
    }
}
