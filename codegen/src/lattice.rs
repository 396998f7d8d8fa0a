//! The kernels that are compiled in: a finite lattice per architecture, plus shape-specialised members.

use crate::{Error, Named, Spec};
use trilut_presets::models::ModelSpec;
use trilut_presets::{
    Algorithm, BatchName, Fixed, Format, GemmAlgorithm, GemmName, Isa, KernelName, MicroTile,
};

/// One point: algorithm and micro tile, before ISA and sizes.
type Point = (Format, Algorithm, usize, usize, Option<usize>);

/// The generic points of an ISA. Rows per pass and unroll are what the tuner chooses between.
fn points(isa: Isa) -> Vec<Point> {
    let mut points = Vec::new();
    let mut grid = |format, algorithm, rows: &[usize], unrolls: &[usize], width| {
        for &r in rows {
            points.extend(unrolls.iter().map(|&u| (format, algorithm, r, u, width)));
        }
    };
    let lookups = [Format::Tl1, Format::Tl2];
    match isa {
        Isa::Scalar => {
            grid(Format::I2S, Algorithm::Madd, &[1, 2], &[1], None);
            grid(Format::I2S, Algorithm::Dot, &[1], &[1], None);
            grid(Format::Base3, Algorithm::Madd, &[1], &[1], None);
            grid(Format::Base3, Algorithm::Lut, &[1], &[1], None);
            lookups.iter().for_each(|&f| grid(f, Algorithm::Lut, &[1], &[1], None));
        }
        Isa::Emulated => {
            for algorithm in [Algorithm::Madd, Algorithm::MaddX4] {
                grid(Format::I2S, algorithm, &[1, 2], &[2], Some(16));
            }
            grid(Format::Base3, Algorithm::Madd, &[2], &[2], Some(16));
            for format in [Format::I2S, Format::Base3] {
                grid(format, Algorithm::Dot, &[2], &[2], Some(16));
                grid(format, Algorithm::Dot, &[1, 2], &[2], Some(64));
            }
            lookups.iter().for_each(|&f| grid(f, Algorithm::Lut, &[1, 2], &[2], Some(16)));
            lookups.iter().for_each(|&f| grid(f, Algorithm::Lut, &[2], &[2], Some(64)));
            grid(Format::Base3, Algorithm::Lut, &[1, 2], &[2], Some(64));
        }
        Isa::Avx2 => {
            grid(Format::I2S, Algorithm::Madd, &[1, 4], &[1, 2], None);
            grid(Format::I2S, Algorithm::MaddX4, &[1, 2, 4], &[1, 2, 4], None);
            grid(Format::I2S, Algorithm::MaddX4, &[8], &[2], None);
            lookups.iter().for_each(|&f| grid(f, Algorithm::Lut, &[1, 2, 4], &[1, 2], None));
            grid(Format::Base3, Algorithm::Madd, &[1, 2], &[2], None);
        }
        Isa::AvxVnni => {
            grid(Format::I2S, Algorithm::Dot, &[1], &[2, 4], None);
            grid(Format::I2S, Algorithm::Dot, &[2], &[2], None);
            grid(Format::Base3, Algorithm::Dot, &[1, 2], &[2], None);
            lookups.iter().for_each(|&f| grid(f, Algorithm::Lut, &[4], &[2], None));
        }
        Isa::Avx512 => {
            grid(Format::I2S, Algorithm::Dot, &[1], &[2, 4], None);
            grid(Format::I2S, Algorithm::Dot, &[2, 4], &[2], None);
            grid(Format::Base3, Algorithm::Dot, &[1, 2, 4], &[2], None);
            lookups.iter().for_each(|&f| grid(f, Algorithm::Lut, &[2, 4], &[2], None));
        }
        Isa::Avx512Vbmi => {
            grid(Format::Base3, Algorithm::Lut, &[1], &[2, 4], None);
            grid(Format::Base3, Algorithm::Lut, &[2], &[2], None);
        }
        Isa::Neon => {
            grid(Format::I2S, Algorithm::Madd, &[1], &[2], None);
            grid(Format::I2S, Algorithm::MaddX4, &[1, 2, 4], &[2], None);
            lookups.iter().for_each(|&f| grid(f, Algorithm::Lut, &[1, 2, 4], &[2], None));
            grid(Format::Base3, Algorithm::Madd, &[1, 2], &[2], None);
        }
        Isa::Dotprod | Isa::I8mm => {
            grid(Format::I2S, Algorithm::Dot, &[1], &[2, 4], None);
            grid(Format::I2S, Algorithm::Dot, &[2, 4], &[2], None);
            grid(Format::Base3, Algorithm::Dot, &[1, 2], &[2], None);
            lookups.iter().for_each(|&f| grid(f, Algorithm::Lut, &[2], &[2], None));
        }
    }
    points
}

