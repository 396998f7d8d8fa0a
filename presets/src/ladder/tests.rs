use super::*;
use crate::machine::Likeness;
use crate::preset::{Effort, Provenance, Record, Weights};
use crate::{Format, Phase, Preset, Tile};

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
        noise: None,
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

/// A build that has the one kernel.
fn resolve(name: &str) -> Option<u64> {
    (name == KERNEL).then_some(1)
}

fn find(sources: &Sources<'_>) -> Found {
    let found = sources.find(&here(), Isa::Avx512).unwrap();
    let rungs = found.rungs(resolve);
    let places: Vec<Place> = rungs.iter().map(|r| r.place).collect();
    assert_eq!(places, Place::ALL, "every rung is explained, in order");
    assert_eq!(rungs.iter().filter(|r| r.verdict == Verdict::Won).count(), 1);
    found
}

fn rung(found: &Found, place: Place) -> Rung {
    found.rungs(resolve).into_iter().find(|rung| rung.place == place).unwrap()
}

fn won(found: &Found) -> Place {
    found.rungs(resolve).iter().find(|r| r.verdict == Verdict::Won).unwrap().place
}

#[test]
fn every_rung_wins_when_the_stronger_ones_are_empty() {
    let exact = preset(here(), Isa::Avx512, &["64x128"]);
    let dir = dir_with(&exact);
    let (exact, micro, isa) = (
        exact.to_text(),
        preset(machine(0x44, "zen5"), Isa::Avx512, &["64x128"]).to_text(),
        preset(machine(0x11, "zen4"), Isa::Avx512, &["64x128"]).to_text(),
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
    assert!(none.winner(resolve).is_none());
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
    let note = rung(&found, Place::Cache).note;
    assert!(note.contains("the same microarchitecture"), "{note}");
    let alone = find(&Sources { cache, ..Sources::default() });
    assert_eq!(won(&alone), Place::Microarchitecture);

    let foreign = dir_with(&preset(here(), Isa::Avx2, &["64x128"]));
    let found = find(&Sources { system: Some(foreign.path().to_owned()), ..Sources::default() });
    assert_eq!(won(&found), Place::Estimate);
    let note = rung(&found, Place::System).note;
    assert!(note.contains("tuned for avx2"), "{note}");
}

#[test]
fn of_other_cpus_those_of_the_same_vendor_come_first() {
    let intel = Machine { vendor: "intel".into(), ..machine(0x8f, "sapphirerapids") };
    let amd = Machine { family: 0x17, ..machine(0x31, "zen2") };
    let texts = [intel, amd].map(|other| preset(other, Isa::Avx512, &["64x128"]).to_text());
    let shipped = [("a", &texts[0][..]), ("b", &texts[1][..])];
    let found = find(&Sources { shipped: &shipped, ..Sources::default() });
    let origins: Vec<&str> = found.usable.iter().map(|usable| &usable.origin[..]).collect();
    assert_eq!(won(&found), Place::Isa);
    assert_eq!(origins, ["shipped b", "shipped a"]);
}

#[test]
fn only_the_explicit_file_fails_hard() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bad.toml"), "schema = \"one\"").unwrap();
    std::fs::write(dir.path().join(".side.tmp"), "").unwrap();
    let missing = dir.path().join("missing");
    let list = std::env::join_paths([&missing, dir.path()]).unwrap();
    let found = find(&Sources { environment: Some(list), ..Sources::default() });
    let note = rung(&found, Place::Environment).note;
    assert!(note.contains("missing: does not exist"), "{note}");
    assert!(note.contains("bad.toml") && note.contains("skipped"), "{note}");
    let [absent, unreadable] = &found.unreadable[..] else { panic!("{:?}", found.unreadable) };
    assert_eq!([absent.place, unreadable.place], [Place::Environment; 2]);
    assert!(absent.what.contains("missing: does not exist"), "{absent:?}");
    assert!(unreadable.what.contains("bad.toml") && unreadable.hint.is_some(), "{unreadable:?}");
    // Places that nobody named need not be there.
    let elsewhere = Sources { system: Some(missing.clone()), ..Sources::default() };
    assert_eq!(find(&elsewhere).unreadable, []);
    // A list of nothing is not one that is not set.
    let empty = Sources { environment: Some(":".into()), ..Sources::default() };
    assert_eq!(rung(&find(&empty), Place::Environment).note, "names no file");

    let explicit = Sources { explicit: Some(missing), ..Sources::default() };
    assert!(matches!(explicit.find(&here(), Isa::Avx512), Err(PresetError::Read { .. })));
    let broken = [("broken", "nonsense")];
    assert_eq!(won(&find(&Sources { shipped: &broken, ..Sources::default() })), Place::Estimate);
}

