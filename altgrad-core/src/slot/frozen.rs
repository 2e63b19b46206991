//! A layer that holds only the codes of its weight.

use std::sync::{Arc, OnceLock};

use altgrad_kernels::Conversion;
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, DType, Module, Storage, Tensor};

use super::mode::Mode;
use super::products::{Product, WeightSource};
use super::quantization::{Quantization, check_input, check_parts};
use super::{Compute, Evaluation, LayerPath, Operation, locate, lookup};
use crate::quantizer::{
    Clip, FixedWeight, Fp8Tensor, Granularity, Operand, Quantizer, Scaling, Ste, fake_quantize_with,
};
use crate::{Error, Fp8, QuantizerError, Result};

/// A layer with a weight of one byte per element. [`FrozenLinear`](crate::FrozenLinear) is the linear one.
///
/// The codes are constants: gradients go through the layer to its input, so adapters can train on top of it, and to
/// its bias if that is a variable. A layer that quantized its input in training continues to do so, under the scales
/// of eval mode; gradients are not quantized.
///
/// On the CPU, only the codes of `f32`, `f16` and `bf16` weights are kept, in the order in which products read them;
/// elsewhere, and for `f64`, each product dequantizes the weight.
#[derive(Clone, Debug)]
pub struct Frozen<O: Operation> {
    config: O::Config,
    codes: FrozenCodes,
}

/// Everything in a frozen layer but its configuration: the same type for every kind.
#[derive(Clone, Debug)]
pub struct FrozenCodes {
    /// A matrix with a row for each index of the weight's first dimension; shared by layers that are tied.
    pub(crate) weight: Arc<FixedWeight>,
    /// The weight's dimensions.
    pub(super) dims: Vec<usize>,
    pub(super) bias: Option<Tensor>,
    activations: Option<FrozenInput>,
    pub(super) mode: Mode,
    evaluation: Evaluation,
    path: LayerPath,
    /// The values, once somebody has asked for a reference to them.
    values: OnceLock<Tensor>,
}

/// How the input is quantized.
#[derive(Clone, Debug)]
struct FrozenInput {
    quantizer: Quantizer,
    operand: Operand,
    ste: Ste,
}

impl<O: Operation> Frozen<O> {
    /// A layer from its configuration, the codes of its weight, in the weight's shape, and a bias.
    ///
    /// # Errors
    ///
    /// Shapes that do not fit, or blocks that reach across rows of the weight as a matrix with a row for each index
    /// of its first dimension.
    pub fn from_codes(config: O::Config, weight: &Fp8Tensor, bias: Option<Tensor>) -> Result<Self> {
        let dims = weight.shape().dims().to_vec();
        let evaluation = O::evaluation(&config, &dims)?;
        check_parts(&evaluation, &dims, weight.dtype(), weight.codes().device(), bias.as_ref())?;
        let Some(matrix) = weight.to_matrix()? else {
            let granularity = weight.granularity().to_string();
            return Err(QuantizerError::BlocksAcrossRows { granularity, shape: dims }.into());
        };
        let weight = Arc::new(FixedWeight::new(matrix, evaluation.layout())?);
        let mode = Mode::default();
        Ok(Self {
            config,
            codes: FrozenCodes {
                weight,
                dims,
                bias,
                activations: None,
                mode,
                evaluation,
                path: None,
                values: OnceLock::new(),
            },
        })
    }

    /// A layer that was trained, with these codes.
    pub(super) fn of_trained(layer: &O, trained: &Quantization, weight: Arc<FixedWeight>) -> Self {
        let activations = trained.recipe.activations.clone().map(|quantizer| {
            let operand = trained.operands.activations.clone();
            FrozenInput { quantizer, operand, ste: trained.recipe.ste }
        });
        let codes = FrozenCodes {
            weight,
            dims: layer.weight().dims().to_vec(),
            bias: layer.bias().cloned(),
            activations,
            mode: trained.mode,
            evaluation: trained.evaluation.clone(),
            path: trained.path.clone(),
            values: OnceLock::new(),
        };
        Self { config: layer.config(), codes }
    }

