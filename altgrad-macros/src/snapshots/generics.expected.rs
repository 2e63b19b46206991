// struct Pair<A, B: Clone = Linear> {
//     a: A,
//     b: Vec<B>,
//     a_again: Option<A>,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<A, B: Clone> ::altgrad::visit::Visit for Pair<A, B>
    where
        A: ::altgrad::visit::Visit,
        B: ::altgrad::visit::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <A as ::altgrad::visit::Visit>::visit(
                &self.a,
                &::altgrad::visit::Path::field(__path, "a"),
                __visitor,
            )?;
            <Vec<
                B,
            > as ::altgrad::visit::Visit>::visit(
                &self.b,
                &::altgrad::visit::Path::field(__path, "b"),
                __visitor,
            )?;
            <Option<
                A,
            > as ::altgrad::visit::Visit>::visit(
                &self.a_again,
                &::altgrad::visit::Path::field(__path, "a_again"),
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
                &mut self.a,
                &::altgrad::visit::Path::field(__path, "a"),
                __visitor,
            )?;
            <Vec<
                B,
            > as ::altgrad::visit::Visit>::visit_mut(
                &mut self.b,
                &::altgrad::visit::Path::field(__path, "b"),
                __visitor,
            )?;
            <Option<
                A,
            > as ::altgrad::visit::Visit>::visit_mut(
                &mut self.a_again,
                &::altgrad::visit::Path::field(__path, "a_again"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
