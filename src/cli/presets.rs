//! `trilut presets`: what presets there are, what they say, and whether it is true.

mod export;
mod names;
mod table;
mod verify;

use super::environment;
use super::failure::{Failure, one_line};
use super::layouts::Layouts;
use super::model::Source;
use super::output::{self, out, outln, say};
use super::planning::Here;
use super::table::Table;
use names::{Named, named};
use std::path::{Path, PathBuf};
use trilut_presets::Preset;
use trilut_presets::machine::Likeness;
use trilut_presets::preset::Change;
use trilut_runtime::gguf::TernaryLayouts;

/// List, show, compare, check and pass on presets.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Every preset that can be used on this machine, strongest first, and those that ship.
    List,
    /// A preset's text: by file, by the name of one that ships, or the one in use.
    Show {
        /// A file or the name of a shipped preset; the one in use without it.
        preset: Option<String>,
    },
    /// What differs from one preset to another.
    Diff {
        /// A file or the name of a shipped preset.
        a: String,
        /// The other one.
        b: String,
        /// Leave out records that pick the same and differ in their times alone.
        #[arg(long)]
        picks: bool,
        /// Exit with code 3 unless so many percent of the records that both have pick the same, or tie within
        /// what they state of themselves; but for those that were made at different speeds of memory.
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
        agree: Option<u8>,
    },
    /// Check a preset's kernels for exactness again, and take some of its times again. Exit code 3 when a
    /// claim does not hold.
    Verify {
        /// A file or the name of a shipped preset.
        preset: String,
        /// Records that are timed at most, evenly taken from those that claim a gain; 0 for none.
        #[arg(long, value_name = "N", default_value_t = 8)]
        sample: usize,
        /// A model file: also whether the model as a whole is slower with the preset than by default.
        #[arg(short, long, value_name = "MODEL")]
        model: Option<PathBuf>,
        /// Number of threads of the model; every fast core without it.
        #[arg(short, long, requires = "model",
              value_parser = environment::number_of_threads)]
        threads: Option<usize>,
        /// How often the model is compared, each time loaded anew.
        #[arg(long, value_name = "N", default_value_t = 1, requires = "model",
              value_parser = clap::value_parser!(u32).range(1..100))]
        rounds: u32,
        #[command(flatten)]
        layouts: Layouts,
    },
    /// Write the presets tuned here to a directory, one file for each CPU and instruction set, as they
    /// are contributed: ARCH/MICROARCHITECTURE-ISA.toml, with the CPU behind it where there are several.
    Export {
        /// The directory; made if missing.
        directory: PathBuf,
        /// Replace files that are there already.
        #[arg(long)]
        force: bool,
    },
    /// One preset of two for the same CPU: where they disagree, the greater effort counts, then the later.
    Merge {
        /// A file or the name of a shipped preset.
        a: String,
        /// The other one.
        b: String,
        /// File to write in place of the standard output. A preset that is there and not merged gets another
        /// name; what is no preset is not replaced.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// The file in which tuning here is remembered.
    Path,
}

pub(crate) fn presets(args: &Args) -> Result<(), Failure> {
    let here = Here::find(None)?;
    match &args.action {
        Action::List => out!("{}", table::list(&here)?.plain()),
        Action::Show { preset: Some(name) } => {
            out!("{}", named(&here, name)?.preset.to_text());
        }
        Action::Show { preset: None } => match here.winner() {
            Some(usable) => {
                say!("{} ({})", usable.origin, usable.place);
                out!("{}", usable.preset.to_text());
            }
            None => {
                return Err(Failure::new("no preset fits this machine").hint("trilut tune"));
            }
        },
        Action::Diff { a, b, picks, agree } => {
            let (a, b) = (named(&here, a)?.preset, named(&here, b)?.preset);
            diff(&a, &b, *picks)?;
            if let Some(percent) = agree {
                agreement(&a, &b, *percent)?;
            }
        }
        Action::Verify { preset, sample, model, threads, rounds, layouts } => {
            let preset = named(&here, preset)?.preset;
            // Before what takes its time.
            let gguf = model.as_ref().map(|model| Source::new(Some(model.clone())).open());
            let gguf = gguf.transpose()?;
            let arranged = match &gguf {
                Some(gguf) => layouts.read(gguf)?,
                None => {
                    layouts.refuse("no model is compared")?;
                    TernaryLayouts::default()
                }
            };
            verify::verify(&here, &preset, *sample)?;
            if let Some(gguf) = gguf {
                let threads = environment::threads(*threads)?;
                verify::model(&here, &preset, &gguf, &arranged, threads, *rounds)?;
            }
        }
        Action::Export { directory, force } => {
            let cache = cache_file(&here)?;
            export::export(cache.parent().unwrap_or(Path::new(".")), directory, *force)?;
        }
        Action::Merge { a, b, output } => {
            merge(named(&here, a)?, named(&here, b)?, output.as_deref())?;
        }
        Action::Path => {
            let path = cache_file(&here)?;
            let is_there = if path.exists() { "" } else { ", which does not exist yet" };
            say!("`trilut tune` writes this file{is_there}");
            outln!("{}", path.display());
        }
    }
    Ok(())
}

