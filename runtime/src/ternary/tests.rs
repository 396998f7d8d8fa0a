use super::*;
use proptest::prelude::*;

/// The weights of `tools/codecs/make.py`.
fn weights(shape: Shape) -> Vec<i8> {
    let mut state = shape.weights() as u64;
    let next = |_| {
        let t = (state >> 16) % 3;
        state = (state * 1_103_515_245 + 12_345) % (1 << 31);
        t as i8 - 1
    };
    (0..shape.weights()).map(next).collect()
}

fn read(codec: Codec, shape: Shape, data: &[u8]) -> Result<(Vec<i8>, Scales), CodecError> {
    let reader = codec.reader(shape, data)?;
    let mut out = vec![9; shape.weights()];
    for (row, out) in out.chunks_exact_mut(shape.k).enumerate() {
        reader.row(row, out)?;
    }
    Ok((out, reader.scales()?))
}

const SHAPE: Shape = Shape { m: 64, k: 768 };

fn tile(outputs: usize, inputs: usize, step: usize) -> Tile {
    Tile { outputs, inputs, step }
}

fn codecs() -> Vec<Codec> {
    vec![
        Codec::I2s(I2sLayout::X86),
        Codec::I2s(I2sLayout::Arm),
        Codec::I2s(I2sLayout::Rows),
        Codec::Tl1(tile(32, 128, 16)),
        Codec::Tl1(tile(64, 64, 32)),
        Codec::Tl1(tile(64, 256, 64)),
        Codec::Tl2(tile(32, 96, 32)),
        Codec::Tl2(tile(64, 168, 32)),
        Codec::Tq1_0,
        Codec::Tq2_0,
        Codec::Q2_0 { group: 64 },
        Codec::Q2_0 { group: 128 },
        Codec::Iq1Bn,
        Codec::Iq2Bn,
        Codec::Iq2BnR4,
    ]
}

#[test]
fn what_is_written_is_read_back() {
    let weights = weights(SHAPE);
    for codec in codecs() {
        let bytes = codec.encode(SHAPE, &weights, &Scales::One(0.375)).unwrap();
        let (read, scales) = read(codec, SHAPE, &bytes).unwrap();
        assert_eq!(scales, Scales::One(0.375), "{codec:?}");
        assert!(read == weights, "{codec:?}");
        let dims = [SHAPE.k as u64, SHAPE.m as u64];
        if !matches!(codec, Codec::Q2_0 { group: 128 }) {
            assert_eq!(codec.kind().bytes(&dims), Some(bytes.len() as u64), "{codec:?}");
        }
    }
}

#[test]
fn other_programs_write_the_same() {
    let golden = include_str!("../../tests/golden/codecs.jsonl");
    let mut seen = 0;
    for line in golden.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
        let shape = Shape { m: number(&entry["m"]), k: number(&entry["k"]) };
        let tile = || {
            tile(number(&entry["tile"][0]), number(&entry["tile"][1]), number(&entry["tile"][2]))
        };
        let codec = match entry["codec"].as_str().unwrap() {
            "i2_s" => Codec::I2s(I2sLayout::X86),
            "tq1_0" => Codec::Tq1_0,
            "tq2_0" => Codec::Tq2_0,
            "tl1" => Codec::Tl1(tile()),
            "tl2" => Codec::Tl2(tile()),
            other => panic!("{other}"),
        };
        let digits = entry["bytes"].as_str().unwrap().as_bytes().as_chunks::<2>().0;
        let byte = |d: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = digits.iter().map(byte).collect();
        let scales = Scales::One(entry["scale"].as_f64().unwrap() as f32);
        let weights = weights(shape);
        assert!(codec.encode(shape, &weights, &scales).unwrap() == bytes, "{codec:?}");
        assert!(read(codec, shape, &bytes).unwrap() == (weights, scales), "{codec:?}");
        seen += 1;
    }
    assert_eq!(seen, 7);
}

#[test]
fn rows_may_have_scales_of_their_own() {
    let mut weights = weights(SHAPE);
    weights[3 * SHAPE.k..4 * SHAPE.k].fill(0);
    weights[5 * SHAPE.k..][..256].fill(0);
    let rows: Vec<f32> = (0..SHAPE.m).map(|row| (row + 1) as f32 / 64.0).collect();
    for codec in codecs() {
        let encoded = codec.encode(SHAPE, &weights, &Scales::Rows(rows.clone()));
        if codec.has_one_scale() {
            assert!(matches!(encoded, Err(CodecError::OneScale { .. })), "{codec:?}");
            continue;
        }
        let (read, scales) = read(codec, SHAPE, &encoded.unwrap()).unwrap();
        assert!(read == weights, "{codec:?}");
        // A row without weights has none.
        for row in (0..SHAPE.m).filter(|row| *row != 3) {
            assert_eq!(scales.at(row * SHAPE.k, SHAPE.k), rows[row], "{codec:?}");
        }
        let nothing = codec.encode(SHAPE, &vec![0; SHAPE.weights()], &Scales::One(0.5)).unwrap();
        let (read, _) = self::read(codec, SHAPE, &nothing).unwrap();
        assert!(read.iter().all(|t| *t == 0));
    }
}

