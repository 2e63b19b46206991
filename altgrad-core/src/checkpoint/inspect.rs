//! Reports what is in a checkpoint: as values, as a table and as JSON.

use std::fmt;

use serde::{Serialize, Serializer};

use super::dialect::Dialect;
use super::reader::Checkpoint;
use super::stored::Fault;
use crate::model::{Column, human_bytes, natural_order, shape_text, write_table};
use crate::quantizer::{Granularity, Quantizer};
use crate::{Fp8, Result};

/// What is in a checkpoint; returned by [`Checkpoint::inspect`].
///
/// `Display` prints a table of at most 100 characters per line, or of the width given in the format string:
/// `{contents:160}`. If the table would be wider, columns are left out, but names are never broken; JSON has all
/// columns.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Contents {
    /// The dialect that it is written in.
    #[serde(serialize_with = "name_of")]
    pub dialect: Dialect,
    /// All tensors, quantized ones first, each in the order of their names.
    pub tensors: Vec<TensorContents>,
}

/// What a tensor of a checkpoint is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TensorContents {
    /// The name that a model asks for.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The dtype of its values, or of its codes, as safetensors calls it.
    pub dtype: String,
    /// How it is quantized, if it is.
    pub quantized: Option<QuantizedContents>,
    /// Why it cannot be read, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// Bytes of its values, or of its codes and scales.
    pub bytes: usize,
}

/// How a tensor of a checkpoint is quantized.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct QuantizedContents {
    /// The format of its codes.
    pub format: Fp8,
    /// Which codes share a scale.
    pub granularity: Granularity,
    /// Number of scales.
    pub scales: usize,
    /// The smallest scale.
    pub smallest_scale: f32,
    /// The largest scale.
    pub largest_scale: f32,
    /// How the input of its layer is quantized, if it is.
    pub activations: Option<Quantizer>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn name_of<S: Serializer>(dialect: &Dialect, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(dialect.name())
}

impl Checkpoint {
    /// Reports all tensors, from headers and scales. A tensor that cannot be read is listed with the reason.
    ///
    /// # Errors
    ///
    /// A file that cannot be read.
    pub fn inspect(&self) -> Result<Contents> {
        let mut tensors = self.names().map(|name| self.inspect_tensor(name)).collect::<Result<Vec<_>>>()?;
        // Quantized tensors first, as in `names`.
        let is_plain = |tensor: &TensorContents| tensor.quantized.is_none() && tensor.unreadable.is_none();
        tensors.sort_by(|a, b| is_plain(a).cmp(&is_plain(b)).then_with(|| natural_order(&a.name, &b.name)));
        Ok(Contents { dialect: self.dialect(), tensors })
    }

    fn inspect_tensor(&self, name: &str) -> Result<TensorContents> {
        let shards = self.shards();
        let bytes_of = |name: &str| shards.info(name).map_or(0, |info| info.data_offsets.1 - info.data_offsets.0);
        let dtype_of = |name: &str| shards.info(name).map_or_else(String::new, |info| info.dtype.to_string());
        let plain = TensorContents {
            name: name.to_owned(),
            shape: shards.info(name).map_or_else(Vec::new, |info| info.shape.clone()),
            dtype: dtype_of(name),
            quantized: None,
            unreadable: None,
            bytes: bytes_of(name),
        };
        if let Some(fault) = self.fault(name) {
            return Ok(TensorContents { unreadable: Some(fault.why().to_owned()), ..plain });
        }
        let Some(stored) = self.stored(name)? else { return Ok(plain) };
        let plain = TensorContents {
            shape: stored.shape.clone(),
            dtype: dtype_of(&stored.codes),
            bytes: stored.parts().map(bytes_of).sum(),
            ..plain
        };
        let look = || Ok((stored.scale_values(shards)?, self.activations_of(stored)?));
        let (scales, activations) = match look() {
            Ok(seen) => seen,
            Err(error) => return Ok(TensorContents { unreadable: Some(Fault::of(error)?.why().to_owned()), ..plain }),
        };
        let quantized = QuantizedContents {
            format: stored.format,
            granularity: stored.granularity,
            scales: stored
                .scales
                .as_ref()
                .and_then(|name| shards.info(name))
                .map_or(1, |info| info.shape.iter().product()),
            smallest_scale: scales.iter().copied().fold(f32::INFINITY, f32::min),
            largest_scale: scales.iter().copied().fold(0.0, f32::max),
            activations,
        };
        Ok(TensorContents { quantized: Some(quantized), ..plain })
    }
}

impl Contents {
    /// Bytes of all tensors.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }
}

const COLUMNS: [Column; 8] = [
    Column::text("tensor"),
    Column::text("format"),
    Column::text("shape"),
    Column::text("scales"),
    Column::number("smallest").dispensable(0),
    Column::number("largest").dispensable(1),
    Column::number("inputs").dispensable(2),
    Column::number("bytes"),
];

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |tensor: &TensorContents| {
            let quantized =
                |cell: fn(&QuantizedContents) -> String| tensor.quantized.as_ref().map(cell).unwrap_or_default();
            let format = match (&tensor.quantized, &tensor.unreadable) {
                (_, Some(_)) => "unreadable".to_owned(),
                (Some(quantized), None) => quantized.format.to_string(),
                (None, None) => tensor.dtype.clone(),
            };
            vec![
                tensor.name.clone(),
                format,
                shape_text(&tensor.shape),
                quantized(|it| it.granularity.to_string()),
                quantized(|it| format!("{:.1e}", it.smallest_scale)),
                quantized(|it| format!("{:.1e}", it.largest_scale)),
                quantized(|it| it.activations.as_ref().map_or_else(|| "–".to_owned(), inputs_text)),
                human_bytes(tensor.bytes),
            ]
        };
        write_table(f, &COLUMNS, &self.tensors.iter().map(row).collect::<Vec<_>>())?;
        let quantized = self.tensors.iter().filter(|tensor| tensor.quantized.is_some()).count();
        let (dialect, bytes) = (self.dialect, human_bytes(self.bytes()));
        write!(f, "\ndialect {dialect}, {quantized} of {} tensors quantized, {bytes}", self.tensors.len())?;
        for tensor in &self.tensors {
            if let Some(why) = &tensor.unreadable {
                write!(f, "\n{} is unreadable: {why}", tensor.name)?;
            }
        }
        Ok(())
    }
}

fn inputs_text(quantizer: &Quantizer) -> String {
    match quantizer.scaling.static_scale() {
        Some(scale) => format!("{} {scale:.1e}", quantizer.format),
        None => format!("{} {}", quantizer.format, quantizer.granularity),
    }
}