/// The points that are also generated with K fixed, for the shapes of models that ask for it. (With 64-byte
/// vectors rows are so few steps that the compiler unrolls them whole, which measures slower.)
fn specialised(isa: Isa) -> Vec<Point> {
    match isa {
        Isa::Avx2 => vec![
            (Format::I2S, Algorithm::MaddX4, 1, 2, None),
            (Format::I2S, Algorithm::MaddX4, 4, 2, None),
            (Format::Tl1, Algorithm::Lut, 4, 2, None),
            (Format::Tl2, Algorithm::Lut, 4, 2, None),
        ],
        _ => vec![],
    }
}

/// The gemm kernels of an ISA.
pub fn gemms(isa: Isa) -> Vec<GemmName> {
    let mut names = Vec::new();
    let mut vluts = |tokens, width, points: &[(usize, usize)]| {
        names.extend(points.iter().map(|&(group, tables)| {
            let algorithm = GemmAlgorithm::Vlut { group, tables };
            GemmName { algorithm, tokens, width, isa }
        }));
    };
    match isa {
        Isa::Scalar => vluts(8, None, &[(4, 8)]),
        Isa::Emulated => {
            vluts(16, Some(16), &[(3, 16), (4, 8), (5, 2)]);
            vluts(32, Some(64), &[(3, 16), (4, 4), (5, 2)]);
        }
        Isa::Avx2 => {
            vluts(16, None, &[(3, 16), (4, 4), (4, 8), (5, 2)]);
            vluts(32, None, &[(3, 8), (4, 4), (4, 8), (5, 2)]);
        }
        Isa::Avx512 => {
            vluts(32, None, &[(3, 8), (3, 16), (4, 4), (4, 8), (5, 2)]);
            vluts(64, None, &[(3, 8), (4, 2), (4, 4)]);
        }
        Isa::Neon => {
            vluts(16, None, &[(3, 16), (4, 4), (4, 8), (5, 2)]);
            vluts(32, None, &[(4, 4), (4, 8)]);
        }
        _ => {}
    }
    let mut tiles = |algorithm: fn(usize) -> GemmAlgorithm, width, points: &[(usize, usize)]| {
        names.extend(points.iter().map(|&(rows, tokens)| GemmName {
            algorithm: algorithm(rows),
            tokens,
            width,
            isa,
        }));
    };
    let madd = |rows| GemmAlgorithm::Madd { rows };
    let dot = |rows| GemmAlgorithm::Dot { rows };
    let mmla = |rows| GemmAlgorithm::Mmla { rows };
    match isa {
        Isa::Scalar => tiles(dot, None, &[(1, 4)]),
        Isa::Emulated => {
            tiles(mmla, Some(16), &[(4, 8)]);
            tiles(madd, Some(16), &[(2, 8)]);
            tiles(dot, Some(16), &[(2, 8)]);
            tiles(dot, Some(64), &[(2, 32)]);
        }
        Isa::Avx2 => tiles(madd, None, &[(2, 16), (4, 8), (4, 16)]),
        Isa::AvxVnni => tiles(dot, None, &[(4, 8), (4, 16)]),
        Isa::Avx512 => tiles(dot, None, &[(8, 16), (4, 32), (8, 32), (6, 64), (4, 64)]),
        Isa::Neon => tiles(madd, None, &[(4, 8), (2, 16)]),
        Isa::Dotprod => tiles(dot, None, &[(8, 8), (4, 16), (6, 16)]),
        Isa::I8mm => tiles(mmla, None, &[(8, 8), (4, 16), (8, 16)]),
        Isa::Avx512Vbmi => {}
    }
    let mut mixes = |tokens, width, points: &[(usize, usize, usize)]| {
        names.extend(points.iter().map(|&(tables, steps, rows)| {
            let algorithm = GemmAlgorithm::Mix { tables, steps, rows };
            GemmName { algorithm, tokens, width, isa }
        }));
    };
    match isa {
        Isa::Emulated => {
            mixes(8, Some(16), &[(8, 4, 2)]);
            mixes(32, Some(64), &[(8, 8, 2)]);
        }
        Isa::AvxVnni => mixes(16, None, &[(8, 8, 4), (8, 12, 4)]),
        Isa::Avx512 => mixes(32, None, &[(8, 12, 8), (8, 16, 8), (8, 20, 8)]),
        Isa::Dotprod => mixes(16, None, &[(8, 12, 4)]),
        _ => {}
    }
    names
}

