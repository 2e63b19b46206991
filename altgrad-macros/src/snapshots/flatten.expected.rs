// struct Model {
//     #[quant(flatten)]
//     inner: Inner,
//     #[quant(flatten, skip)]
//     head: Inner,
// }

const _: () = {
    #[automatically_derived]
    impl ::altgrad::Visit for Model {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Inner as ::altgrad::Visit>::visit(
                &self.inner,
                &::altgrad::Path::transparent(__path),
                __visitor,
            )?;
            <Inner as ::altgrad::Visit>::visit(
                &self.head,
                &::altgrad::Path::skipped(::altgrad::Path::transparent(__path)),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <Inner as ::altgrad::Visit>::visit_mut(
                &mut self.inner,
                &::altgrad::Path::transparent(__path),
                __visitor,
            )?;
            <Inner as ::altgrad::Visit>::visit_mut(
                &mut self.head,
                &::altgrad::Path::skipped(::altgrad::Path::transparent(__path)),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
