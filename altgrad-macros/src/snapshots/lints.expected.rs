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
    impl ::altgrad::Visit for Old {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::Visit>::visit(
                &self.old,
                &::altgrad::Path::field(__path, "old"),
                __visitor,
            )?;
            <Linear as ::altgrad::Visit>::visit(
                &self.New,
                &::altgrad::Path::field(__path, "New"),
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
                &mut self.old,
                &::altgrad::Path::field(__path, "old"),
                __visitor,
            )?;
            <Linear as ::altgrad::Visit>::visit_mut(
                &mut self.New,
                &::altgrad::Path::field(__path, "New"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
