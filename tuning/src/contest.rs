//! A pick against everything else: every point of the grid is timed, and the pick meets the fastest other
//! one in pairs.
//!
//! Kernels that are far behind with their usual bounds are timed with these alone. The others race with every
//! point of the [grid](space::grid), and the best of them with the points that the grid had no room for.
//! The fastest of many medians is often the luckiest, so the leaders are timed once more before one of them
//! meets the pick, and what counts is those pairs alone. Where memory changes its [pace](Pace) now and then, or
//! neighbours come and go, they wait for the state in which the pick was found: what is fastest in another is not to
//! its blame.

use crate::bench::{Lab, Runner, Stage};
use crate::candidate::Candidate;
use crate::effort::GRID;
use crate::exactness::Gate;
use crate::noise::Noise;
use crate::observer::{Event, Observer};
use crate::race::{Lane, Limits, Turn, race};
use crate::request::{Request, ShapeUse, TuneError};
use crate::statistics::{least, median};
use crate::{AnyKernel, cold, estimate, runoff, space};
use std::time::Duration;
use trilut_kernels::{Layout, Tile};
use trilut_presets::Pace;

/// Pairs of the last meeting.
const PAIRS: usize = 41;

/// A kernel this many times as slow as the fastest with its usual bounds has no better ones that would win.
const BEHIND: f64 = 2.0;

/// A kernel whose first product took so many times as long as the fastest is not timed again: that is more
/// than cold code and pages cost.
const FAR_BEHIND: f64 = 20.0;

/// Kernels whose every point is timed at the end.
const FINALISTS: usize = 4;

/// The leaders that are timed once more, with the best that read each other layout: how far these are behind
/// depends on memory, whose speed may have changed during the races before.
const LEADERS: usize = 4;

/// A pick whose time is off by more than this from that at which it was found is timed on a machine in another state:
/// a neighbour on the same cores slows some kernels down more than others.
const OTHER_TIME: f64 = 0.1;

/// How long the last meeting waits for the machine to have the state in which the pick was found, and keeps it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A meeting whose interval is wider than this was disturbed.
const CALM: f64 = 0.05;

/// How many meetings in the right state there are at most for a calm one.
const MEETINGS: usize = 3;

/// How often memory is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// A pick that meets all others.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// The kernel's name.
    pub kernel: &'a str,
    /// Its loop bounds.
    pub tile: Tile,
    /// 10^9 bytes per second at which memory was read when it was found, where anybody knows it.
    pub memory: Option<f64>,
    /// Nanoseconds that it took when it was found, if that was just now.
    pub median_ns: Option<f64>,
}

impl Holder<'_> {
    /// Whether memory has the pace at which the pick was found, as far as that is known.
    fn is_its_pace(&self, memory: f64) -> bool {
        self.memory.is_none_or(|wanted| Pace::at(wanted).is_near(Pace::at(memory)))
    }

    /// Whether the pick takes the time that it took when it was found, as far as that is known.
    fn is_its_time(&self, ns: f64) -> bool {
        self.median_ns.is_none_or(|then| (ns / then - 1.0).abs() <= OTHER_TIME)
    }

    /// What differs from when the pick was found.
    fn change(&self, memory: Option<f64>, ns: Option<f64>) -> Option<String> {
        let memory = memory.filter(|now| !self.is_its_pace(*now)).zip(self.memory);
        if let Some((now, then)) = memory {
            return Some(format!(
                "memory was read at {now:.1} GB/s, at {then:.1} when the pick was found"
            ));
        }
        let (now, then) = ns.filter(|ns| !self.is_its_time(*ns)).zip(self.median_ns)?;
        let [now, then] = [now, then].map(|ns| ns / 1e3);
        Some(format!("the pick took {now:.2} us, {then:.2} when it was found"))
    }
}

