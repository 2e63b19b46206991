// struct Pair<
//     #[other]
//     'a,
//     #[allow(x)]
//     A,
//     ///
//     const N: usize,
// >(
//     A,
//     Text<'a, N>,
// );

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<'a, A, const N: usize> ::altgrad::visit::Visit for Pair<'a, A, N>
    where
        A: ::altgrad::visit::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <A as ::altgrad::visit::Visit>::visit(
                &self.0,
                &::altgrad::visit::Path::index(__path, 0),
                __visitor,
            )?;
            <Text<
                'a,
                N,
            > as ::altgrad::visit::Visit>::visit(
                &self.1,
                &::altgrad::visit::Path::index(__path, 1),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <A as ::altgrad::visit::Visit>::visit_mut(
                &mut self.0,
                &::altgrad::visit::Path::index(__path, 0),
                __visitor,
            )?;
            <Text<
                'a,
                N,
            > as ::altgrad::visit::Visit>::visit_mut(
                &mut self.1,
                &::altgrad::visit::Path::index(__path, 1),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
