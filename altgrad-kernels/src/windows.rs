//! The windows of a convolution as rows of a matrix (im2col), and the sum of such rows (col2im).

use std::ops::Range;

use crate::element::Scalar;
use crate::threads;

/// The windows of a convolution over images of `(channels, height, width)`. A convolution over one dimension has
/// images of height 1.
///
/// A row of the matrix of windows has the elements of one window of the channels of one group: `(channels of the group,
/// kernel height, kernel width)`. Rows are in the order `(group, image, output height, output width)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Number of images.
    pub images: usize,
    /// Channels of an image, of all groups.
    pub channels: usize,
    /// Groups of channels, at least 1, a divisor of the channels.
    pub groups: usize,
    /// Height and width of an image.
    pub image: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Steps from window to window, at least 1.
    pub stride: [usize; 2],
    /// Zeros on each side of an image.
    pub padding: [usize; 2],
    /// Steps from element to element of a window, at least 1.
    pub dilation: [usize; 2],
}

impl Windows {
    /// Height and width of the output, in windows; 0 where the kernel is larger than the padded image.
    #[must_use]
    pub fn output(&self) -> [usize; 2] {
        [0, 1].map(|side| {
            let reach = self.dilation[side].saturating_mul(self.kernel[side].saturating_sub(1)).saturating_add(1);
            let padded = self.image[side].saturating_add(self.padding[side].saturating_mul(2));
            padded.checked_sub(reach).map_or(0, |rest| rest / self.stride[side].max(1) + 1)
        })
    }

