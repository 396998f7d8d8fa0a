use super::*;
use crate::machine::Cache;
use std::error::Error;
use std::fs;
use std::path::Path;

pub(super) fn shape(text: &str) -> Shape {
    text.parse().unwrap()
}

pub(crate) fn machine() -> Machine {
    Machine {
        arch: "x86_64".into(),
        vendor: "amd".into(),
        brand: "AMD \"EPYC\"".into(),
        family: 0x1a,
        model: 2,
        stepping: 1,
        microarchitecture: "zen5".into(),
        features: vec!["avx2".into(), "avx512f".into()],
        caches: vec![Cache { level: 3, bytes: 32 << 20, shared_by: 2 }],
        logical_cpus: 2,
        physical_cores: 2,
        hypervisor: Some("KVM".into()),
        microcode: None,
        memory_bytes: 1 << 34,
    }
}

pub(super) fn record(at: &str, threads: usize, kernel: &str) -> Record {
    Record {
        shape: shape(at),
        phase: Phase::Decode,
        tokens: 1,
        threads,
        format: Format::I2S,
        formats: vec![Format::I2S, Format::Tl2],
        space: 5,
        kernel: kernel.into(),
        hash: 0xf000_0000_0000_0001,
        tile: Tile { rows_per_task: 64, prefetch: 1024 },
        effort: Effort::Measure,
        weights: Weights::Cold,
        median_ns: 1000,
        samples: vec![1010, 990, 1000],
        default_kernel: "gemv_i2s_madd_r4u2_avx2".into(),
        default_ns: 1210,
        scalar_ns: Some(9000),
        confidence: Some(0.0123),
        from: None,
        evidence: None,
    }
}

pub(super) fn preset(records: Vec<Record>) -> Preset {
    let provenance = Provenance {
        trilut: "0.1.0".into(),
        date: rfc3339(std::time::UNIX_EPOCH),
        isa: Isa::Avx2,
        effort: Effort::Measure,
        threads: 2,
        noise: Some(0.02),
    };
    Preset::new(provenance, machine(), records)
}

fn prefill(at: &str) -> Record {
    let tile = Tile { rows_per_task: 480, prefetch: 0 };
    let phase = Phase::Prefill;
    let default_kernel = "gemm_vlut_g3p8t32_avx2".to_owned();
    Record { phase, tokens: 128, tile, default_kernel, ..record(at, 1, "gemm_vlut_g4p8t32_avx2") }
}

pub(super) const FAST: &str = "gemv_i2s_maddx4_r4u2_avx2";

/// The line and rule of an invalid preset.
fn refusal(text: &str) -> (usize, String) {
    match Preset::parse(text, "file.toml") {
        Err(PresetError::Invalid { origin, line, source }) => {
            assert_eq!(origin, "file.toml");
            (line, source.0)
        }
        other => panic!("{other:?}"),
    }
}

/// The line (from 1) of the first line that begins like this.
fn line_of(text: &str, start: &str) -> usize {
    1 + text.lines().position(|l| l.starts_with(start)).unwrap()
}

#[test]
fn text_is_sorted_and_survives_the_round_trip() {
    let records = vec![
        record("2560x6912", 1, FAST),
        record("640x2560", 2, FAST),
        record("640x2560", 1, FAST),
        Record { confidence: None, ..record("2560x2560", 1, FAST) },
        prefill("2560x2560"),
    ];
    let preset = preset(records);
    let text = preset.to_text();
    let again = Preset::parse(&text, "memory").unwrap();
    assert_eq!(again, preset);
    assert_eq!(again.to_text(), text);
    let shapes: Vec<_> = again.records().iter().map(|r| r.key()).collect();
    assert!(shapes.is_sorted());
    assert!(again.record(shape("640x2560"), Phase::Decode, 2).is_some());
    assert!(again.record(shape("640x2560"), Phase::Prefill, 2).is_none());
    assert_eq!(again.record(shape("2560x2560"), Phase::Prefill, 1).unwrap().tokens, 128);
}

#[test]
fn a_newer_schema_is_named_before_its_unknown_fields() {
    let text = preset(vec![]).to_text().replace("schema = 1", "schema = 2\nmood = \"good\"");
    let error = Preset::parse(&text, "file.toml").unwrap_err();
    assert!(matches!(error, PresetError::Newer { line: 4, schema: 2, .. }), "{error}");
    assert!(error.to_string().contains("file.toml, line 4"), "{error}");
    assert!(error.hint().unwrap().contains("trilut tune"));
    let (line, rule) = refusal(&text.replace("schema = 2", "schema = 0"));
    assert_eq!((line, &rule[..]), (4, "there is no schema 0; the first one is 1"));
}

