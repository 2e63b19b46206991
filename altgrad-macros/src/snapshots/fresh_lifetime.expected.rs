// struct Taken<'__model>(Cow<'__model, str>, for<'__model_> fn(&'__model_ ()));

const _: () = {
    #[automatically_derived]
    impl<'__model> ::altgrad::visit::Visit for Taken<'__model> {
        fn visit<'__model__>(
            &'__model__ self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model__>,
        ) -> ::altgrad::Result<()> {
            <Cow<
                '__model,
                str,
            > as ::altgrad::visit::Visit>::visit(
                &self.0,
                &::altgrad::visit::Path::index(__path, 0),
                __visitor,
            )?;
            <for<'__model_> fn(
                &'__model_ (),
            ) as ::altgrad::visit::Visit>::visit(
                &self.1,
                &::altgrad::visit::Path::index(__path, 1),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model__>(
            &'__model__ mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model__>,
        ) -> ::altgrad::Result<()> {
            <Cow<
                '__model,
                str,
            > as ::altgrad::visit::Visit>::visit_mut(
                &mut self.0,
                &::altgrad::visit::Path::index(__path, 0),
                __visitor,
            )?;
            <for<'__model_> fn(
                &'__model_ (),
            ) as ::altgrad::visit::Visit>::visit_mut(
                &mut self.1,
                &::altgrad::visit::Path::index(__path, 1),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
