//! `Visit` for foreign types: the standard library's containers and values, and candle's types.
//!
//! Types that could hide a layer do not implement it.

mod candle;
mod std;

/// Parts without layers and tensors: nothing to show.
macro_rules! leaf {
    ($($type:ty),+ $(,)?) => {$(
        impl $crate::visit::Visit for $type {
            fn visit<'m>(
                &'m self,
                _: &$crate::visit::Path<'_>,
                _: &mut dyn $crate::visit::Visitor<'m>,
            ) -> $crate::Result<()> {
                Ok(())
            }

            fn visit_mut<'m>(
                &'m mut self,
                _: &$crate::visit::Path<'_>,
                _: &mut dyn $crate::visit::VisitorMut<'m>,
            ) -> $crate::Result<()> {
                Ok(())
            }
        }
    )+};
}
use leaf;