#[test]
fn unknown_fields_and_bad_values_are_refused_with_their_line() {
    let text = preset(vec![record("640x2560", 1, FAST)]).to_text();
    for (from, to, word) in [
        ("noise = ", "loudness = 3\nnoise = ", "loudness"),
        ("threads = 1", "threads = 1\nspeed = 9", "speed"),
        ("shape = \"640x2560\"", "shape = \"0x2560\"", "is no shape"),
        ("shape = \"640x2560\"", "shape = \"640\"", "MxK"),
        ("format = \"i2_s\"", "format = \"i3_s\"", "one of i2_s"),
        ("phase = \"decode\"", "phase = \"dream\"", "one of decode"),
        ("hash = \"0xf", "hash = \"f", "is not a hash"),
        ("median_ns = 1000", "median_ns = -1", "-1"),
    ] {
        assert!(text.contains(from), "{from}");
        let bad = text.replacen(from, to, 1);
        let (line, rule) = refusal(&bad);
        let at = if to.contains("speed") { "speed" } else { to.split(' ').next().unwrap() };
        let expected = match bad.lines().filter(|l| l.starts_with(at)).count() {
            1 => line_of(&bad, at),
            _ => line_of(&bad, to.lines().next().unwrap()),
        };
        assert!(rule.contains(word), "{rule}");
        assert_eq!(line, expected, "{rule}\n{bad}");
    }
}

#[test]
fn records_that_break_a_rule_are_refused_with_their_line() {
    let text = preset(vec![record("64x128", 1, FAST), record("640x2560", 1, FAST)]).to_text();
    let second = 1 + text.lines().enumerate().filter(|(_, l)| *l == "[[record]]").nth(1).unwrap().0;
    for (from, to, word) in [
        ("rows_per_task = 64", "rows_per_task = 33", "multiple of 32"),
        ("prefetch = 1024", "prefetch = 99999999", "illegal"),
        ("median_ns = 1000", "median_ns = 0", "above 0"),
        ("samples = [1010, 990, 1000]", "samples = []", "above 0"),
        ("shape = \"640x2560\"", "shape = \"64x128\"", "already"),
        ("threads = 1", "threads = 0", "1..=1024"),
        ("threads = 1", "threads = 1025", "1..=1024"),
        (FAST, "gemv_tl2_lut_r1u1_avx2", "does not read"),
        ("confidence = 0.0123", "confidence = nan", "confidence"),
        ("threads = 1", "tokens = 0\nthreads = 1", "not in 1..=65536"),
        ("phase = \"decode\"", "phase = \"prefill\"", "one token at a time"),
        (FAST, "gemm_dot_r4t8_avx2", "takes prompts"),
        (FAST, "batch_i2s_madd_r2t4_avx2", "takes small batches"),
    ] {
        let start = text.match_indices("[[record]]").nth(1).unwrap().0;
        let bad = format!("{}{}", &text[..start], text[start..].replacen(from, to, 1));
        let (line, rule) = refusal(&bad);
        assert!(rule.contains(word), "{rule}");
        assert_eq!(line, second, "{rule}");
    }
}

#[test]
fn small_batches_have_records_of_their_own() {
    let batch = |kernel| {
        let phase = Phase::SmallBatch;
        Record { phase, tokens: 4, ..record("64x128", 1, kernel) }
    };
    let fast = batch("batch_i2s_madd_r2t4_avx2");
    let all = preset(vec![record("64x128", 1, FAST), fast.clone()]);
    let text = all.to_text();
    assert!(text.contains("phase = \"batch\"\ntokens = 4"), "{text}");
    assert_eq!(Preset::parse(&text, "memory").unwrap(), all);
    assert_eq!(all.record(shape("64x128"), Phase::SmallBatch, 1), Some(&fast));
    // A token at a time may be the fastest.
    let one = preset(vec![batch(FAST)]).to_text();
    assert!(Preset::parse(&one, "memory").is_ok());
    let other = preset(vec![batch("batch_b3_madd_r2t4_avx2")]).to_text();
    assert!(refusal(&other).1.contains("does not read"));
    let prompt = preset(vec![batch("gemm_dot_r4t8_avx2")]).to_text();
    assert!(refusal(&prompt).1.contains("takes prompts"));
}

