//! The kernels that are compiled in: a finite lattice per architecture, plus shape-specialised members.

use crate::Spec;
use trilut_presets::models::ModelSpec;
use trilut_presets::{Algorithm, Fixed, Format, Isa, KernelName, MicroTile, Op};

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
        }
        Isa::Avx512 => {
            grid(Format::I2S, Algorithm::Dot, &[1], &[2, 4], None);
            grid(Format::I2S, Algorithm::Dot, &[2, 4], &[2], None);
            grid(Format::Base3, Algorithm::Dot, &[1, 2, 4], &[2], None);
        }
        Isa::Avx512Vbmi => {
            grid(Format::Base3, Algorithm::Lut, &[1], &[2, 4], None);
            grid(Format::Base3, Algorithm::Lut, &[2], &[2], None);
        }
        Isa::Neon | Isa::Dotprod | Isa::I8mm => {}
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

/// The ISAs that have a spelling table.
pub fn spelled() -> impl Iterator<Item = Isa> {
    [Isa::Scalar, Isa::Emulated, Isa::Avx2, Isa::AvxVnni, Isa::Avx512, Isa::Avx512Vbmi].into_iter()
}

/// The ISAs whose spelling table has an algorithm for a format.
pub fn spelled_for(format: Format) -> impl Iterator<Item = Isa> {
    spelled().filter(move |&isa| !crate::plan::spells(isa, format).is_empty())
}

/// The ISAs that have a spelling table and can exist on an architecture (as in `target_arch`).
pub fn isas(arch: &str) -> Vec<Isa> {
    spelled().filter(|isa| isa.target_arch().is_none_or(|a| a == arch)).collect()
}

/// Every kernel for an ISA: its generic points, and the specialised ones for the K of `models`.
pub fn specs(isa: Isa, models: &[ModelSpec]) -> Vec<Spec> {
    let spec = |(format, algorithm, rows, unroll, width): Point, k| {
        let micro = MicroTile { rows, unroll, width };
        let fixed = Fixed { m: None, k };
        Spec { name: KernelName { op: Op::Gemv, format, algorithm, micro, isa, fixed } }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every point is legal, has its own name, and the name reads back as the same kernel.
    #[test]
    fn every_member_is_legal_and_its_name_reads_back() {
        let mut names = BTreeSet::new();
        for arch in ["x86_64", "aarch64", "riscv64"] {
            for isa in isas(arch) {
                for spec in specs(isa, trilut_presets::models::all()) {
                    let name = spec.name.to_string();
                    assert_eq!(name.parse::<Spec>(), Ok(spec));
                    crate::Plan::new(&spec).unwrap();
                    if arch == "x86_64" {
                        assert!(names.insert(name));
                    }
                }
            }
        }
    }
}
