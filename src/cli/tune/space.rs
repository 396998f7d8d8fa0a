//! `trilut tune --list-space`: every knob with its values.

use super::super::failure::Failure;
use super::super::output::{out, outln};
use super::super::table::Table;
use super::{Args, numbers_of_threads, work};
use trilut_kernels::Cpu;
use trilut_presets::{Format, Phase, Shape};
use trilut_tuning::{BATCH_TOKENS, PROMPT_TOKENS, ShapeUse, effort, space};

/// Lists the space of the layers that were asked for, or what there is for any layer.
pub(super) fn list(args: &Args) -> Result<(), Failure> {
    let threads = numbers_of_threads(args)?[0];
    let formats = if args.format.is_empty() { Format::ALL } else { &args.format[..] };
    let is_general = args.model().is_none() && args.shape.is_empty();
    let layers: Vec<ShapeUse> = match is_general {
        // Of any shape: kernels for one size alone are not counted.
        true => {
            let shape = Shape { m: 1, k: 1 };
            let layer = |&phase| ShapeUse { phase, shape, count_per_token: 1 };
            args.phase.list().iter().map(layer).collect()
        }
        false => work(args)?.shapes,
    };
    let cpu = Cpu::detect();
    let headings = ["phase", "shape", "knob", "values", "meaning", "reason"];
    let mut table = Table::new(&headings, headings.len());
    for layer in &layers {
        let ShapeUse { phase, shape, .. } = *layer;
        let name = if is_general { "any".to_owned() } else { shape.to_string() };
        let meaning = match phase {
            Phase::Prefill => "gemm kernels, for layers that share an input; named likewise",
            Phase::SmallBatch => {
                "small-batch kernels of the format that decoding reads, or a token at a time"
            }
            Phase::Decode => "gemv kernels; `trilut codegen --isa ISA --emit list` names them",
        };
        let kernels = space::of_cpu(&cpu, layer, formats);
        table.row([
            phase.name(),
            &name,
            "kernel",
            &format!("{} here", kernels.len()),
            meaning,
            "all that this CPU runs and that accept the shape; only exact ones are timed",
        ]);
        for knob in space::KNOBS.iter().filter(|knob| knob.phases.contains(&phase)) {
            let values = match is_general {
                true => knob.values.to_vec(),
                false => space::useful(knob, &kernels, shape, threads),
            };
            let values: Vec<String> = values.iter().map(usize::to_string).collect();
            let values = values.join(" ");
            table.row([phase.name(), &name, knob.name, &values, knob.help, knob.reason]);
        }
    }
    out!("{}", table.plain());
    outln!("batch is timed with {BATCH_TOKENS} tokens, prefill with prompts of {PROMPT_TOKENS}");
    outln!(
        "formats ({}) and threads (-t N,N) are chosen as well; exhaustive tries {} points at most",
        formats.iter().map(|f| f.name()).collect::<Vec<_>>().join(", "),
        effort::GRID,
    );
    Ok(())
}
