//! Presets in rows.

use super::super::failure::Failure;
use super::super::planning::Here;
use super::super::table::Table;
use super::names::SHIPS;
use trilut_presets::preset::{Change, Record};
use trilut_presets::{Phase, Preset};

/// Every preset that can be used here, and those that ship.
pub(super) fn list(here: &Here) -> Result<Table, Failure> {
    let headings = ["preset", "from", "machine", "date", "effort", "decode", "batch", "prefill"];
    let mut table = Table::new(&headings, 5);
    for usable in &here.found.usable {
        let from = usable.place.to_string();
        // Without the word that `from` has as well, so that it is the name to give to other commands.
        let name = usable.origin.strip_prefix(SHIPS).unwrap_or(&usable.origin);
        table.row(row(name, &from, &usable.preset));
    }
    for (name, text) in trilut_shipped::SHIPPED {
        if here.found.usable.iter().all(|usable| usable.origin != format!("{SHIPS}{name}")) {
            table.row(row(name, "shipped, other CPU", &Preset::parse(text, name)?));
        }
    }
    Ok(table)
}

fn row(origin: &str, from: &str, preset: &Preset) -> [String; 8] {
    let records = preset.records();
    let count = |phase| records.iter().filter(|record| record.phase == phase).count().to_string();
    [
        origin.to_owned(),
        from.to_owned(),
        preset.machine.key(),
        preset.provenance.date.clone(),
        effort(preset),
        count(Phase::Decode),
        count(Phase::SmallBatch),
        count(Phase::Prefill),
    ]
}

/// The efforts of the records, from the least to the greatest: that of the head is the least of the newest run,
/// to which one layer is enough that was cut short.
fn effort(preset: &Preset) -> String {
    let efforts = || preset.records().iter().map(|record| record.effort);
    match (efforts().min(), efforts().max()) {
        (Some(least), Some(greatest)) if least < greatest => format!("{least} - {greatest}"),
        (_, greatest) => greatest.unwrap_or(preset.provenance.effort).to_string(),
    }
}

/// What happened, the kernels, and the times of a difference.
pub(super) fn change(change: &Change) -> [String; 3] {
    let time = |record: &Record| format!("{:.1} us", record.median_ns as f64 / 1e3);
    let pick =
        |record: &Record| format!("{} ({})", record.kernel, record.tile.in_words(record.phase));
    match change {
        Change::Removed(record) => ["-".to_owned(), pick(record), time(record)],
        Change::Added(record) => ["+".to_owned(), pick(record), time(record)],
        Change::Pick(from, to) => [
            "pick".to_owned(),
            format!("{} -> {}", pick(from), pick(to)),
            format!("{} -> {}", time(from), time(to)),
        ],
        Change::Time(ratio) => ["time".to_owned(), "the same".to_owned(), format!("x {ratio:.3}")],
    }
}
