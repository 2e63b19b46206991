// struct Borrowed<'a, 'm, T: 'a>
// where
//     T: Clone,
// {
//     layer: Linear,
//     #[quant(ignore)]
//     name: &'a str,
//     marker: PhantomData<(&'m (), T)>,
//     value: T,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<'a, 'm, T: 'a> ::altgrad::Visit for Borrowed<'a, 'm, T>
    where
        T: Clone,
        T: ::altgrad::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::Visit>::visit(
                &self.layer,
                &::altgrad::Path::field(__path, "layer"),
                __visitor,
            )?;
            <PhantomData<
                (&'m (), T),
            > as ::altgrad::Visit>::visit(
                &self.marker,
                &::altgrad::Path::field(__path, "marker"),
                __visitor,
            )?;
            <T as ::altgrad::Visit>::visit(
                &self.value,
                &::altgrad::Path::field(__path, "value"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::Visit>::visit_mut(
                &mut self.layer,
                &::altgrad::Path::field(__path, "layer"),
                __visitor,
            )?;
            <PhantomData<
                (&'m (), T),
            > as ::altgrad::Visit>::visit_mut(
                &mut self.marker,
                &::altgrad::Path::field(__path, "marker"),
                __visitor,
            )?;
            <T as ::altgrad::Visit>::visit_mut(
                &mut self.value,
                &::altgrad::Path::field(__path, "value"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
