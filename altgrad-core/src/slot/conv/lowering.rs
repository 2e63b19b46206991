//! A convolution as a product of matrices: its windows are the rows of the left one (im2col).

use altgrad_kernels::Windows;
use candle_core::{Device, Tensor};

use crate::quantizer::{gather_windows, scatter_windows};
use crate::slot::Lowering;
use crate::{Error, Result, TensorError};

/// A convolution over two dimensions, or over one with a height of 1.
#[derive(Debug)]
pub(super) struct Convolution {
    pub(super) is_1d: bool,
    pub(super) outputs: usize,
    /// Input channels of one group.
    pub(super) inputs: usize,
    pub(super) groups: usize,
    /// Along height and width, as the fields below.
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) padding: [usize; 2],
    pub(super) dilation: [usize; 2],
}

impl Convolution {
    /// The windows of an input of these dimensions.
    fn windows(&self, x: &[usize]) -> Result<Windows> {
        let &Self { groups, kernel, stride, padding, dilation, .. } = self;
        let (images, channels, image) = match (self.is_1d, x) {
            (true, &[images, channels, length]) => (images, channels, [1, length]),
            (false, &[images, channels, height, width]) => (images, channels, [height, width]),
            _ => return Err(self.not_an_input(x)),
        };
        let windows = Windows { images, channels, groups, image, kernel, stride, padding, dilation };
        if channels != self.inputs * groups || windows.output().contains(&0) || !windows.fits_memory() {
            return Err(self.not_an_input(x));
        }
        Ok(windows)
    }

    fn not_an_input(&self, actual: &[usize]) -> Error {
        let (channels, [height, width]) = (self.inputs * self.groups, self.kernel);
        // What a window covers, gaps included.
        let cover =
            |side: usize| self.dilation[side].saturating_mul(self.kernel[side].saturating_sub(1)).saturating_add(1);
        let (down, across) = (cover(0), cover(1));
        let expected = if self.is_1d {
            format!("(images, {channels}, length), with padding at least {across} long, the extent of a window")
        } else {
            format!(
                "(images, {channels}, height, width), with padding at least {down}×{across}, the extent of a window of \
                 the kernel {height}×{width}"
            )
        };
        Error::Tensor(TensorError::ShapeMismatch { what: "the input", expected, actual: actual.to_vec() })
    }
}

impl Lowering for Convolution {
    fn check_input(&self, x: &Tensor) -> Result<()> {
        self.windows(x.dims()).map(|_| ())
    }

    fn input(&self, x: &Tensor) -> Result<Tensor> {
        let windows = self.windows(x.dims())?;
        if x.device().is_cpu() { gather_windows(x, &windows) } else { gather(x, &windows) }
    }

    fn input_gradient(&self, dx: Tensor, x: &[usize]) -> Result<Tensor> {
        let windows = self.windows(x)?;
        if dx.device().is_cpu() {
            return Ok(scatter_windows(&dx, &windows)?.reshape(x)?);
        }
        Ok(scatter(&dx, &windows)?.reshape(x)?)
    }

    fn weight_shape(&self) -> (usize, usize) {
        (self.outputs, self.inputs * self.kernel[0] * self.kernel[1])
    }

    fn groups(&self) -> usize {
        self.groups
    }

    fn output(&self, y: Tensor, x: &[usize]) -> Result<Tensor> {
        let windows = self.windows(x)?;
        let [height, width] = windows.output();
        let (images, outputs) = (windows.images, self.outputs / self.groups);
        // Rows are windows of each group, columns its outputs.
        let y = y.reshape((self.groups, images, height * width, outputs))?.permute((1, 0, 3, 2))?;
        let y = y.contiguous()?.reshape((images, self.outputs, height * width))?;
        Ok(if self.is_1d { y } else { y.reshape((images, self.outputs, height, width))? })
    }
}