/// How one candidate fared.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Its loop bounds.
    pub tile: Tile,
    /// The median of its samples in nanoseconds.
    pub median_ns: f64,
    /// The number of its samples; few where it fell behind early.
    pub samples: usize,
    /// Whether it is the pick.
    pub is_pick: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Contest {
    /// Every candidate, the fastest first.
    pub rows: Vec<Row>,
    /// The fastest candidate but for the pick; `None` where there is no other.
    pub best: Option<(&'static str, Tile)>,
    /// The pick's time over that of the fastest other candidate, minus 1, from pairs; 0 or less where the
    /// pick is the fastest.
    pub regret: f64,
    /// The interval of the regret.
    pub interval: [f64; 2],
    /// 10^9 bytes per second at which memory was read during the pairs; `None` where weights are in the cache, for
    /// prompts, or where nobody can tell.
    pub memory: Option<f64>,
    /// What disturbed the times, if anything did.
    pub warning: Option<String>,
}

/// Times the whole grid of a layer and the pick. `None` when it was cancelled.
///
/// # Errors
/// When there is no memory for it, or the pick cannot be run here.
pub fn contest(
    lab: &mut dyn Lab,
    request: &Request,
    layer: ShapeUse,
    holder: Holder<'_>,
    samples: usize,
    observer: &mut dyn Observer,
) -> Result<Option<Contest>, TuneError> {
    let (shape, formats) = (layer.shape, request.formats_of(&layer));
    let stored = lab.layout(formats[0], shape);
    let mut gate = Gate::new(shape, stored);
    let weights = cold::state(request.model_bytes, &request.machine);
    let ranked =
        estimate::rank(space::kernels(lab, &layer, formats), &layer, request.threads, weights);
    let mut kernels: Vec<AnyKernel> = ranked.into_iter().map(|(kernel, _)| kernel).collect();
    kernels.retain(|kernel| gate.check(kernel).is_ok());
    let Some(kernel) = kernels.iter().find(|kernel| kernel.name() == holder.kernel) else {
        return Err(TuneError::Pick { kernel: holder.kernel.to_owned(), layer });
    };
    let pick = Candidate { kernel: *kernel, tile: holder.tile };
    let mut layouts: Vec<Layout> = kernels.iter().map(|k| k.layout(stored)).collect();
    layouts.sort_unstable();
    // Panels are filled from the first.
    layouts.sort_by_key(|layout| *layout != stored);
    layouts.dedup();
    let before = (lab.cpu_times(), lab.disturbance());
    let Stage { mut runner, .. } = lab.open(&layer, &layouts)?;
    let mut arena = Arena {
        runner: &mut *runner,
        observer,
        pick,
        known: Vec::new(),
        part: (0.0, 0.1),
        is_streamed: layer.is_streamed(),
    };

    let untuned: Vec<Candidate> = kernels.into_iter().map(Candidate::untuned).collect();
    let Some(near) = arena.near(&untuned) else { return Ok(None) };
    let (grid, _) = space::grid(&near, shape, request.threads, GRID);
    arena.part = (0.1, 0.6);
    if !arena.race(grid, samples, 2) {
        return Ok(None);
    }
    let best = best_kernels(&arena.known, &near);
    let (every, _) = space::grid(&best, shape, request.threads, usize::MAX);
    let is_timed = |point: &Candidate| arena.known.iter().any(|lane| lane.candidate.is(point));
    if !every.iter().all(is_timed) {
        arena.part = (0.7, 0.15);
        if !arena.race(every, samples, 2) {
            return Ok(None);
        }
    }
    arena.part = (0.85, 0.05);
    let leaders = arena.leaders(stored);
    let Some(meeting) = arena.last_meeting(&leaders, samples, &holder) else {
        return Ok(None);
    };
    let Arena { known, .. } = arena;
    drop(runner);
    let own = known.iter().find(|lane| lane.candidate.is(&pick));
    let own = match &meeting.picks[..] {
        [] => own.map_or(&[][..], |lane| &lane.samples),
        picks => picks,
    };
    let disturbance = lab.disturbance().since(before.1);
    let noise = Noise::of(own, before.0, lab.cpu_times()).with(disturbance);
    let noise = noise.at(&meeting.memory).computing(&meeting.cores);
    let row = |lane: &Lane| Row {
        kernel: lane.candidate.name(),
        tile: lane.candidate.tile,
        median_ns: lane.median(),
        samples: lane.samples.len(),
        is_pick: lane.candidate.is(&pick),
    };
    Ok(Some(Contest {
        rows: known.iter().map(row).collect(),
        best: meeting.best.map(|best| (best.name(), best.tile)),
        regret: meeting.regret,
        interval: meeting.interval,
        memory: noise.memory.map(Pace::middle),
        warning: noise
            .warning()
            .or_else(|| holder.change(noise.memory.map(Pace::middle), meeting.pick_ns())),
    }))
}

/// Where candidates of one layer are timed, and what is known of them so far.
struct Arena<'a> {
    runner: &'a mut dyn Runner,
    observer: &'a mut dyn Observer,
    pick: Candidate,
    /// The fastest first, each candidate as it fared last.
    known: Vec<Lane>,
    /// The part of the progress that is being made: where it begins, and how large it is.
    part: (f64, f64),
    /// Whether the time of the layer depends on how fast memory is.
    is_streamed: bool,
}

