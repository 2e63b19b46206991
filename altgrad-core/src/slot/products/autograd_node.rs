//! A node of candle's graph for a result that is already computed.

use altgrad_kernels::lock::Lock;
use candle_core::backend::BackendStorage;
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, MetalStorage, Result, Shape, Storage, Tensor,
    bail,
};

/// A result before it is in the graph.
pub(in crate::slot) enum Computed {
    /// On the CPU, by a kernel.
    Cpu(CpuStorage),
    /// By candle's operations, detached from the graph.
    Tensor(Tensor),
}

/// The gradients of an input, a weight and a bias.
#[derive(Debug, Default)]
pub(in crate::slot) struct Gradients {
    pub(in crate::slot) x: Option<Tensor>,
    pub(in crate::slot) w: Option<Tensor>,
    pub(in crate::slot) bias: Option<Tensor>,
}

/// The tensors that a result depends on; a constant weight is not among them.
#[derive(Clone, Copy, Debug)]
pub(in crate::slot) struct Arguments<'a> {
    pub(in crate::slot) x: &'a Tensor,
    pub(in crate::slot) w: Option<&'a Tensor>,
    pub(in crate::slot) bias: Option<&'a Tensor>,
}

/// A tensor with this result and shape that depends on these arguments. For their gradients, `backward` is called
/// with the arguments and the gradient of the result. Nothing is kept if no argument needs a gradient.
///
/// The graph gets only this one node. Nodes are not free: at each of them candle adds the gradient to zeros of its
/// size.
pub(in crate::slot) fn attach<B>(
    result: Computed,
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
        return match result {
            Computed::Cpu(values) => Ok(Tensor::from_storage(Storage::Cpu(values), shape, BackpropOp::none(), false)),
            Computed::Tensor(values) => values.reshape(shape),
        };
    }
    let node = Node { result: Lock::new(Some((result, shape))), has_weight: w.is_some(), backward };
    match (w, bias) {
        (None, None) => x.apply_op1(node),
        (Some(other), None) | (None, Some(other)) => x.apply_op2(other, node),
        (Some(w), Some(bias)) => x.apply_op3(w, bias, node),
    }
}

struct Node<B> {
    /// Until the forward pass has taken it.
    result: Lock<Option<(Computed, Shape)>>,
    /// Whether the second of two arguments is the weight.
    has_weight: bool,
    backward: B,
}

impl<B> Node<B> {
    /// The storage of the result, of a kind that `pick` finds.
    fn take<S: BackendStorage>(
        &self,
        own: impl FnOnce(CpuStorage) -> Option<S>,
        pick: impl FnOnce(&Storage) -> Option<&S>,
    ) -> Result<(S, Shape)> {
        let Some((result, shape)) = self.result.replace(None) else { bail!("the result of a layer is computed once") };
        let storage = match result {
            Computed::Cpu(values) => own(values),
            Computed::Tensor(values) => {
                let values = values.contiguous()?;
                let (storage, layout) = values.storage_and_layout();
                pick(&storage).map(|storage| storage.try_clone(layout)).transpose()?
            }
        };
        match storage {
            Some(storage) => Ok((storage, shape)),
            None => bail!("the result of a layer is on another device than its input"),
        }
    }

    fn take_cpu(&self) -> Result<(CpuStorage, Shape)> {
        self.take(Some, |storage| match storage {
            Storage::Cpu(storage) => Some(storage),
            _ => None,
        })
    }

    fn take_cuda(&self) -> Result<(CudaStorage, Shape)> {
        self.take(
            |_| None,
            |storage| match storage {
                Storage::Cuda(storage) => Some(storage),
                _ => None,
            },
        )
    }

    fn take_metal(&self) -> Result<(MetalStorage, Shape)> {
        self.take(
            |_| None,
            |storage| match storage {
                Storage::Metal(storage) => Some(storage),
                _ => None,
            },
        )
    }
}

const NAME: &str = "fp8_layer";

impl<B: Fn(Arguments<'_>, &Tensor) -> Result<Gradients>> CustomOp1 for Node<B> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.take_cuda()
    }

    fn metal_fwd(&self, _: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        self.take_metal()
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
        self.take_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.take_cuda()
    }

    fn metal_fwd(&self, _: &MetalStorage, _: &Layout, _: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        self.take_metal()
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
        self.take_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.take_cuda()
    }

    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        self.take_metal()
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
