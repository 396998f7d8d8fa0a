//! From a model to a plan: the preset ladder first, the tuner's estimate for what no preset knows.

use super::failure::Failure;
use super::model;
use super::progress::Bar;
use crate::cli::output::say;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trilut_kernels::Cpu;
use trilut_presets::ladder::{self, Found, Place, Sources, VARIABLE, Verdict};
use trilut_presets::machine::Likeness;
use trilut_presets::preset::Effort;
use trilut_presets::{Format, Machine, Phase, Plan, Preset};
use trilut_runtime::Config;
use trilut_tuning::{Prior, Request, ShapeUse};

/// The longest that a first run waits for an estimate.
const FIRST_RUN_LIMIT: Duration = Duration::from_secs(5);

/// This machine, what may run on it, and the presets that fit it.
pub(crate) struct Here {
    pub(crate) machine: Machine,
    pub(crate) cpu: Cpu,
    pub(crate) found: Found,
}

impl Here {
    /// Describes the machine and climbs the preset ladder; `preset` is the file given by `--preset`.
    pub(crate) fn find(preset: Option<PathBuf>) -> Result<Self, Failure> {
        let (machine, cpu) = (Machine::detect(), Cpu::detect());
        let sources = Sources::from_environment(preset, trilut_shipped::SHIPPED);
        let found = sources.find(&machine, cpu.best().isa())?;
        for rung in &found.rungs {
            // What a user asked for and does not get is told; the rest is for `doctor`.
            if rung.place == Place::Environment
                && sources.environment.is_some()
                && rung.verdict == Verdict::Nothing
            {
                say!("note: {VARIABLE} yields no preset: {}", rung.note);
            }
        }
        if let Some(usable) = found.winner()
            && usable.place == Place::Explicit
            && usable.likeness != Likeness::SameCpu
        {
            say!("note: {} was tuned on {}", usable.origin, usable.likeness);
        }
        Ok(Self { machine, cpu, found })
    }

    /// The picks of the ladder, for kernels that exist and may run here. What a preset says of other
    /// kernels is passed over, which is told.
    pub(crate) fn plan(&self) -> Plan {
        let picks = self.found.picks(|name| self.cpu.resolve(name));
        if let Some(first) = picks.dropped.first() {
            say!(
                "note: {} preset records are not used, the first for {}: {}: {}",
                picks.dropped.len(),
                first.shape,
                first.kernel,
                first.reason,
            );
        }
        picks.plan
    }

    /// The picks of a preset that was made here.
    pub(crate) fn plan_of(&self, preset: &Preset) -> Plan {
        preset.to_plan(Likeness::SameCpu, |name| self.cpu.resolve(name)).plan
    }

    /// The file in which tuning here is remembered.
    pub(crate) fn cache_file(&self) -> Option<PathBuf> {
        ladder::cache_file(&self.machine, self.cpu.best().isa())
    }

    /// A tuning request for layer shapes on this machine, `model_bytes` of weights in all.
    pub(crate) fn request(
        &self,
        shapes: Vec<ShapeUse>,
        model_bytes: u64,
        formats: Vec<Format>,
        threads: usize,
        effort: Effort,
        time_limit: Duration,
    ) -> Request {
        Request {
            shapes,
            formats,
            decoded: Vec::new(),
            threads,
            effort,
            time_limit,
            cpu: self.cpu.clone(),
            machine: self.machine.clone(),
            model_bytes,
            prior: Prior::default(),
        }
    }

    /// A plan for every layer of a model. Layers that no preset knows in decode are estimated, which is
    /// said in one line and remembered; in prefill they have the default kernel.
    pub(crate) fn plan_for(
        &self,
        config: &Config,
        threads: usize,
        format: Option<Format>,
    ) -> Result<Plan, Failure> {
        let mut plan = self.plan();
        let known = |used: &ShapeUse| {
            let pick = plan.find(used.shape, used.phase, threads);
            pick.is_some_and(|pick| format.is_none_or(|format| format == pick.format))
        };
        let shapes = model::shapes(config, &[Phase::Decode]);
        let bytes = model::bytes(config);
        let missing: Vec<_> = shapes.into_iter().filter(|used| !known(used)).collect();
        if missing.is_empty() {
            return Ok(plan);
        }
        let formats = vec![format.unwrap_or(Format::I2S)];
        let request =
            self.request(missing, bytes, formats, threads, Effort::Estimate, FIRST_RUN_LIMIT);
        let outcome = trilut_tuning::tune(&request, &mut Bar::new())?;
        say!(
            "no preset for {} of the layer shapes: estimated in {:.1} s (`trilut tune` measures)",
            request.shapes.len(),
            outcome.took.as_secs_f64(),
        );
        // These are for exactly this format and number of threads.
        plan.prefer(self.plan_of(&outcome.preset));
        // An estimate for a forced format must not shadow a measured pick of another one.
        if format.is_none() {
            self.remember(outcome.preset);
        }
        Ok(plan)
    }

    /// Saves records to the user's cache. A cache that cannot be written costs the next run the same
    /// time, no more, so it is said and not an error.
    pub(crate) fn remember(&self, preset: Preset) {
        match self.cache_file() {
            None => say!("note: this user has no cache directory, the records are not kept"),
            Some(path) => {
                if let Err(error) = save(preset, &path) {
                    say!("note: the records are not kept: {}", error.summary());
                }
            }
        }
    }
}

/// Merges records into a preset file, telling what became of an earlier one.
pub(crate) fn save(preset: Preset, path: &Path) -> Result<(), Failure> {
    let saved = preset.save_merged(path)?;
    if let Some((aside, why)) = saved.set_aside {
        say!("note: the earlier {} was moved to {}: {why}", path.display(), aside.display());
    }
    Ok(())
}
