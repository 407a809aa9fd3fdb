//! cvae-cuda
