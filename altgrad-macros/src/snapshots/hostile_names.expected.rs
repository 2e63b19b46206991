// struct Result<Option, Ok> {
//     __path: Option,
//     __visitor: Ok,
//     visitor: Linear,
//     self_: Linear,
//     core: core::Linear,
// }

const _: () = {
    #[automatically_derived]
    #[allow(clippy::trait_duplication_in_bounds)]
    impl<Option, Ok> ::altgrad::visit::Visit for Result<Option, Ok>
    where
        Option: ::altgrad::visit::Visit,
        Ok: ::altgrad::visit::Visit,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Option as ::altgrad::visit::Visit>::visit(
                &self.__path,
                &::altgrad::visit::Path::field(__path, "__path"),
                __visitor,
            )?;
            <Ok as ::altgrad::visit::Visit>::visit(
                &self.__visitor,
                &::altgrad::visit::Path::field(__path, "__visitor"),
                __visitor,
            )?;
            <Linear as ::altgrad::visit::Visit>::visit(
                &self.visitor,
                &::altgrad::visit::Path::field(__path, "visitor"),
                __visitor,
            )?;
            <Linear as ::altgrad::visit::Visit>::visit(
                &self.self_,
                &::altgrad::visit::Path::field(__path, "self_"),
                __visitor,
            )?;
            <core::Linear as ::altgrad::visit::Visit>::visit(
                &self.core,
                &::altgrad::visit::Path::field(__path, "core"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::visit::Path<'_>,
            __visitor: &mut dyn ::altgrad::visit::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <Option as ::altgrad::visit::Visit>::visit_mut(
                &mut self.__path,
                &::altgrad::visit::Path::field(__path, "__path"),
                __visitor,
            )?;
            <Ok as ::altgrad::visit::Visit>::visit_mut(
                &mut self.__visitor,
                &::altgrad::visit::Path::field(__path, "__visitor"),
                __visitor,
            )?;
            <Linear as ::altgrad::visit::Visit>::visit_mut(
                &mut self.visitor,
                &::altgrad::visit::Path::field(__path, "visitor"),
                __visitor,
            )?;
            <Linear as ::altgrad::visit::Visit>::visit_mut(
                &mut self.self_,
                &::altgrad::visit::Path::field(__path, "self_"),
                __visitor,
            )?;
            <core::Linear as ::altgrad::visit::Visit>::visit_mut(
                &mut self.core,
                &::altgrad::visit::Path::field(__path, "core"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
