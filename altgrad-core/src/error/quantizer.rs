//! What is wrong with the settings of a quantizer.

/// What is wrong with the settings of a quantizer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizerError {
    /// [`Scaling::Window`](crate::Scaling::Window) over no steps.
    #[error(
        "a window of length 0 has no amax to scale by; use `Scaling::Window {{ len: 1 }}` or more, or \
         `Scaling::Current`"
    )]
    EmptyWindow,

    /// [`Scaling::Delayed`](crate::Scaling::Delayed) by no steps.
    #[error("delayed scaling over 0 steps has no amax to scale by; use a `len` of 1 or more, or `Scaling::Current`")]
    EmptyDelay,

    /// The margin of [`Scaling::Delayed`](crate::Scaling::Delayed) is outside the range -32 to 32.
    #[error("a margin of {margin} leaves nothing of the format's range; use -32 to 32, usually 0")]
    MarginOutOfRange {
        /// The margin.
        margin: i32,
    },

    /// A block has no elements.
    #[error("a block of {rows} × {cols} has no elements; both sides must be at least 1")]
    EmptyBlock {
        /// Its rows.
        rows: usize,
        /// Its columns.
        cols: usize,
    },

    /// A scaling that depends on more than the current tensor, with more than one scale per tensor.
    #[error(
        "{scaling} scaling is for one scale a tensor, but the granularity is {granularity}; use `Scaling::Current`"
    )]
    ScalingNotForBlocks {
        /// The [`Scaling`](crate::Scaling), as `Debug` writes it.
        scaling: String,
        /// The [`Granularity`](crate::Granularity), as `Debug` writes it.
        granularity: String,
    },

    /// A static scale that is not a power of two, with an encoding that stores powers of two.
    #[error(
        "a static scale of {scale} is not a power of two from 2^-127 to 2^127, as its encoding requires; use one, or \
         `ScaleEncoding::F32`"
    )]
    ScaleNotPowerOfTwo {
        /// The scale.
        scale: f32,
    },

    /// The `amax_epsilon` is negative or not finite.
    #[error(
        "an amax_epsilon of {epsilon} is not a lower bound on amax; use 0 or a small positive number such as 1e-12"
    )]
    InvalidEpsilon {
        /// The `amax_epsilon`.
        epsilon: f64,
    },

    /// The `amax_bound` is not positive and finite, or below the `amax_epsilon`.
    #[error(
        "an amax_bound of {bound} is not an upper bound on amax; use a positive number of at least amax_epsilon, such \
         as 1200, or none"
    )]
    InvalidBound {
        /// The `amax_bound`.
        bound: f64,
    },

    /// [`Scaling::Delayed`](crate::Scaling::Delayed) in a layer that has no training steps.
    #[error(
        "a frozen layer has no earlier steps to take a delayed scale from; use `Scaling::Static` or `Scaling::Current`"
    )]
    NoSteps,

    /// A quantizer of a [`KvCache`](crate::KvCache) that does not quantize each token once and by itself.
    #[error(
        "a key-value cache quantizes each token once and by itself; use one scale per row (`Granularity::PerRow`) or \
         `Scaling::Static`, and `Rounding::NearestEven`"
    )]
    NotForCache,

    /// Blocks that span more than one row of a weight, viewed as a matrix with a row for each index of its first
    /// dimension.
    #[error(
        "scales {granularity} do not fit a weight of shape {shape:?}: their blocks reach from one index of its first \
         dimension into the next"
    )]
    BlocksAcrossRows {
        /// The [`Granularity`](crate::Granularity), as `Display` writes it.
        granularity: String,
        /// The shape of the weight.
        shape: Vec<usize>,
    },
}
