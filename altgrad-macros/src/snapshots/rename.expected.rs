// struct Model {
//     #[quant(rename = "h")]
//     blocks: Linear,
//     #[quant(rename = "a.0.b")]
//     deep: Linear,
// }

const _: () = {
    #[automatically_derived]
    impl ::altgrad::Visit for Model {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::Visit>::visit(
                &self.blocks,
                &::altgrad::Path::field(__path, "h"),
                __visitor,
            )?;
            <Linear as ::altgrad::Visit>::visit(
                &self.deep,
                &::altgrad::Path::field(
                    &::altgrad::Path::field(&::altgrad::Path::field(__path, "a"), "0"),
                    "b",
                ),
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
                &mut self.blocks,
                &::altgrad::Path::field(__path, "h"),
                __visitor,
            )?;
            <Linear as ::altgrad::Visit>::visit_mut(
                &mut self.deep,
                &::altgrad::Path::field(
                    &::altgrad::Path::field(&::altgrad::Path::field(__path, "a"), "0"),
                    "b",
                ),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
