//! A linear layer that holds nothing of its weight but the codes.

use std::sync::Arc;

use altgrad_kernels::PackedCodes;
use candle_core::{DType, Module, Tensor};

use super::compute::Compute;
use super::fused::{self, Input, Weight};
use super::mode::Mode;
use super::node::{Arguments, Gradients, attach};
use super::shared::{Role, Shared};
use super::weight::FixedWeight;
use super::{LayerPath, check_input, check_parts, forward, locate, output_dims};
use crate::quantizer::{Clip, Codes, Fp8Tensor, Granularity, Quantizer, Scaling, Ste, fake_quantize_with};
use crate::{Error, Fp8, Result};

/// A linear layer with a weight of one byte an element.
///
/// The codes are constants: gradients go through the layer to its input, so adapters can train on top of it, and to its
/// bias if that is a variable. A layer that quantized its input in training goes on to do so, under the scales of eval
/// mode; gradients are not quantized.
///
/// On the CPU, codes of `f32`, `f16` and `bf16` weights are kept in the order in which products read them, and nothing
/// else of the weight is; elsewhere, and for `f64`, each product dequantizes the weight.
#[derive(Clone, Debug)]
pub struct FrozenLinear {
    weight: FixedWeight,
    dims: [usize; 2],
    bias: Option<Tensor>,
    activations: Option<Activations>,
    mode: Mode,
    path: LayerPath,
}

/// How the input is quantized.
#[derive(Clone, Debug)]
struct Activations {
    quantizer: Quantizer,
    role: Role,
    ste: Ste,
}

impl FrozenLinear {
    /// A layer from packed weights of shape `(outputs, inputs)` and a bias of shape `(outputs,)`.
    ///
    /// # Errors
    ///
    /// Shapes that do not fit.
    pub fn new(weight: Fp8Tensor, bias: Option<Tensor>) -> Result<Self> {
        check_parts(weight.shape().dims(), weight.dtype(), weight.codes().device(), bias.as_ref())?;
        let dims = weight.shape().dims2()?.into();
        let weight = FixedWeight::new(weight)?;
        Ok(Self { weight, dims, bias, activations: None, mode: Mode::default(), path: None })
    }

    /// The same with a quantizer of the layer's input, and the estimator that the input's gradient goes through.
    ///
    /// A frozen layer remembers no steps, so [`Scaling::Window`] is the scale of the input at hand.
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
    /// A quantizer that is invalid, or one with [`Scaling::Delayed`], whose scale would be 1 for ever.
    pub fn with_activations(self, quantizer: impl Into<Quantizer>, ste: Ste) -> Result<Self> {
        const NAME: &str = "activations";
        let quantizer = quantizer.into();
        quantizer.validate().map_err(|error| error.of(NAME))?;
        if matches!(quantizer.scaling, Scaling::Delayed { .. }) {
            let why = "a frozen layer has no steps before to take a delayed scale from; use `Scaling::Static` or \
                       `Scaling::Current`"
                .to_owned();
            return Err(Error::InvalidQuantizer { why }.of(NAME));
        }
        let role = Role::new(NAME, Some(&quantizer), self.path.as_deref().unwrap_or_default());
        Ok(Self { activations: Some(Activations { quantizer, role, ste }), ..self })
    }

    /// The packed weight, brought into the order of its rows for this call.
    ///
    /// # Errors
    ///
    /// None of its own; see candle for those of tensor operations.
    pub fn weight(&self) -> Result<Fp8Tensor> {
        locate(self.weight.to_tensor(), &self.path)
    }

    /// Outputs and inputs: the weight's dimensions.
    #[must_use]
    pub fn dims(&self) -> &[usize; 2] {
        &self.dims
    }

    /// The format of the weight's codes.
    #[must_use]
    pub fn format(&self) -> Fp8 {
        self.weight.format()
    }

    /// Which codes of the weight share a scale.
    #[must_use]
    pub fn granularity(&self) -> Granularity {
        self.weight.granularity()
    }

