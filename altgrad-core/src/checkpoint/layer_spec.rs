//! Describes a quantized layer that is to be written, and its tensors in a dialect.

use safetensors::Dtype;

use crate::quantizer::{Granularity, Quantizer, Rounding, ScaleEncoding};
use crate::slot::Operation;
use crate::{Fp8, Infinity, Overflow};

/// A quantized layer to be written.
#[derive(Clone, Debug)]
pub(super) struct LayerSpec {
    /// Its path; the weight's name is this with `.weight`.
    pub(super) path: String,
    /// The weight's dimensions; outputs and inputs for a linear layer.
    pub(super) dims: Vec<usize>,
    pub(super) format: Fp8,
    pub(super) granularity: Granularity,
    /// Whether every scale is a power of two, so that a byte can hold its exponent.
    pub(super) exponents: bool,
    /// How the input of the layer is quantized.
    pub(super) activations: Option<Quantizer>,
    pub(super) kind: Kind,
}

/// What kind of layer is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Linear,
    Embedding,
    /// Either an embedding, as its name suggests, or a linear layer.
    MaybeEmbedding,
    Other(&'static str),
}

impl Kind {
    /// The kind of layer for a slot of this kind.
    pub(super) fn of(kind: &'static str) -> Self {
        match kind {
            <candle_nn::Linear as Operation>::KIND => Self::Linear,
            <candle_nn::Embedding as Operation>::KIND => Self::Embedding,
            other => Self::Other(other),
        }
    }
}

/// The tensors of a layer in a dialect.
#[derive(Clone, Debug)]
pub(super) struct TensorLayout {
    pub(super) codes: String,
    pub(super) codes_dtype: Dtype,
    pub(super) scales: String,
    /// `F32`, or `U8` for exponents of powers of two.
    pub(super) scales_dtype: Dtype,
    pub(super) scales_shape: Vec<usize>,
    /// The tensor that holds a static scale of the input.
    pub(super) input_scale: Option<InputScale>,
    /// A tensor of bytes that says how the layer is quantized.
    pub(super) mark: Option<(String, Vec<u8>)>,
}

/// A static scale of a layer's input.
#[derive(Clone, Debug)]
pub(super) struct InputScale {
    pub(super) name: String,
    pub(super) value: f32,
    pub(super) shape: Vec<usize>,
}

/// How the input of a layer is quantized, as far as checkpoints can say it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Inputs {
    /// Not at all.
    Full,
    /// To E4M3, with this scale.
    Static(f32),
    /// To E4M3, with `f32` scales computed from the input.
    Dynamic(Granularity),
    /// To E4M3, in blocks of 1 × 32 with scales that are powers of two.
    Mx(ScaleEncoding),
}

impl LayerSpec {
    /// The name of a tensor of the layer.
    pub(super) fn name(&self, tensor: &str) -> String {
        if self.path.is_empty() { tensor.to_owned() } else { format!("{}.{tensor}", self.path) }
    }

    /// The number of rows and of columns of blocks.
    pub(super) fn grid(&self) -> [usize; 2] {
        self.granularity.blocks(&self.dims).grid().into()
    }

    /// Whether blocks and scales are those of the MX formats.
    pub(super) fn is_mx(&self) -> bool {
        self.exponents && self.granularity == Granularity::PerBlock { rows: 1, cols: 32 }
    }

    /// Fails unless the weight is in E4M3, the only format that most dialects have.
    pub(super) fn check_e4m3(&self) -> Result<(), String> {
        if self.format == Fp8::E4M3 { Ok(()) } else { Err(format!("weights in {}", self.format)) }
    }

    /// Outputs and inputs of a linear layer; fails for a layer of another kind, which most dialects leave in full
    /// precision.
    pub(super) fn linear(&self) -> Result<[usize; 2], String> {
        match (self.kind, &self.dims[..]) {
            (Kind::Linear, &[outputs, inputs]) => Ok([outputs, inputs]),
            (Kind::MaybeEmbedding, _) => Err("a layer that may be an embedding, judging by its name".to_owned()),
            (Kind::Embedding, _) => Err("an embedding".to_owned()),
            (Kind::Linear, dims) => Err(format!("a weight of {} dimensions", dims.len())),
            (Kind::Other(kind), _) => Err(format!("a layer of the kind {kind}")),
        }
    }

    /// Rows and columns of a linear layer or an embedding; fails for a layer of another kind.
    pub(super) fn matrix(&self) -> Result<[usize; 2], String> {
        match (self.kind, &self.dims[..]) {
            (Kind::Embedding | Kind::MaybeEmbedding, &[rows, cols]) => Ok([rows, cols]),
            _ => self.linear(),
        }
    }

    /// How the input is quantized, or why no dialect of another library can express it.
    pub(super) fn inputs(&self) -> Result<Inputs, String> {
        let Some(quantizer) = &self.activations else { return Ok(Inputs::Full) };
        let Quantizer {
            format,
            granularity,
            scaling,
            scale_encoding,
            amax_epsilon: _,
            amax_bound,
            rounding,
            overflow,
            infinity,
        } = *quantizer;
        if format != Fp8::E4M3 {
            return Err(format!("inputs in {format}"));
        }
        if amax_bound.is_some() {
            return Err("inputs with an upper bound on amax".to_owned());
        }
        if infinity != Infinity::Propagate {
            return Err("inputs whose infinities saturate".to_owned());
        }
        if rounding != Rounding::NearestEven || overflow != Overflow::Saturate {
            return Err("inputs that are rounded stochastically or do not saturate".to_owned());
        }
        if scaling.needs_measurement() {
            return Err("inputs with delayed scaling; calibrate the model first".to_owned());
        }
        match (scaling.static_scale(), scale_encoding) {
            (Some(scale), _) => Ok(Inputs::Static(scale)),
            (None, ScaleEncoding::F32 | ScaleEncoding::F32Reciprocal) => Ok(Inputs::Dynamic(granularity)),
            (None, ScaleEncoding::E8M0(_)) if granularity == (Granularity::PerBlock { rows: 1, cols: 32 }) => {
                Ok(Inputs::Mx(scale_encoding))
            }
            _ => Err("inputs with scales that are powers of two, other than in blocks of 1 × 32".to_owned()),
        }
    }

    /// The layout of a weight in `F8_E4M3` with its scales in `F32`.
    pub(super) fn layout(&self, scales: &str, scales_shape: impl Into<Vec<usize>>) -> TensorLayout {
        TensorLayout {
            codes: self.name("weight"),
            codes_dtype: Dtype::F8_E4M3,
            scales: self.name(scales),
            scales_dtype: Dtype::F32,
            scales_shape: scales_shape.into(),
            input_scale: None,
            mark: None,
        }
    }
}

impl TensorLayout {
    /// The same, with exponents as scales.
    pub(super) fn with_exponents(self) -> Self {
        Self { scales_dtype: Dtype::U8, ..self }
    }

    /// The same, with a tensor of bytes that says how the layer is quantized.
    pub(super) fn with_mark(self, name: String, bytes: Vec<u8>) -> Self {
        Self { mark: Some((name, bytes)), ..self }
    }

    /// The same, with a static scale of the input.
    pub(super) fn with_input_scale(self, name: String, value: f32, shape: impl Into<Vec<usize>>) -> Self {
        Self { input_scale: Some(InputScale { name, value, shape: shape.into() }), ..self }
    }
}
