//! Generic types: parameters, associated types, lifetimes, constants and the bounds that are inferred.

use std::marker::PhantomData;

use altgrad::visit::Visit;
use altgrad::{Fp8, Linear, Quantizable};

use super::{assert_quantizable, assert_seen, layer};

/// Implements nothing.
struct Opaque;

#[test]
fn parameters() {
    #[derive(Quantizable)]
    struct Pair<A, B> {
        a: A,
        b: Vec<B>,
        a_again: Option<A>,
    }
    #[derive(Quantizable)]
    enum Either<A, B> {
        A(A),
        B { b: B },
        Both(A, B),
    }

    let pair = Pair { a: layer(), b: vec![(layer(), 1.0)], a_again: Some(layer()) };
    assert_seen(pair, ["a", "b.0.0", "a_again"]);
    assert_seen(Either::<_, ()>::A(layer()), [""]);
    assert_seen(Either::<(), _>::B { b: layer() }, ["b"]);
    assert_seen(Either::Both(layer(), layer()), ["0", "1"]);
}

/// Only the parameters that visited fields use must implement the trait.
#[test]
#[allow(unused_qualifications)]
fn parameters_that_need_no_bound() {
    #[derive(Quantizable)]
    struct Ignored<C> {
        #[quant(ignore)]
        config: C,
        layer: Linear,
    }
    #[derive(Quantizable)]
    struct Phantom<T, U>(PhantomData<T>, Linear, core::marker::PhantomData<fn(U) -> T>);
    #[derive(Quantizable)]
    struct Mixed<T, U> {
        used: T,
        #[quant(ignore)]
        unused: Vec<U>,
        marker: PhantomData<U>,
    }
    #[derive(Quantizable)]
    struct Length<T>([Linear; align_of::<u8>() + 1], PhantomData<T>);

    assert_seen(Ignored { config: Opaque, layer: layer() }, ["layer"]);
    assert_seen(Phantom::<Opaque, Opaque>(PhantomData, layer(), PhantomData), ["1"]);
    assert_seen(Mixed { used: layer(), unused: vec![Opaque], marker: PhantomData }, ["used"]);
    assert_seen(Length::<Opaque>([layer(), layer()], PhantomData), ["0.0", "0.1"]);
}

#[test]
fn unsized_parameters() {
    #[derive(Quantizable)]
    struct Last<T: ?Sized> {
        first: Linear,
        last: T,
    }
    #[derive(Quantizable)]
    struct Slice {
        first: Linear,
        rest: [Linear],
    }
    #[derive(Quantizable)]
    struct Boxed<T: ?Sized>(Box<T>);
    #[derive(Quantizable)]
    struct Marked<T: ?Sized>(Linear, PhantomData<T>);

    assert_seen(Marked::<str>(layer(), PhantomData), ["0"]);
    let last: Box<Last<[Linear]>> = Box::new(Last { first: layer(), last: [layer(), layer()] });
    assert_seen(last, ["first", "last.0", "last.1"]);
    let dynamic: Box<Last<dyn Visit>> = Box::new(Last { first: layer(), last: (layer(), layer()) });
    assert_seen(dynamic, ["first", "last.0", "last.1"]);
    assert_seen(Boxed::<[Linear]>(Box::new([layer(), layer()])), ["0", "1"]);
    assert_seen(Boxed::<dyn Visit>(Box::new(layer())), [""]);
    assert_quantizable::<Slice>();
}

#[test]
fn declared_bounds_and_where_clauses() {
    #[derive(Quantizable)]
    struct Inline<T: Quantizable + Clone, U: ?Sized + Send>(T, PhantomData<U>);
    #[derive(Quantizable)]
    struct Where<T, U>
    where
        T: Clone,
        Vec<T>: Clone,
        for<'x> &'x T: Sized,
        U: IntoIterator,
        U::Item: Send,
    {
        t: T,
        #[quant(ignore)]
        u: U,
    }
    #[derive(Quantizable)]
    struct Already<T>
    where
        T: Quantizable,
    {
        t: T,
    }
    #[derive(Quantizable)]
    enum EmptyClause<T> {
        A(T),
    }

    assert_seen(Inline::<_, str>(layer(), PhantomData), ["0"]);
    assert_seen(Where { t: layer(), u: [1] }, ["t"]);
    assert_seen(Already { t: layer() }, ["t"]);
    assert_seen(EmptyClause::A(layer()), [""]);
}

#[test]
fn defaults() {
    #[derive(Quantizable)]
    struct Model<A = Linear, B: Clone = Vec<A>, const N: usize = 2> {
        a: [A; N],
        b: B,
    }

    let model: Model = Model { a: [layer(), layer()], b: vec![layer()] };
    assert_seen(model, ["a.0", "a.1", "b.0"]);
}

