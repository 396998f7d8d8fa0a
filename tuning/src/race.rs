//! The race: candidates take turns, losers leave early.
//!
//! Each candidate gives one sample that is thrown away (it pays for page faults and cold code), then
//! one sample per round. A candidate leaves when its best sample is behind the leader's median by more than
//! a factor that shrinks from round to round.
//!
//! A machine that is shared has fast and slow moments, which hit all who take their turns then alike. So a sample
//! is taken for a product of the time of its candidate and the slowness of its round, and both are found by
//! median polish (Tukey, Exploratory Data Analysis, 1977), the slowness from those who ran to the end: candidates are
//! ranked by the times that they would have had in rounds of the usual pace, whichever rounds they took part in.

use crate::bench::Runner;
use crate::candidate::Candidate;
use crate::statistics::{least, median, spread};
use std::time::Duration;

/// When a race ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Samples that a candidate gives on a quiet machine, the first one not counted.
    pub samples: usize,
    /// How many times as many it gives while candidate 0's own samples are [`NOISY`].
    pub patience: usize,
    /// The runner's time at which the race ends.
    pub deadline: Duration,
}

/// The relative spread above which a race goes on for longer.
pub const NOISY: f64 = 0.03;

/// `(samples given, factor)`: with so many samples a candidate this far behind leaves.
const FACTORS: &[(usize, f64)] = &[(6, 1.06), (4, 1.15), (2, 1.5)];

/// How a candidate fared.
#[derive(Debug, Clone)]
pub struct Lane {
    /// The candidate.
    pub candidate: Candidate,
    /// Its samples in nanoseconds, without the first one.
    pub samples: Vec<f64>,
    /// The same in rounds of the usual pace.
    paced: Vec<f64>,
    /// Why its timing failed, if it did.
    pub failed: Option<String>,
    live: bool,
    /// How many times as slow as its paced samples say it is taken to be.
    slowdown: f64,
}

impl Lane {
    /// A candidate that is out, with what is known of it.
    pub(crate) fn of(candidate: Candidate, samples: Vec<f64>) -> Self {
        let paced = samples.clone();
        Self { candidate, samples, paced, failed: None, live: false, slowdown: 1.0 }
    }

    /// The same candidate with its samples as they were taken.
    pub(crate) fn unpaced(self) -> Self {
        let samples = self.samples.clone();
        self.with_samples(samples)
    }

    /// The same candidate with the samples of a later check in their place.
    pub(crate) fn with_samples(self, samples: Vec<f64>) -> Self {
        Self { paced: samples.clone(), samples, slowdown: 1.0, ..self }
    }

    /// Brings its median to the pace of a race that was so many times as slow.
    pub(crate) fn slow_down(&mut self, times: f64) {
        self.slowdown *= times;
    }

    /// Whether it stayed to the end of the race.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Its samples as they would have been in rounds of the usual pace.
    pub(crate) fn paced_samples(&self) -> Vec<f64> {
        self.paced.iter().map(|ns| ns * self.slowdown).collect()
    }

    /// The median of its samples in nanoseconds, at the pace of the race as a whole.
    pub fn median(&self) -> f64 {
        median(&self.paced) * self.slowdown
    }
}

/// How a race ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every candidate left or gave all its samples.
    Finished,
    /// The deadline came.
    Deadline,
    /// The watcher asked for it.
    Cancelled,
}

