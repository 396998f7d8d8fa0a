//! Which shapes still have to be tuned: what makes a second run a no-op.

use crate::AnyKernel;
use crate::request::{Request, ShapeUse};
use crate::space;
use trilut_kernels::Phase;
use trilut_presets::Preset;
use trilut_presets::machine::Likeness;
use trilut_presets::preset::{Effort, Record};

/// The shapes of the request for which the preset has no current record.
///
/// A record is current when it was made on this CPU with the same best ISA and number of threads, with
/// at least the effort asked for, in a race of at least the formats asked for, and when the kernels that
/// there are to choose from, the microcode and the number of cores are still the same.
pub fn needed(preset: &Preset, request: &Request) -> Vec<ShapeUse> {
    needed_by(preset, request, |record, layer| {
        let kernels = space::of_cpu(&request.cpu, layer, &record.formats);
        space::fingerprint(&kernels) == record.space && is_among(record, &kernels)
    })
}

/// Whether there is the kernel of a record, to the letter.
fn is_among(record: &Record, kernels: &[AnyKernel]) -> bool {
    kernels.iter().any(|own| (own.name(), own.hash()) == (record.kernel.as_str(), record.hash))
}

fn needed_by(
    preset: &Preset,
    request: &Request,
    is_known: impl Fn(&Record, &ShapeUse) -> bool,
) -> Vec<ShapeUse> {
    let request = &request.knowing(preset);
    let current = |record: &Record, layer: &ShapeUse| {
        let formats = request.formats_of(layer);
        was_made_here(preset, record, request)
            && record.effort >= request.effort
            && record.tokens == layer.tokens()
            && formats.contains(&record.format)
            && formats.iter().all(|f| record.formats.contains(f))
            && is_known(record, layer)
    };
    let done = |layer: &ShapeUse| {
        let record = preset.record(layer.shape, layer.phase, request.threads);
        record.is_some_and(|record| current(record, layer))
    };
    let wanted = |layer: &&ShapeUse| !done(layer);
    let needed: Vec<ShapeUse> = request.shapes.iter().filter(wanted).copied().collect();
    // A new race of decoding may choose another format.
    let anew = |layer: &ShapeUse| {
        let decode = ShapeUse { phase: Phase::Decode, ..*layer };
        layer.phase == Phase::SmallBatch && needed.contains(&decode)
    };
    let all = request.shapes.iter().copied();
    all.filter(|layer| needed.contains(layer) || anew(layer)).collect()
}

/// Whether a record was made on this machine as it is now.
fn was_made_here(preset: &Preset, record: &Record, request: &Request) -> bool {
    let (here, made) = (&request.machine, record.evidence.clone());
    let made = made.unwrap_or_else(|| preset.evidence());
    // Where the system tells no microcode there is nothing to compare.
    let is_same_microcode =
        made.microcode.is_none() || here.microcode.is_none() || made.microcode == here.microcode;
    preset.likeness(here, request.isa()) == Likeness::SameCpu
        && is_same_microcode
        && made.cores == here.physical_cores
}

