// #[quant(crate = my_crate::reexport)]
// enum Model<T> {
//     A { #[quant(skip, rename = "x")] a: T },
//     B(T),
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<T> my_crate::reexport::Visit for Model<T>
    where
        T: my_crate::reexport::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &my_crate::reexport::Path<'_>,
            __visitor: &mut dyn my_crate::reexport::Visitor<'__model>,
        ) -> my_crate::reexport::Result<()> {
            match self {
                Self::A { a: __field0 } => {
                    <T as my_crate::reexport::Visit>::visit(
                        __field0,
                        &my_crate::reexport::Path::skipped(
                            my_crate::reexport::Path::field(__path, "x"),
                        ),
                        __visitor,
                    )?;
                }
                Self::B { 0: __field0 } => {
                    <T as my_crate::reexport::Visit>::visit(
                        __field0,
                        &my_crate::reexport::Path::transparent(__path),
                        __visitor,
                    )?;
                }
            }
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &my_crate::reexport::Path<'_>,
            __visitor: &mut dyn my_crate::reexport::VisitorMut<'__model>,
        ) -> my_crate::reexport::Result<()> {
            match self {
                Self::A { a: __field0 } => {
                    <T as my_crate::reexport::Visit>::visit_mut(
                        __field0,
                        &my_crate::reexport::Path::skipped(
                            my_crate::reexport::Path::field(__path, "x"),
                        ),
                        __visitor,
                    )?;
                }
                Self::B { 0: __field0 } => {
                    <T as my_crate::reexport::Visit>::visit_mut(
                        __field0,
                        &my_crate::reexport::Path::transparent(__path),
                        __visitor,
                    )?;
                }
            }
            ::core::result::Result::Ok(())
        }
    }
};
