// struct Mlp {
//     c_fc: Linear,
//     c_proj: nn::Linear,
// }

const _: () = {
    #[automatically_derived]
    impl ::altgrad::visit::Visit for Mlp {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::visit::Visit>::visit(
                &self.c_fc,
                &::altgrad::visit::Path::field(__path, "c_fc"),
                __visitor,
            )?;
            <nn::Linear as ::altgrad::visit::Visit>::visit(
                &self.c_proj,
                &::altgrad::visit::Path::field(__path, "c_proj"),
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
                &mut self.c_fc,
                &::altgrad::visit::Path::field(__path, "c_fc"),
                __visitor,
            )?;
            <nn::Linear as ::altgrad::visit::Visit>::visit_mut(
                &mut self.c_proj,
                &::altgrad::visit::Path::field(__path, "c_proj"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
