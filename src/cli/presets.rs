//! `trilut presets`: what presets there are and what they say.

use super::failure::Failure;
use super::output::out;
use super::planning::Here;
use super::table::Table;
use std::path::Path;
use trilut_presets::{Phase, Preset};

/// List presets, or show one.
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
}

pub(crate) fn presets(args: &Args) -> Result<(), Failure> {
    let here = Here::find(None)?;
    match &args.action {
        Action::List => {
            let mut table =
                Table::new(&["preset", "from", "machine", "date", "decode", "batch", "prefill"], 4);
            for usable in &here.found.usable {
                let from = usable.place.to_string();
                table.row(row(&usable.origin, &from, &usable.preset));
            }
            for (name, text) in trilut_shipped::SHIPPED {
                if here.found.usable.iter().all(|usable| usable.origin != format!("shipped {name}"))
                {
                    table.row(row(name, "shipped, other CPU", &Preset::parse(text, name)?));
                }
            }
            out!("{}", table.plain());
        }
        Action::Show { preset: Some(name) } => out!("{}", named(name)?.to_text()),
        Action::Show { preset: None } => match here.found.winner() {
            Some(usable) => {
                eprintln!("{} ({})", usable.origin, usable.place);
                out!("{}", usable.preset.to_text());
            }
            None => {
                return Err(Failure::new("no preset fits this machine").hint("trilut tune"));
            }
        },
    }
    Ok(())
}

fn named(name: &str) -> Result<Preset, Failure> {
    match trilut_shipped::SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
        Some((name, text)) => Ok(Preset::parse(text, name)?),
        None => Ok(Preset::load(Path::new(name))?),
    }
}

fn row(origin: &str, from: &str, preset: &Preset) -> [String; 7] {
    let records = preset.records();
    let count = |phase| records.iter().filter(|record| record.phase == phase).count().to_string();
    [
        origin.to_owned(),
        from.to_owned(),
        preset.machine.key(),
        preset.provenance.date.clone(),
        count(Phase::Decode),
        count(Phase::SmallBatch),
        count(Phase::Prefill),
    ]
}
