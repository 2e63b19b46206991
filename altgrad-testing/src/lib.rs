//! What the numeric tests share: an oracle for the formats that knows nothing of the library, and inputs to try.
//!
//! The oracle takes the definition of a format, writes down all its values as `f64`, in which they and their midpoints
//! are exact, and finds the nearest one by searching among the midpoints.
//!
//! It counts values by their numbers: the magnitude bits of a code as its format has them. A code of 6 or 4 bits is the
//! upper bits of a byte, so its number is that of the byte over 4 or 16.

#![allow(missing_docs, clippy::must_use_candidate, clippy::missing_panics_doc, reason = "a crate for tests alone")]

pub mod corpus;
pub mod golden;

/// What the codes that are not finite numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    None,
    NanOnly,
    Ieee,
    Fnuz,
}

/// The definition of a format.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub name: &'static str,
    pub exponent_bits: u8,
    pub mantissa_bits: u8,
    pub bias: i16,
    pub kind: Kind,
}

const fn spec(name: &'static str, exponent_bits: u8, bias: i16, kind: Kind) -> Spec {
    Spec { name, exponent_bits, mantissa_bits: 7 - exponent_bits, bias, kind }
}

/// One of fewer than 8 bits, which has no specials.
const fn narrow(name: &'static str, exponent_bits: u8, mantissa_bits: u8, bias: i16) -> Spec {
    Spec { name, exponent_bits, mantissa_bits, bias, kind: Kind::None }
}

/// The formats with a name.
pub const NAMED: [Spec; 16] = [
    spec("E0M7", 0, 1, Kind::None),
    spec("E1M6", 1, 0, Kind::None),
    spec("E2M5", 2, 1, Kind::None),
    spec("E3M4", 3, 3, Kind::None),
    spec("E4M3", 4, 7, Kind::NanOnly),
    spec("E5M2", 5, 15, Kind::Ieee),
    spec("E6M1", 6, 31, Kind::None),
    spec("E7M0", 7, 63, Kind::None),
    spec("E4M3_FNUZ", 4, 8, Kind::Fnuz),
    spec("E5M2_FNUZ", 5, 16, Kind::Fnuz),
    spec("E4M3_B11_FNUZ", 4, 11, Kind::Fnuz),
    spec("E4M3_IEEE", 4, 7, Kind::Ieee),
    spec("E3M4_IEEE", 3, 3, Kind::Ieee),
    narrow("E2M3", 2, 3, 1),
    narrow("E3M2", 3, 2, 3),
    narrow("E2M1", 2, 1, 1),
];

/// Formats without a name that golden tables exist for.
pub const CUSTOM_GOLDEN: [Spec; 7] = [
    spec("E7M0(bias=64, specials=nan_only)", 7, 64, Kind::NanOnly),
    spec("E7M0(bias=65, specials=fnuz)", 7, 65, Kind::Fnuz),
    spec("E6M1(bias=40, specials=nan_only)", 6, 40, Kind::NanOnly),
    spec("E2M5(bias=-3, specials=ieee)", 2, -3, Kind::Ieee),
    narrow("E3M0(bias=3, specials=none)", 3, 0, 3),
    narrow("E0M3(bias=1, specials=none)", 0, 3, 1),
    narrow("E4M1(bias=7, specials=none)", 4, 1, 7),
];

/// More without a name: the ends of the ranges of the bias, and infinities beside the subnormals.
pub const CUSTOM: [Spec; 13] = [
    spec("E0M7(bias=120, specials=nan_only)", 0, 120, Kind::NanOnly),
    spec("E0M7(bias=-110, specials=fnuz)", 0, -110, Kind::Fnuz),
    spec("E1M6(bias=5, specials=ieee)", 1, 5, Kind::Ieee),
    spec("E4M3(bias=124, specials=nan_only)", 4, 124, Kind::NanOnly),
    spec("E4M3(bias=-92, specials=none)", 4, -92, Kind::None),
    spec("E6M1(bias=126, specials=ieee)", 6, 126, Kind::Ieee),
    spec("E7M0(bias=127, specials=none)", 7, 127, Kind::None),
    spec("E7M0(bias=126, specials=fnuz)", 7, 126, Kind::Fnuz),
    spec("E7M0(bias=23, specials=none)", 7, 23, Kind::None),
    narrow("E2M1(bias=122, specials=none)", 2, 1, 122),
    narrow("E2M1(bias=-102, specials=none)", 2, 1, -102),
    narrow("E5M0(bias=16, specials=none)", 5, 0, 16),
    narrow("E0M5(bias=-108, specials=none)", 0, 5, -108),
];

