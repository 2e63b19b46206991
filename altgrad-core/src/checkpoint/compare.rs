//! Compares the tensors of one checkpoint with those of another.

use std::collections::BTreeSet;
use std::fmt;

use candle_core::{DType, Device};
use serde::Serialize;

use super::reader::Checkpoint;
use crate::model::{Column, natural_order, shape_text, write_table};
use crate::quantizer::sqnr_db;
use crate::{Error, Result};

/// How far the tensors of one checkpoint are from those of another; returned by [`compare`].
///
/// `Display` prints a table of at most 100 characters per line, or of the width given in the format string:
/// `{comparison:160}`. If the table would be wider, columns are left out, but names are never broken; JSON has all
/// columns.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The tensors that both have, in the order of their names.
    pub tensors: Vec<TensorComparison>,
    /// The names that only the first has.
    pub only_in_first: Vec<String>,
    /// The names that only the second has.
    pub only_in_second: Vec<String>,
}

/// How far a tensor is from another.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TensorComparison {
    /// The name in both checkpoints.
    pub name: String,
    /// The shape in both checkpoints.
    pub shape: Vec<usize>,
    /// Signal-to-quantization-noise ratio, `10 log10(Σ a² / Σ (a - b)²)`, in decibels, with `a` from the first
    /// checkpoint; infinite if the tensors are equal, which is null in JSON.
    pub sqnr_db: f64,
    /// Largest `|a - b|`.
    pub max_abs_error: f64,
    /// Number of elements whose bits differ.
    pub differing: usize,
}

/// Compares the values of all tensors that two checkpoints have in common, dequantized to `f32`, one at a time.
///
/// # Errors
///
/// A tensor that cannot be read, or that has another shape in the second checkpoint.
pub fn compare(first: &Checkpoint, second: &Checkpoint) -> Result<Comparison> {
    let [names, others] = [first, second].map(|checkpoint| checkpoint.names().collect::<BTreeSet<_>>());
    let only = |some: &BTreeSet<&str>, others: &BTreeSet<&str>| {
        some.difference(others).map(|name| (*name).to_owned()).collect::<Vec<_>>()
    };
    let mut common: Vec<&str> = names.intersection(&others).copied().collect();
    common.sort_by(|a, b| natural_order(a, b));
    let tensors = common.into_iter().map(|name| compare_tensor(first, second, name)).collect::<Result<_>>()?;
    Ok(Comparison { tensors, only_in_first: only(&names, &others), only_in_second: only(&others, &names) })
}

fn compare_tensor(first: &Checkpoint, second: &Checkpoint, name: &str) -> Result<TensorComparison> {
    let load = |checkpoint: &Checkpoint| {
        let tensor = checkpoint.tensor(name, DType::F32, &Device::Cpu)?;
        Ok::<_, Error>((tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1::<f32>()?))
    };
    let ((shape, a), (other, b)) = (load(first)?, load(second)?);
    if shape != other {
        return Err(second
            .shards()
            .invalid(name, format!("has shape {other:?}, but {shape:?} in the first checkpoint")));
    }
    let (mut signal, mut noise, mut max_abs_error, mut differing) = (0f64, 0f64, 0f64, 0);
    for (a, b) in a.into_iter().zip(b) {
        signal += f64::from(a) * f64::from(a);
        // Elements with equal bits count as equal, even if they are infinite or NaN.
        if a.to_bits() != b.to_bits() {
            let error = (f64::from(a) - f64::from(b)).abs();
            noise += error * error;
            // `max` would ignore NaN.
            max_abs_error = if error.is_nan() || error > max_abs_error { error } else { max_abs_error };
            differing += 1;
        }
    }
    Ok(TensorComparison { name: name.to_owned(), shape, sqnr_db: sqnr_db(signal, noise), max_abs_error, differing })
}

const COLUMNS: [Column; 5] = [
    Column::text("tensor"),
    Column::text("values"),
    Column::number("shape").dispensable(0),
    Column::number("SQNR dB"),
    Column::number("max error"),
];

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let row = |tensor: &TensorComparison| {
            let is_equal = tensor.differing == 0;
            let unless_equal = |text: String| if is_equal { String::new() } else { text };
            vec![
                tensor.name.clone(),
                if is_equal { "equal" } else { "differ" }.to_owned(),
                shape_text(&tensor.shape),
                unless_equal(format!("{:.1}", tensor.sqnr_db)),
                unless_equal(format!("{:.1e}", tensor.max_abs_error)),
            ]
        };
        write_table(f, &COLUMNS, &self.tensors.iter().map(row).collect::<Vec<_>>())?;
        let equal = self.tensors.iter().filter(|tensor| tensor.differing == 0).count();
        write!(f, "\n{} tensors in both, {equal} of them equal", self.tensors.len())?;
        for (what, names) in [("first", &self.only_in_first), ("second", &self.only_in_second)] {
            if !names.is_empty() {
                let more = if names.len() > SHOWN { ", …" } else { "" };
                let shown = names[..names.len().min(SHOWN)].join(", ");
                write!(f, "\n{} only in the {what}: {shown}{more}", names.len())?;
            }
        }
        Ok(())
    }
}
