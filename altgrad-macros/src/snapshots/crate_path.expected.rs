// #[quant(crate = my_crate::reexport)]
// enum Model<T> {
//     A { #[quant(skip, rename = "x")] a: T },
//     B(T),
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<T> my_crate::reexport::visit::Visit for Model<T>
    where
        T: my_crate::reexport::visit::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &my_crate::reexport::visit::Path<'_>,
            __visitor: &mut dyn my_crate::reexport::visit::Visitor<'__model>,
        ) -> my_crate::reexport::Result<()> {
            match self {
                Self::A { a: __field0 } => {
                    <T as my_crate::reexport::visit::Visit>::visit(
                        __field0,
                        &my_crate::reexport::visit::Path::skipped(
                            my_crate::reexport::visit::Path::field(__path, "x"),
                        ),
                        __visitor,
                    )?;
                }
                Self::B { 0: __field0 } => {
                    <T as my_crate::reexport::visit::Visit>::visit(
                        __field0,
                        &my_crate::reexport::visit::Path::transparent(__path),
                        __visitor,
                    )?;
                }
            }
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &my_crate::reexport::visit::Path<'_>,
            __visitor: &mut dyn my_crate::reexport::visit::VisitorMut<'__model>,
        ) -> my_crate::reexport::Result<()> {
            match self {
                Self::A { a: __field0 } => {
                    <T as my_crate::reexport::visit::Visit>::visit_mut(
                        __field0,
                        &my_crate::reexport::visit::Path::skipped(
                            my_crate::reexport::visit::Path::field(__path, "x"),
                        ),
                        __visitor,
                    )?;
                }
                Self::B { 0: __field0 } => {
                    <T as my_crate::reexport::visit::Visit>::visit_mut(
                        __field0,
                        &my_crate::reexport::visit::Path::transparent(__path),
                        __visitor,
                    )?;
                }
            }
            ::core::result::Result::Ok(())
        }
    }
};
