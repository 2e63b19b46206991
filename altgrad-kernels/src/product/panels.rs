//! Keys or values of tokens in the order in which attention multiplies by them.

use std::ops::Range;

use super::microkernel::Panel;
use super::pair_row::{PairRow, place, widened};
use super::table::Table;
use super::{Dot, NR, tile};
use crate::element::Scalar;
use crate::format::Fp8;
use crate::level::{Level, for_every_level};
use crate::memory::{self, Aligned};

/// What the rows of tokens are to attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Keys, which queries are multiplied by: a token is a column of the product.
    Keys,
    /// Values, which are summed under weights: a token is an index of the sum.
    Values,
}

/// The keys or values of up to `room` tokens: for each stream, which is a head of a sequence, one row of `dim` elements
/// per token, either as floats or as codes with a scale per row.
#[derive(Clone, Debug)]
pub struct TokenPanels {
    role: Role,
    streams: usize,
    dim: usize,
    /// A multiple of [`NR`].
    room: usize,
    len: usize,
    elements: Elements,
}

#[derive(Clone, Debug)]
enum Elements {
    /// The bits of floats. Keys: for each panel of [`NR`] tokens and each element of a row those of all tokens. Values:
    /// for each panel of up to [`NR`] elements of a row and each token those elements.
    Floats(Aligned<u32>),
    /// The same with pair rows: codes of two successive elements of keys, or tokens of values, next to one another.
    Codes { table: Box<Table>, codes: Aligned<u8>, scales: Vec<f32> },
}

/// Buffers of a thread for panels that have to be decoded first.
#[derive(Debug, Default)]
pub(super) struct PanelScratch {
    pairs: Aligned<PairRow>,
    decoded: Aligned<[u32; NR]>,
}

impl TokenPanels {
    /// Empty panels with room for `tokens`, rounded up to whole panels: of codes of `format`, or of floats for `None`.
    #[must_use]
    pub fn new(role: Role, format: Option<Fp8>, streams: usize, dim: usize, tokens: usize) -> Self {
        let room = tokens.next_multiple_of(NR);
        let elements = match format {
            None => Elements::Floats(Aligned::zeroed(streams * room * dim)),
            Some(format) => Elements::Codes {
                table: Box::new(Table::new(format, 0)),
                // Pairs of elements of keys; the number of tokens is even.
                codes: Aligned::zeroed(streams * room * if role == Role::Keys { dim.next_multiple_of(2) } else { dim }),
                scales: memory::zeroed(streams * room),
            },
        };
        Self { role, streams, dim, room, len: 0, elements }
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements of a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of tokens that there is room for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// Forgets all tokens but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Appends the rows `tokens` of each stream, as far as there is room, from floats `(streams, all, dim)`. Does
    /// nothing for panels of codes. Returns how many tokens were appended.
    pub fn append_floats(&mut self, values: &[f32], all: usize, tokens: Range<usize>) -> usize {
        let count = tokens.len().min(self.room - self.len);
        let outline = self.outline();
        let Elements::Floats(to) = &mut self.elements else { return 0 };
        outline.copy(values, all, tokens.start, count, |token, element, stream, value| {
            to[outline.float_place(stream, token, element)] = value.to_bits();
        });
        self.len += count;
        count
    }

    /// The same from codes `(streams, all, dim)` and scales `(streams, all)`; nothing for panels of floats.
    pub fn append_codes(&mut self, from: &[u8], scales_from: &[f32], all: usize, tokens: Range<usize>) -> usize {
        let count = tokens.len().min(self.room - self.len);
        let outline = self.outline();
        let Elements::Codes { codes, scales, .. } = &mut self.elements else { return 0 };
        outline.copy(from, all, tokens.start, count, |token, element, stream, code| {
            codes[outline.code_place(stream, token, element)] = code;
        });
        for stream in 0..outline.streams {
            scales[stream * outline.room + outline.len..][..count]
                .copy_from_slice(&scales_from[stream * all + tokens.start..][..count]);
        }
        self.len += count;
        count
    }

    /// Writes the values of the first `to.len() / dim` tokens of a stream.
    pub fn copy_to(&self, stream: usize, to: &mut [f32]) {
        let outline = self.outline();
        for (token, row) in to.chunks_exact_mut(self.dim.max(1)).enumerate().take(self.len) {
            for (element, to) in row.iter_mut().enumerate() {
                *to = match &self.elements {
                    Elements::Floats(bits) => f32::from_bits(bits[outline.float_place(stream, token, element)]),
                    Elements::Codes { table, codes, scales } => {
                        let code = codes[outline.code_place(stream, token, element)];
                        f32::from_bits(u32::from(table.values[usize::from(code)]) << 16)
                            * scales[stream * self.room + token]
                    }
                };
            }
        }
    }

    /// Of keys, the values of a panel of tokens, the first of which is number `first`, for each element of a row.
    pub(super) fn keys<'s>(
        &'s self,
        level: Level,
        stream: usize,
        first: usize,
        scratch: &'s mut PanelScratch,
    ) -> &'s Panel {
        let start = self.outline().panel_start(stream, first);
        match &self.elements {
            Elements::Floats(bits) => bits[start..start + NR * self.dim].as_chunks().0,
            Elements::Codes { table, codes, scales } => {
                let pairs = codes[start..start + NR * self.dim.next_multiple_of(2)].as_chunks().0;
                let decoded = scratch.decoded.at_least(self.dim);
                tile::decode(level, Dot::Singles, table, pairs, decoded);
                if let Some(scales) = scales[stream * self.room + first..].first_chunk() {
                    tile::scale(level, Dot::Singles, scales, decoded);
                }
                decoded
            }
        }
    }

    /// Of values, those of the elements of a row from number `element` on, a multiple of [`NR`], for each of `tokens`,
    /// which start at an even one.
    pub(super) fn values<'s>(
        &'s self,
        level: Level,
        stream: usize,
        element: usize,
        tokens: Range<usize>,
        scratch: &'s mut PanelScratch,
    ) -> &'s Panel {
        let width = (self.dim - element).min(NR);
        let start = self.outline().value_panel_start(stream, element);
        match &self.elements {
            Elements::Floats(bits) => {
                let bits = &bits[start + tokens.start * width..start + tokens.end * width];
                if width == NR {
                    return bits.as_chunks().0;
                }
                let decoded = scratch.decoded.at_least(tokens.len());
                for (to, from) in decoded.iter_mut().zip(bits.chunks_exact(width)) {
                    *to = [0; NR];
                    to[..width].copy_from_slice(from);
                }
                decoded
            }
            Elements::Codes { table, codes, scales } => {
                let end = start + tokens.end.next_multiple_of(2) * width;
                let codes = &codes[start + tokens.start * width..end];
                let pairs = if width == NR {
                    codes.as_chunks().0
                } else {
                    let pairs = scratch.pairs.at_least(codes.len() / (2 * width));
                    widened(codes, width, pairs);
                    pairs
                };
                let decoded = scratch.decoded.at_least(tokens.len());
                tile::decode(level, Dot::Singles, table, pairs, decoded);
                scale_rows::<f32>(level, decoded, &scales[stream * self.room + tokens.start..]);
                decoded
            }
        }
    }

    /// Everything but elements.
    fn outline(&self) -> Outline {
        let &Self { role, streams, dim, room, len, .. } = self;
        let unit = if role == Role::Keys && matches!(self.elements, Elements::Codes { .. }) { 2 } else { 1 };
        Outline { role, streams, dim, row: dim.next_multiple_of(unit), room, len }
    }
}

