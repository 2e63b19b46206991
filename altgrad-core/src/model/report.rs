//! Reports what an operation did to each layer of a model: as values, as a table and as JSON.

use std::fmt;

use candle_core::Tensor;
use serde::Serialize;

use super::table::{Column, human_bytes, shape_text, write_table};
use crate::quantizer::{Distortion, FixedWeight, Fp8Tensor, Layout};
use crate::slot::Recipe;
use crate::{Fp8, Result};

/// What [`quantize`](crate::Quantizable::quantize), [`freeze`](crate::Quantizable::freeze) or
/// [`dequantize`](crate::Quantizable::dequantize) did, or how layers are quantized now
/// ([`report`](crate::Quantizable::report)), layer by layer in the order of declaration. A
/// [`QuantizedVarBuilder`](crate::QuantizedVarBuilder) reports the weights that it handed out, in the order in which
/// they were asked for.
///
/// `Display` prints a table of at most 100 characters per line, or of the width given in the format string:
/// `{report:160}`. If the table would be wider, columns are left out, but paths are never broken; JSON has all columns.
/// If more than the weights of a layer is quantized, the table shows the formats of weights, activations and gradients:
/// `E4M3/E4M3/E5M2`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct QuantReport {
    /// One entry per slot.
    pub layers: Vec<LayerReport>,
    /// Points to check before the result is used with other libraries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What happened to one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LayerReport {
    /// Dotted path.
    pub path: String,
    /// What kind of slot it is, such as `linear`: [`Operation::KIND`](crate::Operation::KIND).
    pub kind: &'static str,
    /// Shape of the weight; `[outputs, inputs]` for a linear layer.
    pub shape: Vec<usize>,
    /// What was done.
    pub action: Action,
    /// The weight's format after the operation, if it is quantized.
    pub format: Option<Fp8>,
    /// How the layer is quantized in full detail, if it is quantized and not frozen.
    pub recipe: Option<Recipe>,
    /// The format of the layer's input after the operation, if it is quantized.
    pub activations: Option<Fp8>,
    /// The format of the gradient of the layer's output after the operation, if it is quantized.
    pub gradients: Option<Fp8>,
    /// How far the weight's quantized values are from the original ones, if it was quantized or frozen.
    pub distortion: Option<Distortion>,
    /// Bytes of the weight's codes and scales, if it is quantized: its size once frozen.
    pub bytes_frozen: Option<usize>,
    /// Bytes of the weight before the operation.
    pub bytes_before: usize,
    /// Bytes of the weight after it. A layer that trains keeps its full-precision weight, so only freezing saves
    /// memory.
    pub bytes_after: usize,
}

/// Error and size of a layer's codes.
#[derive(Clone, Copy)]
pub(super) struct Measured {
    pub(super) distortion: Distortion,
    pub(super) bytes: usize,
}

impl Measured {
    /// Measures the codes of a weight as a matrix; `layout` is the order in which the layer would read them.
    pub(super) fn of(weight: &Tensor, codes: &Fp8Tensor, layout: Layout) -> Result<Self> {
        let distortion = Distortion::measure(&weight.detach().reshape(codes.shape())?, codes)?;
        Ok(Self { distortion, bytes: FixedWeight::bytes_of(codes, layout) })
    }
}

/// What was done to a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// It computes with quantized weights now.
    Quantized,
    /// It holds codes only now.
    Frozen,
    /// It has its full-precision weight back.
    Restored,
    /// It was left in the precision that it had, or put back into full precision.
    Skipped(SkipReason),
}

/// Why a layer was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SkipReason {
    /// `#[quant(skip)]` on the layer or an enclosing field.
    Attribute,
    /// The rule of this pattern says so.
    Rule(String),
    /// Its weight is also used at this path.
    Tied(String),
    /// Its weight is of a kind that cannot be quantized.
    Unsupported(String),
    /// Its path looks like that of an embedding, and no rule names it. Only a
    /// [`QuantizedVarBuilder`](crate::QuantizedVarBuilder) and
    /// [`Writer::quantize`](crate::checkpoint::Writer::quantize), which see no types, go by paths. The layer does not
    /// count as linear.
    Embedding,
    /// Its path looks like that of the router of experts, which even small errors can mislead, and no rule names it.
    /// Only [`Writer::quantize`](crate::checkpoint::Writer::quantize) goes by paths for routers.
    Router,
    /// There was nothing to freeze or to restore.
    NotQuantized,
}

impl QuantReport {
    /// The entry of the layer at `path`.
    #[must_use]
    pub fn layer(&self, path: &str) -> Option<&LayerReport> {
        self.layers.iter().find(|layer| layer.path == path)
    }