/// All of the above.
pub fn all_specs() -> impl Iterator<Item = Spec> {
    NAMED.into_iter().chain(CUSTOM_GOLDEN).chain(CUSTOM)
}

impl Spec {
    /// Bytes from one code to the next: 1 for 8 bits, 4 for 6, 16 for 4.
    pub fn spacing(self) -> u8 {
        2u8.pow(7 - u32::from(self.exponent_bits + self.mantissa_bits))
    }

    /// All codes in their order.
    pub fn codes(self) -> impl Iterator<Item = u8> + Clone {
        (0..=u8::MAX).step_by(self.spacing().into())
    }

    /// The value of a magnitude's number read as that of an ordinary one, also of those beyond the last code. Between
    /// two numbers lie the values of more mantissa bits.
    fn ordinary(self, number: f64) -> f64 {
        let (bias, mantissa_bits) = (i32::from(self.bias), i32::from(self.mantissa_bits));
        let field = (number / 2f64.powi(mantissa_bits)).floor();
        let fraction = number - field * 2f64.powi(mantissa_bits);
        match field as i32 {
            0 => fraction * 2f64.powi(1 - bias - mantissa_bits),
            field => (fraction + 2f64.powi(mantissa_bits)) * 2f64.powi(field - bias - mantissa_bits),
        }
    }

    /// The value of a byte, be it a code or not.
    pub fn decode(self, code: u8) -> f64 {
        let magnitude = code & 0x7F;
        let all_exponent_bits = (1 << self.exponent_bits) - 1;
        let (field, fraction) = (magnitude >> self.mantissa_bits, magnitude % (1 << self.mantissa_bits));
        let value = match self.kind {
            Kind::NanOnly if magnitude == 0x7F => f64::NAN,
            Kind::Fnuz if code == 0x80 => f64::NAN,
            Kind::Ieee if field == all_exponent_bits && fraction == 0 => f64::INFINITY,
            Kind::Ieee if field == all_exponent_bits => f64::NAN,
            _ => self.ordinary(f64::from(magnitude) / f64::from(self.spacing())),
        };
        if code < 0x80 { value } else { -value }
    }

    pub fn has_nan(self) -> bool {
        self.kind != Kind::None
    }

    /// Whether a code is the negative zero.
    pub fn has_negative_zero(self) -> bool {
        self.kind != Kind::Fnuz
    }
}

/// A format's values and the midpoints between them.
pub struct Oracle {
    pub spec: Spec,
    /// The code of the largest finite value.
    pub largest_code: u8,
    /// `midpoints[n]` lies between the magnitudes of the numbers `n` and `n + 1`, as if there were no specials.
    midpoints: Vec<f64>,
    values: [f64; 256],
}

impl Oracle {
    pub fn new(spec: Spec) -> Self {
        let values = std::array::from_fn(|code| spec.decode(code as u8));
        let positive = spec.codes().filter(|code| *code < 0x80 && spec.decode(*code).is_finite());
        let largest_code = positive.last().unwrap_or_default();
        let midpoints = (0..=largest_code / spec.spacing())
            .map(|number| {
                let (below, above) = (spec.ordinary(number.into()), spec.ordinary(f64::from(number) + 1.0));
                assert!(below < above, "magnitudes of {} must grow", spec.name);
                below / 2.0 + above / 2.0
            })
            .collect();
        Self { spec, largest_code, midpoints, values }
    }

