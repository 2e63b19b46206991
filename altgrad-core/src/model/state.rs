//! What the quantizers of a model remember from step to step, as named tensors.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use super::Visit;
use super::inspect::{Inspection, Slots, below, check_same_paths, nearest};
use crate::quantizer::{AmaxHistory, Operand, Quantizer, QuantizerState, Scaling};
use crate::slot::{AnySlot, Quantization, Recipe, SlotState};
use crate::{Error, ModelError, Result};

const STEP: &str = "step";
const HISTORY: &str = "amax_history";
const SCALE: &str = "scale";

pub(super) fn save<M: Visit + ?Sized>(model: &M) -> Result<HashMap<String, Tensor>> {
    let mut tensors = HashMap::new();
    for visited in Inspection::of(model)?.slots {
        let Some(layer) = visited.slot.quantization() else { continue };
        for (operand, quantizer) in layer.operands.quantized(&layer.recipe) {
            let state = operand.state();
            let mut save = |name, tensor| tensors.insert(key(&visited.path, operand.name, name), tensor);
            save(STEP, Tensor::new(state.step as i64, &Device::Cpu)?);
            if !state.history.is_empty() {
                save(HISTORY, Tensor::from_iter(state.history.iter(), &Device::Cpu)?);
            }
            if let Some(scale) = quantizer.scaling.static_scale() {
                save(SCALE, Tensor::new(scale, &Device::Cpu)?);
            }
        }
    }
    Ok(tensors)
}

pub(super) fn load<M: Visit + ?Sized>(model: &mut M, tensors: &HashMap<String, Tensor>) -> Result<()> {
    let mut rest: HashMap<&str, &Tensor> = tensors.iter().map(|(key, tensor)| (key.as_str(), tensor)).collect();
    let mut loaded = Vec::new();
    for visited in Inspection::of(&*model)?.slots {
        let Some(layer) = visited.slot.quantization() else {
            refuse(&rest, &visited.path, visited.slot)?;
            loaded.push((visited.path, Vec::new()));
            continue;
        };
        let take = |(operand, quantizer)| Loaded::take(&mut rest, &visited.path, operand, quantizer);
        let states = layer.operands.quantized(&layer.recipe).map(take).collect::<Result<Vec<_>>>();
        let states = states.map_err(|error| error.at(&visited.path))?;
        loaded.push((visited.path, states));
    }
    let mut unknown: Vec<&str> = rest.into_keys().collect();
    unknown.sort_unstable();
    if let Some(key) = unknown.first() {
        let known = save(&*model)?;
        return Err(Error::Model(ModelError::UnknownState {
            key: (*key).to_owned(),
            nearest: nearest(key, known.keys().map(String::as_str)),
        }));
    }
    let slots = Slots::of(model)?.0;
    check_same_paths(loaded.iter().map(|(path, _)| path.as_str()), slots.iter().map(|(path, _)| path.as_str()))?;
    // Nothing can fail any more.
    for ((_, states), (_, slot)) in loaded.into_iter().zip(slots) {
        if let Some(layer) = slot.quantization_mut() {
            put_back(layer, states);
        }
    }
    Ok(())
}

/// Fails if there is state for a layer that cannot have any.
fn refuse(tensors: &HashMap<&str, &Tensor>, path: &str, slot: &dyn AnySlot) -> Result<()> {
    let keys = Recipe::ROLES.into_iter().flat_map(|role| [STEP, HISTORY, SCALE].map(|name| key(path, role, name)));
    let Some(key) = keys.into_iter().find(|key| tensors.contains_key(key.as_str())) else { return Ok(()) };
    let why = match slot.state() {
        SlotState::Frozen => "the layer is frozen and remembers no steps; load the state before `freeze`",
        SlotState::Full | SlotState::Quantized => {
            "the layer is in full precision; `quantize` the model first, by the config that it had when the state was \
             saved"
        }
    };
    Err(invalid(&key, why.to_owned()).at(path))
}