    /// Sets the quantizer of the layer's input, and the estimator that the input's gradient goes through.
    ///
    /// A frozen layer records no steps, so [`Scaling::Window`] scales by the current input alone.
    ///
    /// ```
    /// use altgrad::{Fp8, Fp8Tensor, FrozenLinear, Quantizer, Scaling, Ste};
    /// use candle_core::{DType, Device, Module, Tensor};
    ///
    /// let weight = Fp8Tensor::quantize(&Tensor::ones((3, 4), DType::F32, &Device::Cpu)?, &Fp8::E4M3.into())?;
    /// let quantizer = Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(0.5));
    /// let layer = FrozenLinear::new(weight, None)?.with_activations(quantizer, Ste::PassThrough)?;
    /// let y = layer.forward(&Tensor::ones((2, 4), DType::F32, &Device::Cpu)?)?;
    /// assert_eq!(y.to_vec2::<f32>()?, [[4.0; 3]; 2]);
    /// # Ok::<(), altgrad::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// An invalid quantizer, or one with [`Scaling::Delayed`], whose scale would remain 1 forever.
    pub fn with_activations(mut self, quantizer: impl Into<Quantizer>, ste: Ste) -> Result<Self> {
        const NAME: &str = "activations";
        let quantizer = quantizer.into();
        quantizer.validate().map_err(|error| error.of(NAME))?;
        if quantizer.scaling.needs_measurement() {
            return Err(Error::from(QuantizerError::NoSteps).of(NAME));
        }
        let operand = Operand::new(NAME, Some(&quantizer), self.codes.path.as_deref().unwrap_or_default());
        self.codes.activations = Some(FrozenInput { quantizer, operand, ste });
        Ok(self)
    }

    /// The weight's codes, which every call brings back into the order of the weight's rows. They have the weight's
    /// shape, unless the scales do not belong to blocks of that shape: then they are a matrix with a row for each
    /// index of its first dimension.
    ///
    /// # Errors
    ///
    /// Only those of candle's tensor operations.
    pub fn weight(&self) -> Result<Fp8Tensor> {
        locate(self.codes.tensor(), &self.codes.path)
    }

    /// The weight's dimensions: outputs and inputs for a linear layer.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        &self.codes.dims
    }

    /// The format of the weight's codes.
    #[must_use]
    pub fn format(&self) -> Fp8 {
        self.codes.weight.format()
    }

    /// Which codes of the weight share a scale.
    #[must_use]
    pub fn granularity(&self) -> Granularity {
        self.codes.weight.granularity()
    }

    /// The dtype of outputs, which is that of the original weight.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.codes.weight.dtype()
    }

    /// Bytes that the weight takes: codes and scales. Layers that are tied share them.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.codes.weight.bytes()
    }

    /// The bias, in full precision.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.codes.bias.as_ref()
    }

    /// How the layer's input is quantized, if it is.
    #[must_use]
    pub fn activations(&self) -> Option<&Quantizer> {
        self.codes.activations()
    }

    /// The precision in which an input that is not quantized is read.
    #[must_use]
    pub fn compute(&self) -> Compute {
        self.codes.mode.compute
    }

    /// Sets the precision in which an input that is not quantized is read.
    pub fn set_compute(&mut self, compute: Compute) {
        self.codes.mode.compute = compute;
    }

    /// The configuration of the layer.
    pub fn config(&self) -> &O::Config {
        &self.config
    }

    /// A full-precision layer with the values that the codes stand for, which are those that training computed with.
    ///
    /// # Errors
    ///
    /// Only those of candle's tensor operations.
    pub fn dequantize(&self) -> Result<O> {
        let weight = locate(self.codes.values(), &self.codes.path)?;
        Ok(self.with_weight(weight))
    }

    /// The layer in full precision with this weight.
    pub(super) fn with_weight(&self, weight: Tensor) -> O {
        O::from_parts(self.config.clone(), weight, self.codes.bias.clone())
    }

    /// The same layer with this path in its errors.
    pub(super) fn at(mut self, path: LayerPath) -> Self {
        self.codes.path = path;
        self
    }

    pub(super) fn codes(&self) -> &FrozenCodes {
        &self.codes
    }

    pub(super) fn codes_mut(&mut self) -> &mut FrozenCodes {
        &mut self.codes
    }

    /// A layer of another kind over the same codes: for example, a product with the table of a lookup.
    pub(super) fn tied<P: Operation>(&self, config: P::Config, bias: Option<Tensor>) -> Result<Frozen<P>> {
        let evaluation = P::evaluation(&config, &self.codes.dims)?;
        let weight = &self.codes.weight;
        check_parts(&evaluation, &self.codes.dims, weight.dtype(), weight.device(), bias.as_ref())?;
        let codes = FrozenCodes { bias, activations: None, evaluation, path: None, ..self.codes.clone() };
        Ok(Frozen { config, codes })
    }
}

