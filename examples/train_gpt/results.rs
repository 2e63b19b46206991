//! The results, as a table and as JSON.

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::args::Args;
use crate::run::Run;
use crate::text::Text;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunResult {
    #[serde(flatten)]
    pub(crate) run: Run,
    /// In nats per byte.
    pub(crate) validation_loss: f64,
    /// Per byte.
    pub(crate) perplexity: f64,
    /// The difference in validation loss.
    pub(crate) difference_to_full_precision: Option<f64>,
    /// That difference as a fraction of the loss in full precision.
    pub(crate) relative_difference: Option<f64>,
    /// During training.
    pub(crate) tokens_per_second: f64,
    /// Of all linear layers except the tied head, after freezing those that are quantized.
    pub(crate) linear_weight_bytes: usize,
    /// Of the trained weights.
    pub(crate) mean_sqnr_db: Option<f64>,
    /// For training, evaluation and freezing.
    pub(crate) seconds: f64,
    /// In nats per byte, one value per step.
    pub(crate) train_losses: Vec<f32>,
}

#[derive(Serialize)]
pub(crate) struct Outcome<'a> {
    settings: Settings<'a>,
    results: Vec<RunResult>,
    /// The text that the best quantized model wrote after it was frozen.
    sample: Option<String>,
}

#[derive(Serialize)]
struct Settings<'a> {
    #[serde(flatten)]
    args: &'a Args,
    text: &'a str,
    training_bytes: usize,
    held_out_bytes: usize,
}

impl<'a> Outcome<'a> {
    pub(crate) fn new(args: &'a Args, text: &'a Text, results: Vec<RunResult>, sample: Option<String>) -> Self {
        let settings = Settings {
            args,
            text: text.source(),
            training_bytes: text.training_bytes(),
            held_out_bytes: text.held_out_bytes(),
        };
        Self { settings, results, sample }
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        let json = serde_json::to_string_pretty(self).context("writing the results as JSON")?;
        Ok(json + "\n")
    }
}

/// Fills in the difference of each loss from that of full precision, if that was trained.
pub(crate) fn compare(results: &mut [RunResult]) {
    let full = results.iter().find(|result| result.run.is_full()).map(|full| full.validation_loss);
    for result in results {
        result.difference_to_full_precision = full.map(|full| result.validation_loss - full);
        result.relative_difference = full.map(|full| (result.validation_loss - full) / full);
    }
}

/// A row for each run.
pub(crate) fn table(results: &[RunResult]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "recipe",
        "val. loss",
        "perplexity",
        "difference",
        "in %",
        "tokens/s",
        "linear weights",
        "mean SQNR",
    ]);
    for result in results {
        let text = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
        let compared = |difference: Option<f64>| difference.filter(|_| !result.run.is_full());
        table.add_row([
            result.run.name.clone(),
            format!("{:.4}", result.validation_loss),
            format!("{:.3}", result.perplexity),
            text(compared(result.difference_to_full_precision).map(|difference| format!("{difference:+.4}"))),
            text(compared(result.relative_difference).map(|fraction| format!("{:+.2}", 100.0 * fraction))),
            format!("{:.0}", result.tokens_per_second),
            format!("{} B", result.linear_weight_bytes),
            text(result.mean_sqnr_db.map(|sqnr| format!("{sqnr:.1} dB"))),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
