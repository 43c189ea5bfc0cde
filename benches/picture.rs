//! The picture of `benches/peer/run`: core cycles per packet of each family and path, DPDK's best beside vfring's.
//!
//! usage: picture RESULTS.TSV PICTURE.SVG
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// The rows that are shown.
const SETTING: [&str; 3] = ["warm", "512", "32"];
/// What is measured, with its name in the picture.
const PATHS: [(&str, &str); 4] =
    [("rx", "rx+return"), ("tx", "tx"), ("rx+tx", "rx+tx"), ("rx+swap+tx", "rx+MAC swap+tx")];
/// vfring's kernels, the fastest first.
const KERNELS: [&str; 3] = ["AVX-512", "AVX2", "portable"];
/// Pixels.
const SIZE: (u32, u32) = (1000, 760);
const TITLE_HEIGHT: i32 = 34;
const LEGEND_HEIGHT: i32 = 30;
/// Of the room of a path, the part that its bars take.
const BARS: f64 = 0.86;
const TEXT: RGBColor = RGBColor(40, 40, 40);
/// DPDK's, and vfring's in the order of the legend; told apart by those who see no red or green, too.
const COLOURS: [RGBColor; 5] = [
    RGBColor(120, 120, 120),
    RGBColor(0, 90, 160),
    RGBColor(110, 175, 220),
    RGBColor(215, 120, 20),
    RGBColor(240, 195, 100),
];

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Least cycles by family (in the order of the file), and path and side.
type Figures = Vec<(String, BTreeMap<(String, String), f64>)>;

fn read(path: &str) -> Result<Figures, Box<dyn Error>> {
    let mut figures = Figures::new();
    for line in std::fs::read_to_string(path)?.lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [family, memory, ring, burst, side, path, least, ..] = cells[..] else {
            return Err(format!("a line of {} cells: {line}", cells.len()).into());
        };
        if [memory, ring, burst] != SETTING {
            continue;
        }
        if figures.last().is_none_or(|(last, _)| last != family) {
            figures.push((family.to_owned(), BTreeMap::new()));
        }
        let least: f64 = least.parse()?;
        // DPDK's is the best of its drivers and versions.
        let side = if side.starts_with("DPDK") { "DPDK, its best" } else { side };
        if let Some((_, of_family)) = figures.last_mut() {
            let figure = of_family.entry((path.to_owned(), side.to_owned())).or_insert(least);
            *figure = figure.min(least);
        }
    }
    Ok(figures)
}

/// The bars of each path: DPDK's best, the fastest kernel without and with metadata, the others without.
fn sides(figures: &Figures) -> Vec<String> {
    let there = |kernel: &&str| {
        figures.iter().any(|(_, of_family)| of_family.keys().any(|(_, side)| *side == format!("vfring, {kernel}")))
    };
    let mut sides = vec!["DPDK, its best".to_owned()];
    for (place, kernel) in KERNELS.into_iter().filter(there).enumerate() {
        sides.push(format!("vfring, {kernel}"));
        if place == 0 {
            sides.push(format!("vfring, {kernel}, metadata"));
        }
    }
    sides
}

/// Draws one family.
fn draw(
    area: &Panel<'_>,
    family: &str,
    figures: &BTreeMap<(String, String), f64>,
    sides: &[String],
) -> Result<(), Box<dyn Error>> {
    let shown = |path: &str, side: &String| figures.get(&(path.to_owned(), side.clone())).copied();
    let most = PATHS.iter().flat_map(|(path, _)| sides.iter().filter_map(|side| shown(path, side))).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(family, ("sans-serif", 17).into_font().color(&TEXT))
        .margin(10)
        .x_label_area_size(26)
        .y_label_area_size(34)
        .build_cartesian_2d(0.0..PATHS.len() as f64, 0.0..most * 1.12)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .y_labels(6)
        .y_label_formatter(&|cycles| format!("{cycles:.0}"))
        .label_style(("sans-serif", 12).into_font().color(&TEXT))
        .draw()?;
    let centred = |size: i32, v| ("sans-serif", size).into_font().color(&TEXT).pos(Pos::new(HPos::Center, v));
    let width = BARS / sides.len() as f64;
    for (place, (path, name)) in PATHS.iter().enumerate() {
        for (bar, side) in sides.iter().enumerate() {
            let Some(cycles) = shown(path, side) else { continue };
            let left = place as f64 + (1.0 - BARS) / 2.0 + bar as f64 * width;
            let corners = [(left, 0.0), (left + width * 0.94, cycles)];
            chart.draw_series([Rectangle::new(corners, COLOURS[bar].filled())])?;
            let number = Text::new(format!("{cycles:.1}"), (left + width / 2.0, cycles), centred(10, VPos::Bottom));
            chart.draw_series([number])?;
        }
        let at = chart.backend_coord(&(place as f64 + 0.5, 0.0));
        let origin = area.get_base_pixel();
        area.draw(&Text::new(*name, (at.0 - origin.0, at.1 - origin.1 + 8), centred(12, VPos::Top)))?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [results, picture] = arguments.as_slice() else { return Err("usage: picture RESULTS.TSV PICTURE.SVG".into()) };
    let figures = read(results)?;
    let sides = sides(&figures);
    let root = SVGBackend::new(picture, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = "Core cycles per packet on the same fake VF: 64-byte packets, rings of 512, bursts of 32";
    let style = ("sans-serif", 18).into_font().color(&TEXT).pos(Pos::new(HPos::Center, VPos::Center));
    root.draw(&Text::new(title, (SIZE.0 as i32 / 2, TITLE_HEIGHT / 2), style))?;
    let (_, below) = root.split_vertically(TITLE_HEIGHT);
    let (legend, panels) = below.split_vertically(LEGEND_HEIGHT);
    let step = SIZE.0 as i32 / sides.len() as i32;
    for (place, (side, colour)) in sides.iter().zip(COLOURS).enumerate() {
        let left = place as i32 * step + 20;
        legend.draw(&Rectangle::new([(left, 8), (left + 14, 22)], colour.filled()))?;
        let style = ("sans-serif", 13).into_font().color(&TEXT).pos(Pos::new(HPos::Left, VPos::Center));
        legend.draw(&Text::new(side.clone(), (left + 20, 15), style))?;
    }
    for (panel, (family, of_family)) in panels.split_evenly((2, 2)).iter().zip(&figures) {
        draw(panel, family, of_family, &sides)?;
    }
    root.present()?;
    Ok(())
}