/// Something that happened in a race.
#[derive(Debug)]
pub enum Turn<'a> {
    /// A sample was taken; the runner's time now.
    Sample(Duration),
    /// A new leader, with its median in nanoseconds.
    Leader(&'a Candidate, f64),
    /// A candidate left, so many times as slow as the leader.
    Left(&'a Candidate, f64),
}

/// Runs a race. Candidate 0 never leaves: it is the one to compare with. `watch` is told every turn
/// and returns whether to stop.
pub fn race(
    runner: &mut dyn Runner,
    candidates: &[Candidate],
    limits: Limits,
    watch: &mut dyn FnMut(Turn<'_>) -> bool,
) -> (Vec<Lane>, End) {
    let lane = |c: &Candidate| Lane { live: true, ..Lane::of(*c, Vec::new()) };
    let mut lanes: Vec<Lane> = candidates.iter().map(lane).collect();
    let mut leader = None;
    for round in 0..=limits.samples * limits.patience.max(1) {
        if round > limits.samples {
            let noise = lanes.first().and_then(|lane| spread(&lane.samples));
            if noise.is_none_or(|noise| noise <= NOISY) {
                break;
            }
        }
        for lane in lanes.iter_mut().filter(|l| l.live) {
            // Whatever the deadline, one round is run: without it there is nothing to go by.
            if round > 1 && runner.now() >= limits.deadline {
                return (ranked(lanes), End::Deadline);
            }
            match runner.sample(&lane.candidate) {
                Ok(ns) if round > 0 => lane.samples.push(ns),
                Ok(_) => {}
                Err(why) => {
                    lane.failed = Some(why);
                    lane.live = false;
                }
            }
            if watch(Turn::Sample(runner.now())) {
                return (ranked(lanes), End::Cancelled);
            }
        }
        // Those who have left knew another pace.
        let timed =
            lanes.iter().enumerate().filter(|(i, l)| !l.samples.is_empty() && (*i == 0 || l.live));
        let best = timed.map(|(i, l)| (median(&l.samples), i)).min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((ns, index)) = best else { continue };
        if leader != Some(index) {
            leader = Some(index);
            watch(Turn::Leader(&lanes[index].candidate, ns));
        }
        for (_, lane) in lanes.iter_mut().enumerate().filter(|(i, l)| *i > 0 && l.live) {
            let behind = least(&lane.samples) / ns;
            let given = lane.samples.len();
            if FACTORS.iter().any(|&(samples, factor)| given >= samples && behind > factor) {
                lane.live = false;
                watch(Turn::Left(&lane.candidate, behind));
            }
        }
    }
    (ranked(lanes), End::Finished)
}

/// Passes of the median polish; more change little.
const POLISH: usize = 4;

/// The lanes by their medians, which are brought to one pace; equal ones stay in the order of the candidates, those who
/// left come after those who stayed, untimed ones last.
fn ranked(mut lanes: Vec<Lane>) -> Vec<Lane> {
    polish(&mut lanes);
    let stayed = lanes.iter().filter(|lane| lane.live && !lane.samples.is_empty());
    let best = stayed.map(Lane::median).fold(f64::INFINITY, f64::min);
    let is_out = |lane: &&mut Lane| !lane.live && !lane.samples.is_empty() && best.is_finite();
    for lane in lanes.iter_mut().filter(is_out) {
        // Who was behind when it left is not ahead of those who stayed, however noisy they were then.
        if lane.median() <= best {
            lane.slowdown = best / lane.median() * (1.0 + 4.0 * f64::EPSILON);
        }
    }
    let key = |lane: &Lane| match lane.samples.is_empty() {
        true => f64::INFINITY,
        false => lane.median(),
    };
    lanes.sort_by(|a, b| key(a).total_cmp(&key(b)).then(b.live.cmp(&a.live)));
    lanes
}

/// Brings the samples of all lanes to the usual pace. How slow a round was is learnt from those who ran to the end: to
/// those who left, the rounds that they know are the usual ones.
fn polish(lanes: &mut [Lane]) {
    let rounds = lanes.iter().map(|lane| lane.samples.len()).max().unwrap_or(0);
    // The last round may have been cut off.
    let is_witness = |lane: &&Lane| lane.samples.len() + 1 >= rounds && !lane.samples.is_empty();
    let mut slowness = vec![1.0; rounds];
    for pass in 0..=POLISH {
        for lane in &mut *lanes {
            let samples = lane.samples.iter().zip(&slowness);
            lane.paced = samples.map(|(ns, slow)| ns / slow).collect();
        }
        if pass == POLISH {
            break;
        }
        let witnesses = lanes.iter().filter(is_witness);
        let witnesses: Vec<_> = witnesses.map(|lane| (lane, median(&lane.paced))).collect();
        for (round, slow) in slowness.iter_mut().enumerate() {
            let own = witnesses.iter();
            let own = own.filter_map(|(lane, level)| Some(lane.samples.get(round)? / level));
            *slow = median(&own.collect::<Vec<_>>());
        }
        let usual = median(&slowness);
        slowness.iter_mut().for_each(|slow| *slow /= usual);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake::{self, Script, Synthetic};

    #[test]
    fn rounds_of_another_pace_do_not_choose() {
        // Half of the rounds are slower by half, and one more of them counts for the lane that is the faster one.
        let lane = |at: usize, samples: &[f64]| Lane::of(fake::field()[at], samples.to_vec());
        let slower = lane(0, &[100.0, 100.0, 100.0, 150.0, 150.0]);
        let faster = lane(1, &[95.0, 95.0, 143.0, 142.0, 143.0]);
        let third = lane(2, &[120.0, 120.0, 180.0, 180.0, 180.0]);
        assert!(median(&slower.samples) < median(&faster.samples));
        let lanes = ranked(vec![slower, faster, third]);
        assert_eq!(names(&lanes), ["r2u1", "r1u1", "r4u1"]);
        // At the pace that there usually was.
        assert!((140.0..145.0).contains(&lanes[0].median()), "{}", lanes[0].median());
    }

    #[test]
    fn most_may_have_left_before_the_pace_changes() {
        let lane = |at: usize, samples: &[f64]| Lane::of(fake::field()[at], samples.to_vec());
        let stay = |at: usize, ns: f64| Lane {
            live: true,
            ..lane(at, &[[ns; 4].to_vec(), [1.5 * ns; 5].to_vec()].concat())
        };
        let mut lanes = vec![stay(0, 100.0), stay(1, 97.0)];
        lanes.extend([125.0, 126.0, 127.0].map(|ns| lane(2, &[ns; 4])));
        let lanes = ranked(lanes);
        assert_eq!(names(&lanes)[..2], ["r2u1", "r1u1"]);
        assert!((lanes[2].median() / lanes[0].median() - 125.0 / 97.0).abs() < 1e-9, "{lanes:?}");
    }

    const LIMITS: Limits = Limits { samples: 9, patience: 3, deadline: Duration::MAX };

    fn names(lanes: &[Lane]) -> Vec<&str> {
        lanes.iter().map(|l| fake::micro(&l.candidate)).collect()
    }

    fn run(script: Script, limits: Limits) -> (Vec<Lane>, End, Vec<String>) {
        let mut left = Vec::new();
        let mut runner = Synthetic::new(script);
        let (lanes, end) = race(&mut runner, &fake::field(), limits, &mut |turn| {
            if let Turn::Left(candidate, _) = turn {
                left.push(fake::micro(candidate).to_owned());
            }
            false
        });
        (lanes, end, left)
    }

    const TIMES: &[(&str, f64)] =
        &[("r1u1", 100.0), ("r2u1", 80.0), ("r4u1", 82.0), ("r8u1", 300.0)];

    #[test]
    fn the_fastest_wins_and_the_slowest_leaves_first() {
        let (lanes, end, left) = run(Script { times: TIMES, ..Script::default() }, LIMITS);
        assert_eq!(names(&lanes), ["r2u1", "r4u1", "r1u1", "r8u1"]);
        assert_eq!((end, &left[..]), (End::Finished, &["r8u1".to_owned()][..]));
        let samples: Vec<usize> = lanes.iter().map(|l| l.samples.len()).collect();
        assert_eq!(samples, [9, 9, 9, 2], "the default never leaves");
    }

    #[test]
    fn the_first_sample_does_not_count() {
        let first = &[("r2u1", 1e9)];
        let script = Script { times: TIMES, first, ..Script::default() };
        let (lanes, ..) = run(script, LIMITS);
        assert_eq!(names(&lanes)[0], "r2u1");
        assert!(lanes[0].samples.iter().all(|s| *s == 80.0));
    }

    #[test]
    fn ties_go_to_the_earlier_candidate() {
        let times = &[("r1u1", 50.0), ("r2u1", 50.0), ("r4u1", 50.0), ("r8u1", 50.0)];
        let (lanes, ..) = run(Script { times, ..Script::default() }, LIMITS);
        assert_eq!(names(&lanes), ["r1u1", "r2u1", "r4u1", "r8u1"]);
    }

    #[test]
    fn noise_and_drift_do_not_change_a_clear_order() {
        for (noise, drift) in [(0.05, 0.0), (0.0, 0.02), (0.05, -0.002)] {
            let (lanes, ..) =
                run(Script { times: TIMES, noise, drift, ..Script::default() }, LIMITS);
            assert!(["r2u1", "r4u1"].contains(&names(&lanes)[0]), "{noise} {drift}");
            assert_eq!(names(&lanes)[3], "r8u1");
        }
    }

    #[test]
    fn who_leaves_before_the_machine_slows_down_is_not_taken_for_fast() {
        // By a factor of 1.5 in all, most of it after the slowest have left.
        let times = &[("r1u1", 100.0), ("r2u1", 97.0), ("r4u1", 130.0), ("r8u1", 140.0)];
        let (lanes, _, left) = run(Script { times, drift: 0.02, ..Script::default() }, LIMITS);
        assert_eq!(left.len(), 2);
        assert_eq!(names(&lanes), ["r2u1", "r1u1", "r4u1", "r8u1"]);
        assert!(lanes[2].samples.len() < lanes[0].samples.len());
    }

    #[test]
    fn a_noisy_race_goes_on_for_longer() {
        let (lanes, ..) = run(Script { times: TIMES, noise: 0.3, ..Script::default() }, LIMITS);
        let most = lanes.iter().map(|l| l.samples.len()).max();
        assert_eq!(most, Some(27));
    }

    #[test]
    fn the_deadline_ends_it_with_what_there_is() {
        let limits = Limits { deadline: Duration::ZERO, ..LIMITS };
        let (lanes, end, _) = run(Script { times: TIMES, ..Script::default() }, limits);
        assert_eq!(end, End::Deadline);
        assert!(lanes.iter().all(|l| l.samples.len() == 1));
        assert_eq!(names(&lanes)[0], "r2u1");
    }

    #[test]
    fn a_watcher_can_stop_it() {
        let mut runner = Synthetic::new(Script { times: TIMES, ..Script::default() });
        let mut turns = 0;
        let (lanes, end) = race(&mut runner, &fake::field(), LIMITS, &mut |_| {
            turns += 1;
            turns == 6
        });
        assert_eq!(end, End::Cancelled);
        assert!(lanes.iter().map(|l| l.samples.len()).sum::<usize>() < 6);
    }

    #[test]
    fn a_candidate_that_fails_is_out_with_its_reason() {
        let (lanes, end, _) = run(Script { times: &TIMES[..3], ..Script::default() }, LIMITS);
        assert_eq!(end, End::Finished);
        assert_eq!(names(&lanes)[3], "r8u1");
        assert!(lanes[3].failed.as_deref().unwrap().contains("no time"));
    }
}
