//! A parameter that the field's own impl does not need: the way out is `bound`.

use altgrad::{Quantizable, Result};
use altgrad::visit::{Path, Visit, Visitor, VisitorMut};

struct Always<T>(T);

impl<T> Visit for Always<T> {
    fn visit<'m>(&'m self, _: &Path<'_>, _: &mut dyn Visitor<'m>) -> Result<()> {
        Ok(())
    }
    fn visit_mut<'m>(&'m mut self, _: &Path<'_>, _: &mut dyn VisitorMut<'m>) -> Result<()> {
        Ok(())
    }
}

#[derive(Quantizable)]
struct Model<T> {
    always: Always<T>,
}

struct Opaque;

fn main() {
    let _ = Model { always: Always(Opaque) }.layers();
}
