//! `trilut presets verify`: a preset's claims against this machine.

use super::super::failure::Failure;
use super::super::interrupt;
use super::super::output::out;
use super::super::planning::Here;
use super::super::progress::Bar;
use super::super::table::Table;
use std::time::Duration;
use trilut_presets::Preset;
use trilut_presets::machine::Likeness;
use trilut_presets::preset::{Effort, Weights};
use trilut_tuning::verify::Finding;

pub(super) fn verify(here: &Here, preset: &Preset, sample: usize) -> Result<(), Failure> {
    let isa = here.cpu.best().isa();
    let likeness = preset.likeness(&here.machine, isa);
    if likeness != Likeness::SameCpu {
        eprintln!("note: it was tuned on {likeness}: {}; its times are not taken", preset.machine);
    }
    // Where the weights were then, they are now: a model that fitted the cache, or one far larger.
    let is_warm = preset.records().iter().any(|record| record.weights == Weights::Warm);
    let bytes = if is_warm { here.machine.last_level_bytes() / 2 } else { u64::MAX };
    let request = here.request(vec![], bytes, vec![], 1, Effort::Measure, Duration::MAX);
    let mut bar = Bar::new();
    let checked = trilut_tuning::verify::verify(&request, preset, sample, &mut bar)?;
    drop(bar);
    let mut table = Table::new(&["phase", "shape", "threads", "kernel", "finding"], 5);
    for one in &checked {
        let record = &one.record;
        table.row([
            record.phase.to_string(),
            record.shape.to_string(),
            record.threads.to_string(),
            record.kernel.clone(),
            one.finding.to_string(),
        ]);
    }
    out!("{}", table.plain());
    if interrupt::asked() {
        return Err(Failure::interrupted());
    }
    let refuted = checked.iter().filter(|one| one.finding.refutes()).count();
    let unknown = checked.iter().filter(|one| matches!(one.finding, Finding::Unknown(_))).count();
    if refuted > 0 {
        return Err(Failure::check(format!("{refuted} of {} records do not hold", checked.len()))
            .hint("trilut tune --force -o FILE makes a new preset"));
    }
    if unknown > 0 && unknown == checked.len() {
        return Err(Failure::check("no record of the preset can be checked here")
            .hint("verify it on the CPU that it is for, with the build that it was made with"));
    }
    if unknown > 0 {
        eprintln!("note: {unknown} of {} records cannot be checked here", checked.len());
    }
    Ok(())
}
