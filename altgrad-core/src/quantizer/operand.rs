//! An operand: one tensor that a layer quantizes, and everything that is kept of it from pass to pass.
//!
//! A weight, a layer's input, the gradient of its output and an embedding's table are operands. Pending backward
//! passes reach what they need of an operand through an `Arc`.

use std::sync::Arc;

use altgrad_kernels::Conversion;
use altgrad_kernels::lock::Lock;
use candle_core::Tensor;

use super::cache::Cache;
use super::{
    AmaxHistory, Clip, CodeBuffer, Codes, FixedWeight, Fp8Tensor, Layout, Quantizer, QuantizerState, Rounding, Ste,
    Watch, stream, transposed,
};
use crate::{Error, FormatError, ModelError, Result};

/// One tensor that a layer quantizes.
///
/// The layer's recipe says how; methods are passed the quantizer from there.
#[derive(Debug)]
pub(crate) struct Operand {
    /// The field of the recipe that says how the tensor is quantized.
    pub(crate) name: &'static str,
    state: Lock<QuantizerState>,
    /// The streams of random draws for the tensor and for its transpose.
    stream: u32,
    transposed_stream: u32,
    /// The memory of the codes of the tensor, and of its transpose, in the last step.
    pub(crate) buffer: CodeBuffer,
    pub(crate) transposed_buffer: CodeBuffer,
    /// Codes that are kept once they were needed, and what they are needed for.
    pub(crate) cache: Cache<CachedCodes>,
    uses: Lock<Uses>,
    /// The calibration pass that watches the values, if any.
    pub(crate) watch: Watch,
}

/// The codes of an operand that are kept from pass to pass.
#[derive(Clone, Debug)]
pub(crate) struct CachedCodes {
    pub(crate) codes: Arc<FixedWeight>,
    /// Where the operand's gradient stops.
    pub(crate) clip: Clip,
    /// The transpose, quantized along its own rows, if the recipe's backward passes compute with that. It is made
    /// together with the codes, since the operand may have changed by the time a backward pass needs it.
    pub(crate) transposed: Option<CachedTranspose>,
}

/// The transpose of an operand that is kept from pass to pass.
#[derive(Clone, Debug)]
pub(crate) enum CachedTranspose {
    /// On the CPU.
    Codes(Codes),
    /// On other devices.
    Tensor(Fp8Tensor),
}

/// What kept codes are needed for by all layers that share the operand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uses {
    pub(crate) layout: Layout,
    /// Whether the transpose, quantized along its own rows, is needed.
    pub(crate) transposed: bool,
}

impl Uses {
    /// Combines two uses. Rows can be read from the order of products, but products cannot read the order of rows.
    fn and(self, other: Self) -> Self {
        let layout = if self.layout == Layout::Rows { other.layout } else { self.layout };
        Self { layout, transposed: self.transposed || other.transposed }
    }
}

impl Operand {
    /// The operand before its first step, for the field `name` of the recipe of the layer at `path`.
    pub(crate) fn new(name: &'static str, quantizer: Option<&Quantizer>, path: &str) -> Self {
        Self {
            name,
            state: Lock::new(quantizer.map_or_else(QuantizerState::nothing, Quantizer::state)),
            stream: stream(&format!("{path}.{name}")),
            transposed_stream: stream(&format!("{path}.{name}.transposed")),
            buffer: CodeBuffer::default(),
            transposed_buffer: CodeBuffer::default(),
            cache: Cache::new(),
            uses: Lock::new(Uses { layout: Layout::Rows, transposed: false }),
            watch: Watch::default(),
        }
    }

    /// Adds what a layer needs kept codes for.
    pub(crate) fn add_use(&self, uses: Uses) {
        self.uses.with(|all| *all = all.and(uses));
    }

    /// Whether the next step converts a tensor in the same way as the next step of `other`, both by this quantizer.
    pub(crate) fn converts_as(&self, other: &Self, quantizer: &Quantizer) -> bool {
        let (own, others) = (self.state(), other.state());
        own.history == others.history
            && (quantizer.rounding == Rounding::NearestEven || own.step == others.step && self.stream == other.stream)
    }

    /// The order in which layers read kept codes.
    pub(crate) fn layout(&self) -> Layout {
        self.uses.with(|uses| uses.layout)
    }

    /// Releases the memory that is kept from step to step for speed.
    pub(crate) fn clear_buffers(&self) {
        self.buffer.clear();
        self.transposed_buffer.clear();
    }

    /// A copy of the state.
    pub(crate) fn state(&self) -> QuantizerState {
        self.state.get()
    }

    /// Replaces the state.
    pub(crate) fn set_state(&self, state: QuantizerState) {
        self.state.replace(state);
    }

    /// Fails if scaling is delayed and no amax was recorded yet.
    pub(crate) fn check_measured(&self, quantizer: &Quantizer) -> Result<()> {
        if quantizer.scaling.needs_measurement() && self.history().largest().is_none() {
            Err(Error::Model(ModelError::NoHistory { role: self.name }))
        } else {
            Ok(())
        }
    }

