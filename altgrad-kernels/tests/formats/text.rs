//! Formats as text.

use altgrad_kernels::{Fp8, Specials};

use crate::format_of;
use altgrad_testing::all_specs;

#[test]
fn names_come_back() {
    for spec in all_specs() {
        let format = format_of(spec);
        assert_eq!(format.to_string(), spec.name);
        assert_eq!(format!("{format:?}"), spec.name);
        assert_eq!(spec.name.parse(), Ok(format));
        assert_eq!(spec.name.to_lowercase().parse(), Ok(format));
        assert_eq!(format!("  {}\n", spec.name.to_uppercase()).parse(), Ok(format));
        let json = serde_json::to_string(&format).unwrap();
        assert_eq!(json, format!("\"{}\"", spec.name));
        assert_eq!(serde_json::from_str::<Fp8>(&json).unwrap(), format);
    }
}

#[test]
fn every_format_with_a_name_of_its_own_parses() {
    for specials in [Specials::None, Specials::NanOnly, Specials::Ieee, Specials::Fnuz] {
        for (sum, exponent_bits) in [7, 5, 3].into_iter().flat_map(|sum| (0..=sum).map(move |bits| (sum, bits))) {
            for bias in -120..=130 {
                let Ok(format) = Fp8::new(exponent_bits, sum - exponent_bits, bias, specials) else { continue };
                assert_eq!(format.to_string().parse(), Ok(format));
            }
        }
    }
}

#[test]
fn the_name_is_padded() {
    assert_eq!(format!("[{:>6}]", Fp8::E4M3), "[  E4M3]");
    let custom = Fp8::new(4, 3, 5, Specials::None).unwrap();
    assert_eq!(format!("[{custom:<32}]"), "[E4M3(bias=5, specials=none)     ]");
}

#[test]
fn a_named_format_spelled_out_is_that_format() {
    assert_eq!("E4M3(bias=7, specials=nan_only)".parse(), Ok(Fp8::E4M3));
    assert_eq!("e5m2( bias=15,specials=IEEE )".parse(), Ok(Fp8::E5M2));
    assert_eq!(Fp8::new(4, 3, 8, Specials::Fnuz).unwrap().to_string(), "E4M3_FNUZ");
    assert_eq!("e2m1(bias=1, specials=none)".parse(), Ok(Fp8::E2M1));
    assert_eq!(Fp8::new(3, 2, 3, Specials::None).unwrap().to_string(), "E3M2");
    assert_eq!(Fp8::new(3, 2, 4, Specials::None).unwrap().to_string(), "E3M2(bias=4, specials=none)");
}

#[test]
fn errors_list_what_is_accepted() {
    let accepted = "known are E0M7, E1M6, E2M5, E3M4, E4M3, E5M2, E6M1, E7M0, E4M3_FNUZ, E5M2_FNUZ, E4M3_B11_FNUZ, \
                    E4M3_IEEE, E3M4_IEEE, E2M3, E3M2, E2M1, or a custom one such as `E4M3(bias=5, specials=none)` \
                    with specials none, nan_only, ieee or fnuz";
    let not_formats = [
        "",
        " ",
        "E8M0",
        "E4M4",
        "E4M3FN",
        "4M3",
        "E4M3()",
        "E4M3(bias=5)",
        "E4M3(bias=5, specials=none",
        "E4M3(bias=5, specials=some)",
        "E4M3(bias=x, specials=none)",
        "E4M3(bias=40000, specials=none)",
        "E4M3(specials=none, bias=5)",
        "E-4M3(bias=5, specials=none)",
        "E4M3 (bias=5, specials=none) ✓",
        "é4M3(bias=5, specials=none)",
    ];
    for text in not_formats {
        let error = text.parse::<Fp8>().unwrap_err().to_string();
        assert_eq!(error, format!("`{text}` is not a format; {accepted}"));
    }
    let error = "E5M3(bias=5, specials=none)".parse::<Fp8>().unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "`E5M3(bias=5, specials=none)` is not a format; {accepted}: not a format: \
             5 exponent bits and 3 mantissa bits must add up to 7, 5 or 3: \
             with the sign that is a format of 8, 6 or 4 bits"
        )
    );
    let error = serde_json::from_str::<Fp8>("\"E9M9\"").unwrap_err().to_string();
    assert!(error.starts_with("`E9M9` is not a format; known are E0M7"), "{error}");
    assert!(serde_json::from_str::<Fp8>("43").is_err());
}
