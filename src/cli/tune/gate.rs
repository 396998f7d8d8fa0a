//! The last check of a tuning run: the model itself, tuned and by default, in turn.

use crate::cli::failure::Failure;
use crate::cli::interrupt;
use crate::cli::output::{count, say};
use crate::cli::planning::Here;
use crate::cli::progress;
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};
use trilut_presets::{Format, Phase, Pick, Plan, Preset, Shape, Tile};
use trilut_runtime::gguf::{Gguf, TernaryLayouts};
use trilut_runtime::{Model, ModelOptions, Session};
use trilut_tuning::ShapeUse;
use trilut_tuning::end_to_end::{self, Mix, Side, Verdict};

/// Tokens of a prompt that is read.
const PROMPT: usize = 64;

/// Tokens that are decoded.
const TOKENS: usize = 8;

/// Whose presets are put to the test, and with how many threads.
pub(crate) struct Gate<'a> {
    pub(crate) here: &'a Here,
    pub(crate) gguf: &'a Gguf,
    /// How the file arranges ternary weights.
    pub(crate) layouts: &'a TernaryLayouts,
    /// The layers of the model; records of others are left alone.
    pub(crate) layers: &'a [ShapeUse],
    pub(crate) threads: usize,
    pub(crate) deadline: Instant,
    /// Of what the two phases are worth.
    pub(crate) mix: Mix,
}

/// What the gate makes of a preset.
pub(crate) struct Checked {
    /// With the default in each phase in which the model is not faster beyond the noise.
    pub(crate) preset: Preset,
    /// What was told of it, line by line.
    pub(crate) told: Vec<String>,
}

