//! A node of candle's graph for a result that is already computed.

use altgrad_kernels::lock::Lock;
use candle_core::backend::BackendStorage;
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, MetalStorage, Result, Shape, Storage, Tensor,
    bail,
};

use super::sink;

/// A result before it is in the graph.
pub(crate) enum Computed {
    /// On the CPU, by a kernel.
    Cpu(CpuStorage),
    /// By candle's operations, detached from the graph.
    Tensor(Tensor),
}

/// What a backward pass gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass<'a> {
    /// The tensors that the result depends on.
    pub(crate) arguments: &'a [&'a Tensor],
    pub(crate) result: &'a Tensor,
    /// The gradient of the result.
    pub(crate) dy: &'a Tensor,
}

/// The gradients of up to three arguments, in their order.
pub(crate) type Gradients = [Option<Tensor>; 3];

/// A tensor with this result and shape that depends on one to three arguments. `backward` is called for their
/// gradients. Nothing is kept if no argument needs a gradient.
///
/// The graph gets only this one node. Nodes are not free: at each of them candle adds the gradient to zeros of its
/// size.
pub(crate) fn attach<B>(result: Computed, shape: impl Into<Shape>, arguments: &[&Tensor], backward: B) -> Result<Tensor>
where
    B: Fn(Pass<'_>) -> crate::Result<Gradients> + Send + Sync + 'static,
{
    let shape = shape.into();
    if !arguments.iter().any(|argument| argument.track_op()) {
        return match result {
            Computed::Cpu(values) => Ok(Tensor::from_storage(Storage::Cpu(values), shape, BackpropOp::none(), false)),
            Computed::Tensor(values) => values.reshape(shape),
        };
    }
    let node = Node { result: Lock::new(Some((result, shape))), backward };
    match *arguments {
        [a] => a.apply_op1(node),
        [a, b] => a.apply_op2(b, node),
        [a, b, c] => a.apply_op3(b, c, node),
        _ => bail!("an operation of {} arguments", arguments.len()),
    }
}

struct Node<B> {
    /// Until the forward pass has taken it.
    result: Lock<Option<(Computed, Shape)>>,
    backward: B,
}

impl<B> Node<B> {
    /// The storage of the result, of a kind that `pick` finds.
    fn take<S: BackendStorage>(
        &self,
        own: impl FnOnce(CpuStorage) -> Option<S>,
        pick: impl FnOnce(&Storage) -> Option<&S>,
    ) -> Result<(S, Shape)> {
        let Some((result, shape)) = self.result.replace(None) else { bail!("a result is computed once") };
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
            None => bail!("a result is on another device than its first argument"),
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

impl<B: Fn(Pass<'_>) -> crate::Result<Gradients>> Node<B> {
    fn gradients(&self, arguments: &[&Tensor], result: &Tensor, dy: &Tensor) -> Result<Gradients> {
        let mut gradients = (self.backward)(Pass { arguments, result, dy })?;
        for (argument, gradient) in arguments.iter().zip(&mut gradients) {
            // Candle expects a gradient of what was computed, but a variable may do without.
            if argument.is_variable()
                && let Some(found) = gradient.take()
            {
                *gradient = sink::deposit(argument, found)?;
            }
        }
        Ok(gradients)
    }
}

/// Implements an operation of candle for so many arguments.
macro_rules! operation {
    ($operation:ident, $gradients:ty, $some:pat => $taken:expr, $($argument:ident $storage:ident $layout:ident),+) => {
        impl<B: Fn(Pass<'_>) -> crate::Result<Gradients>> $operation for Node<B> {
            fn name(&self) -> &'static str {
                "altgrad"
            }

            fn cpu_fwd(&self, $($storage: &CpuStorage, $layout: &Layout),+) -> Result<(CpuStorage, Shape)> {
                $(let _ = ($storage, $layout);)+
                self.take_cpu()
            }

            fn cuda_fwd(&self, $($storage: &CudaStorage, $layout: &Layout),+) -> Result<(CudaStorage, Shape)> {
                $(let _ = ($storage, $layout);)+
                self.take_cuda()
            }

            fn metal_fwd(&self, $($storage: &MetalStorage, $layout: &Layout),+) -> Result<(MetalStorage, Shape)> {
                $(let _ = ($storage, $layout);)+
                self.take_metal()
            }

            fn bwd(&self, $($argument: &Tensor,)+ result: &Tensor, dy: &Tensor) -> Result<$gradients> {
                let $some = self.gradients(&[$($argument),+], result, dy)?;
                Ok($taken)
            }
        }
    };
}

operation!(CustomOp1, Option<Tensor>, [a, _, _] => a, a s1 l1);
operation!(CustomOp2, (Option<Tensor>, Option<Tensor>), [a, b, _] => (a, b), a s1 l1, b s2 l2);
operation!(
    CustomOp3,
    (Option<Tensor>, Option<Tensor>, Option<Tensor>),
    [a, b, c] => (a, b, c),
    a s1 l1, b s2 l2, c s3 l3
);
