//! A slot of any kind, as visitors see it.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{Tensor, TensorId};

use super::mode::Mode;
use super::quantization::Quantization;
use super::{Frozen, FrozenCodes, Full, Operation, Quantized, Recipe, Slot, SlotState};
use crate::quantizer::{FixedWeight, Layout, Operand, Quantizer};
use crate::{Fp8, Result};

/// A [`Slot`] of any kind. Implemented by every slot, and by nothing else.
///
/// ```
/// use altgrad::{AnySlot, Linear};
/// use candle_core::{DType, Device, Tensor};
///
/// let slot = Linear::new(Tensor::ones((3, 4), DType::F32, &Device::Cpu)?, None);
/// let any: &dyn AnySlot = &slot;
/// assert_eq!(any.kind(), "linear");
/// assert_eq!(any.weight_dims(), [3, 4]);
/// assert!(any.downcast_ref::<Linear>().is_some());
/// # Ok::<(), altgrad::Error>(())
/// ```
pub trait AnySlot: Any + Debug + Send + Sync + Internals {
    /// What kind of slot it is: [`Operation::KIND`].
    fn kind(&self) -> &'static str;

    /// What the slot holds.
    fn state(&self) -> SlotState;

    /// [`Slot::weight`].
    ///
    /// # Errors
    ///
    /// Only those of candle's tensor operations.
    fn weight(&self) -> Result<Tensor>;

    /// [`Slot::bias`].
    fn bias(&self) -> Option<&Tensor>;

    /// [`Slot::format`].
    fn format(&self) -> Option<Fp8>;

    /// [`Slot::recipe`].
    fn recipe(&self) -> Option<&Recipe>;

    /// [`Slot::activations`].
    fn activations(&self) -> Option<&Quantizer>;

    /// [`Slot::gradients`].
    fn gradients(&self) -> Option<&Quantizer>;

    /// [`Slot::is_training`].
    fn is_training(&self) -> bool;

    /// [`Slot::weight_dims`].
    fn weight_dims(&self) -> &[usize];

    /// [`Slot::weight_bytes`].
    fn weight_bytes(&self) -> usize;
}

impl dyn AnySlot {
    /// The slot itself, if it is of this type.
    #[must_use]
    pub fn downcast_ref<S: AnySlot>(&self) -> Option<&S> {
        (self as &dyn Any).downcast_ref()
    }

    /// The slot itself, if it is of this type, as a mutable reference.
    pub fn downcast_mut<S: AnySlot>(&mut self) -> Option<&mut S> {
        (self as &mut dyn Any).downcast_mut()
    }
}

/// What operations on models do with a slot.
///
/// Every method is required, so that a kind of slot that lacks one does not compile. The trait is in a private
/// module, so that other crates cannot implement it, and it is separate from [`AnySlot`] so that its methods are not
/// shown there.
#[allow(private_interfaces, reason = "nobody outside of this crate can name the trait")]
pub trait Internals {
    /// The full-precision weight, if the layer still has it.
    fn master_weight(&self) -> Option<&Tensor>;

    /// What identifies the weight.
    fn weight_id(&self) -> WeightId;

    /// The state of a quantized layer.
    fn quantization(&self) -> Option<&Quantization>;

    /// The state of a quantized layer, as a mutable reference.
    fn quantization_mut(&mut self) -> Option<&mut Quantization>;

    /// The state of a frozen layer.
    fn frozen(&self) -> Option<&FrozenCodes>;

    /// The part of a recipe that the layer can use.
    fn adapt(&self, recipe: Recipe) -> Recipe;

    /// The order in which the layer reads kept codes.
    fn layout(&self) -> Result<Layout>;

    /// Switches between training and eval mode, and drops kept codes.
    fn set_training(&mut self, training: bool);

    /// The settings of the slot, as a mutable reference.
    fn mode_mut(&mut self) -> &mut Mode;

    /// The slot with its layer in full precision, with this weight if it is frozen; `None` if it is frozen and no
    /// weight is given.
    fn to_full(&self, weight: Option<Tensor>) -> Option<Box<dyn AnySlot>>;

    /// The slot at `path` with its layer quantized; layers that are quantized as one share `weights`. `None` if it is
    /// frozen.
    fn to_quantized(
        &self,
        recipe: Recipe,
        path: &str,
        weights: Option<Arc<Operand>>,
    ) -> Result<Option<Box<dyn AnySlot>>>;

    /// The slot at `path` reduced to codes, which are computed unless given; `None` if it is not quantized.
    fn to_frozen(&self, path: &str, codes: Option<Arc<FixedWeight>>) -> Result<Option<Box<dyn AnySlot>>>;

    /// The slot with other tensors of the same shapes and values; `None` if it is frozen.
    fn to_trainable(&self, weight: Tensor, bias: Option<Tensor>) -> Option<Box<dyn AnySlot>>;

    /// Takes over what another slot of the same type holds.
    fn put(&mut self, replacement: Box<dyn AnySlot>);
}

/// What identifies a weight: layers whose weights have the same identity are tied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightId {
    /// In full precision.
    Tensor(TensorId),
    /// The address of the codes.
    Codes(usize),
}

