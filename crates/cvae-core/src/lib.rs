//! cvae-core
