//! Speed as pictures: horizontal bars of steps or calls a second.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::record::Record;

const WIDTH: u32 = 760;
const BAR: u32 = 26;
const TOP: u32 = 40;
const LEFT: i32 = 150;

/// Draws one bar per timed record, fastest on top; our own engines are highlighted.
///
/// # Errors
/// No timed record, or a file that cannot be written.
pub fn bars(title: &str, records: &[&Record], path: &Path) -> Result<()> {
    let mut bars: Vec<(&str, f64)> =
        records.iter().filter_map(|record| Some((record.engine.as_str(), record.per_second?))).collect();
    bars.sort_by(|a, b| b.1.total_cmp(&a.1));
    let most = bars.first().ok_or_else(|| anyhow!("`{title}` has no timed record"))?.1;
    let height = TOP + BAR * bars.len() as u32 + 12;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let text = |size: i32| ("sans-serif", size).into_font().color(&RGBColor(40, 40, 40));
    area.draw(&Text::new(title.to_owned(), (12, 10), text(17)))?;
    for (index, (engine, rate)) in bars.iter().enumerate() {
        let y = (TOP + BAR * index as u32) as i32;
        let length = (rate / most * f64::from(WIDTH as i32 - LEFT - 110)).max(1.0) as i32;
        let own = engine.starts_with("cpu-") || engine.starts_with("cuda-");
        let colour = if own { RGBColor(30, 110, 190) } else { RGBColor(170, 175, 182) };
        area.draw(&Rectangle::new([(LEFT, y), (LEFT + length, y + BAR as i32 - 7)], colour.filled()))?;
        let right = text(14).pos(Pos::new(HPos::Right, VPos::Top));
        area.draw(&Text::new((*engine).to_owned(), (LEFT - 8, y + 2), right))?;
        let label = if *rate < 100.0 { format!("{rate:.1}/s") } else { format!("{rate:.0}/s") };
        area.draw(&Text::new(label, (LEFT + length + 6, y + 2), text(14)))?;
    }
    area.present()?;
    Ok(())
}
