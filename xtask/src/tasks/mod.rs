//! The tasks, one file each.

pub(crate) mod bench;
pub(crate) mod ci;
pub(crate) mod classifier;
pub(crate) mod conformance;
pub(crate) mod gpu_check;
pub(crate) mod kernels;
pub(crate) mod quality;
pub(crate) mod report;
pub(crate) mod test;
pub(crate) mod tidy;
