//! Tensors that depend on others by an operation of altgrad.

use candle_core::op::BackpropOp;
use candle_core::{Result, Shape, Storage, Tensor};

use super::graph::{Computed, Gradients, Operation, Pending, apply};
use super::{link, sink};

/// What a backward pass gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass<'a> {
    /// The tensors that the result depends on.
    pub(crate) arguments: &'a [&'a Tensor],
    pub(crate) result: &'a Tensor,
    /// The gradient of the result.
    pub(crate) dy: &'a Tensor,
}

/// A tensor with this result and shape that depends on one to three arguments. `backward` is called for their
/// gradients; it must give one for each argument that needs one and is not a variable. Nothing is kept if no argument
/// needs a gradient.
pub(crate) fn attach<B>(result: Computed, shape: impl Into<Shape>, arguments: &[&Tensor], backward: B) -> Result<Tensor>
where
    B: Fn(Pass<'_>) -> crate::Result<Gradients> + Send + Sync + 'static,
{
    let shape = shape.into();
    if !arguments.iter().any(|argument| argument.track_op()) {
        return constant(result, shape);
    }
    if !arguments.iter().all(|argument| argument.device().is_cpu()) {
        return apply(Direct { result: Pending::new(result, shape), backward }, arguments);
    }
    let backward = move |pass: link::Pass<'_>| match (pass.results, pass.gradients) {
        ([result], [Some(dy)]) => backward(Pass { arguments: pass.arguments, result, dy }),
        _ => Ok(Gradients::default()),
    };
    link::attach([(result, shape)], arguments, backward).map(|[y]| y)
}

/// As [`attach`], for several results on the CPU: `backward` gets the gradients of those that have one.
pub(crate) fn attach_all<const N: usize, B>(
    results: [(Computed, Shape); N],
    arguments: &[&Tensor],
    backward: B,
) -> Result<[Tensor; N]>
where
    B: Fn(&[&Tensor], &[Option<Tensor>]) -> crate::Result<Gradients> + Send + Sync + 'static,
{
    if arguments.iter().any(|argument| argument.track_op()) {
        return link::attach(results, arguments, move |pass| backward(pass.arguments, pass.gradients));
    }
    let mut constants = Vec::with_capacity(N);
    for (result, shape) in results {
        constants.push(constant(result, shape)?);
    }
    constants.try_into().map_err(|_| candle_core::Error::Msg("as many tensors as results".to_owned()))
}

fn constant(result: Computed, shape: Shape) -> Result<Tensor> {
    match result {
        Computed::Cpu(values) => Ok(Tensor::from_storage(Storage::Cpu(values), shape, BackpropOp::none(), false)),
        Computed::Tensor(values) => values.reshape(shape),
    }
}

/// Gives the gradient of a variable to the pass of altgrad's that runs, if one does.
pub(super) fn for_candle(argument: &Tensor, gradient: Option<Tensor>) -> Result<Option<Tensor>> {
    match gradient {
        // Candle expects a gradient of what was computed, but a variable may do without.
        Some(gradient) if argument.is_variable() => sink::deposit(argument, gradient),
        gradient => Ok(gradient),
    }
}

/// An operation whose result is a node of candle's graph, on any device.
struct Direct<B> {
    result: Pending,
    backward: B,
}

impl<B> Operation for Direct<B>
where
    B: Fn(Pass<'_>) -> crate::Result<Gradients> + Send + Sync + 'static,
{
    fn result(&self) -> &Pending {
        &self.result
    }

    fn gradients(&self, arguments: &[&Tensor], result: &Tensor, dy: &Tensor) -> Result<Gradients> {
        let mut gradients = (self.backward)(Pass { arguments, result, dy })?;
        for (argument, gradient) in arguments.iter().zip(&mut gradients) {
            *gradient = for_candle(argument, gradient.take())?;
        }
        Ok(gradients)
    }
}
