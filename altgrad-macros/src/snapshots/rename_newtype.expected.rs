// struct Model(#[quant(rename = "model")] Linear);

const _: () = {
    #[automatically_derived]
    impl ::altgrad::Visit for Model {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::Visit>::visit(
                &self.0,
                &::altgrad::Path::field(__path, "model"),
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
                &mut self.0,
                &::altgrad::Path::field(__path, "model"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
