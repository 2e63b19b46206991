// struct Model {
//     #[quant(flatten)]
//     inner: Inner,
//     #[quant(flatten, skip)]
//     head: Inner,
// }

const _: () = {
    #[automatically_derived]
    impl ::altgrad::visit::Visit for Model {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Inner as ::altgrad::visit::Visit>::visit(
                &self.inner,
                &::altgrad::visit::Path::transparent(__path),
                __visitor,
            )?;
            <Inner as ::altgrad::visit::Visit>::visit(
                &self.head,
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
            <Inner as ::altgrad::visit::Visit>::visit_mut(
                &mut self.inner,
                &::altgrad::visit::Path::transparent(__path),
                __visitor,
            )?;
            <Inner as ::altgrad::visit::Visit>::visit_mut(
                &mut self.head,
                &::altgrad::visit::Path::skipped(::altgrad::visit::Path::transparent(__path)),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
