//! Shared and boxed modules, which hide their layers.

use std::sync::Arc;

use altgrad::Quantizable;
use candle_core::Module;

#[derive(Quantizable)]
struct Model {
    shared: Arc<dyn Module>,
    boxed: Box<dyn Module>,
    function: candle_nn::Func<'static>,
}

fn main() {}
