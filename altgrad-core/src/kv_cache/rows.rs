//! Keys or values: how they are encoded, what shape they have, and where they are.

use altgrad_kernels::{Blocks, Conversion, Role, attention};
use candle_core::{DType, Device, Storage, Tensor};
use candle_nn::ops::softmax_last_dim;

use super::mask::Mask;
use super::panels::PanelBlocks;
use super::values::ValueBlocks;
use crate::quantizer::{
    Codes, Fp8Tensor, Granularity, Quantizer, Rounding, fake_quantize, has_kernels, to_storage, with_floats,
};
use crate::{Error, FormatError, Fp8, Infinity, QuantizerError, Result, TensorError};

/// How rows are encoded: one row is of one token and head.
#[derive(Clone, Debug)]
pub(super) enum Encoding {
    Full,
    /// By a quantizer, each row by itself.
    Dynamic(Quantizer),
    /// Under scales that are known: one, or one per head.
    Static(Fp8, Vec<f32>),
}

impl Encoding {
    /// Each row by itself, or all under a static scale.
    pub(super) fn dynamic(quantizer: Quantizer) -> Result<Self> {
        quantizer.validate()?;
        if quantizer.rounding != Rounding::NearestEven || quantizer.scaling.needs_measurement() {
            return Err(QuantizerError::NotForCache.into());
        }
        match (quantizer.granularity, quantizer.scaling.static_scale()) {
            (Granularity::PerTensor, Some(scale)) => Self::fixed(quantizer.format, &[scale], "tensor"),
            (Granularity::PerTensor | Granularity::PerRow, _) => {
                Ok(Self::Dynamic(quantizer.granularity(Granularity::PerRow)))
            }
            _ => Err(QuantizerError::NotForCache.into()),
        }
    }

    pub(super) fn fixed(format: Fp8, scales: &[f32], what: &'static str) -> Result<Self> {
        if scales.is_empty() {
            return Err(FormatError::LengthMismatch { what, expected: 1, actual: 0 }.into());
        }
        if let Some(scale) = scales.iter().find(|scale| !(scale.is_finite() && **scale > 0.0)) {
            return Err(FormatError::InvalidScale { scale: *scale }.into());
        }
        Ok(Self::Static(format, scales.to_vec()))
    }
}

/// Keys or values.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    role: Role,
    what: &'static str,
    encoding: Encoding,
    store: Option<Store>,
}

/// What there is once tokens are.
#[derive(Clone, Debug)]
struct Store {
    batch: usize,
    heads: usize,
    dim: usize,
    dtype: DType,
    device: Device,
    blocks: Stored,
}

#[derive(Clone, Debug)]
enum Stored {
    /// By kernels.
    Panels(PanelBlocks),
    /// By candle.
    Values(ValueBlocks),
}

impl Rows {
    pub(super) fn new(role: Role, encoding: Encoding) -> Self {
        let what = match role {
            Role::Keys => "the keys",
            Role::Values => "the values",
        };
        Self { role, what, encoding, store: None }
    }

