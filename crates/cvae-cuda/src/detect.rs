//! Looking for a GPU without ever panicking.

use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUresult};
use cvae_core::{CompileError, DeviceError};
use thiserror::Error;

use crate::driver::{Device, Fault};

/// The driver version that the kernels are compiled for: 1000 times the major one plus 10 times the minor one.
const DRIVER_VERSION: i32 = 13_000;
/// The oldest compute capability with the instructions that the kernels use.
const CAPABILITY: (i32, i32) = (8, 0);

/// Why no GPU can be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DetectError {
    /// The machine has no CUDA driver.
    #[error("no CUDA driver (libcuda.so.1 not found)")]
    NoDriver,
    /// There is a driver, but no GPU.
    #[error("a CUDA driver, but no GPU")]
    NoDevice,
    /// The driver is older than the kernels.
    #[error("the CUDA driver supports CUDA {}.{}, the kernels need {}.{}", found / 1000, found % 1000 / 10, needed / 1000, needed % 1000 / 10)]
    DriverTooOld {
        /// Version of the driver, as CUDA counts.
        found: i32,
        /// Version needed.
        needed: i32,
    },
    /// The GPU is older than the kernels' instructions.
    #[error("{name} has compute capability {}.{}, the kernels need {}.{}", found.0, found.1, needed.0, needed.1)]
    DeviceTooOld {
        /// The GPU.
        name: String,
        /// Its compute capability.
        found: (i32, i32),
        /// Capability needed.
        needed: (i32, i32),
    },
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DeviceError),
    /// The kernels could not be loaded.
    #[error(transparent)]
    Kernels(#[from] CompileError),
}

/// Opens the GPU `ordinal`, or says why it cannot be used.
pub(crate) fn open(ordinal: usize) -> Result<Arc<Device>, DetectError> {
    // SAFETY: the call loads a library by its well-known name and calls nothing in it.
    if !unsafe { sys::is_culib_present() } {
        return Err(DetectError::NoDriver);
    }
    let failed = |operation| move |source: DriverError| Fault::device_error("the CUDA driver", operation, source);
    let mut found = 0;
    // SAFETY: the result is a live local; this call needs no initialised driver.
    unsafe { sys::cuDriverGetVersion(&raw mut found) }.result().map_err(failed("reading the version"))?;
    if found < DRIVER_VERSION {
        return Err(DetectError::DriverTooOld { found, needed: DRIVER_VERSION });
    }
    match result::init().and_then(|()| result::device::get_count()) {
        Ok(count) if usize::try_from(count).is_ok_and(|count| ordinal < count) => {}
        Ok(_) | Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => return Err(DetectError::NoDevice),
        Err(source) => return Err(failed("starting")(source).into()),
    }
    let device = Device::open(ordinal).map_err(|fault| match fault {
        Fault::Driver { operation, source } => failed(operation)(source),
        Fault::Memory { .. } => failed("opening the GPU")(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)),
    })?;
    if device.capability < CAPABILITY {
        let name = device.name.clone();
        return Err(DetectError::DeviceTooOld { name, found: device.capability, needed: CAPABILITY });
    }
    Ok(device)
}
