//! A linear layer as an operation over operands.

use std::sync::Arc;

use candle_core::{Module, Tensor};

use crate::slot::{Evaluation, Lowering, Operation};
use crate::{Error, Result, TensorError};

impl Operation for candle_nn::Linear {
    type Config = ();

    const KIND: &'static str = "linear";

    fn config(&self) {}

    fn weight(&self) -> &Tensor {
        Self::weight(self)
    }

    fn bias(&self) -> Option<&Tensor> {
        Self::bias(self)
    }

    fn from_parts((): (), weight: Tensor, bias: Option<Tensor>) -> Self {
        Self::new(weight, bias)
    }

    /// Flattens the input first: candle's own layer multiplies batches without making them contiguous, and its matrix
    /// product (0.11) then mistakes their strides for those of one matrix. A transposed input of three dimensions
    /// would give wrong results, and one of more dimensions an error.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.rank() <= 2 {
            return Ok(Module::forward(self, x)?);
        }
        let (outputs, inputs) = Self::weight(self).dims2()?;
        let (dims, tokens) = output_dims(x.dims(), outputs);
        Ok(Module::forward(self, &x.contiguous()?.reshape((tokens, inputs))?)?.reshape(dims)?)
    }

    fn evaluation((): &(), weight: &[usize]) -> Result<Evaluation> {
        let [outputs, inputs] = *weight else {
            let expected = "two dimensions, (outputs, inputs)".to_owned();
            return Err(Error::Tensor(TensorError::ShapeMismatch {
                what: "the weight",
                expected,
                actual: weight.to_vec(),
            }));
        };
        Ok(Evaluation::Product(Arc::new(Rows { outputs, inputs })))
    }
}

/// The lowering of a linear layer: the input's rows, unchanged.
#[derive(Debug)]
struct Rows {
    outputs: usize,
    inputs: usize,
}

impl Lowering for Rows {
    fn check_input(&self, x: &Tensor) -> Result<()> {
        let inputs = self.inputs;
        if x.rank() < 2 || x.dims().last() != Some(&inputs) {
            let expected = format!("(…, {inputs}) with at least two dimensions");
            return Err(Error::Tensor(TensorError::ShapeMismatch {
                what: "the input",
                expected,
                actual: x.dims().to_vec(),
            }));
        }
        Ok(())
    }

    fn input(&self, x: &Tensor) -> Result<Tensor> {
        let (_, tokens) = output_dims(x.dims(), self.outputs);
        Ok(x.contiguous()?.reshape((tokens, self.inputs))?)
    }

    fn input_gradient(&self, dx: Tensor, x: &[usize]) -> Result<Tensor> {
        Ok(dx.reshape(x)?)
    }

    fn weight_shape(&self) -> (usize, usize) {
        (self.outputs, self.inputs)
    }

    fn result_dims(&self, x: &[usize], _: (usize, usize)) -> Vec<usize> {
        output_dims(x, self.outputs).0
    }

    fn output(&self, y: Tensor, _: &[usize]) -> Result<Tensor> {
        Ok(y)
    }
}

/// The dimensions of the output for an input of `(…, inputs)`, and the number of rows of both.
fn output_dims(x: &[usize], outputs: usize) -> (Vec<usize>, usize) {
    let mut dims = x.to_vec();
    dims.pop();
    let tokens = dims.iter().product();
    dims.push(outputs);
    (dims, tokens)
}