impl FrozenCodes {
    /// The weight's dimensions.
    pub(crate) fn dims(&self) -> &[usize] {
        &self.dims
    }

    pub(super) fn activations(&self) -> Option<&Quantizer> {
        self.activations.as_ref().map(|activations| &activations.quantizer)
    }

    /// The weight's codes in its shape if the scales belong to blocks of that shape, otherwise as a matrix.
    fn tensor(&self) -> Result<Fp8Tensor> {
        self.weight.to_tensor()?.reshape(&self.dims)
    }

    /// The weight's values in its shape.
    pub(crate) fn values(&self) -> Result<Tensor> {
        let values = self.weight.dequantize()?;
        Ok(if self.dims.len() == 2 { values } else { values.reshape(&*self.dims)? })
    }

    /// The weight's values, which are kept from now on; a tensor without elements if a device fails.
    pub(super) fn kept_values(&self) -> &Tensor {
        self.values.get_or_init(|| {
            let nothing =
                || Tensor::from_storage(Storage::Cpu(CpuStorage::F32(Vec::new())), 0, BackpropOp::none(), false);
            self.values().unwrap_or_else(|_| nothing())
        })
    }

    /// The quantizer of the layer's input, with a static scale in place of a history, so that another process can
    /// continue with it.
    ///
    /// Fails if the scale needs a history and that is empty.
    pub(crate) fn standing_activations(&self) -> Result<Option<Quantizer>> {
        let Some(FrozenInput { quantizer, operand, .. }) = &self.activations else { return Ok(None) };
        if !quantizer.scaling.needs_measurement() {
            return Ok(Some(quantizer.clone()));
        }
        operand.check_measured(quantizer)?;
        Ok(Some(quantizer.clone().scaling(Scaling::Static(quantizer.scale(0.0, &operand.history())))))
    }

    /// How an input is quantized.
    fn convert_input(&self, values: &Tensor) -> Result<Option<(Arc<Conversion>, u64)>> {
        let Some(FrozenInput { quantizer, operand, .. }) = &self.activations else { return Ok(None) };
        Ok(Some((Arc::new(operand.peek(quantizer, values)?), operand.step())))
    }

    fn forward(&self, x: &Tensor, call: &dyn Fn(Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
        check_input(&self.evaluation, x, self.weight.dtype(), self.weight.device())?;
        let ste = self.activations.as_ref().map_or(Ste::PassThrough, |activations| activations.ste);
        match &self.evaluation {
            Evaluation::Product(lowering) => {
                let values = lowering.input(&x.detach())?;
                let product = Product {
                    lowering,
                    weight: WeightSource::Fixed(&self.weight, Clip::default(), None),
                    bias: self.bias.as_ref(),
                    input: self.convert_input(&values)?,
                    ste,
                    compute: self.mode.compute,
                    training: None,
                    path: &self.path,
                };
                product.forward(x, &values)
            }
            Evaluation::Lookup => lookup::frozen(&self.weight, x),
            Evaluation::Values => {
                let x = &x.contiguous()?;
                match self.convert_input(&x.detach())? {
                    None => call(self.values()?, x),
                    Some((conversion, _)) => call(self.values()?, &fake_quantize_with(x, conversion, ste)?),
                }
            }
        }
    }
}

impl<O: Operation> Module for Frozen<O> {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let call = |weight, x: &Tensor| self.with_weight(weight).forward(x);
        Ok(locate(self.codes.forward(x, &call), &self.codes.path)?)
    }
}
