//! cvae-data