fn cache_file(here: &Here) -> Result<PathBuf, Failure> {
    here.cache_file().ok_or_else(|| Failure::new("this user has no cache directory"))
}

fn diff(a: &Preset, b: &Preset, picks: bool) -> Result<(), Failure> {
    let mut differences = a.differences(b);
    differences.retain(|d| !(picks && matches!(d.change, Change::Time(_))));
    if differences.is_empty() {
        say!("the presets say the same");
        return Ok(());
    }
    let headings = ["phase", "shape", "threads", "", "kernel", "time"];
    let mut table = Table::new(&headings, 6);
    for difference in &differences {
        let layer = [
            difference.phase.to_string(),
            difference.shape.to_string(),
            difference.threads.to_string(),
        ];
        table.row(layer.into_iter().chain(table::change(&difference.change)));
    }
    out!("{}", table.plain());
    Ok(())
}

/// How far two runs agree, and whether that is enough.
fn agreement(a: &Preset, b: &Preset, percent: u8) -> Result<(), Failure> {
    let agreement = a.agreement(b);
    let Some(share) = agreement.share() else {
        let why = match agreement.paces {
            0 => "the presets have no record in common",
            _ => {
                "the presets were made at different speeds of memory: their picks cannot be compared"
            }
        };
        return Err(Failure::check(why));
    };
    let (same, ties, apart) = (agreement.same, agreement.ties, agreement.apart.len());
    let widest = match ties {
        0 => String::new(),
        _ => format!(" (the widest: {:.1} % of the default's time)", 100.0 * agreement.widest_tie),
    };
    outln!(
        "{same} records pick the same, {ties} tie within their intervals{widest}, {apart} disagree: {:.0} % agree",
        100.0 * share
    );
    if agreement.paces > 0 {
        outln!(
            "not compared, since memory was read at another speed: {}",
            output::count(agreement.paces, "record")
        );
    }
    if agreement.unmatched > 0 {
        outln!("in one of the presets alone: {}", output::count(agreement.unmatched, "record"));
    }
    for (shape, phase, threads) in &agreement.apart {
        outln!("{phase} {shape}, {}: apart", output::count(*threads, "thread"));
    }
    if share * 100.0 < f64::from(percent) {
        return Err(Failure::check(format!("less than {percent} % of the records agree"))
            .hint("trilut tune --force --effort patient, on a quieter machine"));
    }
    Ok(())
}

/// Merges two presets to the standard output or to a file.
fn merge(a: Named, b: Named, output: Option<&Path>) -> Result<(), Failure> {
    let sources = [a.file, b.file];
    let (a, b) = (a.preset, b.preset);
    if b.likeness(&a.machine, a.provenance.isa) != Likeness::SameCpu {
        return Err(Failure::new("the presets are for different CPUs or instruction sets")
            .because(format!("{}, {}", a.machine, a.provenance.isa))
            .because(format!("{}, {}", b.machine, b.provenance.isa))
            .hint("keep both files: `trilut doctor` shows which one is used"));
    }
    let combined = a.combine(b);
    for (difference, is_first) in &combined.disagreements {
        let [_, kernel, _] = table::change(&difference.change);
        let believed = if *is_first { "first" } else { "second" };
        say!(
            "note: {} {}, threads {}: {}: the {believed} is believed",
            difference.phase,
            difference.shape,
            difference.threads,
            one_line(&kernel),
        );
    }
    match output {
        None => out!("{}", combined.preset.to_text()),
        Some(path) => {
            output::check_file(path)?;
            if let Some(aside) = replace(&combined.preset, path, &sources)? {
                say!("note: the earlier {} was moved to {}", path.display(), aside.display());
            }
            say!("saved to {}", path.display());
        }
    }
    Ok(())
}

/// Writes what was merged, so that nothing is lost: only what is a part of it is replaced. Another preset is
/// set aside, and what is none was hardly meant.
fn replace(
    preset: &Preset,
    path: &Path,
    sources: &[Option<PathBuf>; 2],
) -> Result<Option<PathBuf>, Failure> {
    let is_source = || {
        let same = |file: &Path| file.canonicalize().ok();
        let mut sources = sources.iter().flatten();
        sources.any(|source| same(source).is_some_and(|file| same(path) == Some(file)))
    };
    if !path.exists() {
        return save(preset, path).map(|()| None);
    }
    if is_source() {
        // A tuner may have added to it since it was read.
        let saved = preset.clone().save_combined(path);
        return saved.map(|()| None).map_err(|error| Failure::of(&error).hint(output::ELSEWHERE));
    }
    Preset::load(path).map_err(|error| {
        Failure::of(&error)
            .context(format!(
                "{} is there already, and is no preset of this version",
                path.display()
            ))
            .hint("name another file")
    })?;
    if std::fs::read_to_string(path).is_ok_and(|text| text == preset.to_text()) {
        return Ok(None);
    }
    preset.save_beside(path).map_err(|error| Failure::of(&error).hint(output::ELSEWHERE))
}

/// Writes a preset to a file that a user has named.
fn save(preset: &Preset, path: &Path) -> Result<(), Failure> {
    preset.save(path).map_err(|error| Failure::of(&error).hint(output::ELSEWHERE))
}
