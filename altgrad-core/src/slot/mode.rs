//! In which mode a slot computes, whatever it holds.

use super::Compute;

/// What is set of a slot, and stays as it is when the slot is quantized, frozen or put back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    /// Training, or eval.
    pub(crate) training: bool,
    /// In which precision a frozen layer reads an input that it does not quantize.
    pub(crate) compute: Compute,
}

impl Default for Mode {
    fn default() -> Self {
        Self { training: true, compute: Compute::default() }
    }
}
