//! The pace at which memory was read during most of a run, and which of two searches of a layer to keep by it.

use crate::record::ShapeReport;
use trilut_presets::Pace;

/// The middle of the paces of memory at which layers were raced, if anybody could tell them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prevailing(Option<Pace>);

impl Prevailing {
    /// The one of these reports; those during which it changed say nothing.
    pub(super) fn of(reports: &[ShapeReport]) -> Self {
        let paces = reports.iter().filter_map(|report| report.noise.memory);
        Self::among(paces.filter(|pace| pace.is_steady()))
    }

    /// The middle of these: one that there was, the faster of two.
    fn among(paces: impl Iterator<Item = Pace>) -> Self {
        let mut paces: Vec<Pace> = paces.collect();
        paces.sort_by(|a, b| a.middle().total_cmp(&b.middle()));
        Self(paces.get(paces.len() / 2).copied())
    }

    /// Whether a layer was measured while memory had another speed, which says little of most of the time.
    pub(super) fn is_off(self, report: &ShapeReport) -> bool {
        let paces = report.noise.memory.zip(self.0);
        paces.is_some_and(|(own, prevailing)| !own.is_near(prevailing))
    }

    /// Whether a later search of a layer, in which the earlier one's pick met the new one in pairs, counts instead: of
    /// two as thorough as each other the one at the prevailing pace, then the later one if it decided for another
    /// pick; else the more thorough, then the calmer one.
    pub(super) fn favours(self, later: &ShapeReport, earlier: &ShapeReport) -> bool {
        if later.is_cut_short == earlier.is_cut_short {
            if self.is_off(later) != self.is_off(earlier) {
                return self.is_off(earlier);
            }
            if later.is_decided() && !later.record.is_same_pick(&earlier.record) {
                return true;
            }
        }
        later.is_better_than(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confirm::Confirmation;
    use crate::noise::Noise;
    use crate::tuner::tests::a_report;

    #[test]
    fn a_layer_during_which_memory_changed_its_pace_has_no_say() {
        let changed = Pace { slowest: 40.0, fastest: 66.0 };
        let at = [Pace::at(66.0), Pace::at(40.0), changed].map(|pace| {
            let mut report = search("a", 0.02, 0.0, CLEAR);
            report.noise.memory = Some(pace);
            report
        });
        assert_eq!(Prevailing::of(&at), Prevailing(Some(Pace::at(66.0))));
    }

    #[test]
    fn the_prevailing_pace_is_one_that_there_was() {
        let of = |all: &[f64]| Prevailing::among(all.iter().copied().map(Pace::at)).0;
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[40.0, 66.0, 41.0]), Some(Pace::at(41.0)));
        assert_eq!(of(&[66.0, 40.0]), Some(Pace::at(66.0)));
        assert_eq!(of(&[66.0, 40.0, 41.0, 67.0]), Some(Pace::at(66.0)));
    }

    /// A search with this spread of samples, at this pace, whose pick took this share of the default's time.
    fn search(pick: &str, spread: f64, pace: f64, share: [f64; 2]) -> ShapeReport {
        let mut report = a_report();
        let memory = Some(Pace::at(pace));
        report.noise = Noise { spread: Some(spread), memory, ..Noise::default() };
        pick.clone_into(&mut report.record.kernel);
        let times = |factor: [f64; 2]| (0..21).map(|at| 100.0 * factor[at % 2]).collect();
        report.confirmation = Some(Confirmation::of(times(share), times([1.0; 2])));
        report
    }

    const CLEAR: [f64; 2] = [0.8; 2];
    const UNDECIDED: [f64; 2] = [0.9, 1.1];

    #[test]
    fn a_second_look_counts_when_it_decided_for_another_pick_or_was_the_calmer_one() {
        let most = Prevailing(Some(Pace::at(66.0)));
        let earlier = search("a", 0.02, 66.0, CLEAR);
        let favours = |later: ShapeReport| most.favours(&later, &earlier);
        assert!(!search("b", 0.01, 66.0, UNDECIDED).is_decided());

        // Another pick that beat the default clearly, though less calm: the earlier pick was in its race.
        assert!(favours(search("b", 0.03, 66.0, CLEAR)));
        // One that did not: the calmer one.
        assert!(!favours(search("b", 0.03, 66.0, UNDECIDED)));
        assert!(favours(search("b", 0.01, 66.0, UNDECIDED)));
        // The same pick: the calmer one.
        assert!(!favours(search("a", 0.03, 66.0, CLEAR)));
        assert!(favours(search("a", 0.01, 66.0, CLEAR)));
    }

    #[test]
    fn a_search_at_the_prevailing_pace_counts_and_one_cut_short_does_not() {
        let most = Prevailing(Some(Pace::at(66.0)));
        let (near, off) = (search("a", 0.04, 66.0, CLEAR), search("b", 0.01, 40.0, CLEAR));
        assert!(most.is_off(&off) && !most.is_off(&near));
        assert!(!most.favours(&off, &near));
        assert!(most.favours(&near, &off));
        let undecided = search("b", 0.05, 40.0, UNDECIDED);
        assert!(!Prevailing(None).favours(&undecided, &near) && !most.favours(&undecided, &near));
        assert!(Prevailing(Some(Pace::at(41.0))).favours(&undecided, &near));

        let short = ShapeReport { is_cut_short: true, ..search("b", 0.01, 66.0, CLEAR) };
        assert!(!most.favours(&short, &near));
        assert!(most.favours(&near, &short) && most.favours(&off, &short));
    }
}
