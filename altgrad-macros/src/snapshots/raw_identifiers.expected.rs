// struct r#struct {
//     r#type: r#mod::Linear,
//     r#fn: Linear,
// }

const _: () = {
    #[automatically_derived]
    impl ::altgrad::visit::Visit for r#struct {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <r#mod::Linear as ::altgrad::visit::Visit>::visit(
                &self.r#type,
                &::altgrad::visit::Path::field(__path, "type"),
                __visitor,
            )?;
            <Linear as ::altgrad::visit::Visit>::visit(
                &self.r#fn,
                &::altgrad::visit::Path::field(__path, "fn"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <r#mod::Linear as ::altgrad::visit::Visit>::visit_mut(
                &mut self.r#type,
                &::altgrad::visit::Path::field(__path, "type"),
                __visitor,
            )?;
            <Linear as ::altgrad::visit::Visit>::visit_mut(
                &mut self.r#fn,
                &::altgrad::visit::Path::field(__path, "fn"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
