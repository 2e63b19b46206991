//! Surgery where the trait is not in scope.


mod model {
    use altgrad::{Linear, Quantizable};

    #[derive(Quantizable)]
    pub struct Model {
        layer: Linear,
    }
}

fn quantize(model: &mut model::Model) {
    let _ = model.quantize(altgrad::Fp8::E4M3);
}

fn main() {}
