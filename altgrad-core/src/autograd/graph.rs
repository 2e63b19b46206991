//! Operations of altgrad as candle's graph has them.

use altgrad_kernels::lock::Lock;
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, MetalStorage, Result, Shape, Storage, Tensor,
    bail,
};

/// A result before it is in the graph.
pub(crate) enum Computed {
    /// On the CPU, by a kernel.
    Cpu(CpuStorage),
    /// By candle's operations, detached from the graph.
    Tensor(Tensor),
}

/// The gradients of up to three arguments, in their order.
pub(crate) type Gradients = [Option<Tensor>; 3];

/// An operation of candle's graph.
pub(super) trait Operation: Send + Sync + 'static {
    /// The result, which is computed already.
    fn result(&self) -> &Pending;

    /// The gradients of arguments from that of the result.
    fn gradients(&self, arguments: &[&Tensor], result: &Tensor, dy: &Tensor) -> Result<Gradients>;
}

/// The result of an operation of one to three arguments.
pub(super) fn apply(operation: impl Operation, arguments: &[&Tensor]) -> Result<Tensor> {
    let node = Node(operation);
    match *arguments {
        [a] => a.apply_op1(node),
        [a, b] => a.apply_op2(b, node),
        [a, b, c] => a.apply_op3(b, c, node),
        _ => bail!("an operation of {} arguments", arguments.len()),
    }
}

/// A result until candle's forward pass takes it.
pub(super) struct Pending(Lock<Option<(Computed, Shape)>>);

impl Pending {
    pub(super) fn new(result: Computed, shape: Shape) -> Self {
        Self(Lock::new(Some((result, shape))))
    }

    /// The storage of the result, of a kind that `pick` finds.
    fn take<S: BackendStorage>(
        &self,
        own: impl FnOnce(CpuStorage) -> Option<S>,
        pick: impl FnOnce(&Storage) -> Option<&S>,
    ) -> Result<(S, Shape)> {
        let Some((result, shape)) = self.0.replace(None) else { bail!("a result is computed once") };
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

struct Node<O>(O);

/// Implements an operation of candle for so many arguments.
macro_rules! operation {
    ($operation:ident, $gradients:ty, $some:pat => $taken:expr, $($argument:ident $storage:ident $layout:ident),+) => {
        impl<O: Operation> $operation for Node<O> {
            fn name(&self) -> &'static str {
                "altgrad"
            }

            fn cpu_fwd(&self, $($storage: &CpuStorage, $layout: &Layout),+) -> Result<(CpuStorage, Shape)> {
                $(let _ = ($storage, $layout);)+
                self.0.result().take_cpu()
            }

            fn cuda_fwd(&self, $($storage: &CudaStorage, $layout: &Layout),+) -> Result<(CudaStorage, Shape)> {
                $(let _ = ($storage, $layout);)+
                self.0.result().take_cuda()
            }

            fn metal_fwd(&self, $($storage: &MetalStorage, $layout: &Layout),+) -> Result<(MetalStorage, Shape)> {
                $(let _ = ($storage, $layout);)+
                self.0.result().take_metal()
            }

            fn bwd(&self, $($argument: &Tensor,)+ result: &Tensor, dy: &Tensor) -> Result<$gradients> {
                let $some = self.0.gradients(&[$($argument),+], result, dy)?;
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
