//! How a layer is a product of matrices: `Y = X · Wᵀ`.

use std::fmt::Debug;

use candle_core::Tensor;

use crate::Result;

/// How a layer is a product of matrices, `Y = X · Wᵀ` with the weight `W` as it is but for its dimensions: `(outputs,
/// inputs)`, one row for each index of its first dimension.
///
/// A layer of several groups is as many products: the rows of `X` and `Y` are those of the first group, then those of
/// the second, as the rows of `W` are, and the inputs are those of one group.
pub trait Lowering: Debug + Send + Sync {
    /// Checks the dimensions of an input.
    ///
    /// # Errors
    ///
    /// [`TensorError::ShapeMismatch`](crate::TensorError::ShapeMismatch) for an input that the layer does not take.
    fn check_input(&self, x: &Tensor) -> Result<()>;

    /// `X` for an input: a contiguous matrix with the rows of all groups.
    ///
    /// # Errors
    ///
    /// None of its own; see candle for those of tensor operations.
    fn input(&self, x: &Tensor) -> Result<Tensor>;

    /// The gradient of an input with the dimensions `x` from that of `X`: the adjoint of [`input`](Self::input).
    ///
    /// # Errors
    ///
    /// None of its own; see candle for those of tensor operations.
    fn input_gradient(&self, dx: Tensor, x: &[usize]) -> Result<Tensor>;

    /// Rows of `W`, those of all groups, and columns.
    fn weight_shape(&self) -> (usize, usize);

    /// Number of groups, at least 1.
    fn groups(&self) -> usize {
        1
    }

    /// The dimensions that `Y`, a matrix of this shape, may be given without moving an element, for an input of these
    /// dimensions.
    fn result_dims(&self, x: &[usize], y: (usize, usize)) -> Vec<usize> {
        let _ = x;
        vec![y.0, y.1]
    }

    /// The layer's output from `Y`, in which the bias is already, with [these dimensions](Self::result_dims), by
    /// differentiable operations, for an input of the dimensions `x`.
    ///
    /// # Errors
    ///
    /// None of its own; see candle for those of tensor operations.
    fn output(&self, y: Tensor, x: &[usize]) -> Result<Tensor>;
}