#[test]
fn constants() {
    #[derive(Quantizable)]
    struct Heads<const N: usize, const M: usize, T> {
        heads: [[T; N]; M],
    }
    #[derive(Quantizable)]
    enum Flags<const BIAS: bool, const LETTER: char> {
        Layer(Linear),
    }

    let heads = Heads { heads: [[layer(), layer()], [layer(), layer()], [layer(), layer()]] };
    assert_seen(heads, ["heads.0.0", "heads.0.1", "heads.1.0", "heads.1.1", "heads.2.0", "heads.2.1"]);
    assert_seen(Flags::<true, 'x'>::Layer(layer()), [""]);
}

/// The methods of the trait have a lifetime of their own.
#[test]
fn lifetimes() {
    #[derive(Quantizable)]
    struct Names<'m, 'a: 'm, '__model, '__model_> {
        m: &'m str,
        a: std::borrow::Cow<'a, str>,
        marker: PhantomData<(&'__model (), &'__model_ ())>,
        layer: Linear,
    }
    #[derive(Quantizable)]
    struct Where<'a, 'b, T: 'a>
    where
        'a: 'b,
        T: Sized + 'b,
    {
        value: T,
        #[quant(ignore)]
        reference: &'a T,
        #[quant(ignore)]
        mutable: Option<&'b mut T>,
    }
    #[derive(Quantizable)]
    struct HigherRanked {
        #[quant(ignore)]
        function: for<'m> fn(&'m Linear) -> &'m Linear,
        layer: Linear,
    }
    #[derive(Quantizable)]
    struct Static(&'static str, Linear);

    let names = Names { m: "", a: "".into(), marker: PhantomData, layer: layer() };
    assert_seen(names, ["layer"]);
    let reference = layer();
    assert_seen(Where { value: layer(), reference: &reference, mutable: None }, ["value"]);
    assert_seen(HigherRanked { function: |layer| layer, layer: layer() }, ["layer"]);
    assert_seen(Static("", layer()), ["1"]);
}

trait Architecture {
    type Attention;
    type Mlp: Quantizable;
    type Inner: Architecture;
    type Of<T>;
    type Lent<'a>
    where
        Self: 'a;
    const FORMAT: Fp8 = Fp8::E3M4;
}

/// Implements no `Quantizable`, unlike its associated types.
struct Small;

impl Architecture for Small {
    type Attention = Linear;
    type Mlp = (Linear, Linear);
    type Inner = Self;
    type Of<T> = Vec<T>;
    type Lent<'a> = &'a str;
}

#[test]
fn associated_types() {
    #[derive(Quantizable)]
    struct Short<A: Architecture> {
        attention: A::Attention,
        blocks: Vec<A::Mlp>,
        marker: PhantomData<A>,
    }
    #[derive(Quantizable)]
    struct Qualified<A>(<A as Architecture>::Attention, Option<<A as Architecture>::Mlp>)
    where
        A: Architecture;
    #[derive(Quantizable)]
    struct Deep<A: Architecture> {
        deep: <A::Inner as Architecture>::Attention,
        deeper: <<A::Inner as Architecture>::Inner as Architecture>::Mlp,
    }
    #[derive(Quantizable)]
    struct OfAnother<I: Iterator> {
        item: I::Item,
        #[quant(ignore)]
        rest: I,
    }

    let short = Short::<Small> { attention: layer(), blocks: vec![(layer(), layer())], marker: PhantomData };
    assert_seen(short, ["attention", "blocks.0.0", "blocks.0.1"]);
    assert_seen(Qualified::<Small>(layer(), Some((layer(), layer()))), ["0", "1.0", "1.1"]);
    assert_seen(Deep::<Small> { deep: layer(), deeper: (layer(), layer()) }, ["deep", "deeper.0", "deeper.1"]);
    assert_seen(OfAnother { item: layer(), rest: std::iter::empty() }, ["item"]);
}

#[test]
fn generic_associated_types() {
    #[derive(Quantizable)]
    struct Model<'a, A: Architecture + 'a> {
        blocks: A::Of<Linear>,
        nested: <A as Architecture>::Of<(Linear, Linear)>,
        lent: A::Lent<'a>,
    }

    let model = Model::<Small> { blocks: vec![layer()], nested: vec![(layer(), layer())], lent: "" };
    assert_seen(model, ["blocks.0", "nested.0.0", "nested.0.1"]);
}

