//! How a layer is computed as a product of matrices: `Y = X · Wᵀ`.

use std::fmt::Debug;

use candle_core::Tensor;

use crate::Result;

/// How a layer is computed as a product of matrices, `Y = X · Wᵀ`. `W` is the weight with its dimensions reshaped to
/// `(outputs, inputs)`: one row for each index of its first dimension.
///
/// A layer of several groups is one product per group. The rows of `X`, of `Y` and of `W` are those of the first
/// group, then those of the second, and so on; the inputs are those of one group.
pub trait Lowering: Debug + Send + Sync {
    /// Checks the dimensions of an input.
    ///
    /// # Errors
    ///
    /// [`TensorError::ShapeMismatch`](crate::TensorError::ShapeMismatch) for an input that the layer does not accept.
    fn check_input(&self, x: &Tensor) -> Result<()>;

    /// `X` for an input: a contiguous matrix with the rows of all groups.
    ///
    /// # Errors
    ///
    /// Only those of candle's tensor operations.
    fn input(&self, x: &Tensor) -> Result<Tensor>;

    /// The gradient of an input with the dimensions `x` from that of `X`: the adjoint of [`input`](Self::input).
    ///
    /// # Errors
    ///
    /// Only those of candle's tensor operations.
    fn input_gradient(&self, dx: Tensor, x: &[usize]) -> Result<Tensor>;

    /// The numbers of rows of `W`, over all groups, and of its columns.
    fn weight_shape(&self) -> (usize, usize);

    /// Number of groups, at least 1.
    fn groups(&self) -> usize {
        1
    }

    /// The dimensions that `Y`, a matrix of the shape `y`, may be given without moving an element, for an input of
    /// the dimensions `x`.
    fn result_dims(&self, x: &[usize], y: (usize, usize)) -> Vec<usize> {
        let _ = x;
        vec![y.0, y.1]
    }

    /// The layer's output for an input of the dimensions `x`, computed by differentiable operations from `Y`, which
    /// already includes the bias and has [these dimensions](Self::result_dims).
    ///
    /// # Errors
    ///
    /// Only those of candle's tensor operations.
    fn output(&self, y: Tensor, x: &[usize]) -> Result<Tensor>;
}
