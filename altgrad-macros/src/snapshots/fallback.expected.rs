// #[quant(crate = my::altgrad, skip)]
// struct Model<'a, T: 'a, const N: usize>
// where
//     T: Clone,
// {
//     #[quant(skip = 1)]
//     a: [T; N],
//     #[quant(frobnicate)]
//     b: &'a (),
// }

::core::compile_error! {
    "`skip` belongs on a field; move `#[quant(skip)]` to the fields that it is meant for"
}
::core::compile_error! {
    "`skip` takes no value; write `skip` alone"
}
::core::compile_error! {
    "unknown attribute `frobnicate`; a field takes `skip`, `ignore`, `rename`, `flatten` and `recipe`"
}
const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<'a, T: 'a, const N: usize> my::altgrad::visit::Visit for Model<'a, T, N>
    where
        T: Clone,
        T: my::altgrad::visit::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &my::altgrad::visit::Path<'_>,
            __visitor: &mut dyn my::altgrad::visit::Visitor<'__model>,
        ) -> my::altgrad::Result<()> {
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &my::altgrad::visit::Path<'_>,
            __visitor: &mut dyn my::altgrad::visit::VisitorMut<'__model>,
        ) -> my::altgrad::Result<()> {
            ::core::result::Result::Ok(())
        }
    }
};