/// The pick against the fastest of the leaders.
#[derive(Default)]
struct Meeting {
    best: Option<Candidate>,
    regret: f64,
    interval: [f64; 2],
    /// The pick's times in the pairs.
    picks: Vec<f64>,
    /// The paces of memory that were seen.
    memory: Vec<f64>,
    /// The rates of the cores that were seen.
    cores: Vec<f64>,
}

impl Meeting {
    fn pick_ns(&self) -> Option<f64> {
        (!self.picks.is_empty()).then(|| median(&self.picks))
    }

    /// Whether the machine was as it was when the pick was found, and stayed so.
    fn is_in_the_state_of(&self, holder: &Holder<'_>) -> bool {
        let all = Pace::of(self.memory.iter().copied().map(Pace::at));
        let is_right = |pace: Pace| pace.is_steady() && holder.is_its_pace(pace.middle());
        let is_same = self.pick_ns().is_none_or(|ns| holder.is_its_time(ns));
        is_same && all.is_none_or(is_right)
    }

    /// Whether nothing disturbed it that could be seen.
    fn is_calm(&self) -> bool {
        self.width() <= CALM && self.are_cores_steady()
    }

    fn are_cores_steady(&self) -> bool {
        Noise::default().computing(&self.cores).warning().is_none()
    }

    /// Whether it says more than another one: in the right state, then the calmer one.
    fn is_better_than(&self, other: &Self, holder: &Holder<'_>) -> bool {
        let order =
            |own: &Self| (!own.is_in_the_state_of(holder), !own.are_cores_steady(), own.width());
        order(self) < order(other)
    }

    /// How wide the interval of the regret is.
    fn width(&self) -> f64 {
        self.interval[1] - self.interval[0]
    }
}