impl Gate<'_> {
    /// Puts a preset to the test. What becomes of each phase is told on stderr and stated in the records.
    ///
    /// Decoding comes first, with what its formats cost prompts, which are read from the same copy; then the picks
    /// for prompts, with decoding on both sides as it will be.
    pub(crate) fn check(&self, preset: &Preset, path: &Path) -> Result<Checked, Failure> {
        let mut check = Check { gate: self, path, told: Vec::new() };
        let before = small_batches(preset);
        let preset = check.decode(preset.clone())?;
        if small_batches(&preset) < before {
            check.tell(
                "note: small batches were tuned for what decoding does not read after all: run again to tune them for \
                 what it does"
                    .to_owned(),
            );
        }
        let preset = check.prefill(preset)?;
        Ok(Checked { preset, told: check.told })
    }

    /// Whether the preset does not pick the default everywhere.
    fn is_picked(&self, preset: &Preset, phase: Phase) -> bool {
        end_to_end::picks(preset, self.layers, phase, self.threads).next().is_some()
    }

    /// Whether decoding reads another format than by default: prompts, which are read from the same copy, change
    /// with it.
    pub(crate) fn is_repacked(&self, preset: &Preset) -> bool {
        end_to_end::picks(preset, self.layers, Phase::Decode, self.threads).any(|record| {
            let default = self.default_kernel(&record.default_kernel);
            default.and_then(|(format, _)| format) != Some(record.format)
        })
    }

    /// Whether both phases together gain, whatever one of them costs.
    pub(crate) fn gains(&self, prefill: &Verdict, decode: &Verdict) -> bool {
        self.mix.gain((prefill, PROMPT), (decode, TOKENS)) > 0.0
    }

    fn without(&self, preset: &Preset, layers: &[ShapeUse], phase: Phase) -> Preset {
        let find = |name: &str| self.default_kernel(name);
        end_to_end::without(preset, layers, phase, self.threads, find)
    }

    /// What the tuned model has to beat: the default kernels, for the formats whose defaults were raced against.
    /// What was tuned with `--format tl1` is so compared with what `trilut run --format tl1` has without a preset.
    fn rival(&self, preset: &Preset) -> Vec<(Shape, Format)> {
        let find = |name: &str| self.default_kernel(name);
        end_to_end::default_formats(preset, self.layers, self.threads, find)
    }

    fn rival_plan(&self, preset: &Preset) -> Plan {
        // I2_S is read wherever nothing is picked.
        let others = self.rival(preset).into_iter().filter(|(_, format)| *format != Format::I2S);
        let picks = others.map(|(shape, format)| Pick {
            shape,
            phase: Phase::Decode,
            threads: self.threads,
            format,
            kernel: self.here.cpu.default_kernel(format, shape).kernel().name.to_string(),
            tile: Tile::default(),
            from: None,
            reason: "the default that was raced against".to_owned(),
        });
        Plan { picks: picks.collect() }
    }

    fn rival_in_words(&self, preset: &Preset) -> String {
        let mut formats: Vec<Format> =
            self.rival(preset).into_iter().map(|(_, format)| format).collect();
        formats.sort_unstable();
        formats.dedup();
        if formats.is_empty() {
            formats.push(Format::I2S);
        }
        let names: Vec<&str> = formats.into_iter().map(Format::name).collect();
        format!("the default kernels for {}", names.join(" and "))
    }

    /// The model by a preset and by default, fully loaded, in each of the phases.
    pub(crate) fn compare(
        &self,
        preset: &Preset,
        phases: &[Phase],
    ) -> Result<Vec<(Phase, Verdict)>, Failure> {
        let models = [self.load(&self.here.plan_of(preset))?, self.load(&self.rival_plan(preset))?];
        // Each phase gets an equal part of the time that those before it leave.
        let parts = (1..=phases.len() as u32).rev();
        let judge =
            |(phase, parts): (&Phase, u32)| Ok((*phase, self.judge(&models, *phase, parts)?));
        phases.iter().zip(parts).map(judge).collect()
    }

    /// Two models in one phase, the first for the tuned one, in one of so many parts of the time that is left.
    fn judge(&self, models: &[Model; 2], phase: Phase, parts: u32) -> Result<Verdict, Failure> {
        let [mut tuned, mut default] = [models[0].session()?, models[1].session()?];
        let time_left = self.deadline.saturating_duration_since(Instant::now());
        let deadline = Instant::now() + time_left / parts;
        let mut failed = None;
        // Beyond the fewest pairs, none is begun that would end too late.
        let pair = Cell::new(Duration::ZERO);
        let verdict = end_to_end::gate(
            &mut |side| {
                let session = if side == Side::Tuned { &mut tuned } else { &mut default };
                match time(session, phase) {
                    Ok(time) => {
                        pair.set(2 * time);
                        (!interrupt::asked()).then_some(time.as_nanos() as f64)
                    }
                    Err(error) => {
                        failed = Some(error);
                        None
                    }
                }
            },
            || Instant::now() + pair.get() >= deadline,
        );
        match failed {
            Some(error) => Err(error),
            None => verdict.ok_or_else(Failure::interrupted),
        }
    }

    fn load(&self, plan: &Plan) -> Result<Model, Failure> {
        let options = ModelOptions {
            threads: Some(self.threads),
            plan: Some(plan),
            cpu: Some(self.here.cpu.clone()),
            layouts: self.layouts.clone(),
            ..ModelOptions::default()
        };
        Ok(Model::open_with(self.gguf, &options)?)
    }

    /// The format and the hash of a kernel that may run here.
    fn default_kernel(&self, name: &str) -> Option<(Option<Format>, u64)> {
        let cpu = &self.here.cpu;
        let hash = cpu.resolve(name)?;
        Some((cpu.find(name).map(|kernel| kernel.name.format), hash))
    }
}

/// A check under way.
struct Check<'a> {
    gate: &'a Gate<'a>,
    path: &'a Path,
    told: Vec<String>,
}