#[test]
fn truncation_anywhere_is_an_error_or_a_shorter_preset() {
    let text = preset(vec![record("64x128", 1, FAST), record("640x2560", 1, FAST)]).to_text();
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
        match Preset::parse(&text[..end], "cut.toml") {
            Ok(cut) => assert!(cut.records().len() <= 2),
            Err(error) => assert!(error.to_string().contains("cut.toml"), "{error}"),
        }
    }
    assert!(Preset::parse("GGUF\u{3}\0\0", "x").is_err());
    assert!(Preset::parse("", "x").is_err());
}

#[test]
fn plans_drop_unknown_kernels_and_mark_stale_ones() {
    let preset = preset(vec![
        record("64x128", 1, FAST),
        record("64x256", 1, "gemv_i2s_warp_r9u9_avx1024"),
        record("64x384", 1, "gemv_i2s_madd_r1u1_avx2"),
    ]);
    let picks = preset.to_plan(Likeness::SameCpu, |name| match name {
        FAST => Some(0xf000_0000_0000_0001),
        "gemv_i2s_madd_r1u1_avx2" => Some(7),
        _ => None,
    });
    assert_eq!(picks.plan.picks.len(), 2);
    assert_eq!(picks.plan.picks[0].reason, "tuned on this CPU: 1.21x the speed of the default");
    assert!(picks.plan.picks[1].reason.contains("stale"));
    assert_eq!(picks.dropped.len(), 1);
    assert!(picks.dropped[0].reason.contains("no such kernel"));

    let elsewhere =
        preset.to_plan(Likeness::SameMicroarchitecture, |_| Some(0xf000_0000_0000_0001));
    let reason = &elsewhere.plan.picks[0].reason;
    assert!(reason.contains("zen5, the same microarchitecture"), "{reason}");
}

#[test]
fn saving_merges_and_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/presets/a.toml");
    let first = preset(vec![record("64x128", 1, FAST), record("64x256", 1, FAST)]);
    assert_eq!(
        first.clone().save_merged(&path).unwrap(),
        Saved { kept: 0, left_out: 0, set_aside: None }
    );
    let newer = Record { median_ns: 500, ..record("64x256", 1, FAST) };
    let saved = preset(vec![newer]).save_merged(&path).unwrap();
    assert_eq!(saved, Saved { kept: 1, left_out: 0, set_aside: None });
    let both = Preset::load(&path).unwrap();
    assert_eq!(both.records().iter().map(|r| r.median_ns).collect::<Vec<_>>(), [1000, 500]);
    let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "no side file stays: {names:?}");
}

#[test]
fn what_a_check_dropped_goes_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    let all = |shapes: &[&str]| preset(shapes.iter().map(|shape| record(shape, 1, FAST)).collect());
    all(&["64x128", "64x256", "64x512"]).save(&path).unwrap();
    let (checked, before) = (all(&["64x128"]), all(&["64x128", "64x256", "64x1024"]));
    let saved = checked.save_left(&before, &path).unwrap();
    assert_eq!(saved, Saved { kept: 1, left_out: 0, set_aside: None });
    // Of 64x512 the check said nothing.
    let left = Preset::load(&path).unwrap();
    let shapes = left.records().iter().map(|record| record.shape);
    assert_eq!(shapes.collect::<Vec<_>>(), [shape("64x128"), shape("64x512")]);
}

#[test]
fn a_file_that_is_no_preset_of_this_cpu_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    fs::write(&path, "my diary").unwrap();
    let (aside, why) = preset(vec![]).save_merged(&path).unwrap().set_aside.unwrap();
    assert_eq!(fs::read_to_string(&aside).unwrap(), "my diary");
    assert!(why.contains("line 1"), "{why}");

    let other = Preset { machine: Machine { model: 9, ..machine() }, ..preset(vec![]) };
    let (second, why) = other.save_merged(&path).unwrap().set_aside.unwrap();
    assert!(second != aside && why.contains("another CPU"), "{why}");
}

