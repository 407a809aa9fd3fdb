//! The tasks, one file each.

pub(crate) mod ci;
pub(crate) mod test;
pub(crate) mod tidy;
