//! Bar charts as SVG files.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Chart;
use super::report::Section;

const WIDTH: u32 = 860;
const NAMES_WIDTH: u32 = 250;
const BAR_HEIGHT: u32 = 13;
const GAP: u32 = 9;
const HEAD_HEIGHT: u32 = 58;
const FOOT_HEIGHT: u32 = 30;
/// Distinguishable also for those who do not see all colours.
const COLOURS: [RGBColor; 3] =
    [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(0, 158, 115)];
const FONT: (&str, i32) = ("sans-serif", 13);

/// The medians of one path.
struct Row<'a> {
    name: &'a str,
    values: Vec<Option<f64>>,
}

/// Draws the medians of all paths that have some.
pub(crate) fn draw(chart: &Chart, section: &Section, path: &Path) -> Result<()> {
    let rows: Vec<Row<'_>> = section
        .paths
        .iter()
        .map(|path| {
            let median = |figure| section.spread(&path.name, figure).map(|spread| spread.median);
            let columns = chart.columns.iter();
            let values =
                columns.map(|column| median(column.figure).map(|value| value / column.divisor));
            Row { name: &path.name, values: values.collect() }
        })
        .filter(|row| row.values.iter().any(Option::is_some))
        .collect();
    let bars = BAR_HEIGHT * u32::try_from(chart.columns.len())?;
    let body = (bars + GAP) * u32::try_from(rows.len())?;
    let area = SVGBackend::new(path, (WIDTH, HEAD_HEIGHT + body + FOOT_HEIGHT)).into_drawing_area();
    draw_on(&area, chart, &rows)
        .and_then(|()| area.present().map_err(|error| anyhow!("{error}")))
        .with_context(|| path.display().to_string())
}

fn draw_on<DB: DrawingBackend>(
    area: &DrawingArea<DB, plotters::coord::Shift>,
    chart: &Chart,
    rows: &[Row<'_>],
) -> Result<()> {
    let failed = |error: DrawingAreaErrorKind<DB::ErrorType>| anyhow!("cannot draw: {error}");
    area.fill(&WHITE).map_err(failed)?;
    area.draw(&Text::new(chart.title, (12, 10), ("sans-serif", 16))).map_err(failed)?;
    let mut left = 12;
    for (column, colour) in chart.columns.iter().zip(COLOURS) {
        area.draw(&Rectangle::new([(left, 35), (left + 11, 46)], colour.filled()))
            .map_err(failed)?;
        area.draw(&Text::new(column.title, (left + 16, 34), FONT)).map_err(failed)?;
        left += 40 + 8 * i32::try_from(column.title.len())?;
    }
    let largest =
        rows.iter().flat_map(|row| row.values.iter().flatten()).fold(0.0, |a, &b| b.max(a));
    let mut plot = ChartBuilder::on(area)
        .margin_top(HEAD_HEIGHT)
        .margin_right(60)
        .set_label_area_size(LabelAreaPosition::Left, NAMES_WIDTH)
        .set_label_area_size(LabelAreaPosition::Bottom, FOOT_HEIGHT)
        .build_cartesian_2d(0.0..f64::max(largest, f64::MIN_POSITIVE), 0.0..rows.len() as f64)
        .map_err(failed)?;
    plot.configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_labels(6)
        .x_label_formatter(&|value| value.to_string())
        .max_light_lines(0)
        .label_style(FONT)
        .draw()
        .map_err(failed)?;
    for (at, row) in rows.iter().rev().enumerate() {
        let bottom = at as f64;
        let thickness = 0.82 / chart.columns.len() as f64;
        let at_name = plot.backend_coord(&(0.0, bottom + 0.5));
        let right = TextStyle::from(FONT).pos(Pos::new(HPos::Right, VPos::Center));
        area.draw(&Text::new(row.name, (at_name.0 - 8, at_name.1), right)).map_err(failed)?;
        let columns = chart.columns.iter().zip(&row.values).zip(COLOURS);
        for (index, ((column, value), colour)) in columns.enumerate() {
            let Some(value) = *value else { continue };
            let top = bottom + 0.91 - thickness * index as f64;
            let bar = Rectangle::new([(0.0, top), (value, top - thickness)], colour.filled());
            let label = format!("{value:.*}", column.decimals);
            let left = TextStyle::from(FONT).pos(Pos::new(HPos::Left, VPos::Center));
            let (x, y) = plot.backend_coord(&(value, top - thickness / 2.0));
            plot.draw_series([bar]).map_err(failed)?;
            area.draw(&Text::new(label, (x + 5, y), left)).map_err(failed)?;
        }
    }
    Ok(())
}