#[test]
fn groups_of_a_row_may_have_scales_of_their_own() {
    let mut weights = weights(SHAPE);
    weights[5 * SHAPE.k..][..256].fill(0);
    let groups = SHAPE.weights() / 256;
    let scales: Vec<f32> = (0..groups).map(|group| (group + 1) as f32 / 64.0).collect();
    let scales = Scales::Groups { inputs: 256, scales };
    for codec in codecs() {
        let encoded = codec.encode(SHAPE, &weights, &scales);
        let Some(group) = codec.group() else {
            let refused =
                matches!(encoded, Err(CodecError::OneScale { .. } | CodecError::Groups { .. }));
            assert!(refused, "{codec:?}");
            continue;
        };
        let (read, found) = read(codec, SHAPE, &encoded.unwrap()).unwrap();
        assert!(read == weights, "{codec:?}");
        assert!(matches!(&found, Scales::Groups { inputs, .. } if *inputs == group), "{codec:?}");
        for index in (0..SHAPE.weights()).filter(|index| weights[*index] != 0) {
            assert_eq!(found.at(index, SHAPE.k), scales.at(index, SHAPE.k), "{codec:?} {index}");
        }
    }
    let few = Scales::Groups { inputs: 256, scales: vec![1.0; groups - 1] };
    let error = Codec::Tq2_0.encode(SHAPE, &weights, &few).unwrap_err();
    assert!(matches!(error, CodecError::Count { .. }));
    let fine = Scales::Groups { inputs: 64, scales: vec![1.0; SHAPE.weights() / 64] };
    let error = Codec::Tq2_0.encode(SHAPE, &weights, &fine).unwrap_err();
    assert_eq!(error, CodecError::Groups { codec: "TQ2_0", inputs: 64 });
}

#[test]
fn scales_of_blocks_must_be_positive_numbers() {
    let mut bytes = Codec::Tq2_0.encode(SHAPE, &weights(SHAPE), &Scales::One(0.5)).unwrap();
    for bad in [f32::NAN, f32::INFINITY, -1.0] {
        bytes[64..66].copy_from_slice(&half::f16::from_f32(bad).to_le_bytes());
        let error = read(Codec::Tq2_0, SHAPE, &bytes).unwrap_err();
        assert!(matches!(error, CodecError::Scale { row: 0, .. }));
    }
}

#[test]
fn codes_and_tiles_that_stand_for_nothing_are_refused() {
    for codec in codecs() {
        let mut bytes = codec.encode(SHAPE, &weights(SHAPE), &Scales::One(0.5)).unwrap();
        // Codes, of whichever codec.
        let at = bytes.len() / 3 + 5;
        bytes[at] = 0xFF;
        let is_base3 = matches!(codec, Codec::Tq1_0 | Codec::Iq1Bn);
        let read = read(codec, SHAPE, &bytes);
        assert_eq!(read.is_err(), !is_base3, "{codec:?}");
        assert!(matches!(codec.reader(SHAPE, &bytes[..40]), Err(CodecError::Length { .. })));
        let odd = Shape { m: 3, k: 50 };
        assert!(codec.reader(odd, &bytes).is_err(), "{codec:?}");
    }
    for bad in [tile(0, 0, 0), tile(64, 96, 64), tile(48, 96, 32), tile(64, 100, 32)] {
        assert!(matches!(Codec::Tl2(bad).bytes(SHAPE), Err(CodecError::Tile { .. })));
    }
    for bad in [tile(0, 64, 32), tile(64, 60, 32), tile(64, 64, 8), tile(128, 64, 32)] {
        assert!(matches!(Codec::Tl1(bad).bytes(SHAPE), Err(CodecError::Tile { .. })));
    }
    let input = |weights: &[i8], scale| Codec::Tq2_0.encode(SHAPE, weights, &Scales::One(scale));
    let good = weights(SHAPE);
    assert!(matches!(input(&good[1..], 1.0), Err(CodecError::Count { .. })));
    assert!(matches!(input(&vec![2; good.len()], 1.0), Err(CodecError::NotTernary { .. })));
    for scale in [0.0, -1.0, f32::NAN, 1e-9, 1e9] {
        assert!(matches!(input(&good, scale), Err(CodecError::Scale { .. })), "{scale}");
    }
}

#[test]
fn tiles_are_read_from_ini_and_text() {
    let ini = "[Kernels_0]\nm = 3200\nk = 8640\nbm = 160\nbk = 96\nbmm = 32\n\n# more\n[Kernels_1]\n\
               m = 3200\nk = 3200\nbm=320\nbk=96\nbmm=32\n";
    let mut tiles = Tiles::from_ini(ini).unwrap();
    let shape = Shape { m: 3200, k: 8640 };
    assert_eq!(tiles.find(shape), Some(tile(160, 96, 32)));
    assert_eq!(tiles.find(Shape { m: 3200, k: 3200 }), Some(tile(320, 96, 32)));
    assert_eq!(tiles.find(Shape { m: 1, k: 1 }), None);
    tiles.add("3200x8640:320,192,32").unwrap();
    assert_eq!(tiles.find(shape), Some(tile(320, 192, 32)));
    for bad in ["", "3200x8640", "3200x8640:1,2", "3200x8640:1,2,3,4", "axb:1,2,3"] {
        assert!(matches!(tiles.add(bad), Err(TileError::Text(_))), "{bad}");
    }
    for bad in ["m = 1", "[a]\nm = x", "[a]\nm"] {
        assert!(matches!(Tiles::from_ini(bad), Err(TileError::Line { .. })), "{bad}");
    }
    let error = Tiles::from_ini("[a]\nm = 1\nk = 2\nbm = 3").unwrap_err();
    assert_eq!(error.to_string(), "the section `a` has no `bk`");
}

proptest! {
    /// No bytes make a reader panic.
    #[test]
    fn any_bytes_are_read_or_refused(seed in any::<u64>()) {
        let shape = Shape { m: 32, k: 768 };
        let mut state = seed | 1;
        let bytes: Vec<u8> = (0..shape.weights() / 2).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        }).collect();
        for codec in codecs().into_iter().filter(|codec| codec.bytes(shape).is_ok()) {
            let _ = read(codec, shape, &bytes);
        }
    }
}
