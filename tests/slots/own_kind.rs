//! Kinds of slot that are defined outside of altgrad: one that is computed by its own forward pass, and one that is a
//! product of matrices.

use std::sync::Arc;

use altgrad::{Error, Evaluation, Lowering, Operation, Result, TensorError};
use candle_core::Tensor;

/// The projection of GPT-2, whose weight is `(inputs, outputs)`.
#[derive(Clone, Debug)]
pub(crate) struct Transposed {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
}

impl Operation for Transposed {
    type Config = ();

    const KIND: &'static str = "transposed linear";

    fn config(&self) {}

    fn weight(&self) -> &Tensor {
        &self.weight
    }

    fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    fn from_parts((): (), weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.broadcast_matmul(&self.weight)?;
        match &self.bias {
            Some(bias) => Ok(y.broadcast_add(bias)?),
            None => Ok(y),
        }
    }

    fn evaluation((): &(), weight: &[usize]) -> Result<Evaluation> {
        if weight.len() == 2 {
            return Ok(Evaluation::Values);
        }
        let expected = "(inputs, outputs)".to_owned();
        Err(Error::Tensor(TensorError::ShapeMismatch { what: "the weight", expected, actual: weight.to_vec() }))
    }
}

/// The embedding of the patches of an image as a vision transformer has it: pieces of a vector, multiplied by a matrix.
#[derive(Clone, Debug)]
pub(crate) struct Patches {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
    pub(crate) count: usize,
}

impl Operation for Patches {
    /// Number of pieces.
    type Config = usize;

    const KIND: &'static str = "patches";

    fn config(&self) -> usize {
        self.count
    }

    fn weight(&self) -> &Tensor {
        &self.weight
    }

    fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    fn from_parts(count: usize, weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias, count }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (images, length) = x.dims2()?;
        let y = x.reshape((images * self.count, length / self.count))?.matmul(&self.weight.t()?)?;
        let y = y.reshape((images, self.count, self.weight.dim(0)?))?;
        match &self.bias {
            Some(bias) => Ok(y.broadcast_add(bias)?),
            None => Ok(y),
        }
    }

    fn evaluation(count: &usize, weight: &[usize]) -> Result<Evaluation> {
        let &[outputs, inputs] = weight else {
            let expected = "(outputs, inputs)".to_owned();
            return Err(Error::Tensor(TensorError::ShapeMismatch {
                what: "the weight",
                expected,
                actual: weight.to_vec(),
            }));
        };
        Ok(Evaluation::Product(Arc::new(Pieces { count: *count, outputs, inputs })))
    }
}

#[derive(Debug)]
struct Pieces {
    count: usize,
    outputs: usize,
    inputs: usize,
}

impl Lowering for Pieces {
    fn check_input(&self, x: &Tensor) -> Result<()> {
        if matches!(x.dims(), [_, length] if *length == self.count * self.inputs) {
            return Ok(());
        }
        let expected = format!("(images, {})", self.count * self.inputs);
        Err(Error::Tensor(TensorError::ShapeMismatch { what: "the input", expected, actual: x.dims().to_vec() }))
    }

    fn input(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.contiguous()?.reshape((x.dim(0)? * self.count, self.inputs))?)
    }

    fn input_gradient(&self, dx: Tensor, x: &[usize]) -> Result<Tensor> {
        Ok(dx.reshape(x)?)
    }

    fn weight_shape(&self) -> (usize, usize) {
        (self.outputs, self.inputs)
    }

    fn result_dims(&self, x: &[usize], _: (usize, usize)) -> Vec<usize> {
        vec![x.first().copied().unwrap_or_default(), self.count, self.outputs]
    }

    fn output(&self, y: Tensor, _: &[usize]) -> Result<Tensor> {
        Ok(y)
    }
}

/// A `Lowering` that contradicts itself is an error, not a product of other numbers.
#[test]
fn what_a_lowering_says_is_checked() {
    use altgrad::Quantized;
    use candle_core::Module;

    /// Says that the weight is the transpose of what it is, that there are other groups, or makes other rows than it
    /// says.
    #[derive(Clone, Debug)]
    struct Wrong(Tensor, Fault);

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fault {
        Weight,
        NoGroups,
        Groups,
        Rows,
    }

    #[derive(Debug)]
    struct WrongLowering(Fault);

    impl Operation for Wrong {
        type Config = Fault;
        const KIND: &'static str = "wrong";

        fn config(&self) -> Fault {
            self.1
        }

        fn weight(&self) -> &Tensor {
            &self.0
        }

        fn bias(&self) -> Option<&Tensor> {
            None
        }

        fn from_parts(fault: Fault, weight: Tensor, _: Option<Tensor>) -> Self {
            Self(weight, fault)
        }

        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            Ok(x.matmul(&self.0.t()?)?)
        }

        fn evaluation(fault: &Fault, _: &[usize]) -> Result<Evaluation> {
            Ok(Evaluation::Product(Arc::new(WrongLowering(*fault))))
        }
    }

    impl Lowering for WrongLowering {
        fn check_input(&self, _: &Tensor) -> Result<()> {
            Ok(())
        }

        fn input(&self, x: &Tensor) -> Result<Tensor> {
            Ok(if self.0 == Fault::Rows { x.t()?.contiguous()? } else { x.clone() })
        }

        fn input_gradient(&self, dx: Tensor, _: &[usize]) -> Result<Tensor> {
            Ok(dx)
        }

        fn weight_shape(&self) -> (usize, usize) {
            if self.0 == Fault::Weight { (4, 6) } else { (6, 4) }
        }

        fn groups(&self) -> usize {
            match self.0 {
                Fault::NoGroups => 0,
                Fault::Groups => 4,
                Fault::Weight | Fault::Rows => 1,
            }
        }

        fn output(&self, y: Tensor, _: &[usize]) -> Result<Tensor> {
            Ok(y)
        }
    }

    let weight = super::tensor((6, 4), 1);
    for fault in [Fault::Weight, Fault::NoGroups, Fault::Groups] {
        let error = Quantized::new(Wrong(weight.clone(), fault), altgrad::Fp8::E4M3).unwrap_err().to_string();
        assert!(error.contains("the weight has shape [6, 4]"), "{fault:?}: {error}");
    }
    let layer = Quantized::new(Wrong(weight, Fault::Rows), altgrad::Fp8::E4M3).unwrap();
    let error = layer.forward(&super::tensor((3, 4), 2)).unwrap_err().to_string();
    assert!(error.contains("the lowered input has shape [4, 3]"), "{error}");
}
