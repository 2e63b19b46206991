//! Which vector instructions the processor has, as values that prove it.

/// The instruction sets that loops are compiled for, weakest first.
#[derive(Clone, Copy, Debug)]
pub(super) enum Level {
    /// What every processor of the target has.
    Baseline,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 F, BW, DQ and VL, on top of AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// Proof that the processor has AVX2, FMA and F16C: only [`Level::available`] makes one.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

/// Proof that the processor has AVX-512 F, BW, DQ and VL as well: only [`Level::available`] makes one.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Level {
    /// The levels that this processor has, weakest first.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vector = {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            [avx2.then_some(Self::Avx2(Avx2(()))), avx512.then_some(Self::Avx512(Avx512(())))]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let vector = [];
        [Some(Self::Baseline)].into_iter().chain(vector).flatten()
    }

    /// The strongest level that this processor has. The standard library remembers what it detected, so this is cheap.
    pub(super) fn detect() -> Self {
        Self::available().last().unwrap_or(Self::Baseline)
    }
}

/// Declares functions whose loop, given as an `#[inline(always)]` function, is compiled for every [`Level`].
macro_rules! for_every_level {
    ($($(#[$doc:meta])* fn $name:ident = $loop:path, ($($argument:ident: $type:ty),*) $(-> $result:ty)?;)+) => {$(
        $(#[$doc])*
        #[allow(unsafe_code, reason = "calling what is compiled for features that the level proves")]
        pub(super) fn $name<T: Element>(level: Level, $($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2<T: Element>($($argument: $type),*) $(-> $result)? {
                $loop($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512<T: Element>($($argument: $type),*) $(-> $result)? {
                $loop($($argument),*)
            }

            match level {
                Level::Baseline => $loop($($argument),*),
                // SAFETY: `Avx2` exists only where `available` detected avx2, fma and f16c.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2(_) => unsafe { avx2($($argument),*) },
                // SAFETY: `Avx512` exists only where `available` detected these and avx512f, bw, dq and vl.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512(_) => unsafe { avx512($($argument),*) },
            }
        }
    )+};
}
pub(super) use for_every_level;
