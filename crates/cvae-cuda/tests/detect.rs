//! What detection says of drivers and GPUs.
#![cfg(target_os = "linux")]

mod common;

use common::Turn;
use cvae_core::Backend;
use cvae_cuda::{CudaBackend, DetectError, Precision};
use cvae_cuda_emu::Options;

#[test]
fn detection_tells_what_is_missing() {
    {
        let _turn = Turn::new(Options { device: false, ..Options::default() });
        let error = CudaBackend::detect().expect_err("no GPU");
        assert!(matches!(error, DetectError::NoDevice), "{error:?}");
    }
    {
        let _turn = Turn::new(Options { driver_version: 12_040, ..Options::default() });
        let error = CudaBackend::detect().expect_err("an old driver");
        assert_eq!(error.to_string(), "the CUDA driver supports CUDA 12.4, the kernels need 13.0");
    }
    let _turn = Turn::seeded(0);
    let device = CudaBackend::detect().expect("the emulated GPU");
    assert_eq!((device.name.as_str(), device.memory), ("emulated GPU", Some(4 << 30)));
    assert_eq!(device.features[0], "compute capability 8.0");
    for (precision, id) in Precision::ALL.into_iter().zip(["cuda-f32", "cuda-tf32", "cuda-bf16"]) {
        let backend = CudaBackend::new(precision).expect("the emulated GPU");
        assert_eq!(backend.id().as_str(), id);
    }
}

#[test]
fn a_missing_driver_has_one_clear_sentence() {
    assert_eq!(DetectError::NoDriver.to_string(), "no CUDA driver (libcuda.so.1 not found)");
}
