//! The products of a layer behind one interface, and the pass through a layer, which is written once for that
//! interface.
//!
//! With `X` the input as a matrix `(rows, inputs)`, `W` the weight `(outputs, inputs)` and `dY` the gradient of the
//! output `(rows, outputs)`, there are three: `Y = X · Wᵀ`, `dX = dY · W` and `dW = dYᵀ · X`. Each operand is in full
//! precision or quantized: either along its own rows or, as the transpose, along its columns.
//!
//! A layer of several groups, such as a grouped convolution, has one product per group, all of the same shape. The
//! rows of all groups are stacked in `X` and `W`, and so are those of the result.

mod codes;
mod pass;
mod values;

pub(super) use pass::{Product, Training, WeightSource, transposed_weights};

use altgrad_kernels::Conversion;
use candle_core::{DType, Tensor};

use super::Compute;
use crate::autograd::Computed;
use crate::quantizer::{CachedTranspose, CodeBuffer, FixedWeight, Granularity, Operand, Quantizer};
use crate::{Error, Result};

/// One way to compute a layer's products. There are two: from codes on the CPU ([`codes`]), and by candle's operations
/// on fake-quantized values anywhere ([`values`]).
trait Products: 'static {
    /// A quantized matrix in the form that products read.
    type Matrix: Clone + Send + Sync + 'static;

    /// Quantizes a contiguous matrix of rows in `groups`, into memory from `buffer` if there is one; `None` if the
    /// matrix has no such form.
    fn quantize(
        x: &Tensor,
        conversion: &Conversion,
        groups: usize,
        buffer: Option<&CodeBuffer>,
    ) -> Result<Option<Self::Matrix>>;

    /// Quantizes a contiguous matrix of rows in `groups` along its columns: the transpose of each group along its own
    /// rows. Otherwise as [`quantize`](Self::quantize); `step` is the one in which the matrix is quantized.
    fn quantize_columns(
        x: &Tensor,
        quantizer: &Quantizer,
        operand: &Operand,
        step: u64,
        groups: usize,
        buffer: Option<&CodeBuffer>,
    ) -> Result<Option<Self::Matrix>>;

    /// The matrix of kept codes; `None` if they have no such form.
    fn fixed(codes: &FixedWeight, shape: ProductShape) -> Result<Option<Self::Matrix>>;

    /// The kept transpose; `None` if it has no such form.
    fn fixed_transpose(codes: &CachedTranspose, shape: (usize, usize), dtype: DType) -> Result<Option<Self::Matrix>>;

    /// The values of a matrix of this shape.
    fn dequantize(matrix: &Self::Matrix, shape: (usize, usize), dtype: DType) -> Result<Tensor>;

    /// `x · wᵀ`, with the bias of the group added to every row.
    fn forward(
        x: ProductOperand<'_, Self::Matrix>,
        w: &Self::Matrix,
        bias: Option<&Tensor>,
        compute: Compute,
        shape: ProductShape,
    ) -> Result<Computed>;

    /// `dy · w`.
    fn input_gradient(
        dy: ProductOperand<'_, Self::Matrix>,
        w: ProductOperand<'_, Self::Matrix>,
        shape: ProductShape,
    ) -> Result<Tensor>;

    /// `dyᵀ · x`, in the memory of a contiguous `f32` tensor of as many elements if there is one.
    fn weight_gradient(
        dy: ProductOperand<'_, Self::Matrix>,
        x: ProductOperand<'_, Self::Matrix>,
        to: Option<Tensor>,
        shape: ProductShape,
    ) -> Result<Tensor>;
}

/// An operand of a product.
enum ProductOperand<'a, M> {
    /// In full precision: a contiguous matrix.
    Full(&'a Tensor),
    Quantized(&'a M),
    /// The transpose, quantized along its own rows.
    Transposed(&'a M),
}

impl<M> Clone for ProductOperand<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for ProductOperand<'_, M> {}

/// The shape of a layer's products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProductShape {
    groups: usize,
    /// Rows of one group of `X` and `dY`.
    rows: usize,
    inputs: usize,
    /// Rows of one group of `W`, columns of `Y`.
    outputs: usize,
    dtype: DType,
}

impl ProductShape {
    fn x(self) -> (usize, usize) {
        (self.groups * self.rows, self.inputs)
    }

    fn w(self) -> (usize, usize) {
        (self.groups * self.outputs, self.inputs)
    }

    fn y(self) -> (usize, usize) {
        (self.groups * self.rows, self.outputs)
    }

    /// The transpose of a matrix of this shape, group by group.
    fn transposed(self, (rows, cols): (usize, usize)) -> (usize, usize) {
        (self.groups * cols, rows / self.groups.max(1))
    }
}

/// Whether a matrix and its transpose have the same codes.
fn is_symmetric(granularity: Granularity, groups: usize) -> bool {
    match granularity {
        // The transpose would divide a block that several groups share in a different way.
        Granularity::PerBlock { rows, cols } => rows == cols && groups == 1,
        granularity => granularity.is_symmetric(),
    }
}

/// The error for operands in a form that no caller passes.
fn not_transposed() -> Error {
    candle_core::Error::Msg("an operand of a product in a form that this product does not read".to_owned()).into()
}
