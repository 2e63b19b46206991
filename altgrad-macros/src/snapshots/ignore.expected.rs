// struct Model<T, C> {
//     layer: T,
//     #[quant(ignore)]
//     config: C,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<T, C> ::altgrad::visit::Visit for Model<T, C>
    where
        T: ::altgrad::visit::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <T as ::altgrad::visit::Visit>::visit(
                &self.layer,
                &::altgrad::visit::Path::field(__path, "layer"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <T as ::altgrad::visit::Visit>::visit_mut(
                &mut self.layer,
                &::altgrad::visit::Path::field(__path, "layer"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
