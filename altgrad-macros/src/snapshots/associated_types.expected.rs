// struct Stack<T: Model, U> {
//     inner: T::Inner,
//     outer: Vec<<U as Model>::Outer>,
//     marker: PhantomData<T>,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<T: Model, U> ::altgrad::Visit for Stack<T, U>
    where
        T::Inner: ::altgrad::Visit,
        <U as Model>::Outer: ::altgrad::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <T::Inner as ::altgrad::Visit>::visit(
                &self.inner,
                &::altgrad::Path::field(__path, "inner"),
                __visitor,
            )?;
            <Vec<
                <U as Model>::Outer,
            > as ::altgrad::Visit>::visit(
                &self.outer,
                &::altgrad::Path::field(__path, "outer"),
                __visitor,
            )?;
            <PhantomData<
                T,
            > as ::altgrad::Visit>::visit(
                &self.marker,
                &::altgrad::Path::field(__path, "marker"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <T::Inner as ::altgrad::Visit>::visit_mut(
                &mut self.inner,
                &::altgrad::Path::field(__path, "inner"),
                __visitor,
            )?;
            <Vec<
                <U as Model>::Outer,
            > as ::altgrad::Visit>::visit_mut(
                &mut self.outer,
                &::altgrad::Path::field(__path, "outer"),
                __visitor,
            )?;
            <PhantomData<
                T,
            > as ::altgrad::Visit>::visit_mut(
                &mut self.marker,
                &::altgrad::Path::field(__path, "marker"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
