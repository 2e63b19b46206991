//! A layer that two places share, and one behind a lock.

use std::sync::{Arc, Mutex};

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model {
    shared: Arc<Linear>,
    locked: Mutex<Linear>,
    borrowed: &'static Linear,
}

fn main() {}