impl Check<'_> {
    fn tell(&mut self, line: String) {
        say!("{line}");
        self.told.push(line);
    }

    /// Decoding with its picks against the default kernels.
    fn decode(&mut self, preset: Preset) -> Result<Preset, Failure> {
        let gate = self.gate;
        if !gate.is_picked(&preset, Phase::Decode) {
            return Ok(preset);
        }
        let is_repacked = gate.is_repacked(&preset);
        let parts = 1 + u32::from(is_repacked) + u32::from(gate.is_picked(&preset, Phase::Prefill));
        let line = waiting();
        let rival = gate.load(&gate.rival_plan(&preset))?;
        // By the default kernels for prompts, so that formats alone are compared there.
        let formats = gate.without(&preset, gate.layers, Phase::Prefill);
        let models = [gate.load(&gate.here.plan_of(&formats))?, rival];
        let decode = gate.judge(&models, Phase::Decode, parts)?;
        let prefill = match is_repacked && decode.is_kept {
            true => Some(gate.judge(&models, Phase::Prefill, parts - 1)?),
            false => None,
        };
        line.finish_and_clear();
        let rival = gate.rival_in_words(&preset);
        let checked = self.judged(preset, Phase::Decode, &format!("against {rival}"), &decode);
        let Some(prefill) = prefill.filter(|prefill| prefill.ratio > 1.0) else {
            return Ok(checked);
        };
        if gate.gains(&prefill, &decode) {
            return Ok(checked);
        }
        let mix = gate.mix;
        let mix = format!("{}:{} tokens of prompt and answer", mix.prompt, mix.generated);
        self.tell(format!("the model: with {mix}, the formats of decode cost more than they gain"));
        self.tell(self.stays(Phase::Decode));
        Ok(gate.without(&checked, gate.layers, Phase::Decode))
    }

    /// Prompts with their picks against the default kernels, decoding being the same.
    fn prefill(&mut self, preset: Preset) -> Result<Preset, Failure> {
        let gate = self.gate;
        if !gate.is_picked(&preset, Phase::Prefill) {
            return Ok(preset);
        }
        let line = waiting();
        let default = gate.without(&preset, gate.layers, Phase::Prefill);
        let models = [&preset, &default].map(|preset| gate.load(&gate.here.plan_of(preset)));
        let [tuned, default] = models;
        let verdict = gate.judge(&[tuned?, default?], Phase::Prefill, 1)?;
        line.finish_and_clear();
        let against = "against the default kernels for prompts";
        Ok(self.judged(preset, Phase::Prefill, against, &verdict))
    }

    /// States a verdict in the records, and puts the default where it went against them.
    fn judged(&mut self, preset: Preset, phase: Phase, against: &str, verdict: &Verdict) -> Preset {
        let gate = self.gate;
        let (all, threads) = (gate.layers, gate.threads);
        self.tell(format!(
            "the model, {phase}, {}, {against}: {verdict}",
            count(threads, "thread")
        ));
        let unproven = end_to_end::unproven(&preset, all, phase, threads);
        // Too little time says nothing against what passed before.
        let layers = if verdict.is_open() { &unproven[..] } else { all };
        let checked = end_to_end::stated(&preset, layers, phase, threads, verdict);
        if verdict.is_kept {
            return checked;
        }
        self.tell(self.stays(phase));
        let checked = gate.without(&checked, layers, phase);
        if gate.is_picked(&checked, phase) {
            self.tell("note: what passed an earlier check stays".to_owned());
        }
        checked
    }

    fn stays(&self, phase: Phase) -> String {
        format!("note: {} keeps the default kernels for {phase}", self.path.display())
    }
}

/// The number of records of small batches.
fn small_batches(preset: &Preset) -> usize {
    preset.records().iter().filter(|record| record.phase == Phase::SmallBatch).count()
}

/// What is shown while two models take turns.
fn waiting() -> indicatif::ProgressBar {
    let line = progress::line();
    line.set_message("comparing the whole model, tuned and by default");
    line
}

/// The time of one phase from an empty context.
fn time(session: &mut Session, phase: Phase) -> Result<Duration, Failure> {
    let vocab = session.model().config().vocab;
    // Any tokens do: the time does not depend on them.
    let token = |i: usize| (i * 7919 % vocab) as u32;
    session.clear();
    let room = session.room();
    let tokens: Vec<u32> = (0..PROMPT.min(room)).map(token).collect();
    let begin = Instant::now();
    match phase {
        Phase::Prefill => session.append(&tokens)?,
        _ => {
            for at in tokens.iter().take(TOKENS) {
                session.append(&[*at])?;
            }
        }
    }
    Ok(begin.elapsed())
}
