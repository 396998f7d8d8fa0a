//! Presets by what a person calls them: a file, or a name as `trilut presets list` and `trilut doctor` print it.

use super::super::failure::Failure;
use super::super::planning::Here;
use std::io::ErrorKind;
use std::path::Path;
use trilut_presets::ladder::Place;
use trilut_presets::preset::PresetError;
use trilut_presets::{Preset, nearest};
use trilut_shipped::SHIPPED;

/// What `doctor` puts before the name of a preset that ships.
pub(super) const SHIPS: &str = "shipped ";

/// A preset by the name that it ships under, by its file, or by either one's last part without `.toml`, if
/// that is said of one alone.
pub(super) fn named(here: &Here, name: &str) -> Result<Preset, Failure> {
    if let Some((name, text)) = shipped(name) {
        return Ok(Preset::parse(text, name)?);
    }
    match Preset::load(Path::new(name)) {
        Err(PresetError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        read => return Ok(read?),
    }
    let bare = name.strip_prefix(SHIPS).unwrap_or(name);
    let bare = bare.strip_suffix(".toml").unwrap_or(bare);
    if let Some((name, text)) = shipped(bare) {
        return Ok(Preset::parse(text, name)?);
    }
    let last = |path: &str| path.rsplit('/').next() == Some(bare);
    let mut meant: Vec<(String, Preset)> = Vec::new();
    for (name, text) in SHIPPED.iter().filter(|(name, _)| last(name)) {
        meant.push(((*name).to_owned(), Preset::parse(text, name)?));
    }
    for usable in here.found.usable.iter().filter(|usable| usable.found_in != Place::Cpu) {
        if Path::new(&usable.origin).file_stem().is_some_and(|stem| stem == bare) {
            meant.push((usable.origin.clone(), usable.preset.clone()));
        }
    }
    let file = format!("{name}.toml");
    if Path::new(&file).is_file() && meant.iter().all(|(origin, _)| *origin != file) {
        meant.push((file.clone(), Preset::load(Path::new(&file))?));
    }
    if meant.len() == 1 {
        return Ok(meant.remove(0).1);
    }
    if meant.is_empty() {
        let near = nearest(bare, SHIPPED.iter().map(|(name, _)| *name));
        let near = near.map_or(String::new(), |near| format!(" (such as {near})"));
        return Err(Failure::new(format!("no preset and no file is called {name}"))
            .hint(format!("trilut presets list shows the names{near}")));
    }
    let names: Vec<String> = meant.into_iter().map(|(origin, _)| origin).collect();
    Err(Failure::new(format!("{name} may be any of {}", names.join(", ")))
        .hint("give the whole name"))
}

fn shipped(name: &str) -> Option<(&'static str, &'static str)> {
    SHIPPED.iter().find(|(shipped, _)| *shipped == name).copied()
}
