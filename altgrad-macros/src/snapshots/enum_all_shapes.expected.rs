// enum Layer {
//     Unit,
//     NoFields {},
//     Newtype(Linear),
//     Tuple(Linear, #[quant(ignore)] Config, Linear),
//     Named { up: Linear, #[quant(ignore)] size: usize, down: Linear },
//     #[allow(dead_code)]
//     Ignored(#[quant(ignore)] Config),
// }

const _: () = {
    #[automatically_derived]
    #[allow(dead_code)]
    impl ::altgrad::visit::Visit for Layer {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            match self {
                Self::Unit { .. } => {}
                Self::NoFields { .. } => {}
                Self::Newtype { 0: __field0 } => {
                    <Linear as ::altgrad::visit::Visit>::visit(
                        __field0,
                        &::altgrad::visit::Path::transparent(__path),
                        __visitor,
                    )?;
                }
                Self::Tuple { 0: __field0, 2: __field2, .. } => {
                    <Linear as ::altgrad::visit::Visit>::visit(
                        __field0,
                        &::altgrad::visit::Path::index(__path, 0),
                        __visitor,
                    )?;
                    <Linear as ::altgrad::visit::Visit>::visit(
                        __field2,
                        &::altgrad::visit::Path::index(__path, 2),
                        __visitor,
                    )?;
                }
                Self::Named { up: __field0, down: __field2, .. } => {
                    <Linear as ::altgrad::visit::Visit>::visit(
                        __field0,
                        &::altgrad::visit::Path::field(__path, "up"),
                        __visitor,
                    )?;
                    <Linear as ::altgrad::visit::Visit>::visit(
                        __field2,
                        &::altgrad::visit::Path::field(__path, "down"),
                        __visitor,
                    )?;
                }
                Self::Ignored { .. } => {}
            }
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            match self {
                Self::Unit { .. } => {}
                Self::NoFields { .. } => {}
                Self::Newtype { 0: __field0 } => {
                    <Linear as ::altgrad::visit::Visit>::visit_mut(
                        __field0,
                        &::altgrad::visit::Path::transparent(__path),
                        __visitor,
                    )?;
                }
                Self::Tuple { 0: __field0, 2: __field2, .. } => {
                    <Linear as ::altgrad::visit::Visit>::visit_mut(
                        __field0,
                        &::altgrad::visit::Path::index(__path, 0),
                        __visitor,
                    )?;
                    <Linear as ::altgrad::visit::Visit>::visit_mut(
                        __field2,
                        &::altgrad::visit::Path::index(__path, 2),
                        __visitor,
                    )?;
                }
                Self::Named { up: __field0, down: __field2, .. } => {
                    <Linear as ::altgrad::visit::Visit>::visit_mut(
                        __field0,
                        &::altgrad::visit::Path::field(__path, "up"),
                        __visitor,
                    )?;
                    <Linear as ::altgrad::visit::Visit>::visit_mut(
                        __field2,
                        &::altgrad::visit::Path::field(__path, "down"),
                        __visitor,
                    )?;
                }
                Self::Ignored { .. } => {}
            }
            ::core::result::Result::Ok(())
        }
    }
};
