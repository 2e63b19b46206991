// struct Model<T: Choice> {
//     #[quant(recipe = Fp8::E3M4)]
//     a: Linear,
//     #[quant(rename = "bb", recipe = T::recipe(Self::BITS, |x|x+1))]
//     b: T,
//     #[quant(flatten)]
//     #[quant(recipe = Recipe{weights, ..hybrid()})]
//     c: Linear,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<T: Choice> ::altgrad::visit::Visit for Model<T>
    where
        T: ::altgrad::visit::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            {
                let __recipe: ::altgrad::Recipe = ::core::convert::Into::into(Fp8::E3M4);
                <Linear as ::altgrad::visit::Visit>::visit(
                    &self.a,
                    &::altgrad::visit::Path::with_recipe(
                        ::altgrad::visit::Path::field(__path, "a"),
                        &__recipe,
                    ),
                    __visitor,
                )?;
            }
            {
                let __recipe: ::altgrad::Recipe = ::core::convert::Into::into(
                    T::recipe(Self::BITS, |x| x + 1),
                );
                <T as ::altgrad::visit::Visit>::visit(
                    &self.b,
                    &::altgrad::visit::Path::with_recipe(
                        ::altgrad::visit::Path::field(__path, "bb"),
                        &__recipe,
                    ),
                    __visitor,
                )?;
            }
            {
                let __recipe: ::altgrad::Recipe = ::core::convert::Into::into(Recipe {
                    weights,
                    ..hybrid()
                });
                <Linear as ::altgrad::visit::Visit>::visit(
                    &self.c,
                    &::altgrad::visit::Path::with_recipe(
                        ::altgrad::visit::Path::transparent(__path),
                        &__recipe,
                    ),
                    __visitor,
                )?;
            }
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            {
                let __recipe: ::altgrad::Recipe = ::core::convert::Into::into(Fp8::E3M4);
                <Linear as ::altgrad::visit::Visit>::visit_mut(
                    &mut self.a,
                    &::altgrad::visit::Path::with_recipe(
                        ::altgrad::visit::Path::field(__path, "a"),
                        &__recipe,
                    ),
                    __visitor,
                )?;
            }
            {
                let __recipe: ::altgrad::Recipe = ::core::convert::Into::into(
                    T::recipe(Self::BITS, |x| x + 1),
                );
                <T as ::altgrad::visit::Visit>::visit_mut(
                    &mut self.b,
                    &::altgrad::visit::Path::with_recipe(
                        ::altgrad::visit::Path::field(__path, "bb"),
                        &__recipe,
                    ),
                    __visitor,
                )?;
            }
            {
                let __recipe: ::altgrad::Recipe = ::core::convert::Into::into(Recipe {
                    weights,
                    ..hybrid()
                });
                <Linear as ::altgrad::visit::Visit>::visit_mut(
                    &mut self.c,
                    &::altgrad::visit::Path::with_recipe(
                        ::altgrad::visit::Path::transparent(__path),
                        &__recipe,
                    ),
                    __visitor,
                )?;
            }
            ::core::result::Result::Ok(())
        }
    }
};