    pub(super) fn len(&self) -> usize {
        self.store.as_ref().map_or(0, |store| match &store.blocks {
            Stored::Panels(blocks) => blocks.len(),
            Stored::Values(blocks) => blocks.len(),
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.store.as_ref().map_or(0, |store| match &store.blocks {
            Stored::Panels(blocks) => blocks.bytes(),
            Stored::Values(blocks) => {
                store.batch * store.heads * store.dim * blocks.len() * store.dtype.size_in_bytes()
            }
        })
    }

    pub(super) fn truncate(&mut self, len: usize) {
        match &mut self.store {
            _ if len == 0 => self.store = None,
            Some(Store { blocks: Stored::Panels(blocks), .. }) => blocks.truncate(len),
            Some(Store { blocks: Stored::Values(blocks), .. }) => blocks.truncate(len),
            None => {}
        }
    }

    /// Fails if `x` cannot be appended.
    pub(super) fn check(&self, x: &Tensor) -> Result<()> {
        let what = self.what;
        let shape = |expected: String| {
            Err(Error::Tensor(TensorError::ShapeMismatch { what, expected, actual: x.dims().to_vec() }))
        };
        let &[batch, heads, _, dim] = x.dims() else {
            return shape("four dimensions, (batch, heads, tokens, head size)".to_owned());
        };
        if let Encoding::Static(_, scales) = &self.encoding
            && scales.len() != 1
            && scales.len() != heads
        {
            return shape(format!("{} heads, one for each scale", scales.len()));
        }
        let Some(store) = &self.store else { return Ok(()) };
        if (batch, heads, dim) != (store.batch, store.heads, store.dim) {
            let Store { batch, heads, dim, .. } = store;
            return shape(format!("({batch}, {heads}, tokens, {dim}), as in the cache"));
        }
        store.check(x, what)
    }

    pub(super) fn append(&mut self, x: &Tensor) -> Result<()> {
        let (batch, heads, tokens, dim) = x.dims4()?;
        if tokens == 0 {
            return Ok(());
        }
        let x = &x.detach();
        let by_kernels = has_kernels(x.dtype(), x.device());
        let mut store = self.store.take().unwrap_or_else(|| {
            let panels = |format| Stored::Panels(PanelBlocks::new(self.role, format, batch * heads, dim));
            let blocks = match &self.encoding {
                Encoding::Dynamic(Quantizer { format, .. }) | Encoding::Static(format, _) if by_kernels => {
                    panels(Some(*format))
                }
                // Panels hold floats as `f32`, in which the values of other dtypes would take more memory.
                Encoding::Full if by_kernels && x.dtype() == DType::F32 => panels(None),
                _ => Stored::Values(ValueBlocks::default()),
            };
            Store { batch, heads, dim, dtype: x.dtype(), device: x.device().clone(), blocks }
        });
        let appended = self.encoding.append(x, &mut store.blocks);
        // A cache that is still empty has no shape to keep to.
        let is_empty = appended.is_err() && store.is_empty();
        self.store = (!is_empty).then_some(store);
        appended
    }

    pub(super) fn scores(&self, queries: &Tensor) -> Result<Tensor> {
        const WHAT: &str = "the queries";
        let store = self.store()?;
        let (rows, dims) = store.rows_of(queries, WHAT, store.dim, "head size")?;
        let len = self.len();
        match &store.blocks {
            Stored::Values(blocks) => blocks.scores(&queries.detach(), store.heads),
            Stored::Panels(blocks) => {
                let shape = (dims[0], dims[1], dims[2], len);
                store.compute(queries, shape, |queries, scores| {
                    attention::scores(blocks.blocks(), queries, rows, scores);
                })
            }
        }
    }

    /// What queries attend to in `values`; these are the keys.
    pub(super) fn attend(&self, values: &Self, queries: &Tensor, scale: f64, mask: Mask) -> Result<Tensor> {
        const WHAT: &str = "the queries";
        let (store, of_values) = (self.store()?, values.store()?);
        let (rows, dims) = store.rows_of(queries, WHAT, store.dim, "head size")?;
        let (len, count) = (self.len(), dims[2]);
        if mask != Mask::All && count > len {
            let expected = format!("queries of the last of {len} tokens");
            return Err(Error::Tensor(TensorError::ShapeMismatch { what: WHAT, expected, actual: dims.to_vec() }));
        }
        let (Stored::Panels(keys), Stored::Panels(blocks)) = (&store.blocks, &of_values.blocks) else {
            let mut scores = (self.scores(queries)? * scale)?;
            if mask != Mask::All {
                scores = scores.broadcast_add(&mask.tensor(count, len, scores.dtype(), scores.device())?)?;
            }
            return values.mix(&softmax_last_dim(&scores)?);
        };
        let shape = (dims[0], dims[1], count, of_values.dim);
        let visible = |row: usize| mask.visible(row % count, count, len);
        store.compute(queries, shape, |queries, sums| {
            let heads = (rows, count);
            attention::attend(keys.blocks(), blocks.blocks(), queries, heads, scale as f32, &visible, sums);
        })
    }

    pub(super) fn mix(&self, weights: &Tensor) -> Result<Tensor> {
        const WHAT: &str = "the attention weights";
        let store = self.store()?;
        let (rows, dims) = store.rows_of(weights, WHAT, self.len(), "tokens of the cache")?;
        match &store.blocks {
            Stored::Values(blocks) => blocks.mix(&weights.detach(), store.heads),
            Stored::Panels(blocks) => {
                let shape = (dims[0], dims[1], dims[2], store.dim);
                store.compute(weights, shape, |weights, sums| {
                    attention::mix(blocks.blocks(), weights, rows, sums);
                })
            }
        }
    }

    pub(super) fn tensor(&self) -> Result<Tensor> {
        let store = self.store()?;
        match &store.blocks {
            Stored::Values(blocks) => blocks.tensor(),
            Stored::Panels(blocks) => {
                let values = to_storage(blocks.values(), store.dtype)?;
                let shape = (store.batch, store.heads, blocks.len(), store.dim);
                Ok(Tensor::from_storage(Storage::Cpu(values), shape, candle_core::op::BackpropOp::none(), false))
            }
        }
    }

    fn store(&self) -> Result<&Store> {
        self.store.as_ref().ok_or_else(|| {
            let expected = "at least one token; append some first".to_owned();
            Error::Tensor(TensorError::ShapeMismatch { what: "the cache", expected, actual: Vec::new() })
        })
    }
}

impl Store {
    fn is_empty(&self) -> bool {
        match &self.blocks {
            Stored::Panels(blocks) => blocks.len() == 0,
            Stored::Values(blocks) => blocks.len() == 0,
        }
    }

    fn check(&self, x: &Tensor, what: &'static str) -> Result<()> {
        if x.dtype() != self.dtype {
            let (expected, actual) = (self.dtype, x.dtype());
            return Err(Error::Tensor(TensorError::DTypeMismatch { what, expected, actual }));
        }
        let (expected, actual) = (self.device.location(), x.device().location());
        if expected != actual {
            return Err(Error::Tensor(TensorError::DeviceMismatch { what, expected, actual }));
        }
        Ok(())
    }

    /// The rows that one head of the cache is multiplied by, and the dimensions, of an operand whose last dimension is
    /// `last`.
    fn rows_of<'x>(
        &self,
        x: &'x Tensor,
        what: &'static str,
        last: usize,
        last_name: &str,
    ) -> Result<(usize, &'x [usize])> {
        let dims = x.dims();
        match dims {
            [batch, heads, queries, end]
                if *batch == self.batch && *end == last && *heads > 0 && heads.is_multiple_of(self.heads) =>
            {
                self.check(x, what)?;
                Ok((heads / self.heads * queries, dims))
            }
            _ => {
                let Self { batch, heads, .. } = self;
                let expected = format!("({batch}, a multiple of {heads} heads, queries, {last} {last_name})");
                Err(Error::Tensor(TensorError::ShapeMismatch { what, expected, actual: dims.to_vec() }))
            }
        }
    }

    /// The result of `function`, which reads an operand and writes elements of a shape.
    fn compute(
        &self,
        x: &Tensor,
        shape: (usize, usize, usize, usize),
        function: impl FnOnce(&[f32], &mut [f32]),
    ) -> Result<Tensor> {
        let mut result = altgrad_kernels::zeroed(shape.0 * shape.1 * shape.2 * shape.3);
        with_floats(&x.detach(), |x| function(x, &mut result))?;
        let storage = Storage::Cpu(to_storage(result, self.dtype)?);
        Ok(Tensor::from_storage(storage, shape, candle_core::op::BackpropOp::none(), false))
    }
}

impl Encoding {
    fn append(&self, x: &Tensor, to: &mut Stored) -> Result<()> {
        match to {
            Stored::Panels(blocks) => {
                let (_, _, tokens, _) = x.dims4()?;
                if matches!(self, Self::Full) {
                    return with_floats(x, |values| blocks.append_floats(values, tokens));
                }
                let conversion = self.conversion(x)?;
                let codes = conversion.map(|conversion| Codes::encode(x, &conversion, None)).transpose()?.flatten();
                let codes = codes.ok_or_else(|| self.no_nan())?;
                blocks.append_codes(&codes, tokens);
                Ok(())
            }
            Stored::Values(blocks) => match self {
                Self::Full => blocks.append(x),
                Self::Dynamic(quantizer) => blocks.append(&fake_quantize(x, quantizer)?),
                Self::Static(..) => {
                    let granularity = Granularity::PerRow;
                    match self.conversion(x)? {
                        Some(conversion) => {
                            blocks.append(&Fp8Tensor::convert(x, &conversion, granularity)?.dequantize()?)
                        }
                        None => blocks.append(x),
                    }
                }
            },
        }
    }

