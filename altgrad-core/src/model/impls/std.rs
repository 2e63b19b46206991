//! `Quantizable` for containers and plain values of the standard library.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;

use super::leaf;
use crate::{Path, Result, Visit, Visitor, VisitorMut};

leaf!(
    (),
    bool,
    char,
    i8,
    i16,
    i32,
    i64,
    i128,
    isize,
    u8,
    u16,
    u32,
    u64,
    u128,
    usize,
    f32,
    f64,
    half::f16,
    half::bf16,
    String,
    &str,
    Cow<'_, str>
);

impl<T: ?Sized> Visit for PhantomData<T> {
    fn visit<'m>(&'m self, _: &Path<'_>, _: &mut dyn Visitor<'m>) -> Result<()> {
        Ok(())
    }

    fn visit_mut<'m>(&'m mut self, _: &Path<'_>, _: &mut dyn VisitorMut<'m>) -> Result<()> {
        Ok(())
    }
}

impl<T: Visit + ?Sized> Visit for Box<T> {
    fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
        (**self).visit(path, visitor)
    }

    fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
        (**self).visit_mut(path, visitor)
    }
}

impl<T: Visit> Visit for Option<T> {
    fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
        self.iter().try_for_each(|part| part.visit(path, visitor))
    }

    fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
        self.iter_mut().try_for_each(|part| part.visit_mut(path, visitor))
    }
}

impl<T: Visit> Visit for [T] {
    fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
        self.iter().enumerate().try_for_each(|(index, part)| part.visit(&path.index(index), visitor))
    }

    fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
        self.iter_mut().enumerate().try_for_each(|(index, part)| part.visit_mut(&path.index(index), visitor))
    }
}

impl<T: Visit> Visit for Vec<T> {
    fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
        self.as_slice().visit(path, visitor)
    }

    fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
        self.as_mut_slice().visit_mut(path, visitor)
    }
}

impl<T: Visit, const N: usize> Visit for [T; N] {
    fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
        self.as_slice().visit(path, visitor)
    }

    fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
        self.as_mut_slice().visit_mut(path, visitor)
    }
}

impl<K: AsRef<str>, T: Visit> Visit for BTreeMap<K, T> {
    fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
        self.iter().try_for_each(|(key, part)| part.visit(&path.field(key.as_ref()), visitor))
    }

    fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
        self.iter_mut().try_for_each(|(key, part)| part.visit_mut(&path.field(key.as_ref()), visitor))
    }
}

/// Visited in the order of the keys, so that reports and results do not depend on the hasher.
impl<K: AsRef<str>, T: Visit, S> Visit for HashMap<K, T, S> {
    fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
        let mut entries: Vec<_> = self.iter().map(|(key, part)| (key.as_ref(), part)).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries.into_iter().try_for_each(|(key, part)| part.visit(&path.field(key), visitor))
    }

    fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
        let mut entries: Vec<_> = self.iter_mut().map(|(key, part)| (key.as_ref(), part)).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries.into_iter().try_for_each(|(key, part)| part.visit_mut(&path.field(key), visitor))
    }
}

macro_rules! tuple {
    ($($type:ident $index:tt),+) => {
        impl<$($type: Visit),+> Visit for ($($type,)+) {
            fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
                $(self.$index.visit(&path.index($index), visitor)?;)+
                Ok(())
            }

            fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
                $(self.$index.visit_mut(&path.index($index), visitor)?;)+
                Ok(())
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
