// struct Pair<A, B: Clone = Linear> {
//     a: A,
//     b: Vec<B>,
//     a_again: Option<A>,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<A, B: Clone> ::altgrad::Visit for Pair<A, B>
    where
        A: ::altgrad::Visit,
        B: ::altgrad::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <A as ::altgrad::Visit>::visit(
                &self.a,
                &::altgrad::Path::field(__path, "a"),
                __visitor,
            )?;
            <Vec<
                B,
            > as ::altgrad::Visit>::visit(
                &self.b,
                &::altgrad::Path::field(__path, "b"),
                __visitor,
            )?;
            <Option<
                A,
            > as ::altgrad::Visit>::visit(
                &self.a_again,
                &::altgrad::Path::field(__path, "a_again"),
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
                &mut self.a,
                &::altgrad::Path::field(__path, "a"),
                __visitor,
            )?;
            <Vec<
                B,
            > as ::altgrad::Visit>::visit_mut(
                &mut self.b,
                &::altgrad::Path::field(__path, "b"),
                __visitor,
            )?;
            <Option<
                A,
            > as ::altgrad::Visit>::visit_mut(
                &mut self.a_again,
                &::altgrad::Path::field(__path, "a_again"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
