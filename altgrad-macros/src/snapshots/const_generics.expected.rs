// struct Heads<const N: usize, const M: usize = 2> {
//     heads: [[Linear; N]; M],
// }

const _: () = {
    #[automatically_derived]
    impl<const N: usize, const M: usize> ::altgrad::visit::Visit for Heads<N, M> {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <[[Linear; N]; M] as ::altgrad::visit::Visit>::visit(
                &self.heads,
                &::altgrad::visit::Path::field(__path, "heads"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <[[Linear; N]; M] as ::altgrad::visit::Visit>::visit_mut(
                &mut self.heads,
                &::altgrad::visit::Path::field(__path, "heads"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
