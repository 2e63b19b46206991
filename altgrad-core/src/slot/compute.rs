//! In which precision frozen layers multiply.

/// In which precision a frozen layer reads an input that it does not quantize.
///
/// It makes a difference to products of the CPU's kernels alone: those of `f32`, `f16` and `bf16` layers. Gradients are
/// computed in full precision either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compute {
    /// As it is. An output differs from the exact one by at most `2·k·2⁻²⁴·Σ|x||w|`, a sum of `k` products.
    #[default]
    Full,
    /// Rounded to `bf16`, ties to even, as bf16 models do; faster for large batches on processors that multiply pairs
    /// of bf16 (AVX-512 BF16: Zen 4, Sapphire Rapids). Weights are exact in bf16, so an output differs from the exact
    /// one by at most `(2⁻⁸ + 2·k·2⁻²⁴)·Σ|x||w|`. Sums are scaled after the sum, so `Σ|x|·|code|` must be within the
    /// range of `f32`, and products below its normal numbers count as 0. An input of `bf16` is not changed at all.
    Bf16Activations,
}
