//! Which vector instructions the processor has, as values that prove it.

use std::fmt;
use std::sync::OnceLock;

/// The environment variable that lowers the level of a process: one of the names that [`Level`] displays as.
const VARIABLE: &str = "ALTGRAD_SIMD";

/// The instruction sets that kernels are compiled for, weakest first. The strongest that the processor has is chosen
/// at run time, regardless of what the program was compiled for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Level {
    /// Portable code, compiled for what every processor of the target has: SSE2 on x86-64, NEON on 64-bit Arm.
    Scalar,
    /// AVX2 with FMA and F16C (Haswell, Zen).
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 F, BW, DQ, VL and VBMI (Ice Lake, Zen 4), on top of AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// AVX-512 BF16 (Sapphire Rapids, Zen 4), on top of the others.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512Bf16),
}

/// Proof that the processor has AVX2, FMA and F16C: only [`Level::available`] makes one.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

/// Proof that the processor has AVX-512 F, BW, DQ, VL and VBMI as well: only [`Level::available`] makes one.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

/// Proof that the processor has AVX-512 BF16 as well: only [`Level::available`] makes one.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx512Bf16(());

impl Level {
    /// The levels that this processor has, weakest first.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vector = {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            let avx512 = avx2
                && has!("avx512f")
                && has!("avx512bw")
                && has!("avx512dq")
                && has!("avx512vl")
                && has!("avx512vbmi");
            let bf16 = avx512 && has!("avx512bf16");
            [
                avx2.then_some(Self::Avx2(Avx2(()))),
                avx512.then_some(Self::Avx512(Avx512(()))),
                bf16.then_some(Self::Avx512Bf16(Avx512Bf16(()))),
            ]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let vector: [Option<Self>; 0] = [];
        [Some(Self::Scalar)].into_iter().chain(vector).flatten()
    }

    /// The level that kernels run on: the strongest that this processor has, or the strongest up to the one that the
    /// environment variable `ALTGRAD_SIMD` names (`scalar`, `avx2`, `avx512` or `avx512bf16`; other values count as
    /// not set). The variable is read once per process.
    #[must_use]
    pub fn detect() -> Self {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            let wanted = std::env::var(VARIABLE).ok();
            Self::at_most(wanted.as_deref())
        })
    }

    /// The strongest level of this processor, up to the one named `limit` if there is such a name.
    fn at_most(limit: Option<&str>) -> Self {
        let limit = NAMES.iter().position(|name| Some(*name) == limit).unwrap_or(NAMES.len());
        Self::available().take_while(|level| level.rank() <= limit).last().unwrap_or(Self::Scalar)
    }

    /// Whether there is an instruction that multiplies pairs of bf16.
    pub(super) fn has_pairs(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(_) => true,
            _ => false,
        }
    }

    /// Place in the order of strength, and in [`NAMES`].
    fn rank(self) -> usize {
        match self {
            Self::Scalar => 0,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => 2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(_) => 3,
        }
    }
}

/// The levels' names, weakest first.
const NAMES: [&str; 4] = ["scalar", "avx2", "avx512", "avx512bf16"];

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(NAMES[self.rank()])
    }
}

/// Declares functions whose loop, given as an `#[inline(always)]` function, is compiled for every [`Level`].
macro_rules! for_every_level {
    ($($(#[$doc:meta])* fn $name:ident = $loop:path, ($($argument:ident: $type:ty),*) $(-> $result:ty)?;)+) => {$(
        $(#[$doc])*
        #[allow(unsafe_code, reason = "calling what is compiled for features that the level proves")]
        pub(crate) fn $name<T: Scalar>(level: Level, $($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2<T: Scalar>($($argument: $type),*) $(-> $result)? {
                $loop($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512<T: Scalar>($($argument: $type),*) $(-> $result)? {
                $loop($($argument),*)
            }

            match level {
                Level::Scalar => $loop($($argument),*),
                // SAFETY: `Avx2` exists only where `available` detected avx2, fma and f16c.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2(_) => unsafe { avx2::<T>($($argument),*) },
                // SAFETY: `Avx512` exists only where `available` detected these and avx512f, bw, dq and vl.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512(_) => unsafe { avx512::<T>($($argument),*) },
                // SAFETY: `Avx512Bf16` exists only where `available` detected all that `Avx512` proves.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512Bf16(_) => unsafe { avx512::<T>($($argument),*) },
            }
        }
    )+};
}
pub(super) use for_every_level;

#[cfg(test)]
mod tests {
    use super::{Level, NAMES};

    #[test]
    fn the_variable_lowers_the_level_and_never_raises_it() {
        let strongest = Level::available().last().map(Level::rank);
        for (rank, name) in NAMES.iter().enumerate() {
            let level = Level::at_most(Some(name));
            assert_eq!(Some(level.rank()), strongest.map(|strongest| strongest.min(rank)), "{name}");
            assert_eq!(level.to_string(), NAMES[level.rank()]);
        }
        for other in [None, Some(""), Some("AVX2"), Some("sse9")] {
            assert_eq!(Some(Level::at_most(other).rank()), strongest, "{other:?}");
        }
    }
}
