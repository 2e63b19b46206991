//! Structs, enums and their variants in every shape, and what may stand around them.

use std::fmt;

use altgrad::{Linear, Quantizable};

use super::{assert_quantizable, assert_seen, layer};

#[test]
fn structs_without_fields() {
    #[derive(Quantizable)]
    struct Unit;
    #[derive(Quantizable)]
    struct Named {}
    #[derive(Quantizable)]
    struct Tuple();

    assert_seen(Unit, []);
    assert_seen(Named {}, []);
    assert_seen(Tuple(), []);
}

#[test]
fn structs() {
    #[derive(Quantizable)]
    struct Named {
        up: Linear,
        down: Linear,
    }
    #[derive(Quantizable)]
    struct Tuple(Linear, usize, Named);
    #[derive(Quantizable)]
    struct Newtype(Tuple);

    let named = || Named { up: layer(), down: layer() };
    assert_seen(named(), ["up", "down"]);
    assert_seen(Tuple(layer(), 1, named()), ["0", "2.up", "2.down"]);
    assert_seen(Newtype(Tuple(layer(), 1, named())), ["0", "2.up", "2.down"]);
}

#[test]
fn more_fields_than_digits() {
    #[derive(Quantizable)]
    struct Tuple((), (), (), (), (), (), (), (), (), (), Linear, Linear);

    assert_seen(Tuple((), (), (), (), (), (), (), (), (), (), layer(), layer()), ["10", "11"]);
}

