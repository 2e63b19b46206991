// #[allow(clippy::use_self)]
// #[expect(dead_code, reason = "an example")]
// #[deny(unused)]
// struct Old {
//     #[deprecated = "use `new`"]
//     old: Linear,
//     #[allow(non_snake_case)]
//     New: Linear,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::use_self)]
    #[allow(dead_code, reason = "an example")]
    #[allow(non_snake_case)]
    #[allow(deprecated)]
    impl ::altgrad::visit::Visit for Old {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::visit::Visit>::visit(
                &self.old,
                &::altgrad::visit::Path::field(__path, "old"),
                __visitor,
            )?;
            <Linear as ::altgrad::visit::Visit>::visit(
                &self.New,
                &::altgrad::visit::Path::field(__path, "New"),
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
                &mut self.old,
                &::altgrad::visit::Path::field(__path, "old"),
                __visitor,
            )?;
            <Linear as ::altgrad::visit::Visit>::visit_mut(
                &mut self.New,
                &::altgrad::visit::Path::field(__path, "New"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
