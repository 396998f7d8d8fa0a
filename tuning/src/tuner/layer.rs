//! The tuning of one layer: exactness gate, races by stages, the last of those who lead, paired check.

use super::entrants::Entrants;
use super::looks::Looks;
use super::standings::Standings;
use super::verdict::{self, Verdict};
use super::{Time, Watch, note};
use crate::Candidate;
use crate::bench::{Lab, Runner, Stage};
use crate::confirm::{Confirmation, confirm};
use crate::effort::{self, PAIRS, stages};
use crate::estimate::Bound;
use crate::noise::Noise;
use crate::observer::Event;
use crate::race::{Lane, Limits, Turn, race};
use crate::record::{Refused, ShapeReport, Trial};
use crate::request::{Request, ShapeUse, TuneError};
use crate::runoff;
use crate::second_opinion::{self, Opinion};
use std::time::Duration;
use trilut_presets::preset::{Effort, Weights};

/// Tunes one layer; `None` when it was cancelled or no time was left.
pub(super) fn tune_layer(
    lab: &mut dyn Lab,
    request: &Request,
    index: usize,
    layer: ShapeUse,
    watch: &mut Watch<'_>,
    notes: &mut Vec<String>,
) -> Result<Option<ShapeReport>, TuneError> {
    let entrants = Entrants::gather(lab, request, &layer, watch)?;
    let (kernels, space) = (entrants.kernels.len() + 1, entrants.space);
    watch.observer.event(&Event::Shape { index, layer, kernels, space });

    let (times_before, machine_before) = (lab.cpu_times(), lab.disturbance());
    let is_real = lab.is_real();
    let Stage { runner, weights, notes: said } = lab.open(&layer, &entrants.layouts)?;
    for text in said {
        note(watch.observer, notes, text);
    }
    let mut standings = Standings::before(&entrants, request.effort);
    let mut races = Races::begin(request, layer, &entrants, runner, watch, notes);
    races.run_stages(&mut standings);
    let base = standings.base().filter(|_| !races.watch.cancelled);
    let Some(base) = base.cloned() else { return Ok(None) };
    let challenger = standings.challenger(&base, entrants.incumbent);
    let (fastest, defended) = races.meet_incumbent(challenger, &standings);
    let confirmation = races.confirm(&fastest.candidate);
    // The default that stays for want of pairs may be far behind.
    let is_open = confirmation.as_ref().is_some_and(|check| check.is_open(PAIRS));
    let (opinion, effort) = races.ask_again(&fastest.candidate, confirmation.as_ref(), is_real);
    let is_cut_short = standings.is_cut_short || is_open;
    let scalar_ns = races.time_scalar(&base, weights);
    if races.watch.cancelled {
        return Ok(None);
    }
    let (looks, refused) = races.leave();

    let disturbance = lab.disturbance().since(machine_before);
    let noise = Noise::of(&base.samples, times_before, lab.cpu_times());
    let noise = looks.beside(noise.over(&standings.defaults).with(disturbance));
    let Verdict { winner, default, mut reason } =
        verdict::decide(fastest, base, confirmation.as_ref(), opinion.as_ref());
    let is_holder = entrants.incumbent.is_some_and(|c| c.is(&winner.candidate));
    if let Some(why) = defended.filter(|_| is_holder) {
        reason = format!("the earlier pick stays ({why}): {reason}");
    }
    let claimed = if is_cut_short { Effort::Estimate } else { effort };
    let found = verdict::Found {
        layer,
        space,
        weights,
        scalar_ns,
        noise,
        confirmation: confirmation.as_ref(),
        lanes: &standings.lanes,
        finalists: &standings.finalists,
        best_ns: standings.best_ns(),
        date: lab.date(),
        effort: claimed.min(request.prior.most_effort(&layer, request)),
    };
    let record = verdict::record(&winner, &default, &found, request);
    Ok(Some(ShapeReport {
        layer,
        winner: verdict::timed(winner),
        default: verdict::timed(default),
        scalar_ns,
        weights,
        tried: standings.tried.len(),
        trials: standings.trials,
        space,
        refused: [entrants.refused, refused].concat(),
        noise,
        confirmation,
        opinion,
        reason,
        is_cut_short: is_cut_short || effort < request.effort,
        record,
    }))
}

/// A layer on its stage, and the time that it has there.
struct Races<'a, 'w, 'l> {
    request: &'a Request,
    layer: ShapeUse,
    entrants: &'a Entrants,
    runner: Box<dyn Runner + 'l>,
    time: Time,
    looks: Looks,
    watch: &'a mut Watch<'w>,
    notes: &'a mut Vec<String>,
    /// Candidates that could not be timed, with reasons.
    refused: Vec<Refused>,
}

impl<'a, 'w, 'l> Races<'a, 'w, 'l> {
    /// The layer's time begins.
    fn begin(
        request: &'a Request,
        layer: ShapeUse,
        entrants: &'a Entrants,
        mut runner: Box<dyn Runner + 'l>,
        watch: &'a mut Watch<'w>,
        notes: &'a mut Vec<String>,
    ) -> Self {
        let mut looks = Looks::at(&layer, request.effort);
        looks.look(&mut *runner);
        let (time, refused) = (watch.begin(runner.now()), Vec::new());
        Self { request, layer, entrants, runner, time, looks, watch, notes, refused }
    }

