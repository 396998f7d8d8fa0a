//! Two presets side by side: what differs, and one preset of both.

use super::{Evidence, Key, Preset, Record};
use crate::{Phase, Shape};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What became of one (shape, phase, threads) from one preset to another.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Only the first has it.
    Removed(Box<Record>),
    /// Only the second has it.
    Added(Box<Record>),
    /// Both have it with different kernels, formats or tiles.
    Pick(Box<Record>, Box<Record>),
    /// Both pick the same; the second's time over the first's.
    Time(f64),
}

/// One line of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The layer's size.
    pub shape: Shape,
    /// The part of inference.
    pub phase: Phase,
    /// The number of threads.
    pub threads: usize,
    /// What differs.
    pub change: Change,
}

/// One preset made of two.
#[derive(Debug, Clone, PartialEq)]
pub struct Combined {
    /// The preset.
    pub preset: Preset,
    /// Where the two picked differently, and `true` where the first was believed.
    pub disagreements: Vec<(Difference, bool)>,
}

/// How far two runs agree about the records that both have, and how much that says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Agreement {
    /// Records with the same pick.
    pub same: usize,
    /// Records with different picks of which what the two state overlaps.
    pub ties: usize,
    /// Records that were each made while memory had another [pace](crate::Pace), whatever they pick: two different ones may
    /// both be right.
    pub paces: usize,
    /// The others.
    pub apart: Vec<(Shape, Phase, usize)>,
    /// Records that one of the two lacks.
    pub unmatched: usize,
    /// The width of the widest interval by which records were taken for ties, as a part of the default's time:
    /// runs that state little tie easily.
    pub widest_tie: f64,
}

impl Agreement {
    /// The share of the records that pick the same or tie, of those that can be compared; `None` where the two
    /// have none in common.
    pub fn share(&self) -> Option<f64> {
        let agreed = self.same + self.ties;
        let all = agreed + self.apart.len();
        (all > 0).then(|| agreed as f64 / all as f64)
    }
}

impl Record {
    /// What the record states of its pick's time over that of the default: the interval of its paired check,
    /// or, where the default stayed or there was no check, the noise on both sides of the medians' ratio.
    pub fn stated_interval(&self) -> [f64; 2] {
        let ratio = self.median_ns as f64 / self.default_ns as f64;
        let evidence = self.evidence.as_ref();
        let known = evidence.and_then(|evidence| evidence.interval);
        let noise = evidence.and_then(|evidence| evidence.noise).unwrap_or(0.0);
        let width = self.confidence.unwrap_or(noise);
        known.unwrap_or([ratio - width, ratio + width])
    }

    /// Whether a different pick of another run says nothing else than this one: compared with the same default,
    /// what the two state overlaps. That is their gain over the default; and where a run put the default in place
    /// of its pick for the sake of the model as a whole, the gain of the model in both runs. The width of the
    /// wider of the two intervals is returned.
    fn ties_with(&self, other: &Self) -> Option<f64> {
        let overlap = |[low, high]: [f64; 2], [least, most]: [f64; 2]| {
            (low <= most && least <= high).then_some((high - low).max(most - least))
        };
        let model = |record: &Self| record.evidence.as_ref().and_then(|evidence| evidence.model);
        let models = model(self).zip(model(other));
        let is_denied = self.is_default() || other.is_default();
        if self.default_kernel != other.default_kernel {
            return None;
        }
        overlap(self.stated_interval(), other.stated_interval()).or_else(|| {
            let (a, b) = models.filter(|_| is_denied)?;
            overlap(a, b)
        })
    }

    /// Whether both pick one kernel with one tile, to the letter of the kernel's text.
    pub fn is_same_pick(&self, other: &Self) -> bool {
        self.picks_the_same(other) && self.hash == other.hash
    }

    /// Whether memory had the same pace for both, as far as they say.
    fn is_of_the_pace_of(&self, other: &Self) -> bool {
        self.pace().zip(other.pace()).is_none_or(|(own, other)| own.is_near(other))
    }

