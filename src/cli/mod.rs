//! How a person asks for it: one file per subcommand, and what they share.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 ok, 1 failed, 2 usage, 3 a check failed,
//! 130 interrupted, 143 terminated.

#[cfg_attr(not(all(feature = "asm", target_arch = "x86_64")), path = "no_assembly.rs")]
mod assembly;
mod bench;
mod chat;
mod check;
mod codegen;
mod completions;
mod conversation;
mod convert;
mod doctor;
mod dummy;
mod embed;
mod environment;
mod eval;
mod failure;
mod inspect;
mod interrupt;
mod layouts;
mod manual;
mod memory;
mod model;
mod output;
mod perplexity;
mod planning;
mod presets;
mod progress;
mod run;
mod sampling;
mod serve;
mod start;
mod table;
mod tune;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

/// Run, tune and generate kernels for ternary (BitNet b1.58) language models on this CPU.
///
/// Without a subcommand: detects the CPU, tunes the embedded model's layers, shows which kernel won
/// for each, and tells a story.
#[derive(Debug, Parser)]
#[command(version, subcommand_required = false)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    // In boxes because they have many options.
    Run(Box<run::Args>),
    Chat(Box<chat::Args>),
    Serve(Box<serve::Args>),
    Tune(tune::Args),
    Bench(Box<bench::Args>),
    Codegen(codegen::Args),
    Presets(presets::Args),
    Inspect(inspect::Args),
    Check(check::Args),
    Doctor(doctor::Args),
    Dummy(dummy::Args),
    Convert(convert::Args),
    Quantize(convert::QuantizeArgs),
    Embed(embed::Args),
    Perplexity(perplexity::Args),
    Eval(eval::Args),
    Completions(completions::Args),
    Man(manual::Args),
}

/// The command line. Numbers below 0 are values wherever there is one, not options that nobody knows: what
/// they stand for, or why they stand for nothing, each option says itself.
fn parse() -> Cli {
    fn with_negative_numbers(command: clap::Command) -> clap::Command {
        let takes_values = |arg: &clap::Arg| arg.get_action().takes_values();
        let of = |arg: clap::Arg| match takes_values(&arg) {
            true => arg.allow_negative_numbers(true),
            false => arg,
        };
        command.mut_args(of).mut_subcommands(with_negative_numbers)
    }
    let arguments = std::env::args_os().map(run::known_spelling);
    let matches = with_negative_numbers(Cli::command()).get_matches_from(arguments);
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Parses the command line, does what it asks, and turns the outcome into an exit code.
pub(crate) fn main() -> ExitCode {
    let cli = parse();
    if let Some(Command::Serve(_)) = cli.command {
        serve::share_heap();
    }
    interrupt::install();
    let outcome = environment::check().and_then(|()| match cli.command {
        None => start::start(),
        Some(Command::Run(args)) => run::run(*args),
        Some(Command::Chat(args)) => chat::run(*args),
        Some(Command::Serve(args)) => serve::serve(*args),
        Some(Command::Tune(args)) => tune::tune(args),
        Some(Command::Bench(args)) => bench::bench(*args),
        Some(Command::Codegen(args)) => codegen::codegen(&args),
        Some(Command::Presets(args)) => presets::presets(&args),
        Some(Command::Inspect(args)) => inspect::inspect(&args),
        Some(Command::Check(args)) => check::check(&args),
        Some(Command::Doctor(args)) => doctor::doctor(&args),
        Some(Command::Dummy(args)) => dummy::dummy(&args),
        Some(Command::Convert(args)) => convert::convert(&args),
        Some(Command::Quantize(args)) => convert::quantize(&args),
        Some(Command::Embed(args)) => embed::run(args),
        Some(Command::Perplexity(args)) => perplexity::run(args),
        Some(Command::Eval(args)) => eval::run(args),
        Some(Command::Completions(args)) => completions::completions(&args, Cli::command()),
        Some(Command::Man(args)) => manual::man(&args, Cli::command()),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