/// The small-batch kernels of an ISA.
pub fn batches(isa: Isa) -> Vec<BatchName> {
    let mut names = Vec::new();
    let mut tiles = |format, algorithm, width, points: &[(usize, usize)]| {
        names.extend(points.iter().map(|&(rows, tokens)| BatchName {
            format,
            algorithm,
            rows,
            tokens,
            width,
            isa,
        }));
    };
    let (madd, dot, lut) = (Algorithm::Madd, Algorithm::Dot, Algorithm::Lut);
    let mmla = Algorithm::Mmla;
    let both = [Format::I2S, Format::Base3];
    match isa {
        Isa::Scalar => both.iter().for_each(|&f| tiles(f, dot, None, &[(1, 4)])),
        Isa::Emulated => {
            for format in both {
                tiles(format, madd, Some(16), &[(2, 2)]);
                tiles(format, dot, Some(16), &[(2, 3)]);
                tiles(format, dot, Some(64), &[(2, 3)]);
                tiles(format, mmla, Some(16), &[(4, 4)]);
            }
            tiles(Format::Base3, lut, Some(64), &[(2, 2)]);
        }
        Isa::Avx2 => {
            tiles(Format::I2S, madd, None, &[(1, 8), (1, 4), (2, 4)]);
            tiles(Format::Base3, madd, None, &[(1, 8), (2, 4)]);
        }
        Isa::AvxVnni => {
            tiles(Format::I2S, dot, None, &[(2, 4), (4, 2)]);
            tiles(Format::Base3, dot, None, &[(2, 4)]);
        }
        Isa::Avx512 => {
            tiles(Format::I2S, dot, None, &[(2, 4), (4, 4)]);
            tiles(Format::Base3, dot, None, &[(4, 4), (2, 8)]);
        }
        Isa::Avx512Vbmi => tiles(Format::Base3, lut, None, &[(4, 4), (4, 6)]),
        Isa::Neon => both.iter().for_each(|&f| tiles(f, madd, None, &[(2, 4)])),
        Isa::Dotprod => both.iter().for_each(|&f| tiles(f, dot, None, &[(4, 4)])),
        // The product of four is no faster with unsigned codes.
        Isa::I8mm => both.iter().for_each(|&f| tiles(f, mmla, None, &[(8, 8), (4, 8)])),
    }
    names
}

/// The ISAs whose spelling table has an algorithm for a format.
pub fn spelled_for(format: Format) -> impl Iterator<Item = Isa> {
    let isas = Isa::ALL.iter().copied();
    isas.filter(move |&isa| !crate::plan::spells(isa, format).is_empty())
}

