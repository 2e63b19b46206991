// struct Head {
//     #[quant(skip)]
//     lm_head: Linear,
//     rest: Linear,
// }

const _: () = {
    #[automatically_derived]
    impl ::altgrad::Visit for Head {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::Visit>::visit(
                &self.lm_head,
                &::altgrad::Path::skipped(::altgrad::Path::field(__path, "lm_head")),
                __visitor,
            )?;
            <Linear as ::altgrad::Visit>::visit(
                &self.rest,
                &::altgrad::Path::field(__path, "rest"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::Visit>::visit_mut(
                &mut self.lm_head,
                &::altgrad::Path::skipped(::altgrad::Path::field(__path, "lm_head")),
                __visitor,
            )?;
            <Linear as ::altgrad::Visit>::visit_mut(
                &mut self.rest,
                &::altgrad::Path::field(__path, "rest"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
