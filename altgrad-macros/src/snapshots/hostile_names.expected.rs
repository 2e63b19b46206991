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
    impl<Option, Ok> ::altgrad::Quantizable for Result<Option, Ok>
    where
        Option: ::altgrad::Quantizable,
        Ok: ::altgrad::Quantizable,
    {
        fn visit<'__model>(
            &'__model self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::Visitor<'__model>,
        ) -> ::altgrad::Result<()> {
            <Option as ::altgrad::Quantizable>::visit(
                &self.__path,
                &::altgrad::Path::field(__path, "__path"),
                __visitor,
            )?;
            <Ok as ::altgrad::Quantizable>::visit(
                &self.__visitor,
                &::altgrad::Path::field(__path, "__visitor"),
                __visitor,
            )?;
            <Linear as ::altgrad::Quantizable>::visit(
                &self.visitor,
                &::altgrad::Path::field(__path, "visitor"),
                __visitor,
            )?;
            <Linear as ::altgrad::Quantizable>::visit(
                &self.self_,
                &::altgrad::Path::field(__path, "self_"),
                __visitor,
            )?;
            <core::Linear as ::altgrad::Quantizable>::visit(
                &self.core,
                &::altgrad::Path::field(__path, "core"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
        fn visit_mut<'__model>(
            &'__model mut self,
            __path: &::altgrad::Path<'_>,
            __visitor: &mut dyn ::altgrad::VisitorMut<'__model>,
        ) -> ::altgrad::Result<()> {
            <Option as ::altgrad::Quantizable>::visit_mut(
                &mut self.__path,
                &::altgrad::Path::field(__path, "__path"),
                __visitor,
            )?;
            <Ok as ::altgrad::Quantizable>::visit_mut(
                &mut self.__visitor,
                &::altgrad::Path::field(__path, "__visitor"),
                __visitor,
            )?;
            <Linear as ::altgrad::Quantizable>::visit_mut(
                &mut self.visitor,
                &::altgrad::Path::field(__path, "visitor"),
                __visitor,
            )?;
            <Linear as ::altgrad::Quantizable>::visit_mut(
                &mut self.self_,
                &::altgrad::Path::field(__path, "self_"),
                __visitor,
            )?;
            <core::Linear as ::altgrad::Quantizable>::visit_mut(
                &mut self.core,
                &::altgrad::Path::field(__path, "core"),
                __visitor,
            )?;
            ::core::result::Result::Ok(())
        }
    }
};