/// The incumbents' record for a layer if it knows more than one that is made with some effort: it comes of a
/// greater one, of this machine as it is now, and its kernel still exists. Its format need not be one that is
/// raced, unless decoding reads another than small batches were tuned for.
pub(crate) fn better_known<'a>(
    request: &'a Request,
    layer: &ShapeUse,
    effort: Effort,
    kernels: &[AnyKernel],
) -> Option<&'a Record> {
    let incumbents = request.prior.incumbents.as_ref()?;
    let record = request.prior.incumbent(layer, request.threads)?;
    let knows_more = record.effort > effort
        && record.tokens == layer.tokens()
        && (layer.phase != Phase::SmallBatch || request.formats_of(layer).contains(&record.format))
        && was_made_here(incumbents, record, request)
        && is_among(record, kernels);
    knows_more.then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prior::Prior;
    use std::time::Duration;
    use trilut_kernels::{Cpu, Format, Shape, Tile};
    use trilut_presets::Machine;
    use trilut_presets::preset::{Provenance, Weights};

    /// Stands for the kernels that there are to choose from.
    fn is_known(record: &Record, _: &ShapeUse) -> bool {
        record.space == 7
    }

    fn request() -> Request {
        Request {
            shapes: vec![ShapeUse {
                phase: Phase::Decode,
                shape: Shape { m: 64, k: 128 },
                count_per_token: 1,
            }],
            formats: vec![Format::I2S],
            decoded: vec![],
            threads: 2,
            effort: Effort::Measure,
            time_limit: Duration::ZERO,
            cpu: Cpu::capped(Some(trilut_kernels::Isa::Scalar)),
            machine: Machine { vendor: "amd".into(), ..Machine::default() },
            model_bytes: 0,
            prior: Prior::default(),
        }
    }

    fn preset(request: &Request, change: impl Fn(&mut Record)) -> Preset {
        let mut record = Record {
            shape: request.shapes[0].shape,
            phase: request.shapes[0].phase,
            tokens: request.shapes[0].tokens(),
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
            from: None,
            evidence: None,
        };
        change(&mut record);
        let provenance = Provenance {
            trilut: "0".into(),
            date: String::new(),
            isa: request.isa(),
            effort: Effort::Measure,
            threads: 2,
            noise: None,
        };
        Preset::new(provenance, request.machine.clone(), vec![record])
    }

    fn count(request: &Request, change: impl Fn(&mut Record)) -> usize {
        needed_by(&preset(request, change), request, is_known).len()
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
        assert_eq!(count(&request(), |r| r.tokens = 2), 1);
        assert_eq!(count(&request(), |r| r.phase = Phase::Prefill), 1);
        let moved = Request { machine: Machine::default(), ..request() };
        assert_eq!(needed_by(&preset(&request(), |_| {}), &moved, is_known).len(), 1);
        assert_eq!(needed_by(&preset(&request(), |_| {}), &request(), |_, _| false).len(), 1);
    }

    #[test]
    fn a_record_whose_kernel_is_not_there_to_the_letter_is_tuned_again() {
        let request = Request { formats: vec![Format::I2S], ..request() };
        let layer = request.shapes[0];
        let kernels = space::of_cpu(&request.cpu, &layer, &request.formats);
        let count = |change: &dyn Fn(&mut Record)| {
            let preset = preset(&request, |record| {
                record.formats = request.formats.clone();
                record.space = space::fingerprint(&kernels);
                (record.kernel, record.hash) = (kernels[0].name().to_owned(), kernels[0].hash());
                change(record);
            });
            needed(&preset, &request).len()
        };
        assert_eq!(count(&|_| {}), 0);
        assert_eq!(count(&|record| record.hash = 0), 1);
        assert_eq!(count(&|record| record.kernel = "gemv_i2s_dot_r9u9_scalar".to_owned()), 1);
        assert_eq!(count(&|record| record.space += 1), 1);
    }

    #[test]
    fn a_new_microcode_or_another_number_of_cores_makes_stale_what_was_made_before() {
        let here = |microcode: &str, cores| {
            let machine = request().machine;
            let microcode = Some(microcode.into());
            Request {
                machine: Machine { microcode, physical_cores: cores, ..machine },
                ..request()
            }
        };
        let (old, new) = (here("0x1", 2), here("0x2", 2));
        let mut file = preset(&old, |_| {});
        assert_eq!(needed_by(&file, &old, is_known), []);
        assert_eq!(needed_by(&file, &new, is_known).len(), 1);
        assert_eq!(needed_by(&file, &here("0x1", 4), is_known).len(), 1);
        // Another layer is tuned with the new one: the earlier record does not become current by it.
        file.merge(preset(&new, |r| r.shape.m = 128));
        let both = Request {
            shapes: vec![
                old.shapes[0],
                ShapeUse { shape: Shape { m: 128, k: 128 }, ..old.shapes[0] },
            ],
            ..new
        };
        assert_eq!(needed_by(&file, &both, is_known), [old.shapes[0]]);
    }

    #[test]
    fn a_record_that_knows_more_does_so_in_any_format_that_may_be_read() {
        let kernel = crate::bench::fake::exact("r1u1");
        let knows_more = |phase, format, effort| {
            let layer = ShapeUse { phase, ..request().shapes[0] };
            let known = preset(&request(), |r| {
                (r.kernel, r.hash) = (kernel.name().to_owned(), kernel.hash());
                (r.phase, r.tokens) = (phase, layer.tokens());
                (r.format, r.effort) = (format, effort);
            });
            let prior = Prior { incumbents: Some(known), ..Prior::default() };
            let request = Request { prior, ..request() };
            better_known(&request, &layer, Effort::Estimate, &[kernel]).is_some()
        };
        assert!(knows_more(Phase::Decode, Format::I2S, Effort::Measure));
        assert!(knows_more(Phase::Decode, Format::Tl2, Effort::Measure));
        assert!(!knows_more(Phase::Decode, Format::Tl2, Effort::Estimate));
        // Small batches that decoding no longer reads the format of are of no use.
        assert!(knows_more(Phase::SmallBatch, Format::I2S, Effort::Measure));
        assert!(!knows_more(Phase::SmallBatch, Format::Tl2, Effort::Measure));
    }

    #[test]
    fn small_batches_follow_the_format_of_decoding() {
        let decode = request().shapes[0];
        let batch = ShapeUse { phase: Phase::SmallBatch, ..decode };
        let both = Request { shapes: vec![decode, batch], ..request() };
        let both = Request { formats: vec![Format::I2S, Format::Tl2], ..both };
        let alone = Request { shapes: vec![batch], ..request() };
        let known = |decoded, read| {
            let mut known = preset(&request(), |r| r.format = decoded);
            known.merge(preset(&alone, |r| (r.format, r.formats) = (read, vec![read])));
            known
        };
        let needed = |preset: Preset, request: &Request| needed_by(&preset, request, is_known);
        assert_eq!(needed(known(Format::Tl2, Format::Tl2), &both), []);
        assert_eq!(needed(known(Format::Tl2, Format::I2S), &both), [batch]);
        // A race of decoding may end otherwise.
        let wider = Request { formats: Format::ALL.to_vec(), ..both.clone() };
        assert_eq!(needed(known(Format::Tl2, Format::Tl2), &wider), wider.shapes);
        let other = Request { shapes: vec![batch], ..wider };
        assert_eq!(needed(known(Format::Tl2, Format::Tl2), &other), []);
    }

    #[test]
    fn phases_go_stale_by_themselves() {
        let decode = request().shapes[0];
        let prefill = ShapeUse { phase: Phase::Prefill, ..decode };
        // More formats change the race of decode; prompts take the first.
        let formats = vec![Format::I2S, Format::Tl1];
        let both = Request { shapes: vec![decode, prefill], formats, ..request() };
        let first = Request { shapes: vec![prefill], ..request() };
        let mut known = preset(&request(), |_| {});
        known.merge(preset(&first, |r| r.formats = vec![Format::I2S]));
        assert_eq!(needed_by(&known, &both, is_known), [decode]);
        // A new gemm kernel makes prompts stale, and nothing else.
        let both = Request { formats: vec![Format::I2S], ..both };
        let all_but_prompts = |_: &Record, layer: &ShapeUse| *layer != prefill;
        assert_eq!(needed_by(&known, &both, all_but_prompts), [prefill]);
        assert_eq!(needed_by(&known, &both, is_known), []);
    }
}