#[test]
fn a_failed_save_leaves_the_old_file_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "kept").unwrap();
    // A file where a directory should be fails for every user, root included.
    let path = dir.path().join("file/a.toml");
    let error = preset(vec![]).save(&path).unwrap_err();
    assert!(matches!(error, PresetError::Write { .. }));
    let why = error.source().unwrap();
    assert!(why.source().is_none() && error.hint().is_some(), "the file is named once: {why:?}");
    assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "kept");

    // The side file is removed when the rename fails.
    let occupied = dir.path().join("occupied");
    fs::create_dir_all(occupied.join("inner")).unwrap();
    assert!(preset(vec![]).save(&occupied).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn files_that_cannot_be_presets_are_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, vec![b' '; MAX_BYTES as usize + 1]).unwrap();
    let error = Preset::load(&path).unwrap_err();
    assert!(error.source().unwrap().to_string().contains("no preset"));
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(Preset::load(&path), Err(PresetError::Read { .. })));
    assert!(matches!(Preset::load(dir.path()), Err(PresetError::Read { .. })));
}

/// A pipe that nobody writes to would be waited for, and a device has no end.
#[cfg(unix)]
#[test]
fn only_regular_files_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.toml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let link = dir.path().join("link.toml");
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    for path in [&pipe, &link, std::path::Path::new("/dev/zero")] {
        let error = Preset::load(path).unwrap_err();
        let why = error.source().unwrap().to_string();
        assert_eq!(why, "it is no regular file", "{}", path.display());
    }
    let why = Preset::load(dir.path()).unwrap_err().with_cause();
    assert!(why.ends_with("it is a directory"), "{why}");
}

