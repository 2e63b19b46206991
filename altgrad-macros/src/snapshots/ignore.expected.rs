// struct Model<T, C> {
//     layer: T,
//     #[quant(ignore)]
//     config: C,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<T, C> ::altgrad::Visit for Model<T, C>
    where
        T: ::altgrad::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <T as ::altgrad::Visit>::visit(
                &self.layer,
                &::altgrad::Path::field(__path, "layer"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <T as ::altgrad::Visit>::visit_mut(
                &mut self.layer,
                &::altgrad::Path::field(__path, "layer"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
