//! GGUF files as they should be, and as they should not: each defect has its own clear error.

use std::sync::Arc;
use trilut_presets::Shape;
use trilut_runtime::gguf::{
    Gguf, GgufError, GgufWriter, TensorKind, TernaryLayouts, Value, WriteError,
};
use trilut_runtime::ternary::{Codec, Scales};

/// A small file with every kind of value and tensor.
fn sample() -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer
        .str("general.architecture", "bitnet-b1.58")
        .u32("bitnet-b1.58.block_count", 2)
        .f32("bitnet-b1.58.rope.freq_base", 10000.0)
        .bool("flag", true)
        .i32("negative", -5)
        .strings("words", ["one", "zwei", "три", ""])
        .i32s("numbers", &[1, -2, 3])
        .u32s("more", &[7, 8])
        .f32s("floats", &[0.5])
        .tensor("norm", &[4], TensorKind::F32)
        .tensor("half", &[2, 2], TensorKind::F16)
        .tensor("ternary", &[128, 2], TensorKind::I2S);
    let mut data = writer.begin(Vec::new()).unwrap();
    data.write("norm", bytes_of(&[1.0, 2.0]).as_slice()).unwrap();
    data.write("norm", bytes_of(&[3.0, 4.0]).as_slice()).unwrap();
    let half: Vec<u8> =
        [1.0, 0.5, -2.0, 0.0].iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
    data.write("half", &half).unwrap();
    data.write("ternary", &[0b01_10_00_01; 64]).unwrap();
    data.write("ternary", &0.25f32.to_le_bytes()).unwrap();
    data.write("ternary", &[0; 28]).unwrap();
    data.finish().unwrap()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn open(bytes: Vec<u8>) -> Result<Gguf, GgufError> {
    Gguf::from_bytes(Arc::new(bytes))
}

/// Assembles files by hand, defects included.
#[derive(Default)]
struct Raw {
    entries: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: Vec<u8>,
}

fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

impl Raw {
    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.push([text(key.as_bytes()).as_slice(), &kind.to_le_bytes(), value].concat());
        self
    }

    fn tensor(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        let mut entry = text(name.as_bytes());
        entry.extend((dims.len() as u32).to_le_bytes());
        entry.extend(dims.iter().flat_map(|d| d.to_le_bytes()));
        entry.extend(kind.to_le_bytes());
        entry.extend(offset.to_le_bytes());
        self.tensors.push(entry);
        self
    }

    fn data(mut self, bytes: usize) -> Self {
        self.data = vec![0; bytes];
        self
    }

    fn bytes(&self, version: u32) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        out.extend(self.entries.concat());
        out.extend(self.tensors.concat());
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }

    fn error(&self) -> GgufError {
        open(self.bytes(3)).unwrap_err()
    }
}

/// The error's text must contain all of the words.
fn says(error: &GgufError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "`{text}` lacks `{word}`");
    }
}

#[test]
fn what_is_written_is_read_back() {
    let gguf = open(sample()).unwrap();
    assert_eq!(gguf.version(), 3);
    assert_eq!(gguf.architecture().unwrap(), "bitnet-b1.58");
    assert_eq!(gguf.arch_u32("block_count").unwrap(), 2);
    assert_eq!(gguf.arch_f32("rope.freq_base").unwrap(), 10000.0);
    assert_eq!(gguf.opt_arch_u32("vocab_size").unwrap(), None);
    assert_eq!(gguf.opt_arch_f32("missing").unwrap(), None);
    assert!(gguf.bool("flag").unwrap());
    let words: Vec<_> = gguf.strings("words").unwrap().collect();
    assert_eq!(words, ["one", "zwei", "три", ""]);
    assert_eq!(gguf.strings("words").unwrap().len(), 4);
    assert_eq!(gguf.i32s("numbers").unwrap(), [1, -2, 3]);
    assert_eq!(gguf.u32s("more").unwrap(), [7, 8]);
    assert_eq!(
        gguf.value("floats").map(|v| matches!(v, Value::Array(a) if a.len() == 1)),
        Some(true)
    );
    assert_eq!(gguf.metadata().count(), 9);

    let norm = gguf.tensor("norm").unwrap();
    assert_eq!(norm.to_f32().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(gguf.tensor("half").unwrap().to_f32().unwrap(), [1.0, 0.5, -2.0, 0.0]);
    let shape = Shape::new(2, 128).unwrap();
    let ternary = gguf.ternary("ternary", shape, &TernaryLayouts::default()).unwrap();
    assert_eq!(ternary.reader.codes(), &[0b01_10_00_01; 64][..]);
    assert_eq!(ternary.scales, Scales::One(0.25));
    let file = gguf.shared();
    assert!((*file).as_ref()[ternary.range.clone()].starts_with(ternary.reader.codes()));
    assert_eq!(ternary.range.start % 32, 0);
    assert!(gguf.opt_tensor("output.weight").unwrap().is_none());
}

#[test]
fn files_on_disk_are_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, sample()).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!(gguf.file_len(), sample().len());
    let range = gguf.tensor("ternary").unwrap().range();
    let before = gguf.tensor("ternary").unwrap().data().to_vec();
    gguf.release(range);
    gguf.release(0..usize::MAX);
    assert_eq!(gguf.tensor("ternary").unwrap().data(), before);

    std::fs::write(&path, []).unwrap();
    assert!(matches!(Gguf::open(&path), Err(GgufError::Magic { .. })));
    assert!(matches!(Gguf::open(dir.path()), Err(GgufError::Open { .. })));
    let missing = Gguf::open(dir.path().join("none.gguf")).unwrap_err();
    says(&missing, &["cannot open", "none.gguf"]);
}

