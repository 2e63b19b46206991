//! `Quantizable` for containers and plain values of the standard library.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::marker::PhantomData;
use std::ops::{Range, RangeInclusive};
use std::rc::Rc;
use std::sync::Arc;

use super::leaf;
use crate::Result;
use crate::visit::{MapKey, Path, Visit, Visitor, VisitorMut};

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

/// Sets and ranges: their elements cannot be changed, so no layer in them could be replaced; and slots cannot be
/// compared, so they cannot be elements.
macro_rules! values {
    ($($type:ty: $($parameter:ident),+;)+) => {$(
        impl<$($parameter),+> Visit for $type {
            fn visit<'m>(&'m self, _: &Path<'_>, _: &mut dyn Visitor<'m>) -> Result<()> {
                Ok(())
            }

            fn visit_mut<'m>(&'m mut self, _: &Path<'_>, _: &mut dyn VisitorMut<'m>) -> Result<()> {
                Ok(())
            }
        }
    )+};
}

values! {
    BTreeSet<T>: T;
    HashSet<T, S>: T, S;
    Range<T>: T;
    RangeInclusive<T>: T;
}

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

impl<K: MapKey, T: Visit> Visit for BTreeMap<K, T> {
    fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
        self.iter().try_for_each(|(key, part)| part.visit(&path.field(&key.segment()), visitor))
    }

    fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
        self.iter_mut().try_for_each(|(key, part)| part.visit_mut(&path.field(&key.segment()), visitor))
    }
}

/// Visited in the order of the keys, so that reports and results do not depend on the hasher.
impl<K: MapKey, T: Visit, S> Visit for HashMap<K, T, S> {
    fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
        let mut entries: Vec<_> = self.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries.into_iter().try_for_each(|(key, part)| part.visit(&path.field(&key.segment()), visitor))
    }

    fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
        let mut entries: Vec<_> = self.iter_mut().collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries.into_iter().try_for_each(|(key, part)| part.visit_mut(&path.field(&key.segment()), visitor))
    }
}

macro_rules! map_keys {
    (text: $($text:ty),+; numbers: $($number:ty),+ $(,)?) => {
        $(impl MapKey for $text {
            fn segment(&self) -> Cow<'_, str> {
                Cow::Borrowed(self)
            }
        })+
        $(impl MapKey for $number {
            fn segment(&self) -> Cow<'_, str> {
                Cow::Owned(self.to_string())
            }
        })+
    };
}

map_keys!(
    text: String, &str, Box<str>, Rc<str>, Arc<str>, Cow<'_, str>;
    numbers: u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, bool, char,
);

/// `1-2`, for example.
impl<A: MapKey, B: MapKey> MapKey for (A, B) {
    fn segment(&self) -> Cow<'_, str> {
        Cow::Owned(format!("{}-{}", self.0.segment(), self.1.segment()))
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
