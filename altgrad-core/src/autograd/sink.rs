//! Where the gradients of variables go while one of altgrad's backward passes runs on this thread, past candle's.

use std::cell::RefCell;
use std::collections::HashMap;

use altgrad_kernels as kernels;
use altgrad_kernels::lock::Lock;
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Tensor, TensorId};

use super::{floats, tensor};
use crate::Result;

/// The gradients of a backward pass.
#[derive(Debug, Default)]
pub(super) struct Sink {
    /// Gradients of an earlier pass, whose memory is written again.
    pub(super) reusable: HashMap<TensorId, Tensor>,
    /// Gradients of this pass.
    pub(super) found: HashMap<TensorId, Tensor>,
}

thread_local! {
    /// That of the pass that runs on this thread: candle calls an operation's backward pass on the thread of its own.
    static SINK: RefCell<Option<Sink>> = const { RefCell::new(None) };
}

/// Runs a backward pass whose gradients of variables go to a sink, which comes back.
pub(super) fn collect<R>(sink: Sink, pass: impl FnOnce() -> Result<R>) -> Result<(R, Sink)> {
    /// Brings the sink of an outer pass back, however the inner one ends.
    struct Outer(Option<Sink>);
    impl Drop for Outer {
        fn drop(&mut self) {
            SINK.set(self.0.take());
        }
    }
    let outer = Outer(SINK.replace(Some(sink)));
    let result = pass();
    let sink = SINK.take().unwrap_or_default();
    drop(outer);
    Ok((result?, sink))
}

/// Takes the gradient of a variable; returns it if no pass of altgrad's runs.
pub(super) fn deposit(variable: &Tensor, gradient: Tensor) -> candle_core::Result<Option<Tensor>> {
    SINK.with_borrow_mut(|sink| {
        let Some(sink) = sink else { return Ok(Some(gradient)) };
        let gradient = match sink.found.get(&variable.id()) {
            Some(sum) => add(sum, &gradient)?,
            None => gradient,
        };
        sink.found.insert(variable.id(), gradient);
        Ok(None)
    })
}

/// Memory for the gradient of a variable, with the shape of the variable: that of an earlier pass, if there is any that
/// [`write`] can write to.
pub(crate) fn buffer(variable: &Tensor) -> Option<Tensor> {
    SINK.with_borrow_mut(|sink| {
        let found = sink.as_mut()?.reusable.remove(&variable.id())?;
        let fits = found.dtype() == DType::F32
            && found.device().is_cpu()
            && found.is_contiguous()
            && found.shape() == variable.shape();
        fits.then_some(found)
    })
}

/// Calls `function` with the elements of a contiguous `f32` tensor on the CPU, to be written.
pub(crate) fn write(tensor: &Tensor, function: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
    Ok(tensor.inplace_op1(&Write(Lock::new(Some(function))))?)
}

struct Write<F>(Lock<Option<F>>);

impl<F: FnOnce(&mut [f32]) -> Result<()>> InplaceOp1 for Write<F> {
    fn name(&self) -> &'static str {
        "altgrad"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        match (storage, layout.contiguous_offsets(), self.0.replace(None)) {
            (CpuStorage::F32(values), Some((start, end)), Some(function)) => Ok(function(&mut values[start..end])?),
            _ => candle_core::bail!("memory that is not of contiguous f32 elements"),
        }
    }
}

/// The sum of two gradients in memory of its own.
pub(super) fn sum(a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
    let has_kernel = |tensor: &Tensor| tensor.dtype() == DType::F32 && tensor.device().is_cpu();
    if has_kernel(a) && has_kernel(b) && a.dims() == b.dims() {
        let mut to = kernels::zeroed(a.elem_count());
        kernels::sum(&floats(a)?, &floats(b)?, &mut to);
        return Ok(tensor(to, a.shape(), DType::F32)?);
    }
    a + b
}

/// The sum of two gradients, in place of the first one where that is possible.
pub(super) fn add(sum: &Tensor, gradient: &Tensor) -> candle_core::Result<Tensor> {
    if sum.dtype() == DType::F32 && sum.device().is_cpu() && sum.is_contiguous() && sum.dims() == gradient.dims() {
        let from = floats(gradient)?;
        write(sum, |to| {
            kernels::add(to, &from);
            Ok(())
        })?;
        return Ok(sum.clone());
    }
    sum + gradient
}
