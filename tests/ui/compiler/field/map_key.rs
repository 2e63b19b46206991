//! A map whose keys are no strings.

use std::collections::HashMap;

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model {
    experts: HashMap<usize, Linear>,
}

fn main() {}