#[test]
fn an_explicit_file_is_used_whatever_it_was_tuned_on() {
    let dir = dir_with(&preset(machine(1, "zen3"), Isa::Avx2, &["64x128"]));
    let explicit = Some(dir.path().join("p.toml"));
    let found = find(&Sources { explicit, ..Sources::default() });
    assert_eq!(found.winner(resolve).unwrap().likeness, Likeness::Foreign);
    assert!(rung(&found, Place::Explicit).note.contains("foreign"));
}

#[test]
fn weaker_presets_fill_in_what_the_winner_does_not_know() {
    let own = dir_with(&preset(here(), Isa::Avx512, &["64x128"]));
    let other = preset(machine(0x44, "zen5"), Isa::Avx512, &["64x128", "64x256"]).to_text();
    let shipped = [("other", &other[..])];
    let cache = Some(own.path().to_owned());
    let found = find(&Sources { cache, shipped: &shipped, ..Sources::default() });
    let picks = found.picks(resolve).plan.picks;
    assert_eq!(picks.len(), 2);
    assert!(picks[0].reason.contains("this CPU") && picks[0].shape.k == 128);
    assert!(picks[1].reason.contains("microarchitecture") && picks[1].shape.k == 256);
    assert_eq!(found.picks(|_| None).dropped.len(), 3);
}

#[test]
fn a_preset_of_which_nothing_can_be_used_does_not_win() {
    let mut unknown = preset(here(), Isa::Avx512, &["64x128"]).to_text();
    unknown = unknown.replace(&format!("\nkernel = \"{KERNEL}\""), "\nkernel = \"gemv_of_later\"");
    let own = tempfile::tempdir().unwrap();
    std::fs::write(own.path().join("p.toml"), unknown).unwrap();
    let exact = preset(here(), Isa::Avx512, &["64x128"]).to_text();
    let shipped = [("exact", &exact[..])];
    let cache = Some(own.path().to_owned());
    let found = find(&Sources { cache: cache.clone(), shipped: &shipped, ..Sources::default() });
    assert_eq!(won(&found), Place::Cpu);
    assert_eq!(found.winner(resolve).unwrap().origin, "shipped exact");
    let passed = rung(&found, Place::Cache);
    assert_eq!(passed.verdict, Verdict::Nothing);
    assert!(passed.note.contains("none of which can be used"), "{}", passed.note);
    let picks = found.picks(resolve);
    assert_eq!((picks.plan.picks.len(), picks.dropped.len()), (1, 1));
    assert_eq!(won(&find(&Sources { cache, ..Sources::default() })), Place::Estimate);
}