#[test]
fn integers_of_any_width_are_read() {
    let raw = Raw::default()
        .entry("u8", 0, &[200])
        .entry("i8", 1, &[0xff])
        .entry("u16", 2, &500u16.to_le_bytes())
        .entry("i16", 3, &(-500i16).to_le_bytes())
        .entry("u64", 10, &(1u64 << 40).to_le_bytes())
        .entry("i64", 11, &7i64.to_le_bytes())
        .entry("f64", 12, &0.5f64.to_le_bytes())
        .entry(
            "wide",
            9,
            &[&10u32.to_le_bytes()[..], &1u64.to_le_bytes(), &9u64.to_le_bytes()].concat(),
        );
    for version in [2, 3] {
        let gguf = open(raw.bytes(version)).unwrap();
        assert_eq!(gguf.u32("u8").unwrap(), 200);
        assert_eq!(gguf.u32("u16").unwrap(), 500);
        assert_eq!(gguf.u32("i64").unwrap(), 7);
        assert_eq!(gguf.f32("f64").unwrap(), 0.5);
        assert_eq!(gguf.u32s("wide").unwrap(), [9]);
        says(&gguf.u32("u64").unwrap_err(), &["u64", "1099511627776", "32-bit"]);
        says(&gguf.u32("i8").unwrap_err(), &["-1"]);
        says(&gguf.u32("i16").unwrap_err(), &["-500"]);
        says(&gguf.u32("f64").unwrap_err(), &["f64", "a float", "an integer"]);
        says(&gguf.f32("u8").unwrap_err(), &["an integer", "a float"]);
        says(&gguf.str("wide").unwrap_err(), &["array of u64", "a text"]);
        says(&gguf.strings("wide").unwrap_err(), &["array of u64", "array of texts"]);
        says(&gguf.u32s("u8").unwrap_err(), &["an array of integers"]);
        says(&gguf.bool("u8").unwrap_err(), &["a truth value"]);
        says(&gguf.u32("none").unwrap_err(), &["no key `none`"]);
        assert_eq!(gguf.opt_u32("none").unwrap(), None);
    }
}

#[test]
fn other_files_are_refused() {
    let error = |bytes: &[u8]| open(bytes.to_vec()).unwrap_err();
    says(&error(b""), &["not a GGUF"]);
    says(&error(b"PK\x03\x04 and so on"), &["not a GGUF", "PK\\x03\\x04"]);
    assert!(error(b"version https://").hint().unwrap().contains("LFS"));
    assert!(matches!(error(b"FUGG\0\0\0\x03"), GgufError::BigEndian));
    assert!(matches!(error(b"GGUF\0\0\0\x03\0\0\0\0"), GgufError::BigEndian));
    assert!(matches!(error(b"GGUF\x01\0\0\0\0\0\0\0"), GgufError::Version(1)));
    assert!(matches!(error(b"GGUF\x04\0\0\0\0\0\0\0"), GgufError::Version(4)));
    assert!(matches!(error(b"GGUF\0\0\0\0\0\0\0\0"), GgufError::Version(0)));
    says(&error(b"GGUF\x03\0"), &["ends inside the version", "2 more bytes"]);
}

