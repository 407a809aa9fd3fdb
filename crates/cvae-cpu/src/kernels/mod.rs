//! Kernels, generic over the instruction set. Each file stem names the concept, as in every backend.
#![allow(clippy::needless_range_loop, reason = "plain counted loops over constant bounds keep the tile in registers")]

pub(crate) mod activation;
#[cfg(any(test, target_arch = "x86_64"))]
pub(crate) mod byte_tiles;
pub(crate) mod corruption;
pub(crate) mod dense;
pub(crate) mod dense_bf16;
pub(crate) mod dense_i8;
pub(crate) mod element;
pub(crate) mod gather;
pub(crate) mod jacobian;
pub(crate) mod latent;
pub(crate) mod linear;
pub(crate) mod linear_grad;
pub(crate) mod math;
pub(crate) mod mmd;
pub(crate) mod optimizer;
pub(crate) mod peak;
pub(crate) mod product;
pub(crate) mod reconstruction;
pub(crate) mod rounding;
pub(crate) mod table;
#[cfg(any(test, target_arch = "x86_64"))]
pub(crate) mod tiles;