    /// Whether both pick one kernel with one tile; its text may be another.
    fn picks_the_same(&self, other: &Self) -> bool {
        (self.format, &self.kernel, self.tile) == (other.format, &other.kernel, other.tile)
    }
}

impl Preset {
    /// How far two independent runs agree.
    pub fn agreement(&self, other: &Self) -> Agreement {
        let mut agreement = Agreement::default();
        let is_alone =
            |a: &&Record, in_other: &Self| in_other.record(a.shape, a.phase, a.threads).is_none();
        agreement.unmatched = other.records().iter().filter(|b| is_alone(b, self)).count();
        for a in self.records() {
            let Some(b) = other.record(a.shape, a.phase, a.threads) else {
                agreement.unmatched += 1;
                continue;
            };
            if !a.is_of_the_pace_of(b) {
                agreement.paces += 1;
            } else if a.picks_the_same(b) {
                agreement.same += 1;
            } else if let Some(width) = a.ties_with(b) {
                agreement.ties += 1;
                agreement.widest_tie = agreement.widest_tie.max(width);
            } else {
                agreement.apart.push(a.key());
            }
        }
        agreement
    }

    /// What differs from this preset to another, in the order of the records; what is the same in both,
    /// times included, is left out.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut sides: BTreeMap<Key, (Option<&Record>, Option<&Record>)> = BTreeMap::new();
        self.records().iter().for_each(|r| sides.entry(r.key()).or_default().0 = Some(r));
        other.records().iter().for_each(|r| sides.entry(r.key()).or_default().1 = Some(r));
        let differences = sides.into_iter().filter_map(|((shape, phase, threads), sides)| {
            let change = match sides {
                (Some(a), None) => Change::Removed(Box::new(a.clone())),
                (None, Some(b)) => Change::Added(Box::new(b.clone())),
                (Some(a), Some(b)) if !a.picks_the_same(b) => {
                    Change::Pick(Box::new(a.clone()), Box::new(b.clone()))
                }
                (Some(a), Some(b)) if a.median_ns != b.median_ns => {
                    Change::Time(b.median_ns as f64 / a.median_ns as f64)
                }
                _ => return None,
            };
            Some(Difference { shape, phase, threads, change })
        });
        differences.collect()
    }

    /// One preset of two for the same CPU and ISA: all records of both; of two for one (shape, phase,
    /// threads) that of the greater effort, then the later one. The outcome does not depend on the order
    /// of the two, and its provenance is that of the later.
    pub fn combine(self, other: Self) -> Combined {
        let key = |p: &Self| (p.provenance.date.clone(), p.to_text());
        // The order of the text decides between two of one moment, so that A and B give what B and A do.
        let first_is_older = key(&self) <= key(&other);
        let is_first_better = |a: &(&Record, Evidence), b: &(&Record, Evidence)| {
            let rank = |r: &(&Record, Evidence)| (r.0.effort, r.1.date.clone());
            match rank(a).cmp(&rank(b)) {
                Ordering::Equal => !first_is_older,
                order => order == Ordering::Greater,
            }
        };
        let evidence = |preset: &Self, record: &Record| {
            record.evidence.clone().unwrap_or_else(|| preset.evidence())
        };
        let mut disagreements = Vec::new();
        let mut first = self.clone();
        let mut second = other.clone();
        for difference in self.differences(&other) {
            let key = (difference.shape, difference.phase, difference.threads);
            let find = |p: &Self| p.record(key.0, key.1, key.2).cloned();
            let (Some(a), Some(b)) = (find(&self), find(&other)) else { continue };
            let sides = ((&a, evidence(&self, &a)), (&b, evidence(&other, &b)));
            let believed = is_first_better(&sides.0, &sides.1);
            let loser = if believed { &mut second } else { &mut first };
            loser.records.retain(|r| r.key() != key);
            if matches!(difference.change, Change::Pick(..)) {
                disagreements.push((difference, believed));
            }
        }
        let (mut older, newer) = if first_is_older { (first, second) } else { (second, first) };
        older.merge(newer);
        Combined { preset: older, disagreements }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FAST, preset, record, shape};
    use super::*;
    use crate::Tile;

    #[test]
    fn runs_agree_where_they_pick_the_same_or_tie() {
        let other = "gemv_i2s_madd_r1u1_avx2";
        let with = |shape: &str, kernel: &str, interval: Option<[f64; 2]>| Record {
            evidence: Some(Evidence { interval, noise: Some(0.03), ..Evidence::default() }),
            ..record(shape, 1, kernel)
        };
        let a = preset(vec![
            with("64x128", FAST, Some([0.8, 0.9])),
            with("96x128", FAST, Some([0.8, 0.9])),
            with("128x128", FAST, Some([0.8, 0.9])),
            Record { confidence: None, median_ns: 1210, ..with("160x128", other, None) },
            with("192x128", FAST, None),
        ]);
        let b = preset(vec![
            with("64x128", FAST, Some([0.1, 0.2])),
            with("96x128", other, Some([0.88, 0.95])),
            with("128x128", other, Some([0.91, 0.95])),
            with("160x128", FAST, Some([0.96, 0.98])),
        ]);
        let agreement = a.agreement(&b);
        assert_eq!((agreement.same, agreement.ties), (1, 2));
        assert_eq!(agreement.apart, [(shape("128x128"), Phase::Decode, 1)]);
        assert_eq!(agreement.share(), Some(0.75));
        assert_eq!(agreement.unmatched, 1);
        assert!((agreement.widest_tie - 0.1).abs() < 1e-9, "{}", agreement.widest_tie);
        assert_eq!(b.agreement(&a).unmatched, 1);
        assert_eq!(a.agreement(&preset(vec![])).share(), None);
        // At another pace of memory another pick may be right.
        let at = |memory: f64, kernel: &str, interval| {
            let mut record = with("64x128", kernel, Some(interval));
            record.evidence.as_mut().unwrap().memory = Some(memory);
            preset(vec![record])
        };
        let apart = |first: f64, second: f64| {
            let (a, b) = (at(first, FAST, [0.5, 0.6]), at(second, other, [0.7, 0.8]));
            let agreement = a.agreement(&b);
            (agreement.paces, agreement.apart.len(), agreement.share())
        };
        assert_eq!(apart(40.0, 42.0), (0, 1, Some(0.0)));
        assert_eq!(apart(40.0, 66.0), (1, 0, None));
        // The model of one run did not gain, so that its default stayed.
        let checked = |record: Record, model| {
            let evidence = record.evidence.clone().map(|evidence| Evidence { model, ..evidence });
            preset(vec![Record { evidence, ..record }])
        };
        let default = |record| Record { default_kernel: other.into(), ..record };
        let pick = || default(with("64x128", FAST, Some([0.7, 0.8])));
        let stayed = || {
            let record = default(with("64x128", other, None));
            let tile = Tile::default_for(record.phase);
            Record { tile, median_ns: record.default_ns, confidence: None, ..record }
        };
        let ties =
            |first, second| checked(pick(), first).agreement(&checked(stayed(), second)).ties;
        assert_eq!(ties(Some([0.9, 0.98]), Some([0.97, 1.02])), 1);
        assert_eq!(ties(Some([0.9, 0.96]), Some([0.97, 1.02])), 0);
        assert_eq!(ties(Some([0.9, 0.98]), None), 0);
        // Two picks are compared by their own times only.
        let rival = default(with("64x128", "gemv_i2s_madd_r4u1_avx2", Some([0.5, 0.6])));
        let rival = checked(rival, Some([0.9, 0.98]));
        assert_eq!(checked(pick(), Some([0.9, 0.98])).agreement(&rival).ties, 0);
        // Compared with different defaults the intervals say nothing of each other.
        let moved = Record { default_kernel: other.into(), ..b.records()[1].clone() };
        assert_eq!(a.agreement(&preset(vec![moved])).ties, 0);
    }
}