/// The ISAs that can exist on an architecture (as in `target_arch`).
pub fn isas(arch: &str) -> Vec<Isa> {
    let isas = Isa::ALL.iter().copied();
    isas.filter(|isa| isa.target_arch().is_none_or(|a| a == arch)).collect()
}

/// The kernel by which the spelling of another is proven on machines without its ISA: AVX-VNNI is spelled
/// as AVX-512 VL with vectors of 32 bytes.
pub fn twin(isa: Isa) -> Option<(Isa, usize)> {
    (isa == Isa::AvxVnni).then_some((Isa::Avx512, 32))
}

/// Every kernel for an ISA: its generic points, and the specialised ones for the K of `models`.
pub fn specs(isa: Isa, models: &[ModelSpec]) -> Vec<Spec> {
    let spec = |(format, algorithm, rows, unroll, width): Point, k| {
        let micro = MicroTile { rows, unroll, width };
        let fixed = Fixed { m: None, k };
        Spec { name: KernelName { format, algorithm, micro, isa, fixed } }
    };
    let mut ks: Vec<usize> = models
        .iter()
        .filter(|model| model.specialise)
        .flat_map(|model| model.shapes())
        .map(|shape| shape.k)
        .collect();
    ks.sort_unstable();
    ks.dedup();
    let mut specs: Vec<Spec> = points(isa).into_iter().map(|p| spec(p, None)).collect();
    for point in specialised(isa) {
        specs.extend(ks.iter().map(|&k| spec(point, Some(k))));
    }
    specs
}

/// All of them, of every kind, as plans: gemv kernels, then those of small batches, then those of prompts.
///
/// # Errors
/// When one is illegal, which tests rule out.
pub fn members(isa: Isa, models: &[ModelSpec]) -> Result<Vec<Named>, Error> {
    let gemvs = specs(isa, models).into_iter().map(Named::try_from);
    let batches = batches(isa).into_iter().map(Named::try_from);
    let gemms = gemms(isa).into_iter().map(Named::try_from);
    gemvs.chain(batches).chain(gemms).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use trilut_presets::{default_batch_point, default_gemm_point, default_point};

    /// Every point is legal, has its own name, and the name reads back as the same kernel.
    #[test]
    fn every_member_is_legal_and_its_name_reads_back() {
        for arch in ["x86_64", "aarch64", "riscv64"] {
            let mut names = BTreeSet::new();
            for isa in isas(arch) {
                for member in members(isa, trilut_presets::models::all()).unwrap() {
                    assert_eq!(member.to_string().parse().as_ref(), Ok(&member));
                    assert!(names.insert(member.to_string()), "{member} is there twice");
                }
            }
        }
    }

    /// What runs where nothing was tuned is compiled in, for each format and ISA that has kernels for it.
    #[test]
    fn the_default_of_every_format_and_isa_is_a_member() {
        for &isa in Isa::ALL.iter().filter(|&&isa| isa != Isa::Emulated) {
            let specs = specs(isa, &[]);
            for &format in Format::ALL {
                let mut points = specs.iter().filter(|spec| spec.name.format == format).peekable();
                let default = default_point(format, isa);
                let is_default = |spec: &Spec| {
                    let micro = spec.name.micro;
                    (spec.name.algorithm, micro.rows, micro.unroll) == default
                };
                assert!(points.peek().is_none() || points.any(is_default), "{format} {isa}");
                let batches: Vec<BatchName> =
                    batches(isa).into_iter().filter(|name| name.format == format).collect();
                let default = default_batch_point(format, isa);
                let is_default =
                    |name: &BatchName| Some((name.algorithm, name.rows, name.tokens)) == default;
                assert!(batches.is_empty() || batches.iter().any(is_default), "{format} {isa}");
            }
            let gemms = gemms(isa);
            let is_default = |name: &GemmName| name.algorithm == default_gemm_point(isa);
            assert!(gemms.is_empty() || gemms.iter().any(is_default), "{isa}");
        }
    }
}