    /// The dtype of inputs and outputs, which was that of the weight.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.weight.dtype()
    }

    /// Bytes that the weight takes: codes and scales.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.weight.bytes()
    }

    /// The bias, in full precision.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// How the layer's input is quantized, if it is.
    #[must_use]
    pub fn activations(&self) -> Option<&Quantizer> {
        self.activations.as_ref().map(|activations| &activations.quantizer)
    }

    /// In which precision an input that is not quantized is read.
    #[must_use]
    pub fn compute(&self) -> Compute {
        self.mode.compute
    }

    /// Changes in which precision an input that is not quantized is read.
    pub fn set_compute(&mut self, compute: Compute) {
        self.mode.compute = compute;
    }

    /// A full-precision layer with the values that the codes stand for, which are those that training computed with.
    ///
    /// # Errors
    ///
    /// None of its own; see candle for those of tensor operations.
    pub fn dequantize(&self) -> Result<candle_nn::Linear> {
        let weight = locate(self.weight.dequantize(), &self.path)?;
        Ok(candle_nn::Linear::new(weight, self.bias.clone()))
    }

    /// The scales of the weight, in the order of [`Fp8Tensor::scales`].
    pub(crate) fn scales(&self) -> Result<Vec<f32>> {
        self.weight.scales()
    }

    /// The quantizer of the layer's input, with a static scale in place of a history: what another process can go on with.
    ///
    /// Fails if there is nothing in the history.
    pub(crate) fn standing_activations(&self) -> Result<Option<Quantizer>> {
        let Some(Activations { quantizer, role, .. }) = &self.activations else { return Ok(None) };
        if !matches!(quantizer.scaling, Scaling::Delayed { .. }) {
            return Ok(Some(quantizer.clone()));
        }
        role.check_measured(quantizer)?;
        Ok(Some(quantizer.clone().scaling(Scaling::Static(quantizer.scale(0.0, &role.history())))))
    }

    /// [`weight_bytes`](Self::weight_bytes) of a layer with these codes.
    pub(crate) fn weight_bytes_of(weight: &Fp8Tensor) -> usize {
        FixedWeight::bytes_of(weight)
    }

    pub(crate) fn with_path(self, path: LayerPath) -> Self {
        Self { path, ..self }
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn mode_mut(&mut self) -> &mut Mode {
        &mut self.mode
    }

    pub(super) fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The same with the activations of a layer that was trained.
    pub(super) fn with_trained_activations(self, quantizer: Option<Quantizer>, shared: &Shared, ste: Ste) -> Self {
        let activations = quantizer.map(|quantizer| Activations { quantizer, role: shared.activations.clone(), ste });
        Self { activations, ..self }
    }

    fn multiply(&self, x: &Tensor) -> Result<Tensor> {
        check_input(x, &self.dims, self.weight.dtype(), self.weight.device())?;
        if let FixedWeight::Packed { codes, .. } = &self.weight
            && let Some(y) = self.multiply_codes(x, codes)?
        {
            return Ok(y);
        }
        let linear = candle_nn::Linear::new(self.weight.dequantize()?, self.bias.clone());
        match &self.activations {
            None => forward(x, &linear),
            Some(activations) => {
                let Activations { quantizer, role, ste } = activations;
                let x = x.contiguous()?;
                forward(&fake_quantize_with(&x, role.peek(quantizer, &x)?, *ste)?, &linear)
            }
        }
    }

    /// The product from codes; `None` if the input has none, since it holds NaN and its format does not.
    fn multiply_codes(&self, x: &Tensor, weight: &Arc<PackedCodes>) -> Result<Option<Tensor>> {
        let values = x.detach().contiguous()?;
        let weight = Weight::Packed(Arc::clone(weight));
        let (input, clip) = match &self.activations {
            None => (None, Clip::default()),
            Some(activations) => {
                let Activations { quantizer, role, ste } = activations;
                let conversion = role.peek(quantizer, &values)?;
                let Some(codes) = Codes::encode(&values, &conversion, None)? else { return Ok(None) };
                (Some(codes), ste.clip(x, &conversion)?)
            }
        };
        let bias = self.bias.as_ref();
        let operand = input.as_ref().map_or(Input::Floats(self.mode.compute), Input::Codes);
        let [outputs, _] = self.dims;
        let y = fused::forward(&values, operand, &weight, outputs, bias)?;
        let path = self.path.clone();
        let backward = move |arguments: Arguments<'_>, dy: &Tensor| {
            let gradients = || {
                let Arguments { x, bias, .. } = arguments;
                let dy = dy.detach().contiguous()?;
                let dx = if x.track_op() {
                    let dx = fused::input_gradient_in_full_precision(x, &dy, &weight)?;
                    Some(clip.stop(&dx)?)
                } else {
                    None
                };
                Ok(Gradients { x: dx, w: None, bias: fused::bias_gradient(bias, &dy)? })
            };
            Ok(locate(gradients(), &path)?)
        };
        Ok(Some(attach(y, output_dims(x, outputs).0, Arguments { x, w: None, bias }, backward)?))
    }
}

impl Module for FrozenLinear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(locate(self.multiply(x), &self.path)?)
    }
}