impl Arena<'_> {
    /// The kernels that are not [`BEHIND`], the pick's among them; the others are known. `None` when it was
    /// cancelled.
    fn near(&mut self, untuned: &[Candidate]) -> Option<Vec<Candidate>> {
        let mut times: Vec<Vec<f64>> = Vec::new();
        let mut best = f64::INFINITY;
        for (at, candidate) in untuned.iter().enumerate() {
            let mut own = Vec::new();
            for _ in 0..3 {
                match self.runner.sample(candidate) {
                    Ok(ns) => own.push(ns),
                    Err(_) => break,
                }
                best = best.min(least(&own));
                if least(&own) > best * FAR_BEHIND {
                    break;
                }
            }
            times.push(own);
            self.tell(at + 1, untuned.len());
            if self.observer.should_stop() {
                return None;
            }
        }
        let mut near = Vec::new();
        for (candidate, own) in untuned.iter().zip(times) {
            if own.is_empty() {
                continue;
            }
            if least(&own) <= best * BEHIND || candidate.name() == self.pick.name() {
                near.push(*candidate);
            } else {
                self.known.push(Lane::of(*candidate, own));
            }
        }
        Some(near)
    }

    /// Lets candidates and the pick race; whether it was not cancelled.
    fn race(&mut self, mut field: Vec<Candidate>, samples: usize, patience: usize) -> bool {
        // The first never leaves the race.
        field.retain(|candidate| !candidate.is(&self.pick));
        field.insert(0, self.pick);
        let limits = Limits { samples, patience, deadline: Duration::MAX };
        let turns = field.len() * samples;
        let (mut taken, mut is_cancelled) = (0usize, false);
        let (begin, size) = self.part;
        let observer = &mut *self.observer;
        let (lanes, _) = race(self.runner, &field, limits, &mut |turn| {
            if let Turn::Sample(_) = turn {
                taken += 1;
                let done = (taken as f64 / turns as f64).min(1.0);
                observer.event(&Event::Progress(begin + size * done));
            }
            is_cancelled |= observer.should_stop();
            is_cancelled
        });
        let timed =
            lanes.into_iter().filter(|lane| lane.failed.is_none() && !lane.samples.is_empty());
        let timed: Vec<Lane> = timed.collect();
        // What is known from an earlier race was measured at that one's pace.
        let pick = |lanes: &[Lane]| {
            lanes.iter().find(|lane| lane.candidate.is(&self.pick)).map(Lane::median)
        };
        if let Some((now, before)) = pick(&timed).zip(pick(&self.known)) {
            self.known.iter_mut().for_each(|lane| lane.slow_down(now / before));
        }
        self.known.retain(|old| timed.iter().all(|new| !new.candidate.is(&old.candidate)));
        self.known.extend(timed);
        self.known.sort_by(|a, b| a.median().total_cmp(&b.median()));
        !is_cancelled
    }

    /// The fastest others, and the best of each other layout.
    fn leaders(&self, stored: Layout) -> Vec<Candidate> {
        let mut layouts = Vec::new();
        let mut leaders = Vec::new();
        for (at, lane) in self.others().enumerate() {
            let layout = lane.candidate.kernel.layout(stored);
            if at < LEADERS || !layouts.contains(&layout) {
                leaders.push(lane.candidate);
                layouts.push(layout);
            }
        }
        leaders
    }

    /// The leaders once more, and the pick against the best of them, in the state in which the pick was found if that
    /// comes, and at one pace of memory if it lasts; of some that were not calm the calmest. `None` when it was
    /// cancelled.
    fn last_meeting(
        &mut self,
        leaders: &[Candidate],
        samples: usize,
        holder: &Holder<'_>,
    ) -> Option<Meeting> {
        let end = self.runner.now() + PATIENCE;
        let is_wanted = |seen: f64| holder.is_its_pace(seen);
        let mut known: Option<Meeting> = None;
        let mut right = 0;
        loop {
            while self.pace().is_some_and(|seen| !is_wanted(seen)) && self.runner.now() < end {
                if self.observer.should_stop() {
                    return None;
                }
                std::thread::sleep(LOOK);
            }
            let meeting = self.meeting(leaders, samples)?;
            right += usize::from(meeting.is_in_the_state_of(holder));
            let best = match known.take() {
                Some(known) if !meeting.is_better_than(&known, holder) => known,
                _ => meeting,
            };
            let is_right = best.is_in_the_state_of(holder);
            let is_enough = is_right && (best.is_calm() || right == MEETINGS);
            if is_enough || self.runner.now() >= end {
                return Some(best);
            }
            known = Some(best);
        }
    }

    /// The leaders once more, and the pick against the best of them. `None` when it was cancelled.
    fn meeting(&mut self, leaders: &[Candidate], samples: usize) -> Option<Meeting> {
        let mut meeting = Meeting::default();
        meeting.memory.extend(self.pace());
        meeting.cores.extend(self.runner.cores());
        if leaders.len() > 1 && !self.race(leaders.to_vec(), 2 * samples, 1) {
            return None;
        }
        let is_leader = |lane: &&Lane| leaders.iter().any(|c| c.is(&lane.candidate));
        meeting.best = self.others().find(is_leader).map(|lane| lane.candidate);
        if let Some(best) = &meeting.best {
            meeting.memory.extend(self.pace());
            let Self { runner, observer, pick, .. } = self;
            let check = runoff::pairs(*runner, pick, best, PAIRS, Duration::MAX, &mut || {
                observer.should_stop()
            })?;
            meeting.regret = check.ratio - 1.0;
            meeting.interval = [check.low - 1.0, check.high - 1.0];
            meeting.picks = check.winner;
        }
        meeting.memory.extend(self.pace());
        meeting.cores.extend(self.runner.cores());
        Some(meeting)
    }

    /// How fast memory is read now, where that matters.
    fn pace(&mut self) -> Option<f64> {
        self.is_streamed.then(|| self.runner.memory()).flatten()
    }

    /// Everybody but the pick, the fastest first.
    fn others(&self) -> impl Iterator<Item = &Lane> {
        self.known.iter().filter(|lane| !lane.candidate.is(&self.pick))
    }

    fn tell(&mut self, done: usize, of: usize) {
        let (begin, size) = self.part;
        self.observer.event(&Event::Progress(begin + size * done as f64 / of as f64));
    }
}

/// The fastest of the kernels that are near, with their usual bounds.
fn best_kernels(lanes: &[Lane], near: &[Candidate]) -> Vec<Candidate> {
    let mut best: Vec<Candidate> = Vec::new();
    let is_near = |lane: &&Lane| near.iter().any(|c| c.name() == lane.candidate.name());
    for lane in lanes.iter().filter(is_near) {
        if best.len() < FINALISTS && best.iter().all(|c| c.name() != lane.candidate.name()) {
            best.push(Candidate::untuned(lane.candidate.kernel));
        }
    }
    best
}

#[cfg(test)]
mod tests;
