//! `AnySlot` is for slots: what else implements it could forget an operation.

use altgrad::AnySlot;

#[derive(Debug)]
struct Mine;

fn show(_: &dyn AnySlot) {}

fn main() {
    show(&Mine);
}
