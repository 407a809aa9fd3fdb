//! The checks, grouped by what they are about.

pub(crate) mod closed;
pub(crate) mod closed_family;
pub(crate) mod contract;
pub(crate) mod data;
pub(crate) mod differences;
pub(crate) mod family;
pub(crate) mod generated;
pub(crate) mod golden;
pub(crate) mod gradients;
pub(crate) mod memory;
pub(crate) mod steps;
pub(crate) mod training;
pub(crate) mod values;
