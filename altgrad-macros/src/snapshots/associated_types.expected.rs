// struct Stack<T: Model, U> {
//     inner: T::Inner,
//     outer: Vec<<U as Model>::Outer>,
//     marker: PhantomData<T>,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<T: Model, U> ::altgrad::visit::Visit for Stack<T, U>
    where
        T::Inner: ::altgrad::visit::Visit,
        <U as Model>::Outer: ::altgrad::visit::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <T::Inner as ::altgrad::visit::Visit>::visit(
                &self.inner,
                &::altgrad::visit::Path::field(__path, "inner"),
                __visitor,
            )?;
            <Vec<
                <U as Model>::Outer,
            > as ::altgrad::visit::Visit>::visit(
                &self.outer,
                &::altgrad::visit::Path::field(__path, "outer"),
                __visitor,
            )?;
            <PhantomData<
                T,
            > as ::altgrad::visit::Visit>::visit(
                &self.marker,
                &::altgrad::visit::Path::field(__path, "marker"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <T::Inner as ::altgrad::visit::Visit>::visit_mut(
                &mut self.inner,
                &::altgrad::visit::Path::field(__path, "inner"),
                __visitor,
            )?;
            <Vec<
                <U as Model>::Outer,
            > as ::altgrad::visit::Visit>::visit_mut(
                &mut self.outer,
                &::altgrad::visit::Path::field(__path, "outer"),
                __visitor,
            )?;
            <PhantomData<
                T,
            > as ::altgrad::visit::Visit>::visit_mut(
                &mut self.marker,
                &::altgrad::visit::Path::field(__path, "marker"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
