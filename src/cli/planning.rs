//! From a model to a plan: the preset ladder first, the tuner's estimate for what no preset knows.

use super::failure::{Failure, one_line};
use super::model;
use super::progress::Bar;
use crate::cli::output::say;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trilut_kernels::Cpu;
use trilut_presets::ladder::{self, Found, Place, Rung, Sources, Usable, VARIABLE, Verdict};
use trilut_presets::machine::Likeness;
use trilut_presets::preset::{Effort, PresetError, Saved};
use trilut_presets::{Format, Machine, Phase, Plan, Preset};
use trilut_runtime::Config;
use trilut_tuning::{Prior, Request, ShapeUse, TuneError};

/// The longest that a first run waits for an estimate.
const FIRST_RUN_LIMIT: Duration = Duration::from_secs(5);

/// This machine, what may run on it, and the presets that fit it.
pub(crate) struct Here {
    pub(crate) machine: Machine,
    pub(crate) cpu: Cpu,
    pub(crate) found: Found,
    /// Every rung of the ladder, with what came of it.
    pub(crate) rungs: Vec<Rung>,
}

impl Here {
    /// Describes the machine and climbs the preset ladder; `preset` is the file given by `--preset`.
    pub(crate) fn find(preset: Option<PathBuf>) -> Result<Self, Failure> {
        let (machine, cpu) = (Machine::detect(), Cpu::detect());
        let sources = Sources::from_environment(preset, trilut_shipped::SHIPPED);
        let found = sources.find(&machine, cpu.best().isa())?;
        let rungs = found.rungs(|name| cpu.resolve(name));
        let is_set = sources.environment.is_some();
        let here = Self { machine, cpu, found, rungs };
        here.tell(is_set);
        Ok(here)
    }

    /// Says what a user asked for and does not get, and which files are passed over for what is wrong with
    /// them; the rest is for `doctor`.
    fn tell(&self, is_environment_set: bool) {
        let is_environment = |rung: &&Rung| rung.place == Place::Environment;
        // A file for another CPU counts on a rung further down.
        let is_used = || self.found.uses(Place::Environment, |name| self.cpu.resolve(name));
        let in_vain = (self.rungs.iter().find(is_environment))
            .filter(|rung| is_environment_set && rung.verdict == Verdict::Nothing && !is_used());
        if let Some(rung) = in_vain {
            say!("note: nothing of {VARIABLE} is used: {}", one_line(&rung.note));
        }
        for file in &self.found.unreadable {
            // That was said already.
            if file.place == Place::Environment && in_vain.is_some() {
                continue;
            }
            let hint = file.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
            say!("note: passed over: {}{hint}", one_line(&file.what));
        }
        if let Some(usable) = self.found.usable.first()
            && usable.place == Place::Explicit
            && usable.likeness != Likeness::SameCpu
        {
            say!("note: {} was tuned on {}", usable.origin, usable.likeness);
        }
    }

    /// The strongest preset of which something is used.
    pub(crate) fn winner(&self) -> Option<&Usable> {
        self.found.winner(|name| self.cpu.resolve(name))
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
                one_line(&first.kernel),
                one_line(&first.reason),
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
        let outcome = match trilut_tuning::tune(&request, &mut Bar::new()) {
            Ok(outcome) => outcome,
            // What there is no room to time runs by the default kernels.
            Err(error @ TuneError::Memory(_)) => {
                say!("note: nothing is estimated: {}", Failure::from(error).summary());
                return Ok(plan);
            }
            Err(error) => return Err(error.into()),
        };
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

    /// Adds records to the user's cache. A cache that cannot be written costs the next run the same time, no
    /// more, so it is said and not an error; and what another version or a person has put there is worth
    /// more than these, as are records of greater effort.
    pub(crate) fn remember(&self, preset: Preset) {
        let Some(path) = self.cache_file() else {
            say!("note: this user has no cache directory, the records are not kept");
            return;
        };
        match preset.save_added(&path) {
            Ok(saved) if saved.left_out > 0 => say!(
                "note: {} of the records are not kept: the cache has ones of greater effort (`trilut tune` \
                 replaces them)",
                saved.left_out
            ),
            Ok(_) => {}
            Err(error) => {
                let remedy = match error {
                    PresetError::Write { .. } | PresetError::Read { .. } => "",
                    _ => " (`trilut tune` gives that file another name and begins a new one)",
                };
                let why = Failure::from(error).summary();
                say!("note: the records are not kept: {}{remedy}", one_line(&why));
            }
        }
    }
}

/// Merges records into a preset file, telling what became of an earlier one.
pub(crate) fn save(preset: Preset, path: &Path) -> Result<(), Failure> {
    tell(preset.save_merged(path)?, path);
    Ok(())
}

/// The same for what is left of a preset after a check.
pub(crate) fn save_left(preset: Preset, before: &Preset, path: &Path) -> Result<(), Failure> {
    tell(preset.save_left(before, path)?, path);
    Ok(())
}

fn tell(saved: Saved, path: &Path) {
    if let Some((aside, why)) = saved.set_aside {
        let (path, aside) = (path.display(), aside.display());
        say!("note: the earlier {path} was moved to {aside}: {}", one_line(&why));
    }
}
