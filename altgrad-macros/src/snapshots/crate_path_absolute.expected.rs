// #[quant(crate = ::altgrad_core)]
// struct Model(#[quant(recipe = r())] Linear, Linear);

const _: () = {
    #[automatically_derived]
    impl ::altgrad_core::visit::Visit for Model {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad_core::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad_core::visit::Visitor<'__model>,
        ) -> ::altgrad_core::Result<()> {
            {
                let __recipe: ::altgrad_core::Recipe = ::core::convert::Into::into(r());
                <Linear as ::altgrad_core::visit::Visit>::visit(
                    &self.0,
                    &::altgrad_core::visit::Path::with_recipe(
                        ::altgrad_core::visit::Path::index(__path, 0),
                        &__recipe,
                    ),
                    __visitor,
                )?;
            }
            <Linear as ::altgrad_core::visit::Visit>::visit(
                &self.1,
                &::altgrad_core::visit::Path::index(__path, 1),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad_core::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad_core::visit::VisitorMut<'__model>,
        ) -> ::altgrad_core::Result<()> {
            {
                let __recipe: ::altgrad_core::Recipe = ::core::convert::Into::into(r());
                <Linear as ::altgrad_core::visit::Visit>::visit_mut(
                    &mut self.0,
                    &::altgrad_core::visit::Path::with_recipe(
                        ::altgrad_core::visit::Path::index(__path, 0),
                        &__recipe,
                    ),
                    __visitor,
                )?;
            }
            <Linear as ::altgrad_core::visit::Visit>::visit_mut(
                &mut self.1,
                &::altgrad_core::visit::Path::index(__path, 1),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
