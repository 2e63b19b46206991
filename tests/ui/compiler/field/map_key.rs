//! A map whose keys are no segments of a path.

use std::collections::HashMap;

use altgrad::{Linear, Quantizable};

#[derive(PartialEq, Eq, Hash)]
struct Key;

#[derive(Quantizable)]
struct Model {
    experts: HashMap<Key, Linear>,
}

fn main() {}
