// struct Unit;

const _: () = {
    #[automatically_derived]
    impl ::altgrad::visit::Visit for Unit {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            ::core::result::Result::Ok(())
        }
    }
};
