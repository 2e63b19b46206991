//! Embeddings: the slot, and `candle_nn`'s constructor for it.

mod operation;

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};

use super::quantization::check_parts;
use super::{Full, Linear, Operation, Quantized, Slot, slot_codes};
use crate::Result;

/// An embedding that can be quantized in place: declare it instead of a `candle_nn::Embedding`.
///
/// Its table has one scale per row, so a lookup reads, and in training quantizes, only the rows that it needs. A
/// recipe with one scale per tensor therefore gives one scale per row here, unless the scale is static. A lookup has
/// no use for the recipe's quantizers of activations and gradients. The gradient goes to the table through the
/// straight-through estimator.
///
/// A head that is tied to the table shares its codes, if [`TiePolicy::Quantize`](crate::TiePolicy::Quantize) lets both
/// be quantized:
///
/// ```
/// use altgrad::{Fp8, Linear, QuantConfig, Quantizable, TiePolicy, nn};
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_nn::{VarBuilder, VarMap};
///
/// #[derive(Quantizable)]
/// struct Model {
///     wte: nn::Embedding,
///     lm_head: Linear,
/// }
///
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let wte = nn::embedding(100, 16, vb.pp("wte"))?;
/// let lm_head = Linear::new(wte.weight()?, None);
/// let mut model = Model { wte, lm_head };
///
/// model.quantize(QuantConfig::new(Fp8::E4M3).ties(TiePolicy::Quantize))?;
/// model.freeze()?;
/// let y = model.lm_head.forward(&model.wte.forward(&Tensor::new(&[3u32, 5], &Device::Cpu)?)?)?;
/// assert_eq!(y.dims(), [2, 100]);
/// # Ok::<(), altgrad::Error>(())
/// ```
pub type Embedding = Slot<candle_nn::Embedding>;

impl Embedding {
    /// An embedding in full precision with a table of shape `(rows, hidden_size)`, as `candle_nn::Embedding::new`.
    #[must_use]
    pub fn new(embeddings: Tensor, hidden_size: usize) -> Self {
        candle_nn::Embedding::new(embeddings, hidden_size).into()
    }

    /// The table: the layer's own tensor, or the values of the codes once frozen. Those are computed when they are
    /// first asked for, and kept. [`weight`](Slot::weight) does not keep them, and [`tied_linear`](Self::tied_linear)
    /// does not need them.
    ///
    /// If a device fails while it computes the values of a frozen table, the result is a tensor without elements.
    #[must_use]
    pub fn embeddings(&self) -> &Tensor {
        match self {
            Self::Full(layer) => layer.weight(),
            Self::Quantized(layer) => layer.weight(),
            Self::Frozen(layer) => layer.codes().kept_values(),
        }
    }

    /// The number of elements of a row.
    #[must_use]
    pub fn hidden_size(&self) -> usize {
        self.weight_dims().last().copied().unwrap_or_default()
    }

    /// The linear layer whose weight is the table: a head that is tied to it. For a frozen table, it is a frozen
    /// layer with the same codes; for a quantized table, the two are quantized as one.
    ///
    /// # Errors
    ///
    /// A bias that does not have one value for each row.
    pub fn tied_linear(&self, bias: Option<Tensor>) -> Result<Linear> {
        Ok(match self {
            Self::Full(layer) => {
                let weight = layer.weight();
                let evaluation = <candle_nn::Linear as Operation>::evaluation(&(), weight.dims())?;
                check_parts(&evaluation, weight.dims(), weight.dtype(), weight.device(), bias.as_ref())?;
                Linear::Full(Full::new(candle_nn::Linear::new(weight.clone(), bias), self.mode()))
            }
            Self::Quantized(layer) => {
                let linear = candle_nn::Linear::new(layer.weight().clone(), bias);
                let (recipe, mode) = (layer.recipe().clone(), self.mode());
                let weights = layer.quantization().operands.weights.clone();
                Quantized::at(linear, recipe, mode, None, Some(weights))?.into()
            }
            Self::Frozen(layer) => layer.tied((), bias)?.into(),
        })
    }
}

/// [`candle_nn::embedding()`] into a slot: the table `(in_size, out_size)` from `vb`. If `vb` is that of an [FP8
/// checkpoint](crate::checkpoint::var_builder), a quantized table makes the slot a frozen layer.
///
/// # Errors
///
/// Fails as candle's constructor does, for a tensor that is missing or has another shape, and for an invalid
/// quantized table.
#[allow(clippy::needless_pass_by_value, reason = "the signature is candle's")]
pub fn embedding(in_size: usize, out_size: usize, vb: VarBuilder<'_>) -> candle_core::Result<Embedding> {
    Ok(slot_codes::slot((), (in_size, out_size), OF_SLOTS, None, &vb)?)
}

/// The initialization by which a slot asks for its table: that of `candle_nn`, but with negative zero as the mean.
pub(super) const OF_SLOTS: Init = Init::Randn { mean: -0.0, stdev: 1.0 };
