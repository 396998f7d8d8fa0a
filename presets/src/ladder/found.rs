//! What a search has found: the presets that fit, and what they come to with the kernels of this build.

use super::Place;
use crate::machine::Likeness;
use crate::preset::{Dropped, Effort, Picks};
use crate::{Machine, Phase, Pick, Plan, Preset, Shape};
use std::collections::{BTreeMap, BTreeSet};

/// What a rung yielded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The rung is used.
    Won,
    /// Something here can be used, and another rung is asked first.
    Outranked,
    /// Nothing here can be used.
    Nothing,
}

/// One explained step of the ladder, for `trilut doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// Which step.
    pub place: Place,
    /// Where it looked: a path, a list of paths, or empty.
    pub looked_at: String,
    /// What came of it.
    pub verdict: Verdict,
    /// What was found, and why the rest was not used.
    pub note: String,
}

/// A preset that may be used here.
#[derive(Debug, Clone, PartialEq)]
pub struct Usable {
    /// The rung on which it counts.
    pub place: Place,
    /// The rung on which it was found.
    pub found_in: Place,
    /// The file's path or the embedded name.
    pub origin: String,
    /// How closely its machine resembles this one.
    pub likeness: Likeness,
    /// The preset.
    pub preset: Preset,
}

/// A file that is there, and of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The rung on which it was found.
    pub place: Place,
    /// Which file, and what is wrong with it.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Where a rung looked, and what it has to say besides its presets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Looked {
    pub(super) place: Place,
    pub(super) at: String,
    pub(super) notes: Vec<String>,
    /// What there is to say where nothing was found.
    pub(super) absent: &'static str,
}

/// The outcome of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Every preset that fits, strongest first; empty when only the estimate is left.
    pub usable: Vec<Usable>,
    /// Every file that was passed over because it cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// From the explicit file down to the presets that ship.
    pub(super) looked: Vec<Looked>,
}

/// How far what a preset says of a layer is believed, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    /// Measured, or asked for by name.
    Measured,
    /// Estimated.
    Estimated,
    /// Measured or not, on another kind of CPU.
    Elsewhere,
}

impl Trust {
    fn of(place: Place, is_measured: bool) -> Self {
        match place {
            Place::Explicit | Place::Environment => Self::Measured,
            Place::Isa => Self::Elsewhere,
            _ if is_measured => Self::Measured,
            _ => Self::Estimated,
        }
    }
}

/// What one preset says of a layer in a phase, for all numbers of threads of which it is believed so far.
struct Offer<'a> {
    trust: Trust,
    usable: &'a Usable,
    layer: (Shape, Phase),
    picks: Vec<Pick>,
    dropped: Vec<Dropped>,
}

impl Usable {
    fn trust(&self) -> Trust {
        let records = self.preset.records();
        Trust::of(self.place, records.iter().any(|record| record.effort > Effort::Estimate))
    }

