//! A node of candle's graph for a result on the CPU that is computed already.

use altgrad_kernels::lock::Lock;
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail};

/// The gradients of an input, a weight and a bias.
#[derive(Debug, Default)]
pub(super) struct Gradients {
    pub(super) x: Option<Tensor>,
    pub(super) w: Option<Tensor>,
    pub(super) bias: Option<Tensor>,
}

/// What a product depends on; a weight that is a constant is none of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arguments<'a> {
    pub(super) x: &'a Tensor,
    pub(super) w: Option<&'a Tensor>,
    pub(super) bias: Option<&'a Tensor>,
}

/// A tensor with these values and arguments, for whose gradients `backward` is called with the arguments and the gradient of
/// the result. Nothing is kept if no argument needs a gradient.
///
/// The graph gets this one node: candle adds each gradient on its way to zeros of its size, so nodes are not free.
pub(super) fn attach<B>(
    values: CpuStorage,
    shape: impl Into<Shape>,
    arguments: Arguments<'_>,
    backward: B,
) -> Result<Tensor>
where
    B: Fn(Arguments<'_>, &Tensor) -> Result<Gradients> + Send + Sync + 'static,
{
    let Arguments { x, w, bias } = arguments;
    let shape = shape.into();
    if ![Some(x), w, bias].into_iter().flatten().any(Tensor::track_op) {
        return Ok(Tensor::from_storage(Storage::Cpu(values), shape, BackpropOp::none(), false));
    }
    let node = Node { result: Lock::new(Some((values, shape))), has_weight: w.is_some(), backward };
    match (w, bias) {
        (None, None) => x.apply_op1(node),
        (Some(other), None) | (None, Some(other)) => x.apply_op2(other, node),
        (Some(w), Some(bias)) => x.apply_op3(w, bias, node),
    }
}

struct Node<B> {
    /// Until the forward pass has taken it.
    result: Lock<Option<(CpuStorage, Shape)>>,
    /// Whether the second of two arguments is the weight.
    has_weight: bool,
    backward: B,
}

impl<B> Node<B> {
    fn take(&self) -> Result<(CpuStorage, Shape)> {
        let Some(result) = self.result.replace(None) else { bail!("the product of a layer is computed once") };
        Ok(result)
    }
}

const NAME: &str = "fp8_linear";

impl<B: Fn(Arguments<'_>, &Tensor) -> Result<Gradients>> CustomOp1 for Node<B> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take()
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok((self.backward)(Arguments { x, w: None, bias: None }, dy)?.x)
    }
}

impl<B: Fn(Arguments<'_>, &Tensor) -> Result<Gradients>> CustomOp2 for Node<B> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take()
    }

    fn bwd(&self, x: &Tensor, other: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        if self.has_weight {
            let gradients = (self.backward)(Arguments { x, w: Some(other), bias: None }, dy)?;
            Ok((gradients.x, gradients.w))
        } else {
            let gradients = (self.backward)(Arguments { x, w: None, bias: Some(other) }, dy)?;
            Ok((gradients.x, gradients.bias))
        }
    }
}

impl<B: Fn(Arguments<'_>, &Tensor) -> Result<Gradients>> CustomOp3 for Node<B> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.take()
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradients = (self.backward)(Arguments { x, w: Some(w), bias: Some(bias) }, dy)?;
        Ok((gradients.x, gradients.w, gradients.bias))
    }
}