    /// How rows are converted; `None` in full precision.
    fn conversion(&self, x: &Tensor) -> Result<Option<Conversion>> {
        match self {
            Self::Full => Ok(None),
            Self::Dynamic(quantizer) => Ok(Some(quantizer.first_step(x, 0)?)),
            Self::Static(format, scales) => {
                let (batch, heads, tokens, dim) = x.dims4()?;
                let rows = batch * heads * tokens;
                let of_row = |row: usize| scales[row / tokens % heads % scales.len()];
                let blocks = Blocks::per_row(rows, dim);
                let conversion = Conversion::new(*format, blocks, (0..rows).map(of_row))?;
                Ok(Some(conversion.infinity(Infinity::Propagate)))
            }
        }
    }

    fn no_nan(&self) -> Error {
        let format = match self {
            Self::Full => String::new(),
            Self::Dynamic(quantizer) => quantizer.format.to_string(),
            Self::Static(format, _) => format.to_string(),
        };
        FormatError::NanNotRepresentable { format }.into()
    }
}

/// Fails if values are of other tokens than keys.
pub(super) fn check_alike(keys: &Tensor, values: &Tensor) -> Result<()> {
    let (k, v) = (keys.dims(), values.dims());
    if k[..3] == v[..3] && keys.dtype() == values.dtype() && keys.device().same_device(values.device()) {
        return Ok(());
    }
    let expected = format!("({}, {}, {}, head size), {:?}, as the keys", k[0], k[1], k[2], keys.dtype());
    Err(Error::Tensor(TensorError::ShapeMismatch { what: "the values", expected, actual: v.to_vec() }))
}
