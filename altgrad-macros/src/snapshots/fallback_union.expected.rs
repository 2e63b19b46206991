// #[quant(crate = "my::altgrad")]
// union Model<T: Copy> {
//     a: T,
//     b: u8,
// }

::core::compile_error! {
    "`crate` takes a path without quotes; write `crate = my::altgrad`"
}
::core::compile_error! {
    "`Quantizable` cannot be derived for a union, because nothing says which of its fields holds a layer; use a struct or an enum"
}
const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<T: Copy> ::altgrad::visit::Visit for Model<T> {
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