fn put_back(layer: &mut Quantization, states: Vec<Loaded>) {
    for Loaded { name, state, scale } in states {
        if let Some(operand) = layer.operands.all().into_iter().find(|operand| operand.name == name) {
            operand.set_state(state);
        }
        let quantizer = layer.recipe.quantizers_mut().into_iter().find(|(role, _)| *role == name);
        if let (Some(scale), Some((_, Some(quantizer)))) = (scale, quantizer) {
            quantizer.scaling = Scaling::Static(scale);
        }
    }
    // They were computed under the old state.
    layer.forget_codes();
}

/// The new state of one quantizer.
struct Loaded {
    name: &'static str,
    state: QuantizerState,
    scale: Option<f32>,
}

impl Loaded {
    fn take(rest: &mut HashMap<&str, &Tensor>, path: &str, operand: &Operand, quantizer: &Quantizer) -> Result<Self> {
        let mut take = |name| {
            let key = key(path, operand.name, name);
            let tensor = rest.remove(key.as_str());
            (key, tensor)
        };
        let scale = match (take(SCALE), quantizer.scaling.static_scale()) {
            ((key, None), Some(_)) => return Err(Error::Model(ModelError::MissingState { key })),
            ((_, None), _) => None,
            ((key, Some(tensor)), _) => {
                let scale = one::<f32>(&key, tensor, DType::F32)?;
                let fixed = quantizer.clone().scaling(Scaling::Static(scale));
                fixed.validate().map_err(|error| invalid(&key, error.to_string()))?;
                Some(scale)
            }
        };
        let step = match take(STEP) {
            (key, None) => return Err(Error::Model(ModelError::MissingState { key })),
            (key, Some(tensor)) => {
                let step = one::<i64>(&key, tensor, DType::I64)?;
                u64::try_from(step).map_err(|_| invalid(&key, format!("{step} is not a number of steps")))?
            }
        };
        let quantizer = match scale {
            Some(scale) => quantizer.clone().scaling(Scaling::Static(scale)),
            None => quantizer.clone(),
        };
        let mut history = quantizer.history();
        if let (key, Some(tensor)) = take(HISTORY) {
            fill(&mut history, &key, tensor)?;
        }
        Ok(Self { name: operand.name, state: QuantizerState { history, step }, scale })
    }
}

fn fill(history: &mut AmaxHistory, key: &str, tensor: &Tensor) -> Result<()> {
    if tensor.dtype() != DType::F32 || tensor.rank() != 1 {
        let actual = format!("{:?} of shape {:?}", tensor.dtype(), tensor.dims());
        return Err(invalid(key, format!("it is {actual}, expected F32 of one dimension")));
    }
    let values = tensor.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
    if let Some(value) = values.iter().find(|value| !(value.is_finite() && value.is_sign_positive())) {
        return Err(invalid(key, format!("{value} is not a largest magnitude")));
    }
    // If the history is longer than the recipe looks back, only the last steps are kept.
    for value in values {
        history.record(value);
    }
    Ok(())
}

/// The only element of a scalar.
fn one<T: candle_core::WithDType>(key: &str, tensor: &Tensor, dtype: DType) -> Result<T> {
    if tensor.dtype() != dtype || tensor.elem_count() != 1 {
        let actual = format!("{:?} of shape {:?}", tensor.dtype(), tensor.dims());
        return Err(invalid(key, format!("it is {actual}, expected one {dtype:?}")));
    }
    Ok(tensor.to_device(&Device::Cpu)?.reshape(())?.to_scalar()?)
}

fn invalid(key: &str, why: String) -> Error {
    Error::Model(ModelError::InvalidState { key: key.to_owned(), why })
}

/// `h.0.mlp.c_fc.activations.step`, for example.
fn key(path: &str, role: &str, name: &str) -> String {
    format!("{}.{name}", below(path, role))
}