/// Each preset has a prefetch distance of its own, by which its picks are told.
#[test]
fn estimates_count_behind_what_was_measured() {
    use Effort::{Estimate, Measure};
    let with = |model, microarchitecture, effort, prefetch, shapes: &[&str]| {
        let preset = preset(machine(model, microarchitecture), Isa::Avx512, shapes);
        let tile = Tile { prefetch, ..Tile::default() };
        let records = preset.records().iter().cloned();
        let records = records.map(|record| Record { effort, tile, ..record }).collect();
        Preset::new(preset.provenance, preset.machine, records)
    };
    let layers = ["64x128", "64x256", "64x384", "64x512"];
    let own = dir_with(&with(2, "zen5", Estimate, 64, &layers[..3]));
    let measured = dir_with(&with(2, "zen5", Measure, 128, &layers[..1]));
    let exact = with(2, "zen5", Measure, 192, &layers[..1]).to_text();
    let micro = with(0x44, "zen5", Measure, 256, &layers[1..2]).to_text();
    let isa = with(0x11, "zen4", Measure, 320, &layers[2..]).to_text();
    let shipped = [("exact", &exact[..]), ("isa", &isa[..]), ("micro", &micro[..])];
    let none = Sources { shipped: &shipped, ..Sources::default() };
    let prefetch = |found: &Found| -> Vec<usize> {
        let mut picks = found.picks(resolve).plan.picks;
        picks.sort_by_key(|pick| pick.shape);
        picks.iter().map(|pick| pick.tile.prefetch).collect()
    };
    let cached = |dir: &tempfile::TempDir| Some(dir.path().to_owned());

    let found = find(&Sources { cache: cached(&own), ..none.clone() });
    // What was tried on this CPU is still better than what was measured on another kind.
    assert_eq!(prefetch(&found), [192, 256, 64, 320]);
    assert_eq!(won(&found), Place::Cpu);
    assert_eq!(found.winner(resolve).unwrap().origin, "shipped exact");
    let cache = rung(&found, Place::Cache);
    assert_eq!(cache.verdict, Verdict::Outranked);
    assert!(cache.note.contains("3 of them estimates, which count behind"), "{}", cache.note);

    // What was measured here comes first, in the same place.
    let found = find(&Sources { cache: cached(&measured), system: cached(&own), ..none.clone() });
    assert_eq!(prefetch(&found), [128, 256, 64, 320]);
    assert_eq!(won(&found), Place::Cache);

    // What a user asks for is used whatever its effort.
    let found = find(&Sources { environment: Some(own.path().into()), ..none.clone() });
    assert_eq!(prefetch(&found), [64, 64, 64, 320]);
    assert_eq!(won(&found), Place::Environment);
    let explicit = Some(own.path().join("p.toml"));
    assert_eq!(prefetch(&find(&Sources { explicit, ..none })), [64, 64, 64, 320]);

    // An estimate for more threads stays beside what the same preset has measured.
    let mut both = with(2, "zen5", Measure, 384, &layers[..1]);
    let more = with(2, "zen5", Estimate, 448, &layers[..1]);
    let more = more.records().iter().map(|record| Record { threads: 4, ..record.clone() });
    both.merge(Preset::new(both.provenance.clone(), both.machine.clone(), more.collect()));
    let both = dir_with(&both);
    let found =
        find(&Sources { cache: cached(&both), shipped: &shipped[..1], ..Sources::default() });
    assert_eq!(prefetch(&found), [384, 448]);

    // But not beside what another one has measured for as many; what that says of other numbers does not count.
    let wide = with(2, "zen5", Measure, 512, &layers[..1]);
    let records = [1, 4, 8].map(|threads| Record { threads, ..wide.records()[0].clone() });
    let wide = Preset::new(wide.provenance, wide.machine, records.into()).to_text();
    let shipped = [("wide", &wide[..])];
    let sources = Sources { shipped: &shipped, ..Sources::default() };
    let found = find(&Sources { cache: cached(&both), ..sources.clone() });
    assert_eq!(prefetch(&found), [384, 512]);
    assert_eq!(won(&found), Place::Cache);
    assert!(found.uses(Place::Cache, resolve) && found.uses(Place::Cpu, resolve));
    let cache = rung(&found, Place::Cache).note;
    assert!(cache.contains("1 of them estimates, which count behind"), "{cache}");
    let found = find(&Sources { environment: Some(both.path().into()), ..sources });
    assert_eq!(prefetch(&found), [384, 448], "what a user asks for stays");
    assert!(!found.uses(Place::Cpu, resolve));
}
