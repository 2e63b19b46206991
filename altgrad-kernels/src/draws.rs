//! Random numbers for stochastic rounding: a function of seed, stream, step and element alone, regardless of threads
//! and order.

/// Where the numbers of one tensor come from: element `i` gets word `i % 4` of the Philox4x32-10 block (Salmon, Moraes,
/// Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011) with key `seed` and counter
/// `[i / 4, stream, step, step >> 32]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Draws {
    /// Makes an experiment reproducible.
    pub seed: u64,
    /// Tells the tensors of a model apart.
    pub stream: u32,
    /// Tells the steps of training apart.
    pub step: u64,
}

impl Draws {
    /// Numbers for the elements from `first` on.
    #[inline(always)]
    #[doc(hidden)]
    pub fn fill(&self, first: usize, draws: &mut [u32]) {
        let skip = first % 4;
        let (head, rest) = draws.split_at_mut(((4 - skip) % 4).min(draws.len()));
        head.copy_from_slice(&self.block((first / 4) as u32)[skip..skip + head.len()]);
        let (blocks, tail) = rest.as_chunks_mut::<4>();
        // Without branches, so that several blocks are computed side by side.
        let mut next = first.div_ceil(4) as u32;
        for block in blocks.iter_mut() {
            *block = self.block(next);
            next = next.wrapping_add(1);
        }
        tail.copy_from_slice(&self.block(next)[..tail.len()]);
    }

    #[inline(always)]
    fn block(&self, number: u32) -> [u32; 4] {
        philox(
            [number, self.stream, self.step as u32, (self.step >> 32) as u32],
            [self.seed as u32, (self.seed >> 32) as u32],
        )
    }
}

/// Philox4x32 with 10 rounds; multipliers and Weyl constants are those of the paper.
#[inline(always)]
fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut a, mut b, mut c, mut d], [mut low, mut high]) = (counter, key);
    for _ in 0..10 {
        let (first, second) = (u64::from(a) * 0xD251_1F53, u64::from(c) * 0xCD9E_8D57);
        (a, b, c, d) = ((second >> 32) as u32 ^ b ^ low, second as u32, (first >> 32) as u32 ^ d ^ high, first as u32);
        low = low.wrapping_add(0x9E37_79B9);
        high = high.wrapping_add(0xBB67_AE85);
    }
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_known_answers() {
        // The known-answer vectors of Random123 1.14 for philox4x32 with 10 rounds.
        let cases = [
            ([0; 4], [0; 2], [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]),
            (
                [0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344],
                [0xA409_3822, 0x299F_31D0],
                [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn an_element_draws_the_same_wherever_a_slice_starts() {
        let draws = Draws { seed: 0x0123_4567_89AB_CDEF, stream: 7, step: 1 << 40 };
        let mut all = [0; 64];
        draws.fill(0, &mut all);
        for start in 0..40 {
            for len in 0..20 {
                let mut part = vec![0; len];
                draws.fill(start, &mut part);
                assert_eq!(part, all[start..start + len], "{len} from {start}");
            }
        }
    }

    #[test]
    fn seed_stream_and_step_each_matter() {
        let draws = Draws { seed: 1, stream: 2, step: 3 };
        let first = |draws: Draws| {
            let mut values = [0; 4];
            draws.fill(0, &mut values);
            values
        };
        let others = [
            Draws { seed: 2, ..draws },
            Draws { seed: 1 | 1 << 32, ..draws },
            Draws { stream: 3, ..draws },
            Draws { step: 4, ..draws },
            Draws { step: 3 | 1 << 32, ..draws },
        ];
        for other in others {
            assert_ne!(first(draws), first(other), "{other:?}");
        }
    }
}
