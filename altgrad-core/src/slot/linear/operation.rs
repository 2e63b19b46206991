//! A linear layer as an operation over operands.

use std::sync::Arc;

use altgrad_kernels as kernels;
use candle_core::{DType, Module, Tensor};

use crate::autograd::{self, Pass, attach, floats, owned};
use crate::quantizer::{has_kernels, sum_rows};
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
        let arguments: Vec<&Tensor> =
            [Some(x), Some(Self::weight(self)), Self::bias(self)].into_iter().flatten().collect();
        if arguments.iter().any(|argument| argument.track_op()) && x.rank() >= 2 {
            return train(&arguments);
        }
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

/// The output for an input, a weight and maybe a bias, by candle's products, as one operation with the same gradients
/// as candle's: those are of reshaped, transposed and broadcast tensors, each of which takes a pass over memory or more.
fn train(arguments: &[&Tensor]) -> Result<Tensor> {
    let (x, weight) = (arguments[0], arguments[1].detach());
    let (outputs, inputs) = weight.dims2()?;
    let (dims, tokens) = output_dims(x.dims(), outputs);
    let rows = move |x: &Tensor| Ok::<_, Error>(x.detach().contiguous()?.reshape((tokens, inputs))?);
    let y = rows(x)?.matmul(&weight.t()?)?;
    let y = match arguments.get(2) {
        Some(bias) if has_kernels(y.dtype(), y.device()) && bias.dims() == [outputs] && y.dtype() == DType::F32 => {
            let bias = floats(bias)?;
            autograd::write(&y, |y| {
                kernels::add_bias(y, &bias);
                Ok(())
            })?;
            y
        }
        Some(bias) => y.broadcast_add(&bias.detach())?,
        None => y,
    };
    let backward = move |pass: Pass<'_>| {
        let (x, weight) = (pass.arguments[0], pass.arguments[1]);
        let bias = pass.arguments.get(2).filter(|bias| bias.track_op());
        let dy = pass.dy.detach().contiguous()?.reshape((tokens, outputs))?;
        let dx = || Ok::<_, Error>(dy.matmul(&weight.detach())?.reshape(x.dims())?);
        let dw = || Ok::<_, Error>(dy.t()?.matmul(&rows(x)?)?);
        Ok([
            x.track_op().then(dx).transpose()?,
            weight.track_op().then(dw).transpose()?,
            bias.map(|bias| Ok::<_, Error>(sum_rows(&dy)?.reshape(bias.dims())?)).transpose()?,
        ])
    };
    Ok(attach(owned(y)?, dims, arguments, backward)?)
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
