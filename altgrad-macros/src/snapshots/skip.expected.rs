// struct Head {
//     #[quant(skip)]
//     lm_head: Linear,
//     rest: Linear,
// }

const _: () = {
    #[automatically_derived]
    impl ::altgrad::visit::Visit for Head {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::visit::Visit>::visit(
                &self.lm_head,
                &::altgrad::visit::Path::skipped(::altgrad::visit::Path::field(__path, "lm_head")),
                __visitor,
            )?;
            <Linear as ::altgrad::visit::Visit>::visit(
                &self.rest,
                &::altgrad::visit::Path::field(__path, "rest"),
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
                &mut self.lm_head,
                &::altgrad::visit::Path::skipped(::altgrad::visit::Path::field(__path, "lm_head")),
                __visitor,
            )?;
            <Linear as ::altgrad::visit::Visit>::visit_mut(
                &mut self.rest,
                &::altgrad::visit::Path::field(__path, "rest"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
