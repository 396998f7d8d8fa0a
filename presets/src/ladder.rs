//! Which preset is used: the first hit on a ladder of places, with every rung explained.
//!
//! | rung | where |
//! |---|---|
//! | explicit | `--preset FILE`; the only rung whose failure is an error |
//! | environment | `$TRILUT_PRESETS`, a path list of files and directories |
//! | cache | the user's cache directory: tuned here |
//! | system | `/etc/trilut/presets` |
//! | cpu | shipped presets of exactly this CPU |
//! | microarchitecture | presets of the same microarchitecture, from any place above |
//! | isa | presets of another CPU with the same best ISA, from any place above |
//! | estimate | no preset: the tuner's analytic rank |
//!
//! A file for another CPU counts only on the weaker rung that it fits. Weaker hits are kept behind the
//! winner: [`Found::picks`] asks them for the layers that the winner does not know.

use crate::machine::Likeness;
use crate::preset::{Dropped, Picks};
use crate::{Isa, Machine, Phase, Preset, Shape, preset::PresetError};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The environment variable that lists preset files and directories.
pub const VARIABLE: &str = "TRILUT_PRESETS";

/// Where presets that concern every user of the machine lie.
pub const SYSTEM_DIR: &str = "/etc/trilut/presets";

/// The places to look in.
#[derive(Debug, Clone, Default)]
pub struct Sources<'a> {
    /// The file given by `--preset`.
    pub explicit: Option<PathBuf>,
    /// The value of [`VARIABLE`].
    pub environment: Option<OsString>,
    /// The directory of presets tuned by this user, if one is known.
    pub cache: Option<PathBuf>,
    /// The directory of presets for every user.
    pub system: Option<PathBuf>,
    /// Embedded presets, `(name, text)`.
    pub shipped: &'a [(&'a str, &'a str)],
}

/// A step of the ladder, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// `--preset FILE`.
    Explicit,
    /// `$TRILUT_PRESETS`.
    Environment,
    /// The user's cache directory.
    Cache,
    /// The system's directory.
    System,
    /// Shipped, exactly this CPU.
    Cpu,
    /// Any place, same microarchitecture.
    Microarchitecture,
    /// Any place, same best ISA.
    Isa,
    /// No preset.
    Estimate,
}

impl Place {
    /// Every rung, strongest first.
    pub const ALL: &[Self] = &[
        Self::Explicit,
        Self::Environment,
        Self::Cache,
        Self::System,
        Self::Cpu,
        Self::Microarchitecture,
        Self::Isa,
        Self::Estimate,
    ];
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Explicit => "--preset",
            Self::Environment => "$TRILUT_PRESETS",
            Self::Cache => "user cache",
            Self::System => "system",
            Self::Cpu => "shipped, this CPU",
            Self::Microarchitecture => "same microarchitecture",
            Self::Isa => "same instruction set",
            Self::Estimate => "analytic estimate",
        })
    }
}

/// What a rung yielded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The rung is used.
    Won,
    /// Something fits here, and a stronger rung is used.
    Outranked,
    /// Nothing here fits.
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
    /// The file's path or the embedded name.
    pub origin: String,
    /// How closely its machine resembles this one.
    pub likeness: Likeness,
    /// The preset.
    pub preset: Preset,
}

/// The outcome of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Every usable preset, strongest first; empty when only the estimate is left.
    pub usable: Vec<Usable>,
    /// Every rung, strongest first.
    pub rungs: Vec<Rung>,
}

impl Found {
    /// The preset that won, if any did.
    pub fn winner(&self) -> Option<&Usable> {
        self.usable.first()
    }

    /// The picks of the strongest usable preset for each (shape, phase); `resolve` is as in
    /// [`Preset::to_plan`].
    pub fn picks(&self, resolve: impl Fn(&str) -> Option<u64>) -> Picks {
        let mut all = Picks::default();
        let mut known: BTreeSet<(Shape, Phase)> = BTreeSet::new();
        for usable in &self.usable {
            let Picks { plan, dropped } = usable.preset.to_plan(usable.likeness, &resolve);
            let news = |shape: Shape, phase: Phase| !known.contains(&(shape, phase));
            let picks: Vec<_> = plan.picks.into_iter().filter(|p| news(p.shape, p.phase)).collect();
            all.dropped.extend(
                dropped
                    .into_iter()
                    .filter(|d| news(d.shape, d.phase))
                    .map(|d| Dropped { reason: format!("{}: {}", usable.origin, d.reason), ..d }),
            );
            known.extend(picks.iter().map(|p| (p.shape, p.phase)));
            all.plan.picks.extend(picks);
        }
        all
    }
}