for_every_level! {
    /// Multiplies each row of values by its scale.
    fn scale_rows = scale_rows_loop, (rows: &mut Panel, scales: &[f32]);
}

#[inline(always)]
fn scale_rows_loop(rows: &mut Panel, scales: &[f32]) {
    for (row, scale) in rows.iter_mut().zip(scales) {
        for bits in row {
            *bits = (f32::from_bits(*bits) * scale).to_bits();
        }
    }
}

/// The shape of panels, and where elements are in them.
#[derive(Clone, Copy)]
struct Outline {
    role: Role,
    streams: usize,
    dim: usize,
    /// Elements of a row, with one more where rows of codes are in pairs.
    row: usize,
    room: usize,
    len: usize,
}

impl Outline {
    /// Calls `put` with the new number of a token, the number of an element, a stream and the element, for `count` rows
    /// of each stream from number `first` of `all` on.
    fn copy<E: Copy>(
        &self,
        from: &[E],
        all: usize,
        first: usize,
        count: usize,
        mut put: impl FnMut(usize, usize, usize, E),
    ) {
        for stream in 0..self.streams {
            let rows = &from[(stream * all + first) * self.dim..][..count * self.dim];
            for (token, row) in rows.chunks_exact(self.dim.max(1)).enumerate() {
                for (element, value) in row.iter().enumerate() {
                    put(self.len + token, element, stream, *value);
                }
            }
        }
    }

    /// Where the panel of a token's keys starts.
    fn panel_start(&self, stream: usize, token: usize) -> usize {
        (stream * self.room + token / NR * NR) * self.row
    }

    /// Where the panel of an element of values starts.
    fn value_panel_start(&self, stream: usize, element: usize) -> usize {
        stream * self.room * self.row + element / NR * NR * self.room
    }

    /// Elements of the panel of values that an element belongs to.
    fn width(&self, element: usize) -> usize {
        (self.dim - element / NR * NR).min(NR)
    }

    fn float_place(&self, stream: usize, token: usize, element: usize) -> usize {
        match self.role {
            Role::Keys => self.panel_start(stream, token) + element * NR + token % NR,
            Role::Values => self.value_panel_start(stream, element) + token * self.width(element) + element % NR,
        }
    }

    fn code_place(&self, stream: usize, token: usize, element: usize) -> usize {
        match self.role {
            Role::Keys => self.panel_start(stream, token) + element / 2 * 2 * NR + place(token, NR) + element % 2,
            Role::Values => {
                let width = self.width(element);
                let pair = self.value_panel_start(stream, element) + token / 2 * 2 * width;
                pair + place(element, width) + token % 2
            }
        }
    }
}