/// A type that mentions itself must not be asked to implement the trait in its own where clause.
#[test]
fn recursion_through_parameters() {
    #[derive(Quantizable)]
    #[allow(clippy::use_self)]
    struct Node<T> {
        value: T,
        next: Option<Box<Node<T>>>,
        children: Vec<Self>,
    }
    #[derive(Quantizable)]
    struct Even<T>(T, Option<Box<Odd<T>>>);
    #[derive(Quantizable)]
    struct Odd<T> {
        even: Box<Even<T>>,
    }
    /// No finite list of field types would cover it: each level holds a type of its own.
    #[derive(Quantizable)]
    enum Tower<T> {
        Top(T),
        Level(Box<Tower<(T, T)>>),
    }

    let node = |next, children| Node { value: layer(), next, children };
    let list = node(Some(Box::new(node(None, vec![]))), vec![node(None, vec![]), node(None, vec![])]);
    assert_seen(list, ["value", "next.value", "children.0.value", "children.1.value"]);
    let even = Even(layer(), Some(Box::new(Odd { even: Box::new(Even(layer(), None)) })));
    assert_seen(even, ["0", "1.even.0"]);
    assert_quantizable::<Tower<Linear>>();
}

/// Where a field's type implements the trait whatever its parameter, or needs more of it, `bound` says so.
#[test]
fn written_bounds() {
    struct Always<T>(PhantomData<T>);
    impl<T> Visit for Always<T> {
        fn visit<'m>(
            &'m self,
            _: &altgrad::visit::Path<'_>,
            _: &mut dyn altgrad::visit::Visitor<'m>,
        ) -> altgrad::Result<()> {
            Ok(())
        }
        fn visit_mut<'m>(
            &'m mut self,
            _: &altgrad::visit::Path<'_>,
            _: &mut dyn altgrad::visit::VisitorMut<'m>,
        ) -> altgrad::Result<()> {
            Ok(())
        }
    }
    #[derive(Quantizable)]
    #[quant(bound = "")]
    struct Nothing<T> {
        always: Always<T>,
        layer: Linear,
    }
    #[derive(Quantizable)]
    #[quant(bound = "T: Layer + 'static, for<'x> &'x U: Sized,")]
    struct More<T, U>
    where
        U: Send,
    {
        layer: T,
        other: Always<U>,
    }
    trait Layer: Quantizable {}
    impl Layer for Linear {}
    /// The hasher is a parameter of the map, but no part of the model.
    #[derive(Quantizable)]
    #[quant(bound = "L: Quantizable")]
    struct Map<L, S>(std::collections::HashMap<String, L, S>);

    let map = [("b".to_owned(), layer()), ("a".to_owned(), layer())];
    assert_seen(Map::<_, std::hash::RandomState>(map.into()), ["a", "b"]);
    assert_seen(Nothing::<Opaque> { always: Always(PhantomData), layer: layer() }, ["layer"]);
    assert_seen(More::<_, Opaque> { layer: layer(), other: Always(PhantomData) }, ["layer"]);
}

/// An alias hides its parameter from nobody: the compiler checks what the alias stands for.
#[test]
#[allow(unused_parens)]
fn aliases_and_macros_as_types() {
    type Blocks<T> = Vec<(T, Option<T>)>;
    macro_rules! blocks {
        ($t:ty) => { Vec<$t> };
    }
    #[derive(Quantizable)]
    struct Model<T> {
        blocks: Blocks<T>,
        more: blocks!(Linear),
        parenthesized: (Linear),
    }

    let model = Model { blocks: vec![(layer(), Some(layer()))], more: vec![layer()], parenthesized: layer() };
    assert_seen(model, ["blocks.0.0", "blocks.0.1", "more.0", "parenthesized"]);
}

/// The expression of a recipe may name whatever is in scope of the type.
#[test]
fn recipes_from_parameters() {
    #[derive(Quantizable)]
    struct Model<A: Architecture, const BITS: u8> {
        #[quant(recipe = A::FORMAT)]
        by_type: Linear,
        #[quant(recipe = <A as Architecture>::FORMAT)]
        qualified: A::Attention,
        #[quant(recipe = if BITS == 3 { Fp8::E3M4 } else { Fp8::E4M3 })]
        by_constant: Linear,
        #[quant(recipe = Self::format(BITS))]
        by_function: Linear,
        #[quant(recipe = Self::CONSTANT)]
        by_associated_constant: Linear,
    }
    impl<A: Architecture, const BITS: u8> Model<A, BITS> {
        const CONSTANT: Fp8 = Fp8::E2M5;
        const fn format(_: u8) -> Fp8 {
            Fp8::E5M2
        }
    }

    let model = Model::<Small, 3> {
        by_type: layer(),
        qualified: layer(),
        by_constant: layer(),
        by_function: layer(),
        by_associated_constant: layer(),
    };
    let expected =
        ["by_type@E3M4", "qualified@E3M4", "by_constant@E3M4", "by_function@E5M2", "by_associated_constant@E2M5"];
    assert_seen(model, expected);
}
