// struct Head(#[quant(skip)] Linear);

const _: () = {
    #[automatically_derived]
    impl ::altgrad::visit::Visit for Head {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::visit::Visit>::visit(
                &self.0,
                &::altgrad::visit::Path::skipped(::altgrad::visit::Path::transparent(__path)),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::visit::Visit>::visit_mut(
                &mut self.0,
                &::altgrad::visit::Path::skipped(::altgrad::visit::Path::transparent(__path)),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
