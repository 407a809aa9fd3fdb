//! Naming a density, as on the command line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DensityError;

/// Shape of a mixture component's covariance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covariance {
    /// Any symmetric positive definite matrix.
    Full,
    /// Independent dimensions.
    Diagonal,
}

/// Number of components of a mixture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Components {
    /// This many, at least 1.
    Fixed(usize),
    /// As few as explain held-out codes about as well as any number does.
    Auto,
}

/// Which density to fit: `prior`, `gaussian`, `gmm:10`, `gmm:auto`, `gmm-diag:10`, `gmm-diag:auto` or
/// `flow`.
///
/// ```
/// use cvae::density::{Components, Covariance, DensitySpec};
/// let spec: DensitySpec = "gmm:10".parse()?;
/// assert_eq!(spec, DensitySpec::Gmm { components: Components::Fixed(10), covariance: Covariance::Full });
/// assert_eq!(spec.to_string(), "gmm:10");
/// # Ok::<(), cvae::density::DensityError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DensitySpec {
    /// N(0, I), with nothing fitted.
    Prior,
    /// One Gaussian with full covariance.
    Gaussian,
    /// A mixture of Gaussians.
    Gmm {
        /// Number of components.
        components: Components,
        /// Shape of their covariances.
        covariance: Covariance,
    },
    /// A small normalising flow.
    Flow,
}

impl FromStr for DensitySpec {
    type Err = DensityError;

    fn from_str(text: &str) -> Result<Self, DensityError> {
        let unknown = || DensityError::UnknownSpec { text: text.to_owned() };
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let covariance = match (name, argument) {
            ("prior", None) => return Ok(Self::Prior),
            ("gaussian", None) => return Ok(Self::Gaussian),
            ("flow", None) => return Ok(Self::Flow),
            ("gmm", Some(_)) => Covariance::Full,
            ("gmm-diag", Some(_)) => Covariance::Diagonal,
            _ => return Err(unknown()),
        };
        let components = match argument {
            Some("auto") => Components::Auto,
            Some(number) => match number.parse() {
                Ok(number @ 1..) => Components::Fixed(number),
                _ => return Err(unknown()),
            },
            None => return Err(unknown()),
        };
        Ok(Self::Gmm { components, covariance })
    }
}

impl fmt::Display for DensitySpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (components, covariance) = match self {
            Self::Prior => return out.write_str("prior"),
            Self::Gaussian => return out.write_str("gaussian"),
            Self::Flow => return out.write_str("flow"),
            Self::Gmm { components, covariance } => (components, covariance),
        };
        let name = match covariance {
            Covariance::Full => "gmm",
            Covariance::Diagonal => "gmm-diag",
        };
        match components {
            Components::Fixed(number) => write!(out, "{name}:{number}"),
            Components::Auto => write!(out, "{name}:auto"),
        }
    }
}

impl TryFrom<String> for DensitySpec {
    type Error = DensityError;

    fn try_from(text: String) -> Result<Self, DensityError> {
        text.parse()
    }
}

impl From<DensitySpec> for String {
    fn from(spec: DensitySpec) -> Self {
        spec.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spec_reads_back_what_it_prints() {
        for text in ["prior", "gaussian", "gmm:1", "gmm:10", "gmm:auto", "gmm-diag:3", "gmm-diag:auto", "flow"] {
            let spec: DensitySpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<DensitySpec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn anything_else_is_an_error_that_shows_the_text() {
        for text in
            ["", "gmm", "gmm:", "gmm:0", "gmm:-1", "gmm:2.5", "prior:1", "flow:2", "gaussian:", "GMM:2", "gmm-full:2"]
        {
            let error = text.parse::<DensitySpec>().unwrap_err();
            assert_eq!(error, DensityError::UnknownSpec { text: text.to_owned() });
        }
        assert!(serde_json::from_str::<DensitySpec>("\"kde\"").is_err());
    }
}
