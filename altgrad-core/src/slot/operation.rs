//! What a kind of slot is: a layer in full precision, and how it computes from quantized tensors.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::Tensor;

use super::{Lowering, Recipe};
use crate::Result;
use crate::quantizer::Layout;

/// A layer in full precision that a [`Slot`](super::Slot) can hold: the part in which kinds of slot differ.
///
/// Everything else about slots is the same for every kind: [`Linear`](crate::Linear) is `Slot<candle_nn::Linear>`. To
/// add a kind of your own, implement this trait. Here is a layer that scales its input before it multiplies:
///
/// ```
/// use std::sync::Arc;
///
/// use altgrad::{Evaluation, Fp8, Operation, Quantizable, Result, Slot};
/// use candle_core::{DType, Device, Module, Tensor};
///
/// #[derive(Clone, Debug)]
/// struct ScaledLinear {
///     weight: Tensor,
///     factor: f64,
/// }
///
/// impl Operation for ScaledLinear {
///     type Config = f64;
///     const KIND: &'static str = "scaled linear";
///
///     fn config(&self) -> f64 {
///         self.factor
///     }
///
///     fn weight(&self) -> &Tensor {
///         &self.weight
///     }
///
///     fn bias(&self) -> Option<&Tensor> {
///         None
///     }
///
///     fn from_parts(factor: f64, weight: Tensor, _: Option<Tensor>) -> Self {
///         Self { weight, factor }
///     }
///
///     fn forward(&self, x: &Tensor) -> Result<Tensor> {
///         Ok((x * self.factor)?.matmul(&self.weight.t()?)?)
///     }
///
///     fn evaluation(_: &f64, _: &[usize]) -> Result<Evaluation> {
///         // By `forward`, over fake-quantized tensors.
///         Ok(Evaluation::Values)
///     }
/// }
///
/// let weight = Tensor::ones((3, 4), DType::F32, &Device::Cpu)?;
/// let mut layer = Slot::from(ScaledLinear { weight, factor: 0.5 });
/// layer.quantize(Fp8::E4M3)?;
/// layer.freeze()?;
/// let y = layer.forward(&Tensor::ones((2, 4), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[2.0; 3]; 2]);
/// # Ok::<(), altgrad::Error>(())
/// ```
pub trait Operation: Clone + Debug + Send + Sync + 'static {
    /// Everything about the layer except its tensors, such as the stride of a convolution.
    type Config: Clone + Debug + Send + Sync + 'static;

    /// What the kind is called in reports and messages, in lower case: `linear`.
    const KIND: &'static str;

    /// The layer's configuration: everything except its tensors.
    fn config(&self) -> Self::Config;

    /// The tensor that is quantized, of two dimensions or more. It is quantized as the matrix with a row for each
    /// index of the first dimension. Those rows are its output channels, and each has its own scale where there is
    /// one scale per row.
    fn weight(&self) -> &Tensor;

    /// The tensor that is added in full precision.
    fn bias(&self) -> Option<&Tensor>;

    /// A layer from its parts.
    fn from_parts(config: Self::Config, weight: Tensor, bias: Option<Tensor>) -> Self;

    /// The output in full precision.
    ///
    /// # Errors
    ///
    /// An input that the layer does not accept.
    fn forward(&self, x: &Tensor) -> Result<Tensor>;

    /// How the output is computed from quantized tensors, for a weight of these dimensions.
    ///
    /// # Errors
    ///
    /// [`TensorError::ShapeMismatch`](crate::TensorError::ShapeMismatch) for a weight that such a layer cannot have.
    fn evaluation(config: &Self::Config, weight: &[usize]) -> Result<Evaluation>;

    /// The part of a recipe that the layer can use.
    #[must_use]
    fn adapt(recipe: Recipe) -> Recipe {
        recipe
    }
}

/// How the output of a layer is computed from quantized tensors.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Evaluation {
    /// As a product of matrices, from codes where there are kernels for them.
    Product(Arc<dyn Lowering>),
    /// The input is a tensor of integers, and the output the weight's rows with these numbers.
    Lookup,
    /// By [`Operation::forward`], over fake-quantized values of the weight and the input.
    Values,
}

impl Evaluation {
    /// The order in which kept codes are read.
    pub(super) fn layout(&self) -> Layout {
        match self {
            Self::Product(lowering) => Layout::Products { groups: lowering.groups() },
            // A head that is tied to the table is a product with the same codes. A lookup then collects each row from
            // as many places as the row has pairs of codes, which takes microseconds.
            Self::Lookup => Layout::Products { groups: 1 },
            Self::Values => Layout::Rows,
        }
    }
}

/// The weight as a matrix with a row for each index of its first dimension.
pub(super) fn matrix(weight: &Tensor) -> Result<Tensor> {
    match weight.dims() {
        [_, _] => Ok(weight.clone()),
        [first, rest @ ..] => Ok(weight.reshape((*first, rest.iter().product::<usize>()))?),
        [] => Ok(weight.reshape((1, 1))?),
    }
}
