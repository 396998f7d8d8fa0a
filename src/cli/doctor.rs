//! `trilut doctor`: what this machine is, what may run on it, and which preset is used, rung by rung.

use super::environment::VARIABLES;
use super::failure::{Failure, one_line};
use super::output::{count, outln};
use super::planning::Here;
use super::table::Table;
use serde_json::json;
use std::collections::BTreeSet;
use trilut_kernels::pool::{Pool, default_threads};
use trilut_kernels::{batch_registry, gemm_registry, registry};
use trilut_presets::Isa;
use trilut_presets::ladder::Verdict;
use trilut_presets::machine::Cores;
use trilut_tuning::bandwidth;

/// Passes over the memory; the best one counts.
const PASSES: usize = 7;

/// Show this machine, its kernels and where its preset comes from.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Measure how fast memory can be read, with one thread and with all.
    #[arg(long)]
    bandwidth: bool,
    /// Show instead the memory of all running processes of this program: PSS counts what they share once.
    #[arg(long, conflicts_with_all = ["bandwidth", "json"])]
    processes: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn doctor(args: &Args) -> Result<(), Failure> {
    if args.processes {
        return super::memory::print();
    }
    let here = Here::find(None)?;
    let measured: Vec<_> = if args.bandwidth { measure(&here) } else { Vec::new() };
    if args.json {
        let rungs = here.rungs.iter().map(|rung| {
            json!({
                "place": rung.place.to_string(),
                "looked_at": rung.looked_at,
                "verdict": format!("{:?}", rung.verdict).to_lowercase(),
                "note": rung.note,
            })
        });
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "machine": here.machine,
            "isas": here.cpu.isas().map(Isa::name).collect::<Vec<_>>(),
            "kernels": registry().len(),
            "batch_kernels": batch_registry().len(),
            "gemm_kernels": gemm_registry().len(),
            "threads": default_threads(),
            "ladder": rungs.collect::<Vec<_>>(),
            "bandwidth_gbps": measured.iter().map(|b| json!({
                "threads": b.threads, "gbps": b.gigabytes_per_second(),
            })).collect::<Vec<_>>(),
        });
        outln!("{}", serde_json::to_string_pretty(&report).map_err(|e| Failure::of(&e))?);
        return Ok(());
    }
    outln!("trilut {}\n{}", env!("CARGO_PKG_VERSION"), cpu_line(&here));
    for cache in &here.machine.caches {
        outln!("  L{} {} KiB, shared by {}", cache.level, cache.bytes >> 10, cache.shared_by);
    }
    outln!("{}", threads_line(&Cores::detect()));
    outln!("\nkernels\n{}", indent(&kernels(&here).plain()));
    let mut ladder = Table::new(&["preset from", "", "looked at", "found"], 4);
    for rung in &here.rungs {
        let mark = if rung.verdict == Verdict::Won { "<--" } else { "" };
        let place = rung.place.to_string();
        ladder.row([&place, mark, &rung.looked_at, &rung.note]);
    }
    outln!("presets\n{}", indent(&ladder.plain()));
    let mut variables = Table::new(&["variable", "value", "meaning"], 3);
    for variable in VARIABLES {
        variables.row([variable.name, &variable.shown(), variable.meaning]);
    }
    outln!("environment\n{}", indent(&variables.plain()));
    for bandwidth in &measured {
        outln!("read bandwidth {bandwidth}");
    }
    Ok(())
}

fn measure(here: &Here) -> Vec<bandwidth::Bandwidth> {
    let bytes = bandwidth::sensible_bytes(&here.machine);
    let mut threads = vec![1, default_threads()];
    threads.dedup();
    threads.into_iter().map(|n| bandwidth::measure(&Pool::new(n), bytes, PASSES)).collect()
}

/// The CPU and the ISAs in one line.
pub(crate) fn cpu_line(here: &Here) -> String {
    let machine = &here.machine;
    let virtual_machine =
        machine.hypervisor.as_ref().map_or(String::new(), |name| format!(", virtual ({name})"));
    one_line(&format!(
        "{} ({}), {} cores, {} threads{virtual_machine}; kernels for {}",
        machine.brand.trim(),
        machine.microarchitecture,
        machine.physical_cores,
        machine.logical_cpus,
        here.cpu.best().isa(),
    ))
}

/// How many threads are used without -t, and why.
fn threads_line(cores: &Cores) -> String {
    let usable = cores.cores.len();
    let mut why = vec![count(usable, "usable core")];
    let fast = Cores { quota: None, ..cores.clone() }.threads().unwrap_or(usable);
    let slow = usable - fast;
    if slow > 0 {
        why.push(format!("{slow} of them slow"));
    }
    let nodes: BTreeSet<usize> = cores.cores.iter().map(|core| core.node).collect();
    if nodes.len() > 1 {
        why.push(format!("{} memory nodes", nodes.len()));
    }
    if let Some(quota) = cores.quota {
        why.push(format!("the container may use {quota:.1} CPUs"));
    }
    format!("  {} by default: {}", count(default_threads(), "thread"), why.join(", "))
}

/// Compiled kernels by ISA, and whether this CPU runs them.
fn kernels(here: &Here) -> Table {
    let mut table =
        Table::new(&["isa", "runs here", "gemv (decode)", "batch", "gemm (prefill)"], 2);
    for &isa in Isa::ALL {
        let gemv = registry().iter().filter(|kernel| kernel.name.isa == isa).count();
        let gemm = gemm_registry().iter().filter(|kernel| kernel.name.isa == isa).count();
        let batch = batch_registry().iter().filter(|kernel| kernel.name.isa == isa).count();
        let runs = match (here.cpu.supports(isa), gemv + batch + gemm) {
            (_, 0) => "no kernels in this build",
            (None, _) => "no",
            (Some(_), _) if isa == Isa::Emulated => "in tests only",
            (Some(_), _) => "yes",
        };
        table.row([
            isa.name().to_owned(),
            runs.to_owned(),
            gemv.to_string(),
            batch.to_string(),
            gemm.to_string(),
        ]);
    }
    table
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
