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
    pub(crate) fn check(&self, preset: &Preset, path: &Path) -> Result<Checked, Failure> {
        let picks = |phase| end_to_end::picks(preset, self.layers, phase, self.threads);
        let is_picked = |phase| picks(phase).next().is_some();
        let mut checked = preset.clone();
        // What decoding picks, prompts are read from: they change with its formats as well.
        let is_repacked = picks(Phase::Decode).any(|record| {
            let default = self.default_kernel(&record.default_kernel);
            default.and_then(|(format, _)| format) != Some(record.format)
        });
        let changes = |phase: &Phase| is_picked(*phase) || is_repacked && *phase == Phase::Prefill;
        let phases: Vec<Phase> =
            [Phase::Prefill, Phase::Decode].into_iter().filter(changes).collect();
        if phases.is_empty() {
            return Ok(Checked { preset: checked, told: Vec::new() });
        }
        let line = progress::line();
        line.set_message("comparing the whole model, tuned and by default");
        let verdicts = self.compare(preset, &phases)?;
        line.finish_and_clear();
        let mut told = Vec::new();
        let mut tell = |line: String| {
            say!("{line}");
            told.push(line);
        };
        let without = |preset: &Preset, layers: &[ShapeUse], phase| {
            let find = |name: &str| self.default_kernel(name);
            end_to_end::without(preset, layers, phase, self.threads, find)
        };
        let stays =
            |phase| format!("note: {} keeps the default kernels for {phase}", path.display());
        let threads = count(self.threads, "thread");
        let rival = self.rival_in_words(preset);
        for (phase, verdict) in &verdicts {
            if is_picked(*phase) {
                tell(format!("the model, {phase}, {threads}, against {rival}: {verdict}"));
                let all = self.layers;
                let unproven = end_to_end::unproven(preset, all, *phase, self.threads);
                // Too little time says nothing against what passed before.
                let layers = if verdict.is_open() { &unproven[..] } else { all };
                checked = end_to_end::stated(&checked, layers, *phase, self.threads, verdict);
                if !verdict.is_kept {
                    tell(stays(*phase));
                    checked = without(&checked, layers, *phase);
                    if end_to_end::picks(&checked, all, *phase, self.threads).next().is_some() {
                        tell("note: what passed an earlier check stays".to_owned());
                    }
                }
            }
        }
        // Where one costs the other, the two are judged together as well.
        let [(_, prefill), (_, decode)] = &verdicts[..] else {
            return Ok(Checked { preset: checked, told });
        };
        let tokens = (PROMPT, TOKENS);
        let gain = self.mix.gain((prefill, tokens.0), (decode, tokens.1));
        if is_picked(Phase::Decode) && decode.is_kept && prefill.ratio > 1.0 && gain <= 0.0 {
            tell(format!(
                "the model: with {}:{} tokens of prompt and answer, the formats of decode cost more than they \
                 gain",
                self.mix.prompt, self.mix.generated
            ));
            tell(stays(Phase::Decode));
            checked = without(&checked, self.layers, Phase::Decode);
        }
        Ok(Checked { preset: checked, told })
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

    /// Both models, fully loaded, in each of the phases.
    pub(crate) fn compare(
        &self,
        preset: &Preset,
        phases: &[Phase],
    ) -> Result<Vec<(Phase, Verdict)>, Failure> {
        let plans = [self.here.plan_of(preset), self.rival_plan(preset)];
        let models = [self.load(&plans[0])?, self.load(&plans[1])?];
        let [mut tuned, mut default] = [models[0].session()?, models[1].session()?];
        let mut judge = |phase: Phase, parts: u32| -> Result<(Phase, Verdict), Failure> {
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
                None => Ok((phase, verdict.ok_or_else(Failure::interrupted)?)),
            }
        };
        // Each phase gets an equal part of the time that those before it leave.
        let parts = (1..=phases.len() as u32).rev();
        phases.iter().zip(parts).map(|(phase, parts)| judge(*phase, parts)).collect()
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