    /// What it says of each layer; `resolve` is as in [`Preset::to_plan`].
    fn offers<'a>(&'a self, resolve: &impl Fn(&str) -> Option<u64>) -> Vec<Offer<'a>> {
        let records = self.preset.records();
        let layers = records.chunk_by(|a, b| (a.shape, a.phase) == (b.shape, b.phase));
        let offers = layers.flat_map(|records| {
            let layer = (records[0].shape, records[0].phase);
            let mut offers: BTreeMap<Trust, Offer<'a>> = BTreeMap::new();
            for record in records {
                let pick = self.preset.pick(record, self.likeness, resolve);
                // What yields nothing takes nothing from others, and is told early.
                let is_measured = pick.is_err() || record.effort > Effort::Estimate;
                let trust = Trust::of(self.place, is_measured);
                let offer = offers.entry(trust).or_insert_with(|| Offer {
                    trust,
                    usable: self,
                    layer,
                    picks: Vec::new(),
                    dropped: Vec::new(),
                });
                match pick {
                    Ok(pick) => offer.picks.push(pick),
                    Err(dropped) => offer.dropped.push(dropped),
                }
            }
            offers.into_values()
        });
        offers.collect()
    }

    /// Whether it has no more than an estimate where this pick is from another preset.
    fn estimates(&self, pick: &Pick) -> bool {
        let record = self.preset.record(pick.shape, pick.phase, pick.threads);
        record.is_some_and(|record| {
            let is_measured = record.effort > Effort::Estimate;
            Trust::of(self.place, is_measured) == Trust::Estimated
        })
    }

    /// Its records on the rung where it was found.
    fn in_words(&self, offers: &[Offer<'_>]) -> String {
        let records = self.preset.records();
        let prompts = records.iter().filter(|record| record.phase == Phase::Prefill).count();
        let what = match (self.place, self.likeness) {
            (Place::Explicit, likeness) => {
                format!("tuned on {likeness}: {}", self.preset.machine)
            }
            (_, Likeness::SameCpu) => format!(
                "{}: {} records for this CPU, {prompts} of them for prompts",
                self.origin,
                records.len()
            ),
            (_, likeness) => {
                return format!("{}: {likeness}, counts on that rung", self.origin);
            }
        };
        what + &self.limits(offers)
    }

    /// What cannot be used of it, or not at once.
    fn limits(&self, offers: &[Offer<'_>]) -> String {
        let own = || offers.iter().filter(|offer| std::ptr::eq(offer.usable, self));
        let picks: usize = own().map(|offer| offer.picks.len()).sum();
        let dropped: usize = own().map(|offer| offer.dropped.len()).sum();
        let estimated = own().filter(|offer| offer.trust == Trust::Estimated);
        let estimates: usize = estimated.map(|offer| offer.picks.len()).sum();
        let mut text = match (picks, dropped) {
            (_, 0) => String::new(),
            (0, _) => {
                ", none of which can be used: this build has no such kernels, or the CPU cannot \
                       run them"
                    .to_owned()
            }
            _ => format!(
                ", {dropped} of them for kernels that this build lacks or the CPU cannot run"
            ),
        };
        if estimates > 0 {
            text +=
                &format!(", {estimates} of them estimates, which count behind what was measured");
        }
        text
    }
}

impl Found {
    /// What all presets say, the most believed first.
    fn offers(&self, resolve: &impl Fn(&str) -> Option<u64>) -> Vec<Offer<'_>> {
        let mut offers: Vec<_> =
            self.usable.iter().flat_map(|usable| usable.offers(resolve)).collect();
        // Stable: within a rung the order of discovery stays.
        offers.sort_by_key(|offer| (offer.trust, offer.usable.place));
        offers
    }

    /// The strongest preset of which something is used, if there is one; `resolve` is as in
    /// [`Preset::to_plan`].
    pub fn winner(&self, resolve: impl Fn(&str) -> Option<u64>) -> Option<&Usable> {
        let offers = self.offers(&resolve);
        offers.iter().find(|offer| !offer.picks.is_empty()).map(|offer| offer.usable)
    }

    /// The picks of the strongest preset for each (shape, phase), its estimates replaced by what another one
    /// has measured for the same number of threads; `resolve` is as in [`Preset::to_plan`].
    pub fn picks(&self, resolve: impl Fn(&str) -> Option<u64>) -> Picks {
        let (picks, dropped) = self.chosen(&resolve);
        Picks { plan: Plan { picks: picks.into_iter().map(|(_, pick)| pick).collect() }, dropped }
    }

    /// Whether any pick is of a preset that was found in this place, on whichever rung it counts.
    pub fn uses(&self, found_in: Place, resolve: impl Fn(&str) -> Option<u64>) -> bool {
        self.chosen(&resolve).0.iter().any(|(usable, _)| usable.found_in == found_in)
    }

    /// The picks with their presets, and what was dropped on the way to them.
    fn chosen(
        &self,
        resolve: &impl Fn(&str) -> Option<u64>,
    ) -> (Vec<(&Usable, Pick)>, Vec<Dropped>) {
        let (mut all, mut all_dropped) = (Vec::new(), Vec::new());
        let mut owners: BTreeMap<(Shape, Phase), &Usable> = BTreeMap::new();
        let mut known: BTreeSet<(Shape, Phase, usize)> = BTreeSet::new();
        for Offer { trust, usable, layer, mut picks, dropped } in self.offers(resolve) {
            match owners.get(&layer) {
                None => {
                    let reason = |d: &Dropped| format!("{}: {}", usable.origin, d.reason);
                    let named = |d: Dropped| Dropped { reason: reason(&d), ..d };
                    all_dropped.extend(dropped.into_iter().map(named));
                }
                // Its estimates come after all that was measured.
                Some(&owner) => picks.retain(|pick| {
                    let is_better = trust == Trust::Measured && owner.estimates(pick);
                    (std::ptr::eq(owner, usable) || is_better)
                        && !known.contains(&(pick.shape, pick.phase, pick.threads))
                }),
            }
            if !picks.is_empty() {
                owners.entry(layer).or_insert(usable);
            }
            known.extend(picks.iter().map(|pick| (pick.shape, pick.phase, pick.threads)));
            all.extend(picks.into_iter().map(|pick| (usable, pick)));
        }
        (all, all_dropped)
    }

    /// Every rung with what came of it, strongest first; `resolve` is as in [`Preset::to_plan`].
    pub fn rungs(&self, resolve: impl Fn(&str) -> Option<u64>) -> Vec<Rung> {
        let offers = self.offers(&resolve);
        // The places from which there is something to use, the most believed first.
        let hits = offers.iter().filter(|offer| !offer.picks.is_empty());
        let mut hits: Vec<Place> = hits.map(|offer| offer.usable.place).collect();
        hits.push(Place::Estimate);
        let verdict = |place| match hits.contains(&place) {
            true if place == hits[0] => Verdict::Won,
            true => Verdict::Outranked,
            false => Verdict::Nothing,
        };
        let mut used: BTreeMap<Place, usize> = BTreeMap::new();
        self.chosen(&resolve)
            .0
            .iter()
            .for_each(|(own, _)| *used.entry(own.place).or_default() += 1);
        let mut rungs = Vec::new();
        let mut rung = |place, looked_at: &str, notes: Vec<String>, absent: &str| {
            let mut note = if notes.is_empty() { absent.to_owned() } else { notes.join("; ") };
            if let (Verdict::Outranked, Some(picks)) = (verdict(place), used.get(&place)) {
                note += &format!("; used for what no stronger one knows: {picks} picks");
            }
            rungs.push(Rung {
                place,
                looked_at: looked_at.to_owned(),
                verdict: verdict(place),
                note,
            });
        };
        for Looked { place, at, notes, absent } in &self.looked {
            let here = self.usable.iter().filter(|usable| usable.found_in == *place);
            let presets = here.map(|usable| usable.in_words(&offers));
            rung(*place, at, presets.chain(notes.iter().cloned()).collect(), absent);
        }
        for (place, absent) in [
            (Place::Microarchitecture, "no preset is for the same microarchitecture"),
            (Place::Isa, "no preset is for another CPU with the same instruction set"),
        ] {
            let here = self.usable.iter().filter(|usable| usable.place == place);
            let notes = here.map(|usable| format!("{}{}", usable.origin, usable.limits(&offers)));
            rung(place, "", notes.collect(), absent);
        }
        rung(Place::Estimate, "", Vec::new(), "used for every layer that no preset knows");
        rungs
    }

    /// Sorts the presets by how far they are believed as a whole on a machine. Of two from elsewhere on one rung
    /// that of the same vendor comes first: its cores are built more alike.
    pub(super) fn sorted(mut self, machine: &Machine) -> Self {
        self.usable.sort_by_key(|usable| {
            let is_other_vendor = usable.preset.machine.vendor != machine.vendor;
            (usable.trust(), usable.place, is_other_vendor)
        });
        self
    }
}
