// enum Model {
//     A(#[quant(recipe = __field0)] Linear),
//     B { #[quant(recipe = path)] path: Linear },
// }

const _: () = {
    #[automatically_derived]
    impl ::altgrad::visit::Visit for Model {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            match self {
                Self::A { 0: __field0 } => {
                    let __recipe: ::altgrad::Recipe = ::core::convert::Into::into(
                        __field0,
                    );
                    <Linear as ::altgrad::visit::Visit>::visit(
                        __field0,
                        &::altgrad::visit::Path::with_recipe(
                            ::altgrad::visit::Path::transparent(__path),
                            &__recipe,
                        ),
                        __visitor,
                    )?;
                }
                Self::B { path: __field0 } => {
                    let __recipe: ::altgrad::Recipe = ::core::convert::Into::into(path);
                    <Linear as ::altgrad::visit::Visit>::visit(
                        __field0,
                        &::altgrad::visit::Path::with_recipe(
                            ::altgrad::visit::Path::field(__path, "path"),
                            &__recipe,
                        ),
                        __visitor,
                    )?;
                }
            }
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            match self {
                Self::A { 0: __field0 } => {
                    let __recipe: ::altgrad::Recipe = ::core::convert::Into::into(
                        __field0,
                    );
                    <Linear as ::altgrad::visit::Visit>::visit_mut(
                        __field0,
                        &::altgrad::visit::Path::with_recipe(
                            ::altgrad::visit::Path::transparent(__path),
                            &__recipe,
                        ),
                        __visitor,
                    )?;
                }
                Self::B { path: __field0 } => {
                    let __recipe: ::altgrad::Recipe = ::core::convert::Into::into(path);
                    <Linear as ::altgrad::visit::Visit>::visit_mut(
                        __field0,
                        &::altgrad::visit::Path::with_recipe(
                            ::altgrad::visit::Path::field(__path, "path"),
                            &__recipe,
                        ),
                        __visitor,
                    )?;
                }
            }
            ::core::result::Result::Ok(())
        }
    }
};