#[test]
fn every_truncation_is_noticed() {
    let whole = sample();
    // The padding of the last I2_S tensor is never read, so a file may end before it.
    for length in 0..whole.len() - 28 {
        let error = open(whole[..length].to_vec()).expect_err("cut short");
        assert!(!error.to_string().is_empty());
    }
    assert!(open(whole[..whole.len() - 28].to_vec()).is_ok());
    let cut = open(whole[..whole.len() - 38].to_vec()).unwrap_err();
    says(&cut, &["`ternary`", "10 bytes", "missing"]);
    assert!(cut.hint().unwrap().contains("incomplete"));
}

#[test]
fn absurd_counts_are_refused_without_allocating() {
    let mut bytes = Raw::default().bytes(3);
    bytes[8..16].fill(0xff);
    says(&open(bytes.clone()).unwrap_err(), &["18446744073709551615 tensors"]);
    bytes[8..16].fill(0);
    bytes[16..24].fill(0xff);
    says(&open(bytes).unwrap_err(), &["metadata keys"]);
    let array = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    for kind in [0, 4, 8, 10] {
        let raw = Raw::default().entry("k", 9, &array(kind, u64::MAX / 2));
        says(&raw.error(), &["elements of `k`", "cannot hold"]);
    }
    let raw = Raw::default().entry("k", 8, &u64::MAX.to_le_bytes());
    says(&raw.error(), &["ends inside the key `k`"]);
}

#[test]
fn broken_values_are_refused() {
    let raw = Raw::default().entry("k", 8, &text(b"a\xff"));
    says(&raw.error(), &["the key `k`", "not UTF-8"]);
    let two = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &text(b"a"), &text(b"\xc3")].concat();
    says(&Raw::default().entry("k", 9, &two).error(), &["text 1 of the key `k`", "not UTF-8"]);
    let nested = [9u32.to_le_bytes(), [0; 4], [0; 4]].concat();
    says(&Raw::default().entry("k", 9, &nested).error(), &["`k`", "array of arrays"]);
    says(&Raw::default().entry("k", 13, &[0; 8]).error(), &["`k`", "value type 13"]);
    says(&Raw::default().entry("k", 7, &[2]).error(), &["`k`", "truth value 2"]);
    let raw = Raw::default().entry("k", 0, &[1]).entry("k", 0, &[1]);
    says(&raw.error(), &["`k` appears twice"]);
}

#[test]
fn broken_alignments_are_refused() {
    for alignment in [0u32, 3, 48] {
        let raw = Raw::default().entry("general.alignment", 4, &alignment.to_le_bytes());
        says(&raw.error(), &["general.alignment", "power of two"]);
    }
    let raw = Raw::default().entry("general.alignment", 8, &text(b"32"));
    assert!(matches!(raw.error(), GgufError::Alignment(_)));
    let raw = Raw::default().entry("general.alignment", 10, &(1u64 << 63).to_le_bytes());
    says(&raw.tensor("t", &[8], 0, 0).error(), &["`t`"]);
    let raw = Raw::default().tensor("t", &[8], 0, 8).data(64);
    says(&raw.error(), &["`t`", "offset 8", "multiple of 32"]);
    let raw = raw_with_alignment_8();
    assert!(open(raw.bytes(3)).is_ok());
}

fn raw_with_alignment_8() -> Raw {
    let raw = Raw::default().entry("general.alignment", 4, &8u32.to_le_bytes());
    raw.tensor("t", &[8], 0, 8).data(64)
}

#[test]
fn broken_tensors_are_refused() {
    let error = |raw: Raw| raw.data(64).error();
    says(&error(Raw::default().tensor("t", &[], 0, 0)), &["`t`", "0 dimensions"]);
    says(&error(Raw::default().tensor("t", &[1; 5], 0, 0)), &["`t`", "5 dimensions"]);
    says(&error(Raw::default().tensor("t", &[4, 0], 0, 0)), &["`t`", "dimension of 0"]);
    let huge = Raw::default().tensor("t", &[1 << 40, 1 << 40], 0, 0);
    says(&error(huge), &["`t`", "more elements"]);
    says(&error(Raw::default().tensor("t", &[1 << 63], 0, 0)), &["`t`", "more bytes"]);
    let far = u64::MAX - 31;
    says(&error(Raw::default().tensor("t", &[4], 0, far)), &["`t`", "more bytes"]);
    says(&error(Raw::default().tensor("t", &[4], 999, 1 << 40)), &["`t`", "missing"]);
    says(&error(Raw::default().tensor("t", &[32], 0, 0)), &["64 bytes", "`t`", "missing"]);
    says(&error(Raw::default().tensor("t", &[64], 14, 0)), &["146 bytes", "`t`"]);
    let twice = Raw::default().tensor("t", &[4], 0, 0).tensor("t", &[4], 0, 0);
    says(&error(twice), &["`t` appears twice"]);
}

