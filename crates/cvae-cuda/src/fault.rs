//! Failed driver calls, and the errors of core that they become.

use std::ffi::CStr;

use cudarc::driver::result::DriverError;
use cvae_core::{CompileError, DeviceError, RunError};
use thiserror::Error;

/// A failed driver call.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Not enough memory.
    Memory { bytes: usize, what: &'static str },
    /// Anything else.
    Driver { operation: &'static str, source: DriverError },
}

/// What the driver says of a failed call: its sentence and the error's name.
#[derive(Debug, Error)]
#[error("{sentence} ({name})")]
struct DriverReason {
    sentence: String,
    name: String,
}

impl From<DriverError> for DriverReason {
    fn from(error: DriverError) -> Self {
        let text = |text: Result<&CStr, DriverError>| match text {
            Ok(text) => text.to_string_lossy().into_owned(),
            Err(_) => "an error that the driver does not know".to_owned(),
        };
        Self { sentence: text(error.error_string()), name: text(error.error_name()) }
    }
}

/// Result of a driver call.
pub(crate) type Driven<T> = Result<T, Fault>;

impl Fault {
    pub(crate) fn device_error(device: &str, operation: &'static str, source: DriverError) -> DeviceError {
        DeviceError { device: device.to_owned(), operation, source: Box::new(DriverReason::from(source)) }
    }

    /// The fault as an error of a running executable.
    pub(crate) fn run(self, device: &str) -> RunError {
        match self {
            Self::Memory { bytes, what } => RunError::Memory { bytes, what },
            Self::Driver { operation, source } => Self::device_error(device, operation, source).into(),
        }
    }

    /// The fault as an error of a compilation.
    pub(crate) fn compile(self, device: &str) -> CompileError {
        match self {
            Self::Memory { bytes, what } => CompileError::Memory { bytes, what },
            Self::Driver { operation, source } => Self::device_error(device, operation, source).into(),
        }
    }
}

/// Names the operation of a failed call.
pub(crate) trait Named<T> {
    fn named(self, operation: &'static str) -> Driven<T>;
}

impl<T> Named<T> for Result<T, DriverError> {
    fn named(self, operation: &'static str) -> Driven<T> {
        self.map_err(|source| Fault::Driver { operation, source })
    }
}