impl<'a> Sources<'a> {
    /// The places that the environment names; `explicit` comes from the command line.
    pub fn from_environment(explicit: Option<PathBuf>, shipped: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            explicit,
            environment: std::env::var_os(VARIABLE).filter(|v| !v.is_empty()),
            cache: cache_dir(),
            system: Some(PathBuf::from(SYSTEM_DIR)),
            shipped,
        }
    }

    /// Looks in every place for presets that fit `machine`, for which `isa` is the best.
    ///
    /// # Errors
    /// Only when the explicit file cannot be used. Everything else that is unreadable or foreign is
    /// skipped, and a rung says so.
    pub fn find(&self, machine: &Machine, isa: Isa) -> Result<Found, PresetError> {
        let mut search = Search { machine, isa, usable: Vec::new(), rungs: Vec::new() };
        search.explicit(self.explicit.as_deref())?;
        let paths: Vec<PathBuf> =
            self.environment.iter().flat_map(|list| std::env::split_paths(list)).collect();
        search.files(Place::Environment, &paths, "not set");
        search.files(Place::Cache, self.cache.as_slice(), "this user has no cache directory");
        search.files(Place::System, self.system.as_slice(), "none on this system");
        search.shipped(self.shipped);
        Ok(search.finish())
    }
}

/// The directory of presets tuned by this user: `$XDG_CACHE_HOME/trilut/presets` or its like.
pub fn cache_dir() -> Option<PathBuf> {
    let dirs = directories::ProjectDirs::from("", "", "trilut")?;
    Some(dirs.cache_dir().join("presets"))
}

/// The file in which tuning on this machine is remembered, one for each best ISA: a run that is capped
/// must not take the place of one that is not.
pub fn cache_file(machine: &Machine, isa: Isa) -> Option<PathBuf> {
    Some(cache_dir()?.join(format!("{}-{isa}.toml", machine.key())))
}

struct Search<'a> {
    machine: &'a Machine,
    isa: Isa,
    usable: Vec<Usable>,
    rungs: Vec<Rung>,
}

impl Search<'_> {
    fn explicit(&mut self, path: Option<&Path>) -> Result<(), PresetError> {
        let mut note = "not given".to_owned();
        if let Some(path) = path {
            let preset = Preset::load(path)?;
            let likeness = preset.likeness(self.machine, self.isa);
            note = format!("tuned on {likeness}: {}", preset.machine);
            let origin = path.display().to_string();
            // Asked for by name, so it is used whatever it was tuned on.
            self.usable.push(Usable { place: Place::Explicit, origin, likeness, preset });
        }
        let looked_at = path.map(|p| p.display().to_string()).unwrap_or_default();
        self.rung(Place::Explicit, looked_at, note);
        Ok(())
    }

    fn files(&mut self, place: Place, paths: &[PathBuf], absent: &str) {
        let mut notes = Vec::new();
        for path in paths.iter().filter(|p| !p.as_os_str().is_empty()) {
            match preset_files(path) {
                Ok(files) if files.is_empty() => {
                    notes.push(format!("{}: no .toml files", path.display()));
                }
                Ok(files) => {
                    for file in files {
                        let origin = file.display().to_string();
                        notes.push(self.offer(place, origin, Preset::load(&file)));
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    notes.push(format!("{}: does not exist", path.display()));
                }
                Err(error) => notes.push(format!("{}: skipped, {error}", path.display())),
            }
        }
        if notes.is_empty() {
            notes.push(absent.to_owned());
        }
        let looked_at: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
        self.rung(place, looked_at.join(", "), notes.join("; "));
    }

    fn shipped(&mut self, shipped: &[(&str, &str)]) {
        let notes: Vec<_> = shipped
            .iter()
            .map(|(name, text)| {
                let parsed = Preset::parse(text, name);
                self.offer(Place::Cpu, format!("shipped {name}"), parsed)
            })
            .collect();
        let note = match notes.is_empty() {
            true => "no presets are shipped with this build".to_owned(),
            false => notes.join("; "),
        };
        self.rung(Place::Cpu, String::new(), note);
    }

    /// Takes a preset in on the rung that it fits; returns what to say about it.
    fn offer(
        &mut self,
        place: Place,
        origin: String,
        preset: Result<Preset, PresetError>,
    ) -> String {
        let preset = match preset {
            Ok(preset) => preset,
            Err(error) => return format!("{origin}: skipped, {}", error.with_cause()),
        };
        let likeness = preset.likeness(self.machine, self.isa);
        let place = match likeness {
            Likeness::SameCpu => place,
            Likeness::SameMicroarchitecture => Place::Microarchitecture,
            Likeness::SameIsa => Place::Isa,
            Likeness::Foreign => {
                let isa = preset.provenance.isa;
                return format!("{origin}: skipped, tuned for {isa} on {}", preset.machine);
            }
        };
        let count = preset.records().len();
        let prompts = preset.records().iter().filter(|r| r.phase == Phase::Prefill).count();
        let note = match likeness {
            Likeness::SameCpu => {
                format!("{origin}: {count} records for this CPU, {prompts} of them for prompts")
            }
            _ => format!("{origin}: {likeness}, counts on that rung"),
        };
        self.usable.push(Usable { place, origin, likeness, preset });
        note
    }

    fn rung(&mut self, place: Place, looked_at: String, note: String) {
        self.rungs.push(Rung { place, looked_at, verdict: Verdict::Nothing, note });
    }

    fn finish(mut self) -> Found {
        for (place, likeness) in [
            (Place::Microarchitecture, Likeness::SameMicroarchitecture),
            (Place::Isa, Likeness::SameIsa),
        ] {
            let hits: Vec<_> =
                self.usable.iter().filter(|u| u.place == place).map(|u| &u.origin[..]).collect();
            let note = match hits.is_empty() {
                true => format!("no preset is for {likeness}"),
                false => hits.join("; "),
            };
            self.rung(place, String::new(), note);
        }
        let note = "used for every layer that no preset knows".to_owned();
        self.rung(Place::Estimate, String::new(), note);
        // Stable: within a rung the order of discovery stays.
        self.usable.sort_by_key(|u| u.place);
        let winner = self.usable.first().map_or(Place::Estimate, |u| u.place);
        for rung in &mut self.rungs {
            let hit =
                rung.place == Place::Estimate || self.usable.iter().any(|u| u.place == rung.place);
            rung.verdict = match hit {
                true if rung.place == winner => Verdict::Won,
                true => Verdict::Outranked,
                false => Verdict::Nothing,
            };
        }
        Found { usable: self.usable, rungs: self.rungs }
    }
}

