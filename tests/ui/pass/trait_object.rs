//! Quantizing and calibrating through a reference to an object, which has no size.

use altgrad::{Fp8, Quantizable, Result};
use altgrad::report::{CalibrationReport, QuantReport};
use altgrad::visit::Visit;

fn quantize(model: &mut dyn Visit) -> Result<QuantReport> {
    model.quantize(Fp8::E4M3)?;
    model.freeze()
}

fn calibrate(model: &mut (dyn Visit + Send + Sync)) -> Result<CalibrationReport> {
    model.calibrate(|_| Ok(()))
}

fn main() {
    assert!(quantize(&mut ()).is_err());
    assert!(calibrate(&mut ()).is_err());
}
