// #[quant(crate = super::super::altgrad)]
// struct Model {
//     a: Linear,
// }

const _: () = {
    #[automatically_derived]
    impl super::super::altgrad::visit::Visit for Model {
        fn visit<'__model>(
            &'__model self,
            __path: &super::super::altgrad::visit::Path<'_>,
            __visitor: &mut dyn super::super::altgrad::visit::Visitor<'__model>,
        ) -> super::super::altgrad::Result<()> {
            <Linear as super::super::altgrad::visit::Visit>::visit(
                &self.a,
                &super::super::altgrad::visit::Path::field(__path, "a"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &super::super::altgrad::visit::Path<'_>,
            __visitor: &mut dyn super::super::altgrad::visit::VisitorMut<'__model>,
        ) -> super::super::altgrad::Result<()> {
            <Linear as super::super::altgrad::visit::Visit>::visit_mut(
                &mut self.a,
                &super::super::altgrad::visit::Path::field(__path, "a"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