#[test]
fn enums_of_all_shapes() {
    struct Config;
    #[derive(Quantizable)]
    enum Layer {
        Unit,
        NamedWithout {},
        TupleWithout(),
        Newtype(Linear),
        Tuple(Linear, #[quant(ignore)] Config, Linear),
        Named {
            up: Linear,
            size: usize,
            down: Linear,
        },
        AllIgnored(#[quant(ignore)] Config, #[quant(ignore)] Config),
        NamedIgnored {
            #[quant(ignore)]
            config: Config,
        },
        Nested(Box<Self>),
    }

    assert_seen(Layer::Unit, []);
    assert_seen(Layer::NamedWithout {}, []);
    assert_seen(Layer::TupleWithout(), []);
    assert_seen(Layer::Newtype(layer()), [""]);
    assert_seen(Layer::Tuple(layer(), Config, layer()), ["0", "2"]);
    assert_seen(Layer::Named { up: layer(), size: 1, down: layer() }, ["up", "down"]);
    assert_seen(Layer::AllIgnored(Config, Config), []);
    assert_seen(Layer::NamedIgnored { config: Config }, []);
    assert_seen(Layer::Nested(Box::new(Layer::Tuple(layer(), Config, layer()))), ["0", "2"]);
}

#[test]
fn enums_without_values() {
    #[derive(Quantizable)]
    enum Never {}
    #[derive(Quantizable)]
    enum Layer {
        Impossible(Never),
        AlsoImpossible { never: Never, layer: Linear },
        Possible(Linear),
    }

    assert_quantizable::<Never>();
    assert_seen(Layer::Possible(layer()), [""]);
}

#[test]
fn enums_with_one_variant() {
    #[derive(Quantizable)]
    enum Only {
        Variant { only: Linear },
    }
    #[derive(Quantizable)]
    enum OnlyUnit {
        Variant,
    }

    assert_seen(Only::Variant { only: layer() }, ["only"]);
    assert_seen(OnlyUnit::Variant, []);
}

#[test]
fn discriminants_and_representations() {
    #[derive(Quantizable)]
    #[repr(u8)]
    enum Discriminants {
        A(Linear) = 3,
        B = 1 + 1,
    }
    #[derive(Quantizable)]
    #[repr(C, align(64))]
    struct Aligned {
        layer: Linear,
    }
    #[derive(Quantizable)]
    #[repr(transparent)]
    struct Transparent(Linear);

    assert_seen(Discriminants::A(layer()), [""]);
    assert_seen(Discriminants::B, []);
    assert_seen(Aligned { layer: layer() }, ["layer"]);
    assert_seen(Transparent(layer()), [""]);
}

/// A reference to a packed field exists only where its alignment is 1; a layer cannot be one.
#[test]
fn packed_structs_of_bytes() {
    #[derive(Quantizable)]
    #[repr(C, packed)]
    struct Packed {
        bits: u8,
        flags: [bool; 4],
        #[quant(ignore)]
        unaligned: u64,
    }

    assert_seen(Packed { bits: 0, flags: [false; 4], unaligned: 0 }, []);
}

#[test]
fn recursion() {
    #[derive(Quantizable)]
    struct List {
        value: Linear,
        next: Option<Box<Self>>,
    }
    #[derive(Quantizable)]
    enum Tree {
        Leaf(Linear),
        Node { left: Box<Self>, right: Box<Tree> },
    }
    #[derive(Quantizable)]
    struct Ping(Linear, Option<Box<Pong>>);
    #[derive(Quantizable)]
    struct Pong {
        ping: Vec<Ping>,
    }

    let list = List { value: layer(), next: Some(Box::new(List { value: layer(), next: None })) };
    assert_seen(list, ["value", "next.value"]);
    let leaf = || Box::new(Tree::Leaf(layer()));
    let tree = Tree::Node { left: Box::new(Tree::Node { left: leaf(), right: leaf() }), right: leaf() };
    assert_seen(tree, ["left.left", "left.right", "right"]);
    let ping = Ping(layer(), Some(Box::new(Pong { ping: vec![Ping(layer(), None), Ping(layer(), None)] })));
    assert_seen(ping, ["0", "1.ping.0.0", "1.ping.1.0"]);
}

mod visibilities {
    use altgrad::{Linear, Quantizable};

    mod inner {
        use altgrad::{Linear, Quantizable};

        #[derive(Quantizable)]
        pub(in crate::shapes) struct InPath {
            pub(in crate::shapes) layer: Linear,
            pub(super) other: Linear,
        }
    }

    #[derive(Quantizable)]
    struct Private(Linear);

    #[derive(Quantizable)]
    pub struct Public {
        private: Private,
        pub(crate) krate: inner::InPath,
        pub(super) parent: Linear,
        pub public: Linear,
    }

    #[derive(Quantizable)]
    #[allow(private_interfaces)]
    pub(crate) enum Enum {
        Variant(Private),
    }

    pub fn public() -> Public {
        let layer = super::layer;
        let krate = inner::InPath { layer: layer(), other: layer() };
        Public { private: Private(layer()), krate, parent: layer(), public: layer() }
    }
}

#[test]
fn private_types_in_public_ones() {
    assert_seen(visibilities::public(), ["private", "krate.layer", "krate.other", "parent", "public"]);
    assert_quantizable::<visibilities::Enum>();
}

/// A field that is not compiled is not visited, and its type need not exist.
#[test]
fn conditional_fields() {
    #[derive(Quantizable)]
    struct Model {
        #[cfg(any())]
        gone: Missing,
        #[cfg(not(any()))]
        here: Linear,
        #[cfg_attr(all(), quant(rename = "other"))]
        renamed: Linear,
        #[cfg_attr(any(), quant(nonsense))]
        same: Linear,
    }
    #[derive(Quantizable)]
    enum Choice {
        #[cfg(any())]
        Gone(Missing),
        Here(Linear, #[cfg(any())] Missing),
    }

    assert_seen(Model { here: layer(), renamed: layer(), same: layer() }, ["here", "other", "same"]);
    assert_seen(Choice::Here(layer()), [""]);
}

/// Attributes and comments of any kind may stand beside `#[quant(…)]`.
#[test]
fn other_attributes() {
    /// A comment.
    #[doc(hidden)]
    #[derive(Debug, Quantizable, Clone)]
    #[must_use = "a test must use it"]
    #[non_exhaustive]
    #[rustfmt::skip]
    struct Model {
        /// A comment with `#[quant(skip)]`.
        #[quant(skip)] // and another one
        #[doc = "text"]
        a: /* and one more */ Linear,
        #[allow(clippy::doc_markdown)]
        /** A block. */
        b: Linear,
    }

    let model = Model { a: layer(), b: layer() };
    assert!(!format!("{model:?}").is_empty());
    assert_seen(model, ["a!", "b"]);
}

#[test]
fn types_with_a_destructor() {
    #[derive(Quantizable)]
    struct Model {
        layer: Linear,
    }
    impl Drop for Model {
        fn drop(&mut self) {}
    }
    #[derive(Quantizable)]
    enum Choice {
        A(Linear, Linear),
    }
    impl Drop for Choice {
        fn drop(&mut self) {}
    }

    assert_seen(Model { layer: layer() }, ["layer"]);
    assert_seen(Choice::A(layer(), layer()), ["0", "1"]);
}

/// Its methods would take precedence over those of a trait.
#[test]
fn types_with_methods_of_the_same_names() {
    #[derive(Quantizable)]
    struct Block {
        layer: Linear,
    }
    #[allow(clippy::unused_self)]
    impl Block {
        fn visit(&self) -> fmt::Result {
            Err(fmt::Error)
        }
        fn visit_mut(&mut self, _: usize) {}
        fn layers(&self) -> usize {
            0
        }
    }
    #[derive(Quantizable)]
    struct Model(Block, Block);

    let mut block = Block { layer: layer() };
    assert!(block.visit().is_err());
    block.visit_mut(block.layers());
    assert_seen(Model(block, Block { layer: layer() }), ["0.layer", "1.layer"]);
}

#[test]
fn types_inside_of_functions_and_constants() {
    const fn make() -> impl Quantizable {
        #[derive(Quantizable)]
        struct Local<'a> {
            name: &'a str,
        }
        Local { name: "local" }
    }
    const _: () = {
        #[derive(Quantizable)]
        struct InConstant(Linear);
        assert_quantizable::<InConstant>();
    };

    assert_seen(make(), []);
}