    /// Number of layers whose weight is quantized or frozen after the operation.
    #[must_use]
    pub fn quantized(&self) -> usize {
        self.layers.iter().filter(|layer| layer.format.is_some()).count()
    }

    /// All layers except those that were taken for embeddings.
    fn linear(&self) -> impl Iterator<Item = &LayerReport> {
        self.layers.iter().filter(|layer| layer.action != Action::Skipped(SkipReason::Embedding))
    }

    /// Bytes of all linear weights before the operation. A weight that several layers share counts for each.
    #[must_use]
    pub fn bytes_before(&self) -> usize {
        self.linear().map(|layer| layer.bytes_before).sum()
    }

    /// Bytes of all linear weights after the operation. A weight that several layers share counts for each.
    #[must_use]
    pub fn bytes_after(&self) -> usize {
        self.linear().map(|layer| layer.bytes_after).sum()
    }

    /// Bytes of all linear weights if every quantized layer were frozen. A weight that several layers share counts for
    /// each.
    #[must_use]
    pub fn bytes_frozen(&self) -> usize {
        self.linear().map(|layer| layer.bytes_frozen.unwrap_or(layer.bytes_after)).sum()
    }

    /// Mean signal-to-quantization-noise ratio of the layers that have one, in decibels.
    #[must_use]
    pub fn mean_sqnr_db(&self) -> Option<f64> {
        let ratios: Vec<f64> = self.layers.iter().filter_map(|layer| Some(layer.distortion?.sqnr_db)).collect();
        (!ratios.is_empty()).then(|| ratios.iter().sum::<f64>() / ratios.len() as f64)
    }
}

impl LayerReport {
    /// The format of the weights, or `weights/activations/gradients` if more than they are quantized.
    pub(super) fn formats_text(&self) -> String {
        let name = |format: Option<Fp8>| format.map_or_else(|| "–".to_owned(), |format| format.to_string());
        match (self.format, self.activations, self.gradients) {
            (None, ..) => String::new(),
            (Some(weights), None, None) => weights.to_string(),
            (weights, activations, gradients) => [weights, activations, gradients].map(name).join("/"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantized => f.write_str("quantized"),
            Self::Frozen => f.write_str("frozen"),
            Self::Restored => f.write_str("restored"),
            Self::Skipped(reason) => write!(f, "skipped: {reason}"),
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute => f.write_str("attribute"),
            Self::Rule(pattern) => write!(f, "rule {pattern}"),
            Self::Tied(path) => write!(f, "tied to {path}"),
            Self::Unsupported(why) => write!(f, "{why}"),
            Self::Embedding => f.write_str("embedding"),
            Self::Router => f.write_str("router"),
            Self::NotQuantized => f.write_str("not quantized"),
        }
    }
}

const COLUMNS: [Column; 9] = [
    Column::text("layer"),
    Column::text("action"),
    Column::text("shape").dispensable(3),
    Column::text("format"),
    Column::number("SQNR dB"),
    Column::number("max error").dispensable(2),
    Column::number("sat. %").dispensable(0),
    Column::number("to 0 %").dispensable(1),
    Column::number("bytes"),
];

impl fmt::Display for QuantReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |layer: &LayerReport| {
            let distortion = |cell: fn(Distortion) -> String| layer.distortion.map(cell).unwrap_or_default();
            vec![
                layer.path.clone(),
                layer.action.to_string(),
                shape_text(&layer.shape),
                layer.formats_text(),
                distortion(|d| format!("{:.1}", d.sqnr_db)),
                distortion(|d| format!("{:.1e}", d.max_abs_error)),
                distortion(|d| format!("{:.2}", 100.0 * d.saturated)),
                distortion(|d| format!("{:.2}", 100.0 * d.flushed_to_zero)),
                bytes_text(layer.bytes_before, layer.bytes_after),
            ]
        };
        write_table(f, &COLUMNS, &self.layers.iter().map(row).collect::<Vec<_>>())?;
        self.write_summary(f)
    }
}

impl QuantReport {
    /// The lines below a table.
    pub(super) fn write_summary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (self.bytes_before(), self.bytes_after());
        write!(f, "\n{} of {} layers quantized, ", self.quantized(), self.linear().count())?;
        write!(f, "linear weights {}", bytes_text(before, after))?;
        if self.bytes_frozen() != after {
            write!(f, " ({} once frozen)", human_bytes(self.bytes_frozen()))?;
        }
        if let Some(sqnr) = self.mean_sqnr_db() {
            write!(f, ", mean SQNR {sqnr:.1} dB")?;
        }
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

pub(super) fn bytes_text(before: usize, after: usize) -> String {
    if before == after { human_bytes(after) } else { format!("{} → {}", human_bytes(before), human_bytes(after)) }
}