    pub fn decode(&self, code: u8) -> f64 {
        self.values[usize::from(code)]
    }

    /// The magnitudes of all finite values in their order, and of the two that would follow.
    pub fn magnitudes(&self) -> Vec<f64> {
        let beyond = u32::from(self.largest_code / self.spec.spacing()) + 1;
        (0..=beyond + 1).map(|number| self.spec.ordinary(number.into())).collect()
    }

    pub fn largest(&self) -> f64 {
        self.decode(self.largest_code)
    }

    /// The code nearest to a number, overflow saturated; `None` for NaN, of which no one code is the right one.
    pub fn saturated(&self, value: f64) -> Option<u8> {
        let magnitude = self.magnitude(value)?;
        Some(self.signed(magnitude.min(self.largest_code), value))
    }

    /// As [`saturated`](Self::saturated), with overflow to infinity if there is one, `None` (for NaN) if there is that.
    pub fn special(&self, value: f64) -> Option<u8> {
        let magnitude = self.magnitude(value)?;
        if magnitude <= self.largest_code {
            return Some(self.signed(magnitude, value));
        }
        match self.spec.kind {
            Kind::None => self.saturated(value),
            Kind::NanOnly | Kind::Fnuz => None,
            Kind::Ieee => Some(self.signed(self.largest_code + 1, value)),
        }
    }

    /// The magnitude bits of the nearest value; more than the largest for overflow.
    fn magnitude(&self, value: f64) -> Option<u8> {
        if value.is_nan() {
            return None;
        }
        let value = value.abs();
        let below = self.midpoints.partition_point(|midpoint| *midpoint < value);
        let tie = self.midpoints.get(below) == Some(&value);
        Some((if tie && below % 2 == 1 { below + 1 } else { below }) as u8 * self.spec.spacing())
    }

    fn signed(&self, magnitude: u8, value: f64) -> u8 {
        let keeps_sign = magnitude != 0 || self.spec.has_negative_zero();
        if value.is_sign_negative() && keeps_sign { magnitude | 0x80 } else { magnitude }
    }

    /// The points between which nothing changes: all magnitudes, all midpoints, and two beyond the largest.
    pub fn points(&self) -> Vec<f64> {
        self.magnitudes().into_iter().chain(self.midpoints.iter().copied()).collect()
    }
}

/// A float of 16 bits: the numbers of significant bits and the exponents of its smallest and largest normal numbers.
#[derive(Clone, Copy)]
pub struct Narrow {
    digits: i32,
    lowest: i32,
    highest: i32,
}

pub const F16: Narrow = Narrow { digits: 11, lowest: -14, highest: 15 };
pub const BF16: Narrow = Narrow { digits: 8, lowest: -126, highest: 127 };

impl Narrow {
    /// The nearest value, ties to even, as `f64`; `value` must be an `f32`.
    pub fn nearest(self, value: f64) -> f64 {
        if value == 0.0 || !value.is_finite() {
            return value;
        }
        let exponent = (value.abs().to_bits() >> 52) as i32 - 1023;
        let step = 2f64.powi(exponent.max(self.lowest) - self.digits + 1);
        let nearest = (value / step).round_ties_even() * step;
        if nearest.abs() >= 2f64.powi(self.highest + 1) { f64::INFINITY.copysign(value) } else { nearest }
    }

    /// The bits of a value of this type.
    pub fn bits(self, value: f64) -> u16 {
        let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
        let fraction_bits = self.digits - 1;
        let value = value.abs();
        let magnitude = if value.is_nan() {
            0x7FFF
        } else if value.is_infinite() {
            (self.highest - self.lowest + 2) << fraction_bits
        } else if value < 2f64.powi(self.lowest) {
            (value / 2f64.powi(self.lowest - fraction_bits)) as i32
        } else {
            let exponent = (value.to_bits() >> 52) as i32 - 1023;
            ((exponent - self.lowest) << fraction_bits) + (value / 2f64.powi(exponent - fraction_bits)) as i32
        };
        sign | magnitude as u16
    }
}
