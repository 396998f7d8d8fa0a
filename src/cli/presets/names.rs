//! Presets by what a person calls them: a file, or a name as `trilut presets list` and `trilut doctor` print it.

use super::super::failure::Failure;
use super::super::planning::Here;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use trilut_presets::ladder::Place;
use trilut_presets::preset::PresetError;
use trilut_presets::{Preset, nearest};
use trilut_shipped::SHIPPED;

/// What `doctor` puts before the name of a preset that ships.
pub(super) const SHIPS: &str = "shipped ";

/// A preset that was meant by a name.
pub(super) struct Named {
    pub(super) preset: Preset,
    /// The file that it comes from; none if it ships, even where a file has the same name.
    pub(super) file: Option<PathBuf>,
}

impl Named {
    fn shipped(name: &str, text: &str) -> Result<Self, PresetError> {
        Ok(Self { preset: Preset::parse(text, name)?, file: None })
    }
}

/// A preset by the name that it ships under, by its file, or by either one's last part without `.toml`, if
/// that is said of one alone.
pub(super) fn named(here: &Here, name: &str) -> Result<Named, Failure> {
    if let Some((name, text)) = shipped(name) {
        return Ok(Named::shipped(name, text)?);
    }
    match Preset::load(Path::new(name)) {
        Err(PresetError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        read => return Ok(Named { preset: read?, file: Some(PathBuf::from(name)) }),
    }
    let bare = name.strip_prefix(SHIPS).unwrap_or(name);
    let bare = bare.strip_suffix(".toml").unwrap_or(bare);
    if let Some((name, text)) = shipped(bare) {
        return Ok(Named::shipped(name, text)?);
    }
    let last = |path: &str| path.rsplit('/').next() == Some(bare);
    let mut meant: Vec<(String, Named)> = Vec::new();
    for (name, text) in SHIPPED.iter().filter(|(name, _)| last(name)) {
        meant.push(((*name).to_owned(), Named::shipped(name, text)?));
    }
    for usable in here.found.usable.iter().filter(|usable| usable.found_in != Place::Cpu) {
        if Path::new(&usable.origin).file_stem().is_some_and(|stem| stem == bare) {
            let (preset, file) = (usable.preset.clone(), Some(PathBuf::from(&usable.origin)));
            meant.push((usable.origin.clone(), Named { preset, file }));
        }
    }
    let file = format!("{name}.toml");
    if Path::new(&file).is_file() && meant.iter().all(|(origin, _)| *origin != file) {
        let path = PathBuf::from(&file);
        meant.push((file, Named { preset: Preset::load(&path)?, file: Some(path) }));
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