    /// The tensor's role, for messages.
    pub(crate) fn what(&self) -> &'static str {
        match self.name {
            "weights" => "the weight",
            "activations" => "the input",
            _ => "the gradient of the output",
        }
    }

    /// The recorded largest magnitudes.
    pub(crate) fn history(&self) -> AmaxHistory {
        self.state.with(|state| state.history.clone())
    }

    /// Number of steps so far.
    pub(crate) fn step(&self) -> u64 {
        self.state.with(|state| state.step)
    }

    /// How `x` is converted in the current step, without counting it as a step.
    pub(crate) fn peek(&self, quantizer: &Quantizer, x: &Tensor) -> Result<Conversion> {
        Ok(quantizer.conversion(x, self.what(), &self.state(), self.stream)?.0)
    }

    /// How `x` is converted in the current step, and the number of that step. In training the step is added to the
    /// state.
    ///
    /// Threads that train at the same time each take a step of their own, in the order in which they begin. Each sees
    /// the history as it is at that time, and records its amax as soon as it is known.
    pub(crate) fn advance(&self, quantizer: &Quantizer, x: &Tensor, training: bool) -> Result<(Conversion, u64)> {
        let state = self.state.with(|state| {
            let now = state.clone();
            state.step += u64::from(training);
            now
        });
        let (conversion, amax) = quantizer.conversion(x, self.what(), &state, self.stream)?;
        if let (true, Some(amax)) = (training, amax) {
            self.state.with(|state| quantizer.record(amax, &mut state.history));
        }
        Ok((conversion, state.step))
    }

    /// How the transpose `x` of a tensor that was converted in `step` is converted along its own rows.
    pub(crate) fn transposed(&self, quantizer: &Quantizer, x: &Tensor, step: u64) -> Result<Conversion> {
        let state = QuantizerState { step, ..quantizer.state() };
        Ok(quantizer.conversion(x, self.what(), &state, self.transposed_stream)?.0)
    }

    /// The codes of the transpose of each group of rows of `x`, which was converted in `step`, along the transpose's
    /// own rows; `None` if one of its values has no code. Only on the CPU.
    pub(crate) fn encode_transpose(
        &self,
        quantizer: &Quantizer,
        x: &Tensor,
        step: u64,
        groups: usize,
        buffer: Option<&CodeBuffer>,
    ) -> Result<Option<Codes>> {
        // A random draw depends on the element's position in the transpose, which then has to be made.
        if groups == 1 && quantizer.rounding == Rounding::NearestEven && x.elem_count() > 0 {
            let by_columns =
                Quantizer { granularity: quantizer.granularity.transposed(x.dim(0)?), ..quantizer.clone() };
            let conversion = self.transposed(&by_columns, x, step)?;
            return Ok(Codes::encode(x, &conversion, buffer)?.map(Codes::transposed));
        }
        let x = transposed(x, groups)?;
        Codes::encode(&x, &self.transposed(quantizer, &x, step)?, buffer)
    }

    /// The codes that the matrix `x` would have in the next step.
    pub(crate) fn pack(&self, quantizer: &Quantizer, x: &Tensor) -> Result<Fp8Tensor> {
        self.packed(quantizer, x).map(|(codes, _)| codes)
    }

    fn packed(&self, quantizer: &Quantizer, x: &Tensor) -> Result<(Fp8Tensor, Conversion)> {
        let conversion = self.peek(quantizer, x)?;
        Ok((Fp8Tensor::convert(x, &conversion, quantizer.granularity)?, conversion))
    }

    /// The kept codes of the matrix `x`. If there are none, those of the next step are computed and kept.
    pub(crate) fn cached_codes(&self, quantizer: &Quantizer, x: &Tensor, ste: Ste) -> Result<CachedCodes> {
        self.cache.get_or_compute(|| {
            let Uses { layout, transposed } = self.uses.get();
            let (codes, conversion) = self.packed(quantizer, x)?;
            let clip = ste.clip(x, &conversion)?;
            let transposed = if transposed { Some(self.cached_transpose(quantizer, x, layout)?) } else { None };
            let codes = Arc::new(FixedWeight::new(codes, layout)?);
            Ok(CachedCodes { codes, clip, transposed })
        })
    }

    fn cached_transpose(&self, quantizer: &Quantizer, x: &Tensor, layout: Layout) -> Result<CachedTranspose> {
        if x.device().is_cpu() {
            let codes = self.encode_transpose(quantizer, x, self.step(), layout.groups(), None)?;
            let no_code = Error::Format(FormatError::NanNotRepresentable { format: quantizer.format.to_string() });
            return codes.map(CachedTranspose::Codes).ok_or(no_code);
        }
        let x = transposed(x, layout.groups())?;
        let conversion = self.transposed(quantizer, &x, self.step())?;
        Ok(CachedTranspose::Tensor(Fp8Tensor::convert(&x, &conversion, quantizer.granularity)?))
    }
}

impl Clone for Operand {
    /// A copy of the state that changes independently from here on.
    fn clone(&self) -> Self {
        let Self { name, stream, transposed_stream, .. } = *self;
        Self {
            name,
            state: self.state.clone(),
            stream,
            transposed_stream,
            buffer: CodeBuffer::default(),
            transposed_buffer: CodeBuffer::default(),
            cache: self.cache.clone(),
            uses: self.uses.clone(),
            watch: Watch::default(),
        }
    }
}
