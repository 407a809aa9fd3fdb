//! An emulated CUDA driver, so that the unchanged host code and kernels of `cvae-cuda` run on a machine without a
//! GPU.
//!
//! The crate builds a `libcuda.so` from C++: the driver's entry points, a scheduler that runs every CUDA thread as a
//! fiber, and the kernels of `cvae-cuda` compiled from their own sources. [`Emulator::install`] loads it before
//! `cudarc` looks for the real one. It serves tests and the conformance suite; nothing that ships depends on it.
//!
//! What it checks is described in docs/CUDA.md, section "Without a GPU".

mod emulator;

pub use emulator::{Emulator, InstallError, Options, Site, SiteKind, Statistics};