    /// Number of rows (of all groups) and of columns of the matrix of windows.
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        let [height, width] = self.output();
        let [kernel_height, kernel_width] = self.kernel;
        (self.groups * self.images * height * width, self.channels_of_group() * kernel_height * kernel_width)
    }

    /// Whether memory could hold a matrix of the windows, which the other functions rely on.
    #[must_use]
    pub fn fits_memory(&self) -> bool {
        let [height, width] = self.output();
        let factors =
            [self.groups, self.images, height, width, self.channels_of_group(), self.kernel[0], self.kernel[1]];
        let bytes = factors.into_iter().try_fold(size_of::<f64>(), usize::checked_mul);
        let padded = [0, 1].map(|side| self.image[side].saturating_add(self.padding[side].saturating_mul(2)));
        let can_address = |number: usize| isize::try_from(number).is_ok();
        bytes.is_some_and(can_address) && padded.into_iter().all(can_address)
    }

    /// Number of elements of the images.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.images * self.channels * self.image[0] * self.image[1]
    }

    fn channels_of_group(&self) -> usize {
        self.channels / self.groups.max(1)
    }

    /// Along one side of the image: the position where the windows of an output position begin, and the elements of a
    /// window that lie inside the image.
    fn inside(&self, side: usize, output: usize) -> (isize, Range<usize>) {
        let start = (output * self.stride[side]) as isize - self.padding[side] as isize;
        let dilation = self.dilation[side].max(1);
        // The first element at or after the edge, and the first at or beyond the other edge.
        let first = if start < 0 { start.unsigned_abs().div_ceil(dilation) } else { 0 };
        let end = (self.image[side] as isize - start).max(0).unsigned_abs().div_ceil(dilation);
        let end = end.min(self.kernel[side]);
        (start, first.min(end)..end)
    }

    /// The rows of windows of images: writes to `to`, which must be zeros, the elements that are not padding.
    ///
    /// Both must be as long as [`elements`](Self::elements) and [`shape`](Self::shape) say.
    pub fn gather<T: Copy + Default + Send + Sync>(&self, from: &[T], to: &mut [T]) {
        let (rows, cols) = self.shape();
        debug_assert_eq!(
            (from.len(), to.len()),
            (self.elements(), rows * cols),
            "images and a matrix of their windows"
        );
        let [_, across] = self.output();
        // A part is one line of windows, side by side.
        let parts: Vec<_> = to.chunks_mut((across * cols).max(1)).enumerate().collect();
        threads::for_each(parts, rows * cols, |(part, to)| {
            for (window, row) in to.chunks_exact_mut(cols.max(1)).enumerate() {
                self.for_each_run(part, window, |in_image, in_row, len| {
                    if self.dilation[1] <= 1 {
                        row[in_row..in_row + len].copy_from_slice(&from[in_image..in_image + len]);
                    } else {
                        let values = from[in_image..].iter().step_by(self.dilation[1]);
                        row[in_row..in_row + len].iter_mut().zip(values).for_each(|(to, value)| *to = *value);
                    }
                });
            }
        });
    }

    /// Adds up the rows of windows, `from`, at the places that [`gather`](Self::gather) takes them from: its adjoint.
    /// Sums are taken in `f32` (in `f64` for `f64`) and rounded once.
    ///
    /// Both must be as long as [`shape`](Self::shape) and [`elements`](Self::elements) say.
    pub fn scatter_add<T: Scalar>(&self, from: &[T], to: &mut [T]) {
        let (rows, cols) = self.shape();
        debug_assert_eq!(
            (from.len(), to.len()),
            (rows * cols, self.elements()),
            "a matrix of windows and their images"
        );
        let [down, across] = self.output();
        let area = self.image[0] * self.image[1];
        let in_group = self.channels_of_group();
        let kernel = self.kernel[0] * self.kernel[1];
        // A part is one channel of one image, to which no other adds.
        let parts: Vec<_> = to.chunks_mut(area.max(1)).enumerate().collect();
        threads::for_each(parts, rows * cols, |(part, to)| {
            let (image, channel) = (part / self.channels.max(1), part % self.channels.max(1));
            let (group, channel) = (channel / in_group.max(1), channel % in_group.max(1));
            let mut sums = vec![T::Real::default(); area];
            for y in 0..down {
                let (top, inside_y) = self.inside(0, y);
                for x in 0..across {
                    let (lhs, inside_x) = self.inside(1, x);
                    let row = ((group * self.images + image) * down + y) * across + x;
                    let row = &from[row * cols + channel * kernel..][..kernel];
                    for ky in inside_y.clone() {
                        let line = (top + (ky * self.dilation[0]) as isize).unsigned_abs() * self.image[1];
                        for kx in inside_x.clone() {
                            let place = line + (lhs + (kx * self.dilation[1]) as isize).unsigned_abs();
                            sums[place] = sums[place] + row[ky * self.kernel[1] + kx].widen();
                        }
                    }
                }
            }
            to.iter_mut().zip(sums).for_each(|(to, sum)| *to = T::narrow(sum));
        });
    }

    /// Calls `copy` for each run of elements of a window that lie inside the image, with the position of the run in
    /// the images and in the window's row, and its length. `part` is the number of the window's line of windows.
    fn for_each_run(&self, part: usize, window: usize, mut copy: impl FnMut(usize, usize, usize)) {
        let [down, _] = self.output();
        let (of_group, y) = (part / down.max(1), part % down.max(1));
        let (group, image) = (of_group / self.images.max(1), of_group % self.images.max(1));
        let (top, inside_y) = self.inside(0, y);
        let (lhs, inside_x) = self.inside(1, window);
        if inside_x.is_empty() {
            return;
        }
        let [height, width] = self.image;
        let x = (lhs + (inside_x.start * self.dilation[1]) as isize).unsigned_abs();
        let in_group = self.channels_of_group();
        for channel in 0..in_group {
            let plane = (image * self.channels + group * in_group + channel) * height;
            for ky in inside_y.clone() {
                let line = plane + (top + (ky * self.dilation[0]) as isize).unsigned_abs();
                let in_row = (channel * self.kernel[0] + ky) * self.kernel[1] + inside_x.start;
                copy(line * width + x, in_row, inside_x.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Windows;

    /// The element of a window, one by one from its definition.
    fn element(windows: &Windows, from: &[f32], row: usize, col: usize) -> Option<(usize, f32)> {
        let ([down, across], [kh, kw]) = (windows.output(), windows.kernel);
        let (x, rest) = (row % across, row / across);
        let (y, rest) = (rest % down, rest / down);
        let (image, group) = (rest % windows.images, rest / windows.images);
        let (kx, ky, channel) = (col % kw, col / kw % kh, col / (kh * kw));
        let at = |place: usize, k: usize, side: usize| {
            let at = (place * windows.stride[side] + k * windows.dilation[side]).checked_sub(windows.padding[side])?;
            (at < windows.image[side]).then_some(at)
        };
        let (y, x) = (at(y, ky, 0)?, at(x, kx, 1)?);
        let channel = group * (windows.channels / windows.groups) + channel;
        let index = ((image * windows.channels + channel) * windows.image[0] + y) * windows.image[1] + x;
        Some((index, from[index]))
    }

    #[test]
    fn windows_and_their_sums_are_those_of_the_definition() {
        let sides = [([5, 7], [3, 2]), ([1, 9], [1, 3]), ([4, 4], [4, 4]), ([6, 5], [1, 1])];
        for (image, kernel) in sides {
            for (stride, padding, dilation) in
                [([1, 1], [0, 0], [1, 1]), ([2, 1], [1, 2], [1, 1]), ([1, 3], [2, 2], [2, 2]), ([3, 2], [0, 1], [1, 3])]
            {
                for (images, channels, groups) in [(1, 1, 1), (2, 4, 2), (1, 6, 6), (3, 4, 1)] {
                    let windows = Windows { images, channels, groups, image, kernel, stride, padding, dilation };
                    let from: Vec<f32> = (0..windows.elements()).map(|index| index as f32 + 1.0).collect();
                    let (rows, cols) = windows.shape();
                    let (mut to, mut sums) = (vec![7.0; rows * cols], vec![7.0; from.len()]);
                    // Elements outside of the image are not written, so the matrix must be zeros.
                    to.fill(0.0);
                    windows.gather(&from, &mut to);
                    windows.scatter_add(&to, &mut sums);
                    let mut expected = vec![0.0; from.len()];
                    for row in 0..rows {
                        for col in 0..cols {
                            let found = element(&windows, &from, row, col);
                            assert_eq!(to[row * cols + col], found.map_or(0.0, |(_, value)| value), "{windows:?}");
                            if let Some((index, value)) = found {
                                expected[index] += value;
                            }
                        }
                    }
                    assert_eq!(sums, expected, "{windows:?}");
                }
            }
        }
    }

    #[test]
    fn a_kernel_larger_than_the_padded_image_has_no_windows() {
        let windows = Windows {
            images: 1,
            channels: 1,
            groups: 1,
            image: [2, 2],
            kernel: [5, 5],
            stride: [1, 1],
            padding: [1, 1],
            dilation: [1, 1],
        };
        assert_eq!(windows.output(), [0, 0]);
        assert_eq!(windows.shape(), (0, 25));
    }
}