#[test]
fn what_cannot_be_added_to_a_file_leaves_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    let newer = preset(vec![]).to_text().replace("schema = 1", "schema = 9");
    fs::write(&path, &newer).unwrap();
    let error = preset(vec![record("64x128", 1, FAST)]).save_added(&path).unwrap_err();
    assert!(matches!(error, PresetError::Newer { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
    let other = Preset { machine: Machine { model: 9, ..machine() }, ..preset(vec![]) };
    other.save(&path).unwrap();
    let error = preset(vec![]).save_added(&path).unwrap_err();
    assert!(matches!(error, PresetError::Other { .. }), "{error}");
    assert_eq!(Preset::load(&path).unwrap(), other);
    fs::create_dir(dir.path().join("b.toml")).unwrap();
    let error = preset(vec![]).save_added(&dir.path().join("b.toml")).unwrap_err();
    assert!(matches!(error, PresetError::Read { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing was set aside");
    let fresh = dir.path().join("c.toml");
    for kept in [0, 1] {
        let records = vec![record(&format!("64x{}", 128 + 128 * kept), 1, FAST)];
        assert_eq!(
            preset(records).save_added(&fresh).unwrap(),
            Saved { kept, left_out: 0, set_aside: None }
        );
    }
}

/// Another build has a kernel that this one lacks.
#[test]
fn what_took_more_effort_stays_when_less_is_added() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    let estimate = |at, threads| Record { effort: Effort::Estimate, ..record(at, threads, FAST) };
    let measured = record("64x128", 1, "gemv_of_another_build");
    preset(vec![measured.clone(), estimate("64x256", 1)]).save(&path).unwrap();
    let before = fs::read(&path).unwrap();
    let mut same = preset(vec![estimate("64x128", 1)]);
    same.provenance.threads = 7;
    let saved = same.save_added(&path).unwrap();
    assert_eq!(saved, Saved { kept: 2, left_out: 1, set_aside: None });
    assert_eq!(fs::read(&path).unwrap(), before, "not even its head is taken over");

    // As much effort and more replaces, and so does what is saved on purpose.
    let newer = Record { median_ns: 7, ..estimate("64x256", 1) };
    let added = preset(vec![estimate("64x128", 1), estimate("64x128", 2), newer.clone()]);
    let saved = added.save_added(&path).unwrap();
    assert_eq!(saved, Saved { kept: 1, left_out: 1, set_aside: None });
    let all = Preset::load(&path).unwrap();
    let find = |threads| all.record(shape("64x128"), Phase::Decode, threads).unwrap();
    assert_eq!((&find(1).kernel, find(1).effort), (&measured.kernel, Effort::Measure));
    assert_eq!(find(2).effort, Effort::Estimate);
    assert_eq!(all.record(newer.shape, Phase::Decode, 1).unwrap().median_ns, 7);
    preset(vec![record("64x256", 1, FAST)]).save_added(&path).unwrap();
    preset(vec![estimate("64x128", 1)]).save_merged(&path).unwrap();
    let all = Preset::load(&path).unwrap();
    let efforts: Vec<Effort> = all.records().iter().map(|record| record.effort).collect();
    assert_eq!(efforts, [Effort::Estimate, Effort::Estimate, Effort::Measure]);
}

#[test]
fn a_file_that_is_replaced_stays_under_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    assert_eq!(preset(vec![]).save_beside(&path).unwrap(), None);
    let first = fs::read(&path).unwrap();
    let aside = preset(vec![record("64x128", 1, FAST)]).save_beside(&path).unwrap().unwrap();
    assert_eq!(fs::read(&aside).unwrap(), first);
    assert_eq!(Preset::load(&path).unwrap().records().len(), 1);
}

#[cfg(unix)]
#[test]
fn a_linked_preset_stays_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real.toml"), dir.path().join("link.toml"));
    preset(vec![]).save(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    preset(vec![record("64x128", 1, FAST)]).save(&link).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Preset::load(&real).unwrap().records().len(), 1);
    // So does one whose target has to be set aside.
    for save in [
        |preset: Preset, path: &Path| preset.save_merged(path).unwrap().set_aside.unwrap().0,
        |preset: Preset, path: &Path| preset.save_beside(path).unwrap().unwrap(),
    ] {
        fs::write(&real, "my diary").unwrap();
        let aside = save(preset(vec![record("64x128", 1, FAST)]), &link);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(Preset::load(&real).unwrap().records().len(), 1);
        assert_eq!(fs::read_to_string(aside).unwrap(), "my diary");
    }
}

fn evidence() -> Evidence {
    Evidence {
        date: "2026-11-22T10:00:00Z".into(),
        trilut: "0.1.0".into(),
        compiler: "rustc 1.95.0".into(),
        microcode: Some("0x1".into()),
        cores: 2,
        noise: Some(0.01),
        memory: Some(39.5),
        interval: Some([0.8, 0.83]),
        model: Some([0.91, 0.97]),
        wins: Some(0.98),
        regret: Some(0.0),
        finalists: vec![FAST.into(), "other".into()],
    }
}

#[test]
fn evidence_survives_the_round_trip_and_must_be_sound() {
    let with = |evidence| Record { evidence: Some(evidence), ..record("64x128", 1, FAST) };
    let preset = preset(vec![with(evidence()), record("64x256", 1, FAST)]);
    let text = preset.to_text();
    assert_eq!(Preset::parse(&text, "memory").unwrap(), preset);
    for (from, to, word) in [
        ("interval = [0.8000, 0.8300]", "interval = [0.9, 0.8]", "smaller one first"),
        ("model = [0.9100, 0.9700]", "model = [0.0, 0.9]", "above 0"),
        ("wins = 0.9800", "wins = 1.5", "at most 1"),
        ("regret = 0.0000", "regret = nan", "numbers"),
        ("cores = 2", "cores = 2\nluck = 1", "luck"),
    ] {
        assert!(text.contains(from), "{from}: {text}");
        let (_, rule) = refusal(&text.replace(from, to));
        assert!(rule.contains(word), "{rule}");
    }
}

#[test]
fn merging_writes_down_what_earlier_records_owe_to_their_machine() {
    let mut older = preset(vec![record("64x128", 1, FAST)]);
    older.machine.microcode = Some("0x1".into());
    let mut newer = preset(vec![record("64x256", 1, FAST)]);
    newer.machine.microcode = Some("0x2".into());
    newer.machine.physical_cores = 8;
    older.merge(newer);
    let first = older.records()[0].evidence.as_ref().unwrap();
    assert_eq!((first.microcode.as_deref(), first.cores), (Some("0x1"), 2));
    assert_eq!(older.records()[1].evidence, None);
}

#[test]
fn differences_are_sorted_and_say_what_changed() {
    let slow = "gemv_i2s_madd_r4u2_avx2";
    let a = preset(vec![
        record("64x128", 1, FAST),
        record("64x256", 1, FAST),
        record("64x384", 1, FAST),
        record("64x512", 1, FAST),
    ]);
    let b = preset(vec![
        record("64x128", 1, FAST),
        Record { median_ns: 1500, ..record("64x256", 1, FAST) },
        record("64x384", 1, slow),
        record("64x640", 1, FAST),
    ]);
    let changes: Vec<_> = a.differences(&b).into_iter().map(|d| (d.shape.k, d.change)).collect();
    assert_eq!(changes[0], (256, Change::Time(1.5)));
    assert!(
        matches!(&changes[1], (384, Change::Pick(from, to)) if from.kernel == FAST && to.kernel == slow)
    );
    assert!(matches!(&changes[2], (512, Change::Removed(_))));
    assert!(matches!(&changes[3], (640, Change::Added(_))));
    assert_eq!((changes.len(), a.differences(&a)), (4, vec![]));
}

#[test]
fn of_two_that_disagree_the_greater_effort_is_believed_then_the_later() {
    let slow = "gemv_i2s_madd_r4u2_avx2";
    let dated = |date: &str, r: Record| Record {
        evidence: Some(Evidence { date: date.into(), ..evidence() }),
        ..r
    };
    let a = preset(vec![
        dated(
            "2026-01-01T00:00:00Z",
            Record { effort: Effort::Patient, ..record("64x128", 1, FAST) },
        ),
        dated("2026-01-01T00:00:00Z", record("64x256", 1, FAST)),
        record("64x384", 1, FAST),
    ]);
    let mut b = preset(vec![
        dated("2026-02-01T00:00:00Z", record("64x128", 1, slow)),
        dated("2026-02-01T00:00:00Z", record("64x256", 1, slow)),
        record("64x512", 1, FAST),
    ]);
    b.provenance.date = "2026-02-02T00:00:00Z".into();
    let ab = a.clone().combine(b.clone());
    let kernels: Vec<&str> = ab.preset.records().iter().map(|r| &r.kernel[..]).collect();
    assert_eq!(kernels, [FAST, slow, FAST, FAST]);
    assert_eq!(ab.disagreements.iter().map(|d| d.1).collect::<Vec<_>>(), [true, false]);
    assert_eq!(b.combine(a).preset.to_text(), ab.preset.to_text(), "whatever the order");
    assert_eq!(ab.preset.provenance.date, "2026-02-02T00:00:00Z");
}

#[test]
fn two_that_save_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shared.toml");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || {
                for n in 0..5 {
                    let shape = format!("64x{}", 128 * (1 + writer * 5 + n));
                    preset(vec![record(&shape, 1, FAST)]).save_merged(path).unwrap();
                }
            });
        }
    });
    assert_eq!(Preset::load(&path).unwrap().records().len(), 20);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no side file stays");
}

