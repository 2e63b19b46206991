//! The precision in which frozen layers multiply.

/// The precision in which a frozen layer reads an input that it does not quantize.
///
/// It only affects products by the CPU's kernels: those of `f32`, `f16` and `bf16` layers. Gradients are computed in
/// full precision either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compute {
    /// In full precision. An output that is a sum of `k` products differs from the exact one by at most
    /// `2·k·2⁻²⁴·Σ|x||w|`.
    #[default]
    Full,
    /// Rounded to `bf16`, ties to even, as bf16 models do; faster for large batches on processors that multiply pairs
    /// of bf16 (AVX-512 BF16: Zen 4, Sapphire Rapids). Weights are exact in bf16, so an output differs from the exact
    /// one by at most `(2⁻⁸ + 2·k·2⁻²⁴)·Σ|x||w|`. Scales are applied after summing, so `Σ|x|·|code|` must be within
    /// the range of `f32`, and products below its normal numbers count as 0. A `bf16` input is not changed at all.
    Bf16Activations,
}
