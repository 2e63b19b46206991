//! The mode in which a slot computes, in any state.

use super::Compute;

/// The settings of a slot, which do not change when the slot is quantized, frozen or dequantized.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    /// Training, or eval.
    pub(crate) training: bool,
    /// The precision in which a frozen layer reads an input that it does not quantize.
    pub(crate) compute: Compute,
}

impl Default for Mode {
    fn default() -> Self {
        Self { training: true, compute: Compute::default() }
    }
}
