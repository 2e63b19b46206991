//! Backward passes that take the gradients of weights past candle's sums.

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use super::sink::{Sink, add, collect};
use crate::Result;

/// The gradients of all variables that a loss depends on: those of [`Tensor::backward`], bit for bit, in less time and
/// memory.
///
/// Candle makes zeros for each gradient and adds the gradient to them, which takes three buffers of the size of a
/// weight for one. Here, a layer's gradients of its weight and bias go into the result as they are. Whatever takes a
/// [`GradStore`] takes this one, such as every optimizer. Only where a variable is used by operations of candle *and*
/// more than once by layers of altgrad, its gradient may be summed in another order.
///
/// ```
/// use altgrad::{Quantizable, Recipe, nn};
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_nn::{AdamW, Optimizer, ParamsAdamW, VarBuilder, VarMap};
///
/// let variables = VarMap::new();
/// let mut layer = nn::linear(8, 4, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
/// layer.quantize(Recipe::tensorwise())?;
/// let mut optimizer = AdamW::new(variables.all_vars(), ParamsAdamW::default())?;
/// let x = Tensor::randn(0f32, 1.0, (16, 8), &Device::Cpu)?;
/// for _ in 0..3 {
///     let loss = layer.forward(&x)?.sqr()?.mean_all()?;
///     optimizer.step(&altgrad::backward(&loss)?)?;
/// }
/// # Ok::<(), altgrad::Error>(())
/// ```
///
/// # Errors
///
/// Those of the operations' backward passes.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    let mut gradients = GradStore::default();
    backward_into(loss, &mut gradients)?;
    Ok(gradients)
}

/// [`backward`] into the gradients of an earlier step, whose memory is written again: a step then needs no new memory
/// for the gradients of weights. What `gradients` held is lost, and tensors that were taken out of it change.
///
/// ```
/// # use altgrad::nn;
/// # use candle_core::{DType, Device, Module, Tensor};
/// # use candle_nn::{Optimizer, SGD, VarBuilder, VarMap};
/// # let variables = VarMap::new();
/// # let layer = nn::linear(8, 4, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
/// # let mut optimizer = SGD::new(variables.all_vars(), 0.1)?;
/// # let x = Tensor::randn(0f32, 1.0, (16, 8), &Device::Cpu)?;
/// let mut gradients = candle_core::backprop::GradStore::default();
/// for _ in 0..3 {
///     let loss = layer.forward(&x)?.sqr()?.mean_all()?;
///     altgrad::backward_into(&loss, &mut gradients)?;
///     optimizer.step(&gradients)?;
/// }
/// # Ok::<(), altgrad::Error>(())
/// ```
///
/// # Errors
///
/// Those of the operations' backward passes; then `gradients` is empty.
pub fn backward_into(loss: &Tensor, gradients: &mut GradStore) -> Result<()> {
    let mut sink = Sink::default();
    let old = std::mem::take(gradients);
    for id in old.get_ids() {
        if let Some(gradient) = old.get_id(*id) {
            sink.reusable.insert(*id, gradient.clone());
        }
    }
    drop(old);
    *gradients = run(loss, sink)?;
    Ok(())
}

/// Adds the gradients of a loss to those of others, in place: tensors that were taken out of `gradients` change.
///
/// The sum over micro-batches is the gradient of their losses' sum, so divide each loss by their number for the mean.
///
/// ```
/// # use altgrad::nn;
/// # use candle_core::{DType, Device, Module, Tensor};
/// # use candle_nn::{Optimizer, SGD, VarBuilder, VarMap};
/// # let variables = VarMap::new();
/// # let layer = nn::linear(8, 4, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
/// # let mut optimizer = SGD::new(variables.all_vars(), 0.1)?;
/// let batch = Tensor::randn(0f32, 1.0, (16, 8), &Device::Cpu)?;
/// let mut gradients = candle_core::backprop::GradStore::default();
/// for part in batch.chunk(4, 0)? {
///     let loss = (layer.forward(&part)?.sqr()?.mean_all()? / 4.0)?;
///     altgrad::accumulate(&loss, &mut gradients)?;
/// }
/// optimizer.step(&gradients)?;
/// # Ok::<(), altgrad::Error>(())
/// ```
///
/// # Errors
///
/// Those of the operations' backward passes; then `gradients` is as it was.
pub fn accumulate(loss: &Tensor, gradients: &mut GradStore) -> Result<()> {
    let new = run(loss, Sink::default())?;
    for id in new.get_ids() {
        let Some(gradient) = new.get_id(*id) else { continue };
        let sum = match gradients.get_id(*id) {
            Some(sum) => add(sum, gradient)?,
            None => gradient.clone(),
        };
        gradients.insert_id(*id, sum);
    }
    Ok(())
}

/// A backward pass with a sink.
fn run(loss: &Tensor, sink: Sink) -> Result<GradStore> {
    let (mut gradients, sink) = collect(sink, || Ok(loss.backward()?))?;
    for (id, gradient) in sink.found {
        // Operations of candle's may have used the variable as well.
        let gradient = match gradients.get_id(id) {
            Some(of_candle) => (of_candle + &gradient)?,
            None => gradient,
        };
        gradients.insert_id(id, gradient);
    }
    Ok(gradients)
}