    /// Races by stages, until they are through, time is over, or the watch says that the run is cancelled.
    fn run_stages(&mut self, standings: &mut Standings) {
        let effort = self.request.effort;
        for (stage, end) in stages(self.request, &self.layer) {
            // What a late stage cannot do in its time, it leaves out.
            if !standings.lanes.is_empty() && self.runner.now() >= self.time.at(end) {
                standings.skip(stage);
                continue;
            }
            let Some((finalists, outsiders)) = standings.entrants(stage) else { continue };
            let known = (&finalists[..], outsiders);
            let (candidates, left_out) = self.entrants.of(stage, self.request, &self.layer, known);
            if left_out > 0 {
                let (layer, grid) = (self.layer, effort::GRID);
                let text = format!("{layer}: points beyond {grid} are left out: {left_out}");
                note(self.watch.observer, self.notes, text);
            }
            standings.tried.extend(candidates.iter().map(ToString::to_string));
            let limits = Limits {
                samples: effort::samples(effort, stage),
                patience: effort::patience(effort),
                deadline: self.time.at(end),
            };
            let watch = &mut *self.watch;
            let (raced, end) =
                race(&mut *self.runner, &candidates, limits, &mut |turn| watch.turn(turn));
            if watch.cancelled {
                return;
            }
            for lane in &raced {
                if let Some(why) = &lane.failed {
                    watch.refuse(&mut self.refused, &lane.candidate.to_string(), why.clone());
                } else if !lane.samples.is_empty() {
                    let trial = Trial::of(lane, self.runner.now());
                    watch.observer.event(&Event::Trial { layer: self.layer, trial: &trial });
                    standings.trials.push(trial);
                }
            }
            if standings.take(stage, raced, end) {
                self.looks.look(&mut *self.runner);
            }
        }
    }

    /// The challenger; or the incumbent, if that is another one which does not lose its place in pairs, and why.
    fn meet_incumbent(
        &mut self,
        challenger: Lane,
        standings: &Standings,
    ) -> (Lane, Option<String>) {
        let (own, default) = (challenger.candidate, self.entrants.default);
        let holder = self.entrants.incumbent.filter(|c| !c.is(&own) && !c.is(&default));
        let holder = holder.filter(|_| !own.is(&default));
        let Some(holder) = holder.and_then(|holder| standings.lane(&holder)) else {
            return (challenger, None);
        };
        let (end, watch) = (self.time.at(0.95), &mut *self.watch);
        let check =
            runoff::pairs(&mut *self.runner, &own, &holder.candidate, PAIRS, end, &mut || {
                watch.turn(Turn::Sample(end))
            });
        // Who cannot be told apart goes on to meet the default.
        if check.is_none_or(|check| check.is_worth()) {
            return (challenger, None);
        }
        (holder.clone(), Some(format!("{own} is not faster enough")))
    }

    /// The paired check of a pick against the default; none of the default itself, and of estimates.
    fn confirm(&mut self, pick: &Candidate) -> Option<Confirmation> {
        let default = &self.entrants.default;
        if self.request.effort == Effort::Estimate || pick.is(default) {
            return None;
        }
        let (end, watch) = (self.time.at(1.0), &mut *self.watch);
        let mut stop = || watch.turn(Turn::Sample(end));
        confirm(&mut *self.runner, pick, default, PAIRS, end, &mut stop)
    }

    /// A pick that passed the check and the default once more, by another harness, where the effort and real times
    /// allow it; and the effort that this came to.
    fn ask_again(
        &mut self,
        pick: &Candidate,
        check: Option<&Confirmation>,
        is_real: bool,
    ) -> (Option<Opinion>, Effort) {
        let effort = self.request.effort;
        let is_asked = is_real && effort >= Effort::Patient;
        if !is_asked || !check.is_some_and(Confirmation::is_worth) {
            return (None, effort);
        }
        let left = self.time.at(1.0).saturating_sub(self.runner.now());
        if left < second_opinion::LEAST {
            return (None, Effort::Measure);
        }
        match second_opinion::of(&mut *self.runner, pick, &self.entrants.default, left) {
            Ok(opinion) => (opinion, effort),
            Err(why) => {
                note(self.watch.observer, self.notes, format!("no second opinion: {why}"));
                (None, effort)
            }
        }
    }

    /// The time of the scalar kernel in nanoseconds; none where it would take a prompt more time than is left.
    fn time_scalar(&mut self, base: &Lane, weights: Weights) -> Option<f64> {
        let kernel = self.entrants.scalar?;
        let left = |runner: &dyn Runner| self.time.at(1.0).saturating_sub(runner.now());
        let bound = |k| Bound::of(k, &self.layer, self.request.threads, weights).ns();
        let expected = base.median() * bound(&kernel) / bound(&self.entrants.default.kernel);
        let spare = left(&*self.runner).as_nanos() as f64;
        if self.layer.tokens() > 1 && 2.0 * expected > spare {
            return None;
        }
        let candidate = Candidate::untuned(kernel);
        let first = self.runner.sample(&candidate).ok()?;
        // The first sample pays for cold pages; a second one is taken where it is affordable.
        let is_affordable = left(&*self.runner) > Duration::ZERO;
        let again = is_affordable.then(|| self.runner.sample(&candidate).ok());
        Some(again.flatten().unwrap_or(first))
    }

    /// Looks a last time and leaves the stage.
    fn leave(mut self) -> (Looks, Vec<Refused>) {
        self.looks.look(&mut *self.runner);
        (self.looks, self.refused)
    }
}
