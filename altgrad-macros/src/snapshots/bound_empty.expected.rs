// #[quant(bound = "")]
// struct Model<T> {
//     t: Always<T>,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<T> ::altgrad::visit::Visit for Model<T> {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Always<
                T,
            > as ::altgrad::visit::Visit>::visit(
                &self.t,
                &::altgrad::visit::Path::field(__path, "t"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <Always<
                T,
            > as ::altgrad::visit::Visit>::visit_mut(
                &mut self.t,
                &::altgrad::visit::Path::field(__path, "t"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
