// struct Node<T> {
//     value: T,
//     next: Option<Box<Self>>,
//     other: Option<Box<Node<T>>>,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<T> ::altgrad::visit::Visit for Node<T>
    where
        T: ::altgrad::visit::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <T as ::altgrad::visit::Visit>::visit(
                &self.value,
                &::altgrad::visit::Path::field(__path, "value"),
                __visitor,
            )?;
            <Option<
                Box<Self>,
            > as ::altgrad::visit::Visit>::visit(
                &self.next,
                &::altgrad::visit::Path::field(__path, "next"),
                __visitor,
            )?;
            <Option<
                Box<Node<T>>,
            > as ::altgrad::visit::Visit>::visit(
                &self.other,
                &::altgrad::visit::Path::field(__path, "other"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <T as ::altgrad::visit::Visit>::visit_mut(
                &mut self.value,
                &::altgrad::visit::Path::field(__path, "value"),
                __visitor,
            )?;
            <Option<
                Box<Self>,
            > as ::altgrad::visit::Visit>::visit_mut(
                &mut self.next,
                &::altgrad::visit::Path::field(__path, "next"),
                __visitor,
            )?;
            <Option<
                Box<Node<T>>,
            > as ::altgrad::visit::Visit>::visit_mut(
                &mut self.other,
                &::altgrad::visit::Path::field(__path, "other"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