/// The windows of images as rows, by candle's operations.
fn gather(x: &Tensor, windows: &Windows) -> Result<Tensor> {
    let Windows { images, channels, groups, image: [height, width], padding: [above, beside], .. } = *windows;
    let x = x.reshape((images, channels, height, width))?;
    let x = x.pad_with_zeros(2, above, above)?.pad_with_zeros(3, beside, beside)?;
    let elements = places(windows, x.device()).map(|place| {
        let (rows, cols) = place?;
        Ok(x.index_select(&rows, 2)?.index_select(&cols, 3)?)
    });
    let elements = elements.collect::<Result<Vec<_>>>()?;
    let [down, across] = windows.output();
    let stacked = Tensor::stack(&elements, 2)?;
    let dims = (images, groups, channels / groups * elements.len(), down * across);
    Ok(stacked.reshape(dims)?.permute((1, 0, 3, 2))?.contiguous()?.reshape(windows.shape())?)
}

/// The sum of the rows of windows at the places that [`gather`] takes them from, by candle's operations.
fn scatter(rows: &Tensor, windows: &Windows) -> Result<Tensor> {
    let Windows { images, channels, groups, image: [height, width], padding: [above, beside], kernel, .. } = *windows;
    let [down, across] = windows.output();
    let elements = kernel[0] * kernel[1];
    let rows = rows.reshape((groups, images, down * across, channels / groups * elements))?.permute((1, 0, 3, 2))?;
    let rows = rows.contiguous()?.reshape((images, channels, elements, down, across))?;
    let (dtype, device) = (rows.dtype(), rows.device());
    let mut sum = Tensor::zeros((images, channels, height + 2 * above, width + 2 * beside), dtype, device)?;
    let wide = Tensor::zeros((images, channels, down, width + 2 * beside), dtype, device)?;
    for (element, place) in places(windows, device).enumerate() {
        let (of_rows, of_cols) = place?;
        let values = rows.narrow(2, element, 1)?.squeeze(2)?.contiguous()?;
        sum = sum.index_add(&of_rows, &wide.index_add(&of_cols, &values, 3)?, 2)?;
    }
    Ok(sum.narrow(2, above, height)?.narrow(3, beside, width)?.contiguous()?)
}

/// For each element of a window, the rows and columns of the padded image at which all windows have that element.
fn places<'d>(windows: &Windows, device: &'d Device) -> impl Iterator<Item = Result<(Tensor, Tensor)>> + use<'d> {
    let Windows { kernel: [height, width], stride, dilation, .. } = *windows;
    let output = windows.output();
    let line = move |side: usize, element: usize| -> Result<Tensor> {
        let places = (0..output[side]).map(|place| (place * stride[side] + element * dilation[side]) as u32);
        Ok(Tensor::from_iter(places, device)?)
    };
    (0..height * width).map(move |element| Ok((line(0, element / width)?, line(1, element % width)?)))
}

#[cfg(test)]
mod tests {
    use altgrad_kernels::Windows;
    use candle_core::{Device, Tensor};

    use super::{gather, scatter};
    use crate::quantizer::{gather_windows, scatter_windows};

    #[test]
    fn candles_operations_and_kernels_agree() {
        for (stride, padding, dilation) in
            [([1, 1], [0, 0], [1, 1]), ([2, 1], [1, 2], [1, 1]), ([1, 3], [2, 2], [2, 2]), ([3, 2], [0, 1], [1, 3])]
        {
            for (images, channels, groups) in [(1, 1, 1), (2, 4, 2), (3, 6, 6)] {
                let windows =
                    Windows { images, channels, groups, image: [6, 7], kernel: [3, 2], stride, padding, dilation };
                let (rows, cols) = windows.shape();
                // Integers, so that sums are exact in any order.
                let x = Tensor::arange(0f32, windows.elements() as f32, &Device::Cpu).unwrap();
                let x = x.reshape((images, channels, 6, 7)).unwrap();
                let dx = Tensor::arange(0f32, (rows * cols) as f32, &Device::Cpu).unwrap();
                let dx = dx.reshape((rows, cols)).unwrap();
                let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(
                    values(gather(&x, &windows).unwrap()),
                    values(gather_windows(&x, &windows).unwrap()),
                    "{windows:?}"
                );
                assert_eq!(
                    values(scatter(&dx, &windows).unwrap()),
                    values(scatter_windows(&dx, &windows).unwrap()),
                    "{windows:?}"
                );
            }
        }
    }
}