#[test]
fn unsupported_types_are_listed_but_not_used() {
    let expected = [
        (10, "Q2_K", "llama.cpp"),
        (37, "I8_S", "bitnet.cpp"),
        (39, "MXFP4", "llama.cpp"),
        (41, "Q1_0", "llama.cpp"),
        (777, "unknown", "not known"),
    ];
    for (id, name, writer) in expected {
        let raw = Raw::default().tensor("w", &[256], id, 0).tensor("f", &[4], 0, 512).data(528);
        let gguf = open(raw.bytes(3)).unwrap();
        assert_eq!(gguf.tensors().len(), 2);
        assert_eq!(gguf.tensors()[0].kind(), TensorKind::Other(id));
        assert_eq!(gguf.tensors()[0].type_name(), name);
        assert!(gguf.tensor("f").is_ok());
        let error = gguf.tensor("w").unwrap_err();
        says(&error, &["`w`", &format!("type {id}"), name, writer, "written by"]);
        assert!(error.hint().unwrap().contains("I2_S"));
    }
}

#[test]
fn types_39_and_42_are_tl2_only_in_bitnet_files() {
    // 64 x 256 weights: of TL2 4128 bytes, of Q2_0 4352 at least.
    for (bytes, bitnet) in [(4128, TensorKind::Tl2), (4352, TensorKind::Q2_0)] {
        let raw = Raw::default().tensor("w", &[256, 64], 42, 0).tensor("f", &[4], 0, bytes);
        let raw = raw.data(bytes as usize + 16);
        assert_eq!(open(raw.bytes(3)).unwrap().tensors()[0].kind(), TensorKind::Q2_0);
        let raw = raw.entry("general.architecture", 8, &text(b"bitnet"));
        assert_eq!(open(raw.bytes(3)).unwrap().tensors()[0].kind(), bitnet);
    }
    let name = |raw: Raw| {
        let gguf = open(raw.tensor("w", &[256], 39, 0).data(512).bytes(3)).unwrap();
        gguf.tensors()[0].type_name()
    };
    assert_eq!(name(Raw::default()), "MXFP4");
    assert_eq!(name(Raw::default().entry("general.architecture", 8, &text(b"llama"))), "MXFP4");
    assert_eq!(name(Raw::default().entry("general.architecture", 8, &text(b"bitnet-25"))), "TL2");
    assert_eq!(name(Raw::default().entry("general.file_type", 4, &39u32.to_le_bytes())), "TL2");
    assert_eq!(name(Raw::default().entry("general.file_type", 4, &40u32.to_le_bytes())), "MXFP4");
}

#[test]
fn ternary_tensors_are_checked() {
    let shape = |m, k| Shape::new(m, k).unwrap();
    let gguf = open(sample()).unwrap();
    let layouts = TernaryLayouts::default();
    let ternary = |gguf: &Gguf, name, shape| match gguf.ternary(name, shape, &layouts) {
        Ok(_) => panic!("`{name}` was accepted"),
        Err(error) => error,
    };
    says(&ternary(&gguf, "none", shape(2, 128)), &["no tensor `none`"]);
    let wrong = ternary(&gguf, "norm", shape(1, 4));
    says(&wrong, &["`norm` is F32", "expected a ternary type"]);
    assert!(wrong.hint().unwrap().contains("not ternary"));
    says(&ternary(&gguf, "ternary", shape(128, 2)), &["[128, 2]", "[2, 128]"]);
    says(&gguf.tensor("ternary").unwrap().to_f32().unwrap_err(), &["I2_S", "F32, F16"]);

    let cause = |error: GgufError| std::error::Error::source(&error).unwrap().to_string();
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let mut raw = Raw::default().tensor("w", &[128], 36, 0).data(64);
        raw.data[32..36].copy_from_slice(&scale.to_le_bytes());
        let error = ternary(&open(raw.bytes(3)).unwrap(), "w", shape(1, 128));
        says(&error, &["`w`"]);
        assert!(cause(error).contains("not a positive number"));
    }
    let raw = Raw::default().tensor("w", &[96], 36, 0).data(64);
    let error = ternary(&open(raw.bytes(3)).unwrap(), "w", shape(1, 96));
    assert!(cause(error).contains("1x96: the weights must be whole blocks of 128"));
    let raw = Raw::default().tensor("w", &[256, 32], 38, 0).data(4096);
    let error = ternary(&open(raw.bytes(3)).unwrap(), "w", shape(32, 256));
    says(&error, &["`w` is TL1", "32x256"]);
    assert!(error.hint().unwrap().contains("--tl-config"));
}