impl<O: Operation> AnySlot for Slot<O> {
    fn kind(&self) -> &'static str {
        O::KIND
    }

    fn state(&self) -> SlotState {
        self.state()
    }

    fn weight(&self) -> Result<Tensor> {
        self.weight()
    }

    fn bias(&self) -> Option<&Tensor> {
        self.bias()
    }

    fn format(&self) -> Option<Fp8> {
        self.format()
    }

    fn recipe(&self) -> Option<&Recipe> {
        self.recipe()
    }

    fn activations(&self) -> Option<&Quantizer> {
        self.activations()
    }

    fn gradients(&self) -> Option<&Quantizer> {
        self.gradients()
    }

    fn is_training(&self) -> bool {
        self.is_training()
    }

    fn weight_dims(&self) -> &[usize] {
        self.weight_dims()
    }

    fn weight_bytes(&self) -> usize {
        self.weight_bytes()
    }
}

#[allow(private_interfaces, reason = "nobody outside of this crate can name the trait")]
impl<O: Operation> Internals for Slot<O> {
    fn master_weight(&self) -> Option<&Tensor> {
        match self {
            Self::Full(layer) => Some(layer.weight()),
            Self::Quantized(layer) => Some(layer.weight()),
            Self::Frozen(_) => None,
        }
    }

    fn weight_id(&self) -> WeightId {
        match self {
            Self::Full(layer) => WeightId::Tensor(layer.weight().id()),
            Self::Quantized(layer) => WeightId::Tensor(layer.weight().id()),
            Self::Frozen(layer) => WeightId::Codes(Arc::as_ptr(&layer.codes().weight).addr()),
        }
    }

    fn quantization(&self) -> Option<&Quantization> {
        match self {
            Self::Quantized(layer) => Some(Quantized::quantization(layer)),
            Self::Full(_) | Self::Frozen(_) => None,
        }
    }

    fn quantization_mut(&mut self) -> Option<&mut Quantization> {
        match self {
            Self::Quantized(layer) => Some(Quantized::quantization_mut(layer)),
            Self::Full(_) | Self::Frozen(_) => None,
        }
    }

    fn frozen(&self) -> Option<&FrozenCodes> {
        match self {
            Self::Frozen(layer) => Some(layer.codes()),
            Self::Full(_) | Self::Quantized(_) => None,
        }
    }

    fn adapt(&self, recipe: Recipe) -> Recipe {
        O::adapt(recipe)
    }

    fn layout(&self) -> Result<Layout> {
        Ok(O::evaluation(&self.config(), self.weight_dims())?.layout())
    }

    fn set_training(&mut self, training: bool) {
        match self {
            Self::Quantized(layer) => layer.set_training(training),
            Self::Full(_) | Self::Frozen(_) => self.mode_mut().training = training,
        }
    }

    fn mode_mut(&mut self) -> &mut Mode {
        match self {
            Self::Full(layer) => layer.mode_mut(),
            Self::Quantized(layer) => &mut Quantized::quantization_mut(layer).mode,
            Self::Frozen(layer) => &mut layer.codes_mut().mode,
        }
    }

    fn to_full(&self, weight: Option<Tensor>) -> Option<Box<dyn AnySlot>> {
        let layer = match self {
            Self::Full(layer) => layer.layer().clone(),
            Self::Quantized(layer) => layer.layer().clone(),
            Self::Frozen(layer) => layer.with_weight(weight?),
        };
        Some(Box::new(Self::Full(Full::new(layer, self.mode()))))
    }

    fn to_quantized(
        &self,
        recipe: Recipe,
        path: &str,
        weights: Option<Arc<Operand>>,
    ) -> Result<Option<Box<dyn AnySlot>>> {
        let layer = match self {
            Self::Full(layer) => layer.layer().clone(),
            Self::Quantized(layer) => layer.layer().clone(),
            Self::Frozen(_) => return Ok(None),
        };
        let layer = Quantized::at(layer, recipe, self.mode(), Some(path.into()), weights)?;
        Ok(Some(Box::new(Self::from(layer))))
    }

    fn to_frozen(&self, path: &str, codes: Option<Arc<FixedWeight>>) -> Result<Option<Box<dyn AnySlot>>> {
        let Self::Quantized(layer) = self else { return Ok(None) };
        let frozen: Frozen<O> = layer.freeze_with(codes)?.at(Some(path.into()));
        Ok(Some(Box::new(Self::from(frozen))))
    }

    fn to_trainable(&self, weight: Tensor, bias: Option<Tensor>) -> Option<Box<dyn AnySlot>> {
        Some(Box::new(match self {
            Self::Full(layer) => {
                Self::Full(Full::new(O::from_parts(layer.layer().config(), weight, bias), layer.mode()))
            }
            Self::Quantized(layer) => layer.with_tensors(weight, bias).into(),
            Self::Frozen(_) => return None,
        }))
    }

    fn put(&mut self, replacement: Box<dyn AnySlot>) {
        if let Ok(replacement) = (replacement as Box<dyn Any>).downcast::<Self>() {
            *self = *replacement;
        }
    }
}
