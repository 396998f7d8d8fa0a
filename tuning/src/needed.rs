//! Which shapes still have to be tuned: what makes a second run a no-op.

use crate::request::{Request, ShapeUse};
use crate::space;
use trilut_kernels::{Format, Phase, Shape};
use trilut_presets::Preset;
use trilut_presets::machine::Likeness;
use trilut_presets::preset::Record;

/// The shapes of the request for which the preset has no current record.
///
/// A record is current when it was made on this CPU with the same best ISA and number of threads, with
/// at least the effort asked for, in a race of at least the formats asked for, and when the kernels that
/// there are to choose from are still the same.
pub fn needed(preset: &Preset, request: &Request) -> Vec<ShapeUse> {
    needed_by(preset, request, |formats, shape| {
        let kernels = formats.iter().flat_map(|&format| request.cpu.candidates(format, shape));
        space::fingerprint(&kernels.collect::<Vec<_>>())
    })
}

fn needed_by(
    preset: &Preset,
    request: &Request,
    fingerprint: impl Fn(&[Format], Shape) -> u64,
) -> Vec<ShapeUse> {
    let same_machine = preset.likeness(&request.machine, request.isa()) == Likeness::SameCpu;
    let current = |record: &Record| {
        record.effort >= request.effort
            && request.formats.contains(&record.format)
            && request.formats.iter().all(|f| record.formats.contains(f))
            && fingerprint(&record.formats, record.shape) == record.space
    };
    let done = |layer: &ShapeUse| {
        preset.record(layer.shape, Phase::Decode, request.threads).is_some_and(current)
    };
    request.shapes.iter().copied().filter(|layer| !(same_machine && done(layer))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use trilut_kernels::{Cpu, Tile};
    use trilut_presets::Machine;
    use trilut_presets::preset::{Effort, Provenance, Weights};

    fn request() -> Request {
        Request {
            shapes: vec![ShapeUse { shape: Shape { m: 64, k: 128 }, count_per_token: 1 }],
            formats: vec![Format::I2S],
            threads: 2,
            effort: Effort::Measure,
            time_limit: Duration::ZERO,
            cpu: Cpu::capped(Some(trilut_kernels::Isa::Scalar)),
            machine: Machine { vendor: "amd".into(), ..Machine::default() },
            model_bytes: 0,
        }
    }

    fn preset(request: &Request, change: impl Fn(&mut Record)) -> Preset {
        let mut record = Record {
            shape: request.shapes[0].shape,
            phase: Phase::Decode,
            threads: 2,
            format: Format::I2S,
            formats: vec![Format::I2S, Format::Tl2],
            space: 7,
            kernel: "k".into(),
            hash: 1,
            tile: Tile::default(),
            effort: Effort::Measure,
            weights: Weights::Cold,
            median_ns: 1,
            samples: vec![1],
            default_kernel: "k".into(),
            default_ns: 1,
            scalar_ns: None,
            confidence: None,
        };
        change(&mut record);
        let provenance = Provenance {
            trilut: "0".into(),
            date: String::new(),
            isa: request.isa(),
            effort: Effort::Measure,
            threads: 2,
            noise: 0.0,
        };
        Preset::new(provenance, request.machine.clone(), vec![record])
    }

    fn count(request: &Request, change: impl Fn(&mut Record)) -> usize {
        needed_by(&preset(request, change), request, |_, _| 7).len()
    }

    #[test]
    fn a_current_record_is_not_needed_again() {
        assert_eq!(count(&request(), |_| {}), 0);
        let less = Request { effort: Effort::Estimate, ..request() };
        assert_eq!(count(&less, |_| {}), 0);
    }

    #[test]
    fn anything_in_the_key_that_changed_is_tuned_again() {
        assert_eq!(count(&request(), |r| r.space = 8), 1);
        assert_eq!(count(&request(), |r| r.threads = 1), 1);
        assert_eq!(count(&request(), |r| r.effort = Effort::Estimate), 1);
        assert_eq!(count(&request(), |r| r.shape.m = 65), 1);
        let wider = Request { formats: vec![Format::I2S, Format::Tl1], ..request() };
        assert_eq!(count(&wider, |_| {}), 1);
        assert_eq!(count(&request(), |r| r.format = Format::Tl2), 1);
        let moved = Request { machine: Machine::default(), ..request() };
        assert_eq!(needed_by(&preset(&request(), |_| {}), &moved, |_, _| 7).len(), 1);
        assert_eq!(needed_by(&preset(&request(), |_| {}), &request(), |_, _| 8).len(), 1);
    }
}
