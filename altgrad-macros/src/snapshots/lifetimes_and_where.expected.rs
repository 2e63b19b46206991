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
    impl<'a, 'm, T: 'a> ::altgrad::visit::Visit for Borrowed<'a, 'm, T>
    where
        T: Clone,
        T: ::altgrad::visit::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::visit::Visit>::visit(
                &self.layer,
                &::altgrad::visit::Path::field(__path, "layer"),
                __visitor,
            )?;
            <PhantomData<
                (&'m (), T),
            > as ::altgrad::visit::Visit>::visit(
                &self.marker,
                &::altgrad::visit::Path::field(__path, "marker"),
                __visitor,
            )?;
            <T as ::altgrad::visit::Visit>::visit(
                &self.value,
                &::altgrad::visit::Path::field(__path, "value"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::visit::Visit>::visit_mut(
                &mut self.layer,
                &::altgrad::visit::Path::field(__path, "layer"),
                __visitor,
            )?;
            <PhantomData<
                (&'m (), T),
            > as ::altgrad::visit::Visit>::visit_mut(
                &mut self.marker,
                &::altgrad::visit::Path::field(__path, "marker"),
                __visitor,
            )?;
            <T as ::altgrad::visit::Visit>::visit_mut(
                &mut self.value,
                &::altgrad::visit::Path::field(__path, "value"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
