//! One scale for each output channel means the same whatever the dimensions of a weight.

use altgrad::{Fp8, Fp8Tensor, Granularity, Linear, Quantizable, Quantizer, fake_quantize, nn};
use candle_nn::Conv2dConfig;

use super::{bits, tensor, values};

#[test]
fn channels_of_a_tensor_are_the_rows_of_its_matrix() {
    let weight = tensor((6, 4, 3, 2), 1);
    let matrix = weight.reshape((6, 24)).unwrap();
    let channels = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerChannel);
    let rows = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
    let of_tensor = Fp8Tensor::quantize(&weight, &channels).unwrap();
    let of_matrix = Fp8Tensor::quantize(&matrix, &rows).unwrap();
    assert_eq!(of_tensor.scales().dims(), [6, 1]);
    assert_eq!(values(of_tensor.scales()), values(of_matrix.scales()));
    assert_eq!(values(of_tensor.codes()), values(of_matrix.codes()));
    assert_eq!(
        bits(&fake_quantize(&weight, &channels).unwrap()),
        bits(&fake_quantize(&matrix, &channels).unwrap()),
        "of a matrix, channels are rows"
    );
    // By the rows of the tensor there are more.
    assert_eq!(Fp8Tensor::quantize(&weight, &rows).unwrap().scales().dims(), [72, 1]);
}

#[test]
fn a_layer_has_as_many_scales_as_output_channels() {
    for granularity in [Granularity::PerRow, Granularity::PerChannel] {
        let quantizer = Quantizer::new(Fp8::E4M3).granularity(granularity);
        let mut conv = nn::Conv2d::new(tensor((6, 4, 3, 2), 1), None, Conv2dConfig::default());
        let mut linear = Linear::new(tensor((6, 24), 1), None);
        conv.quantize(quantizer.clone()).unwrap();
        linear.quantize(quantizer).unwrap();
        conv.freeze().unwrap();
        linear.freeze().unwrap();
        let (nn::Conv2d::Frozen(conv), Linear::Frozen(linear)) = (conv, linear) else { panic!("frozen") };
        let (conv, linear) = (conv.weight().unwrap(), linear.weight().unwrap());
        assert_eq!(conv.scales().elem_count(), 6);
        assert_eq!(values(conv.scales()), values(linear.scales()));
        assert_eq!(values(conv.codes()), values(linear.codes()));
    }
}
