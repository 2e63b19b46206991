//! How values between two codes are rounded.

use serde::{Deserialize, Serialize};

/// How a value that lies between two values of the format is rounded to one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Rounding {
    /// To the nearest value; ties go to the code with an even last bit.
    #[default]
    NearestEven,
    /// To one of the two at random, more often to the nearer one, so that the mean over many draws is the value
    /// itself.
    ///
    /// Element `i` of a tensor draws the same bits in step `s` regardless of the number of threads, the device and
    /// the rest of the model: they are a function of the seed, the layer's path, the role of the tensor, `s` and `i`,
    /// computed by the counter-based generator Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1,
    /// 2, 3", 2011). Layers made by hand have no path, so those with the same seed draw the same bits. Probabilities
    /// are exact to 2⁻²⁴ (2⁻³² for `f64`).
    Stochastic {
        /// Seed of the experiment.
        seed: u64,
    },
}

/// The stream that a tensor of a model draws from: a stable 32-bit FNV-1a hash of its name, so that tensors hardly
/// ever share their draws.
pub(crate) fn stream(name: &str) -> u32 {
    name.bytes().fold(0x811C_9DC5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::stream;

    #[test]
    fn streams_are_fnv_1a() {
        // The test vectors of the FNV authors (Fowler, Noll, Vo).
        assert_eq!(stream(""), 0x811C_9DC5);
        assert_eq!(stream("a"), 0xE40C_292C);
        assert_eq!(stream("foobar"), 0xBF9C_F968);
    }
}
