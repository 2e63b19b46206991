// struct r#struct {
//     r#type: r#mod::Linear,
//     r#fn: Linear,
// }

const _: () = {
    #[automatically_derived]
    impl ::altgrad::Visit for r#struct {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <r#mod::Linear as ::altgrad::Visit>::visit(
                &self.r#type,
                &::altgrad::Path::field(__path, "type"),
                __visitor,
            )?;
            <Linear as ::altgrad::Visit>::visit(
                &self.r#fn,
                &::altgrad::Path::field(__path, "fn"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <r#mod::Linear as ::altgrad::Visit>::visit_mut(
                &mut self.r#type,
                &::altgrad::Path::field(__path, "type"),
                __visitor,
            )?;
            <Linear as ::altgrad::Visit>::visit_mut(
                &mut self.r#fn,
                &::altgrad::Path::field(__path, "fn"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
