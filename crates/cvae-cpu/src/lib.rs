//! cvae-cpu
