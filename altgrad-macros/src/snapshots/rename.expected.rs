// struct Model {
//     #[quant(rename = "h")]
//     blocks: Linear,
//     #[quant(rename = "a.0.b")]
//     deep: Linear,
// }

const _: () = {
    #[automatically_derived]
    impl ::altgrad::visit::Visit for Model {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::visit::Visit>::visit(
                &self.blocks,
                &::altgrad::visit::Path::field(__path, "h"),
                __visitor,
            )?;
            <Linear as ::altgrad::visit::Visit>::visit(
                &self.deep,
                &::altgrad::visit::Path::field(
                    &::altgrad::visit::Path::field(&::altgrad::visit::Path::field(__path, "a"), "0"),
                    "b",
                ),
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
                &mut self.blocks,
                &::altgrad::visit::Path::field(__path, "h"),
                __visitor,
            )?;
            <Linear as ::altgrad::visit::Visit>::visit_mut(
                &mut self.deep,
                &::altgrad::visit::Path::field(
                    &::altgrad::visit::Path::field(&::altgrad::visit::Path::field(__path, "a"), "0"),
                    "b",
                ),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
