//! cvae-conformance
