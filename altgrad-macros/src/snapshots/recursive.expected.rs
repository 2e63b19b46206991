// struct Node<T> {
//     value: T,
//     next: Option<Box<Self>>,
//     other: Option<Box<Node<T>>>,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<T> ::altgrad::Visit for Node<T>
    where
        T: ::altgrad::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <T as ::altgrad::Visit>::visit(
                &self.value,
                &::altgrad::Path::field(__path, "value"),
                __visitor,
            )?;
            <Option<
                Box<Self>,
            > as ::altgrad::Visit>::visit(
                &self.next,
                &::altgrad::Path::field(__path, "next"),
                __visitor,
            )?;
            <Option<
                Box<Node<T>>,
            > as ::altgrad::Visit>::visit(
                &self.other,
                &::altgrad::Path::field(__path, "other"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <T as ::altgrad::Visit>::visit_mut(
                &mut self.value,
                &::altgrad::Path::field(__path, "value"),
                __visitor,
            )?;
            <Option<
                Box<Self>,
            > as ::altgrad::Visit>::visit_mut(
                &mut self.next,
                &::altgrad::Path::field(__path, "next"),
                __visitor,
            )?;
            <Option<
                Box<Node<T>>,
            > as ::altgrad::Visit>::visit_mut(
                &mut self.other,
                &::altgrad::Path::field(__path, "other"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