#[test]
fn blocks_of_q2_0_are_told_by_the_room_they_have() {
    let shape = Shape::new(8, 256).unwrap();
    for (group, bytes) in [(64, 576), (128, 544)] {
        let raw = Raw::default().tensor("w", &[256, 8], 42, 0).tensor("f", &[4], 0, bytes);
        let gguf = open(raw.data(bytes as usize + 16).bytes(3)).unwrap();
        let ternary = gguf.ternary("w", shape, &TernaryLayouts::default());
        // Blocks of zeros have no scale, so none is wrong.
        assert_eq!(ternary.unwrap().reader.codec(), Codec::Q2_0 { group });
    }
}

#[test]
fn the_writer_refuses_what_it_cannot_write() {
    let mut writer = GgufWriter::new();
    writer.u32("k", 1).u32("k", 2);
    assert!(matches!(writer.begin(Vec::new()), Err(WriteError::Duplicate(k)) if k == "k"));
    for (dims, kind) in [(&[4, 0][..], TensorKind::F32), (&[4], TensorKind::Other(14))] {
        let mut writer = GgufWriter::new();
        writer.tensor("t", dims, kind);
        assert!(matches!(writer.begin(Vec::new()), Err(WriteError::Size(_))));
    }
    let mut writer = GgufWriter::new();
    writer.tensor("a", &[4], TensorKind::F32).tensor("b", &[4], TensorKind::F32);
    assert_eq!(writer.data_bytes(), 64);
    let mut data = writer.begin(Vec::new()).unwrap();
    assert!(matches!(data.write("b", &[0; 16]), Err(WriteError::Order { .. })));
    assert!(matches!(data.write("a", &[0; 17]), Err(WriteError::Length { .. })));
    data.write("a", &[0; 16]).unwrap();
    assert!(matches!(data.finish(), Err(WriteError::Length { given: 0, .. })));
}

#[test]
fn an_abandoned_file_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let mut writer = GgufWriter::new();
    writer.tensor("a", &[4], TensorKind::F32);
    let files = || std::fs::read_dir(dir.path()).unwrap().count();

    drop(writer.create(&path).unwrap());
    assert_eq!(files(), 0);
    let mut data = writer.create(&path).unwrap();
    assert!(!path.exists());
    data.write("a", &[0; 16]).unwrap();
    data.commit().unwrap();
    assert_eq!(files(), 1);
    assert!(Gguf::open(&path).is_ok());
}

/// Reads everything that can be read.
fn read_all(gguf: &Gguf) {
    for (key, value) in gguf.metadata() {
        let _ = (gguf.opt_u32(key), gguf.opt_f32(key), gguf.opt_str(key), gguf.opt_bool(key));
        let _ = (gguf.opt_u32s(key), gguf.opt_i32s(key));
        let _ = gguf.opt_strings(key).map(|texts| texts.map(Iterator::count));
        if let Value::Array(array) = value {
            assert_eq!(array.iter().count(), array.len());
        }
    }
    for info in gguf.tensors() {
        let _ = gguf.tensor(info.name()).map(|tensor| tensor.to_f32());
        let side = |i: usize| info.dims().get(i).map_or(1, |&d| d as usize);
        let _ = Shape::new(side(1), side(0))
            .map(|shape| gguf.ternary(info.name(), shape, &TernaryLayouts::default()).is_ok());
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4000))]

    #[test]
    fn damaged_files_never_panic(
        damage in proptest::collection::vec((0usize..1000, proptest::prelude::any::<u8>()), 0..6),
        keep in 0usize..1000,
    ) {
        let mut bytes = sample();
        let length = bytes.len();
        for (at, value) in damage {
            bytes[at % length] = value;
        }
        if keep % 3 == 0 {
            bytes.truncate(keep % length);
        }
        if let Ok(gguf) = open(bytes) {
            read_all(&gguf);
        }
    }
}

#[test]
fn every_single_flipped_byte_is_survived() {
    let whole = sample();
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            if let Ok(gguf) = open(bytes) {
                read_all(&gguf);
            }
        }
    }
}
