// #[quant(bound = "T: Layer + 'static, U: Copy")]
// struct Model<T, U>
// where
//     T: Clone,
// {
//     t: T,
//     u: Other<U>,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<T, U> ::altgrad::visit::Visit for Model<T, U>
    where
        T: Clone,
        T: Layer + 'static,
        U: Copy,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <T as ::altgrad::visit::Visit>::visit(
                &self.t,
                &::altgrad::visit::Path::field(__path, "t"),
                __visitor,
            )?;
            <Other<
                U,
            > as ::altgrad::visit::Visit>::visit(
                &self.u,
                &::altgrad::visit::Path::field(__path, "u"),
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
                &mut self.t,
                &::altgrad::visit::Path::field(__path, "t"),
                __visitor,
            )?;
            <Other<
                U,
            > as ::altgrad::visit::Visit>::visit_mut(
                &mut self.u,
                &::altgrad::visit::Path::field(__path, "u"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
