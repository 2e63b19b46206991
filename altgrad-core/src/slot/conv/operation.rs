//! Convolutions as operations over operands.

use std::sync::Arc;

use candle_core::{Module, Tensor};
use candle_nn::{Conv1dConfig, Conv2dConfig};

use super::lowering::Convolution;
use crate::slot::{Evaluation, Operation};
use crate::{Error, Result, TensorError};

impl Operation for candle_nn::Conv1d {
    type Config = Conv1dConfig;

    const KIND: &'static str = "conv1d";

    fn config(&self) -> Conv1dConfig {
        *Self::config(self)
    }

    fn weight(&self) -> &Tensor {
        Self::weight(self)
    }

    fn bias(&self) -> Option<&Tensor> {
        Self::bias(self)
    }

    fn from_parts(config: Conv1dConfig, weight: Tensor, bias: Option<Tensor>) -> Self {
        Self::new(weight, bias, config)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(Module::forward(self, x)?)
    }

    fn evaluation(config: &Conv1dConfig, weight: &[usize]) -> Result<Evaluation> {
        let &[outputs, inputs, kernel] = weight else {
            return Err(not_a_weight("three dimensions, (outputs, inputs / groups, kernel)", weight));
        };
        let Conv1dConfig { padding, stride, dilation, groups, .. } = *config;
        product(Convolution {
            is_1d: true,
            outputs,
            inputs,
            groups,
            kernel: [1, kernel],
            stride: [1, stride],
            padding: [0, padding],
            dilation: [1, dilation],
        })
    }
}

impl Operation for candle_nn::Conv2d {
    type Config = Conv2dConfig;

    const KIND: &'static str = "conv2d";

    fn config(&self) -> Conv2dConfig {
        *Self::config(self)
    }

    fn weight(&self) -> &Tensor {
        Self::weight(self)
    }

    fn bias(&self) -> Option<&Tensor> {
        Self::bias(self)
    }

    fn from_parts(config: Conv2dConfig, weight: Tensor, bias: Option<Tensor>) -> Self {
        Self::new(weight, bias, config)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(Module::forward(self, x)?)
    }

    fn evaluation(config: &Conv2dConfig, weight: &[usize]) -> Result<Evaluation> {
        let &[outputs, inputs, height, width] = weight else {
            return Err(not_a_weight("four dimensions, (outputs, inputs / groups, height, width)", weight));
        };
        let Conv2dConfig { padding, stride, dilation, groups, .. } = *config;
        product(Convolution {
            is_1d: false,
            outputs,
            inputs,
            groups,
            kernel: [height, width],
            stride: [stride; 2],
            padding: [padding; 2],
            dilation: [dilation; 2],
        })
    }
}

fn product(convolution: Convolution) -> Result<Evaluation> {
    let Convolution { outputs, groups, stride, dilation, .. } = convolution;
    if groups == 0 || !outputs.is_multiple_of(groups) {
        let expected = format!("a number of outputs that is a multiple of {groups}, the number of groups");
        return Err(Error::Tensor(TensorError::ShapeMismatch { what: "the weight", expected, actual: vec![outputs] }));
    }
    if stride.contains(&0) || dilation.contains(&0) {
        let why = "a convolution with a stride or a dilation of 0; use 1 or more".to_owned();
        return Err(candle_core::Error::Msg(why).into());
    }
    Ok(Evaluation::Product(Arc::new(convolution)))
}

fn not_a_weight(expected: &str, actual: &[usize]) -> Error {
    Error::Tensor(TensorError::ShapeMismatch {
        what: "the weight",
        expected: expected.to_owned(),
        actual: actual.to_vec(),
    })
}