#[test]
fn where_prompts_begin_is_kept_and_files_without_it_are_read() {
    let with = |from| Record { from, ..prefill("2560x2560") };
    let known = preset(vec![with(Some(12))]);
    let text = known.to_text();
    assert!(text.contains("from = 12\n"), "{text}");
    assert_eq!(Preset::parse(&text, "memory").unwrap(), known);
    let plan = known.to_plan(Likeness::SameCpu, |_| Some(1)).plan;
    assert_eq!(plan.picks[0].from, Some(12));
    let older = Preset::parse(&text.replace("from = 12\n", ""), "memory").unwrap();
    assert_eq!(older, preset(vec![with(None)]));
    for silly in ["from = 1", "from = 0", "from = 4097"] {
        let (line, rule) = refusal(&text.replace("from = 12", silly));
        assert!(rule.contains("2..=4096"), "{rule}");
        assert_eq!(line, line_of(&text, "[[record]]"));
    }
    let decode = Record { from: Some(12), ..record("2560x2560", 1, FAST) };
    assert!(refusal(&preset(vec![decode]).to_text()).1.contains("not for decode"));
}

#[test]
fn noise_that_too_few_samples_showed_is_left_out() {
    let mut unknown = preset(vec![record("64x128", 1, FAST)]);
    unknown.provenance.noise = None;
    let text = unknown.to_text();
    let head = text.split("[machine]").next().unwrap();
    assert!(!head.contains("noise"), "{head}");
    assert_eq!(Preset::parse(&text, "x").unwrap(), unknown);
}

#[test]
fn what_was_added_to_a_file_since_it_was_read_is_no_worse_for_what_is_combined_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    let old = Record { effort: Effort::Measure, ..record("64x128", 1, FAST) };
    let combined = preset(vec![old.clone(), record("96x128", 1, FAST)]);
    // Meanwhile a tuner has found more.
    let better = Record { effort: Effort::Patient, ..old };
    preset(vec![better.clone(), record("128x128", 1, FAST)]).save(&path).unwrap();
    combined.save_combined(&path).unwrap();
    let saved = Preset::load(&path).unwrap();
    assert_eq!(saved.records().len(), 3);
    assert_eq!(saved.record(better.shape, better.phase, better.threads), Some(&better));
}