/// A file itself, or the `.toml` files of a directory in the order of their names.
fn preset_files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let kind = std::fs::metadata(path)?;
    if !kind.is_dir() {
        return match kind.is_file() {
            true => Ok(vec![path.to_owned()]),
            false => Err(std::io::Error::other("neither a file nor a directory")),
        };
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        // Hidden files are side files that are being written.
        let hidden = file.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        // Opening a pipe would wait for somebody to write.
        if !hidden && file.extension().is_some_and(|e| e == "toml") && file.is_file() {
            files.push(file);
        }
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::{Effort, Provenance, Record, Weights};
    use crate::{Format, Tile};

    const KERNEL: &str = "gemv_i2s_maddx4_r4u2_avx512";

    fn machine(model: u32, microarchitecture: &str) -> Machine {
        Machine {
            arch: "x86_64".into(),
            vendor: "amd".into(),
            family: 0x1a,
            model,
            microarchitecture: microarchitecture.into(),
            ..Machine::default()
        }
    }

    fn preset(machine: Machine, isa: Isa, shapes: &[&str]) -> Preset {
        let records = shapes.iter().map(|shape| Record {
            shape: shape.parse().unwrap(),
            phase: Phase::Decode,
            tokens: 1,
            threads: 1,
            format: Format::I2S,
            formats: vec![Format::I2S],
            space: 1,
            kernel: KERNEL.into(),
            hash: 1,
            tile: Tile::default(),
            effort: Effort::Measure,
            weights: Weights::Cold,
            median_ns: 10,
            samples: vec![10],
            default_kernel: KERNEL.into(),
            default_ns: 10,
            scalar_ns: None,
            confidence: None,
            from: None,
            evidence: None,
        });
        let provenance = Provenance {
            trilut: "0".into(),
            date: "2026-11-22T00:00:00Z".into(),
            isa,
            effort: Effort::Measure,
            threads: 1,
            noise: 0.0,
        };
        Preset::new(provenance, machine, records.collect())
    }

    /// A directory that holds one preset.
    fn dir_with(preset: &Preset) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        preset.save(&dir.path().join("p.toml")).unwrap();
        dir
    }

    fn here() -> Machine {
        machine(2, "zen5")
    }

    fn find(sources: &Sources<'_>) -> Found {
        let found = sources.find(&here(), Isa::Avx512).unwrap();
        let places: Vec<Place> = found.rungs.iter().map(|r| r.place).collect();
        assert_eq!(places, Place::ALL, "every rung is explained, in order");
        assert_eq!(found.rungs.iter().filter(|r| r.verdict == Verdict::Won).count(), 1);
        found
    }

    fn won(found: &Found) -> Place {
        found.rungs.iter().find(|r| r.verdict == Verdict::Won).unwrap().place
    }

    #[test]
    fn every_rung_wins_when_the_stronger_ones_are_empty() {
        let exact = preset(here(), Isa::Avx512, &["64x128"]);
        let dir = dir_with(&exact);
        let (exact, micro, isa) = (
            exact.to_text(),
            preset(machine(0x44, "zen5"), Isa::Avx512, &[]).to_text(),
            preset(machine(0x11, "zen4"), Isa::Avx512, &[]).to_text(),
        );
        let shipped = [("isa", &isa[..]), ("micro", &micro[..]), ("exact", &exact[..])];
        let full = Sources {
            explicit: Some(dir.path().join("p.toml")),
            environment: Some(dir.path().into()),
            cache: Some(dir.path().into()),
            system: Some(dir.path().into()),
            shipped: &shipped,
        };
        let mut sources = full.clone();
        assert_eq!(won(&find(&sources)), Place::Explicit);
        sources.explicit = None;
        assert_eq!(won(&find(&sources)), Place::Environment);
        sources.environment = None;
        assert_eq!(won(&find(&sources)), Place::Cache);
        sources.cache = None;
        assert_eq!(won(&find(&sources)), Place::System);
        sources.system = None;
        assert_eq!(won(&find(&sources)), Place::Cpu);
        sources.shipped = &shipped[..2];
        assert_eq!(won(&find(&sources)), Place::Microarchitecture);
        sources.shipped = &shipped[..1];
        assert_eq!(won(&find(&sources)), Place::Isa);
        sources.shipped = &[];
        let none = find(&sources);
        assert_eq!(won(&none), Place::Estimate);
        assert!(none.winner().is_none());
    }

    #[test]
    fn a_file_for_another_cpu_counts_on_its_weaker_rung_only() {
        let relative = dir_with(&preset(machine(0x44, "zen5"), Isa::Avx512, &["64x128"]));
        let exact = preset(here(), Isa::Avx512, &["64x128"]).to_text();
        let shipped = [("exact", &exact[..])];
        let cache = Some(relative.path().to_owned());
        let sources = Sources { cache: cache.clone(), shipped: &shipped, ..Sources::default() };
        let found = find(&sources);
        assert_eq!(won(&found), Place::Cpu);
        assert!(found.rungs[2].note.contains("the same microarchitecture"), "{:?}", found.rungs);
        let alone = find(&Sources { cache, ..Sources::default() });
        assert_eq!(won(&alone), Place::Microarchitecture);

        let foreign = dir_with(&preset(here(), Isa::Avx2, &["64x128"]));
        let found =
            find(&Sources { system: Some(foreign.path().to_owned()), ..Sources::default() });
        assert_eq!(won(&found), Place::Estimate);
        assert!(found.rungs[3].note.contains("tuned for avx2"), "{:?}", found.rungs);
    }

    #[test]
    fn only_the_explicit_file_fails_hard() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bad.toml"), "schema = \"one\"").unwrap();
        std::fs::write(dir.path().join(".side.tmp"), "").unwrap();
        let missing = dir.path().join("missing");
        let list = std::env::join_paths([&missing, dir.path()]).unwrap();
        let found = find(&Sources { environment: Some(list), ..Sources::default() });
        let note = &found.rungs[1].note;
        assert!(note.contains("missing: does not exist"), "{note}");
        assert!(note.contains("bad.toml") && note.contains("skipped"), "{note}");

        let explicit = Sources { explicit: Some(missing), ..Sources::default() };
        assert!(matches!(explicit.find(&here(), Isa::Avx512), Err(PresetError::Read { .. })));
        let broken = [("broken", "nonsense")];
        assert_eq!(
            won(&find(&Sources { shipped: &broken, ..Sources::default() })),
            Place::Estimate
        );
    }

    #[test]
    fn an_explicit_file_is_used_whatever_it_was_tuned_on() {
        let dir = dir_with(&preset(machine(1, "zen3"), Isa::Avx2, &["64x128"]));
        let explicit = Some(dir.path().join("p.toml"));
        let found = find(&Sources { explicit, ..Sources::default() });
        assert_eq!(found.winner().unwrap().likeness, Likeness::Foreign);
        assert!(found.rungs[0].note.contains("foreign"));
    }

    #[test]
    fn weaker_presets_fill_in_what_the_winner_does_not_know() {
        let own = dir_with(&preset(here(), Isa::Avx512, &["64x128"]));
        let other = preset(machine(0x44, "zen5"), Isa::Avx512, &["64x128", "64x256"]).to_text();
        let shipped = [("other", &other[..])];
        let cache = Some(own.path().to_owned());
        let found = find(&Sources { cache, shipped: &shipped, ..Sources::default() });
        let picks = found.picks(|name| (name == KERNEL).then_some(1)).plan.picks;
        assert_eq!(picks.len(), 2);
        assert!(picks[0].reason.contains("this CPU") && picks[0].shape.k == 128);
        assert!(picks[1].reason.contains("microarchitecture") && picks[1].shape.k == 256);
        assert_eq!(found.picks(|_| None).dropped.len(), 3);
    }
}
