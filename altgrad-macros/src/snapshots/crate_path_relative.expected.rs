// #[quant(crate = super::super::altgrad)]
// struct Model {
//     a: Linear,
// }

const _: () = {
    #[automatically_derived]
    impl super::super::altgrad::Visit for Model {
        fn visit<'__model>(
            &'__model self,
            __path: &super::super::altgrad::Path<'_>,
            __visitor: &mut dyn super::super::altgrad::Visitor<'__model>,
        ) -> super::super::altgrad::Result<()> {
            <Linear as super::super::altgrad::Visit>::visit(
                &self.a,
                &super::super::altgrad::Path::field(__path, "a"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &super::super::altgrad::Path<'_>,
            __visitor: &mut dyn super::super::altgrad::VisitorMut<'__model>,
        ) -> super::super::altgrad::Result<()> {
            <Linear as super::super::altgrad::Visit>::visit_mut(
                &mut self.a,
                &super::super::altgrad::Path::field(__path, "a"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
