//! The loss curves as an SVG chart: the losses, and how far each is from full precision.

use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::results::RunResult;

const SIZE: (u32, u32) = (960, 720);
const LOSS: &str = "training loss, nats a byte";
const COLORS: [RGBColor; 10] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(127, 127, 127),
];

struct Curve {
    name: String,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

/// The chart as SVG text. The lower half, in the colors of the upper one, exists only if full precision and something
/// else were trained.
pub(crate) fn loss_curves(results: &[RunResult]) -> Result<String> {
    let curves: Vec<Curve> = results
        .iter()
        .zip(COLORS.iter().cycle())
        .map(|(result, color)| Curve {
            name: result.run.name.clone(),
            color: *color,
            points: smoothed(&result.train_losses),
        })
        .collect();
    let full = results.iter().position(|result| result.run.is_full());
    let differences: Vec<Curve> = full.map_or_else(Vec::new, |full| {
        let others = curves.iter().enumerate().filter(|(number, _)| *number != full);
        others.map(|(_, curve)| curve.minus(&curves[full])).collect()
    });

    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    if differences.is_empty() {
        draw(&root, LOSS, true, &curves)?;
    } else {
        let (upper, lower) = root.split_vertically(SIZE.1 * 3 / 5);
        draw(&upper, LOSS, true, &curves)?;
        draw(&lower, "difference to full precision", false, &differences)?;
    }
    root.present()?;
    drop(root);
    Ok(svg)
}

impl Curve {
    fn minus(&self, other: &Self) -> Self {
        let pairs = self.points.iter().zip(&other.points);
        let points = pairs.map(|((step, here), (_, there))| (*step, here - there)).collect();
        Self { name: self.name.clone(), color: self.color, points }
    }
}

/// A moving average: the mean of each step and those before it, over a fortieth of the run.
fn smoothed(losses: &[f32]) -> Vec<(f64, f64)> {
    let width = (losses.len() / 40).max(1);
    let mean = |step: usize| {
        let window = &losses[step.saturating_sub(width)..step];
        window.iter().copied().map(f64::from).sum::<f64>() / window.len() as f64
    };
    (1..=losses.len()).map(|step| (step as f64, mean(step))).collect()
}

fn draw(area: &DrawingArea<SVGBackend<'_>, Shift>, title: &str, legend: bool, curves: &[Curve]) -> Result<()> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let steps = points().map(|(step, _)| *step).fold(1.0, f64::max);
    let low = points().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
    let high = points().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
    let margin = (0.05 * (high - low)).max(1e-3);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(title, ("sans-serif", 18))
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..steps, low - margin..high + margin)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for curve in curves {
        let color = curve.color;
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), color.stroke_width(2)))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    if legend {
        let mut labels = chart.configure_series_labels();
        labels.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    }
    Ok(())
}
