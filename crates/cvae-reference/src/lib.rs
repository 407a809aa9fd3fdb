//! cvae-reference
