//! `QuantizedVarBuilder`: what it hands out, how that is chosen and reported, and training through it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests compare exact values and fail by panicking")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/llama.rs"]
mod small_llama;

mod choice;
mod families;
mod history;
mod ties;
mod training;
mod wrapping;

use std::collections::HashMap;

use altgrad::report::{Action, QuantReport, SkipReason};
use altgrad::{Linear, Quantizable, Quantizer, fake_quantize};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use common::{Numbers, sorted};

/// A model of one layer, as altgrad's own code would have it.
#[derive(Quantizable)]
struct Model {
    fc: Linear,
}

/// A builder over variables in `f32` on the CPU.
fn builder_of(variables: &VarMap) -> VarBuilder<'static> {
    VarBuilder::from_varmap(variables, DType::F32, &Device::Cpu)
}

/// Gives each variable values: around 1 for the weights of norms, around 0 for all else.
fn randomize(variables: &VarMap, seed: u64) {
    let numbers = Numbers::new(seed);
    for (name, variable) in sorted(variables) {
        let values = (numbers.tensor(variable.shape()) * 0.2).unwrap();
        let is_norm = variable.rank() == 1 && name.ends_with("weight");
        let values = if is_norm { (values + 1.0).unwrap() } else { values };
        variable.set(&values.to_dtype(variable.dtype()).unwrap()).unwrap();
    }
}

/// Variables under names, with values of this seed.
fn variables(shapes: &[(&str, &[usize])], seed: u64) -> VarMap {
    let variables = VarMap::new();
    for (name, shape) in shapes {
        builder_of(&variables).get(*shape, name).unwrap();
    }
    randomize(&variables, seed);
    variables
}

/// The variables' values as a plain map, in which those of the layers at `paths` are fake-quantized. Gradients reach
/// the variables.
fn by_hand(variables: &VarMap, paths: &[String], quantizer: &Quantizer) -> HashMap<String, Tensor> {
    let is_chosen = |name: &str| paths.iter().any(|path| name == format!("{path}.weight"));
    let entry = |(name, variable): (String, candle_core::Var)| {
        let tensor = variable.as_tensor().clone();
        let tensor = if is_chosen(&name) { fake_quantize(&tensor, quantizer).unwrap() } else { tensor };
        (name, tensor)
    };
    sorted(variables).into_iter().map(entry).collect()
}

/// The paths of quantized layers, in order.
fn quantized_paths(report: &QuantReport) -> Vec<&str> {
    let quantized = report.layers.iter().filter(|layer| layer.action == Action::Quantized);
    quantized.map(|layer| layer.path.as_str()).collect()
}

/// The paths of the other layers with their reasons.
fn skipped(report: &QuantReport) -> Vec<(&str, SkipReason)> {
    let reason = |action: &Action| match action {
        Action::Skipped(reason) => Some(reason.clone()),
        _ => None,
    };
    report.layers.iter().filter_map(|layer| Some((layer.path.as_str(), reason(&layer.action)?))).collect()
}

/// Bits, so that NaN and the sign of zero count.
fn bits(tensor: &Tensor) -> Vec<u64> {
    common::values(tensor).into_iter().map(f64::to_bits).collect()
}
