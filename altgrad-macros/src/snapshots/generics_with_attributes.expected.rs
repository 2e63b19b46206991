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
    impl<'a, A, const N: usize> ::altgrad::Visit for Pair<'a, A, N>
    where
        A: ::altgrad::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <A as ::altgrad::Visit>::visit(
                &self.0,
                &::altgrad::Path::index(__path, 0),
                __visitor,
            )?;
            <Text<
                'a,
                N,
            > as ::altgrad::Visit>::visit(
                &self.1,
                &::altgrad::Path::index(__path, 1),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <A as ::altgrad::Visit>::visit_mut(
                &mut self.0,
                &::altgrad::Path::index(__path, 0),
                __visitor,
            )?;
            <Text<
                'a,
                N,
            > as ::altgrad::Visit>::visit_mut(
                &mut self.1,
                &::altgrad::Path::index(__path, 1),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
