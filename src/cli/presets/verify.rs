//! `trilut presets verify`: a preset's claims against this machine.

use super::super::failure::{Failure, one_line};
use super::super::interrupt;
use super::super::model;
use super::super::output::{count, out, say};
use super::super::planning::Here;
use super::super::progress::Bar;
use super::super::table::Table;
use super::super::tune::gate::Gate;
use std::time::{Duration, Instant};
use trilut_presets::machine::Likeness;
use trilut_presets::preset::{Effort, Record};
use trilut_presets::{Phase, Preset};
use trilut_runtime::Config;
use trilut_runtime::gguf::{Gguf, TernaryLayouts};
use trilut_tuning::end_to_end::{self, Mix};
use trilut_tuning::noise::BUSY;
use trilut_tuning::verify::Finding;

/// How long one comparison of the model may take.
const COMPARISON: Duration = Duration::from_secs(60);

/// Of two that are equally fast one is now and then slower than the interval allows for, but not by more.
const EVEN: f64 = 0.01;

/// Whether a model is slower with the preset than by default, in any of so many comparisons.
pub(super) fn model(
    here: &Here,
    preset: &Preset,
    gguf: &Gguf,
    layouts: &TernaryLayouts,
    threads: usize,
    rounds: u32,
) -> Result<(), Failure> {
    let shapes = model::shapes(&Config::from_gguf(gguf)?, Phase::ALL);
    let mix = Mix { prompt: 1.0, generated: 1.0 };
    let deadline = || Instant::now() + COMPARISON;
    let gate = |deadline| Gate { here, gguf, layouts, layers: &shapes, threads, deadline, mix };
    // Where there are no picks the default kernels run, as they do for picks that this build lacks. Prompts are read
    // from what decoding picks.
    let is_repacked = gate(deadline()).is_repacked(preset);
    let is_picked = |phase: &Phase| {
        end_to_end::picks(preset, &shapes, *phase, threads)
            .any(|record| here.cpu.resolve(&record.kernel).is_some())
            || is_repacked && *phase == Phase::Prefill
    };
    let phases: Vec<Phase> =
        [Phase::Prefill, Phase::Decode].into_iter().filter(is_picked).collect();
    if phases.is_empty() {
        say!(
            "note: the model is not compared: with {} the preset picks the default kernels for all of its \
             layers, or knows none of them",
            count(threads, "thread")
        );
        return Ok(());
    }
    let mut table =
        Table::new(&["round", "phase", "threads", "speed, x default", "95 %", "pairs"], 3);
    let mut slower = 0;
    for round in 1..=rounds {
        let gate = gate(deadline());
        let verdicts = gate.compare(preset, &phases)?;
        // What the formats of decoding cost prompts is made up for where both together gain.
        let is_made_up = match &verdicts[..] {
            [(_, prefill), (_, decode)] => is_repacked && gate.gains(prefill, decode),
            _ => false,
        };
        for (phase, verdict) in verdicts {
            let [low, high] = verdict.interval.map(|end| 1.0 / end);
            let is_slower = verdict.interval[0] > 1.0 && verdict.ratio > 1.0 + EVEN;
            slower += usize::from(is_slower && !(is_made_up && phase == Phase::Prefill));
            table.row([
                round.to_string(),
                phase.to_string(),
                threads.to_string(),
                format!("{:.3}", 1.0 / verdict.ratio),
                format!("{high:.3} - {low:.3}"),
                verdict.pairs.to_string(),
            ]);
        }
    }
    out!("{}", table.plain());
    if slower > 0 {
        return Err(Failure::check(format!(
            "in {slower} comparisons the model is slower with the preset, beyond the noise"
        ))
        .hint("trilut tune -m MODEL -o FILE drops what does not pay"));
    }
    Ok(())
}

pub(super) fn verify(here: &Here, preset: &Preset, sample: usize) -> Result<(), Failure> {
    let isa = here.cpu.best().isa();
    let likeness = preset.likeness(&here.machine, isa);
    if likeness != Likeness::SameCpu {
        let machine = one_line(&preset.machine.to_string());
        say!("note: it was tuned on {likeness}: {machine}; its times are not taken");
    }
    // Of records of a model far larger than the cache times are taken, and such a one it is again.
    let request = here.request(vec![], u64::MAX, vec![], 1, Effort::Measure, Duration::MAX);
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
    if checked.is_empty() {
        return Err(
            Failure::check("the preset has no records").hint("trilut tune -o FILE makes some")
        );
    }
    if unknown > 0 && unknown == checked.len() {
        return Err(Failure::check("no record of the preset can be checked here")
            .hint("verify it on the CPU that it is for, with the build that it was made with"));
    }
    let other =
        checked.iter().filter(|one| matches!(one.finding, Finding::OtherPace { .. })).count();
    let holds = checked.iter().filter(|one| matches!(one.finding, Finding::Holds { .. })).count();
    if other > 0 && holds == 0 {
        return Err(Failure::check(
            "no time of the preset holds here, where memory is read at another speed than when it was made",
        )
        .hint("try again later, or trilut tune --force -o FILE makes a new preset"));
    }
    if other > 0 {
        say!("note: {} were made at another speed of memory", count(other, "record"));
    }
    let noise = |record: &Record| record.evidence.as_ref().and_then(|own| own.noise).unwrap_or(0.0);
    let noises = preset.records().iter().map(noise).filter(|noise| *noise > BUSY);
    let (noisy, worst) = noises.fold((0, 0.0_f64), |(n, worst), own| (n + 1, worst.max(own)));
    if noisy > 0 {
        say!(
            "note: samples differed by more than {:.0} %, {:.0} % at most, for {}: trilut tune --force, on a quieter \
             machine",
            100.0 * BUSY,
            100.0 * worst,
            count(noisy, "record"),
        );
    }
    if unknown > 0 {
        say!("note: {unknown} of {} records cannot be checked here", checked.len());
    }
    Ok(())
}
