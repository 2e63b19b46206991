// struct Pair(Linear, Vec<Linear>);

const _: () = {
    #[automatically_derived]
    impl ::altgrad::visit::Visit for Pair {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Linear as ::altgrad::visit::Visit>::visit(
                &self.0,
                &::altgrad::visit::Path::index(__path, 0),
                __visitor,
            )?;
            <Vec<
                Linear,
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
            <Linear as ::altgrad::visit::Visit>::visit_mut(
                &mut self.0,
                &::altgrad::visit::Path::index(__path, 0),
                __visitor,
            )?;
            <Vec<
                Linear,
            > as ::altgrad::visit::Visit>::visit_mut(
                &mut self.1,
                &::altgrad::visit::Path::index(__path, 1),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
