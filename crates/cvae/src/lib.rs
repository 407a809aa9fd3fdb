//! cvae
