// #[quant(bound = "")]
// struct Model<T> {
//     t: Always<T>,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<T> ::altgrad::Visit for Model<T> {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Always<
                T,
            > as ::altgrad::Visit>::visit(
                &self.t,
                &::altgrad::Path::field(__path, "t"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <Always<
                T,
            > as ::altgrad::Visit>::visit_mut(
                &mut self.t,
                &::altgrad::Path::field(__path, "t"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
