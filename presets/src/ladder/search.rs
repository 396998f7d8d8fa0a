//! Looking for presets in one place after another.

use super::Place;
use super::found::{Found, Looked, Unreadable, Usable};
use crate::machine::Likeness;
use crate::preset::PresetError;
use crate::{Isa, Machine, Preset};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A search under way, for one machine.
pub(super) struct Search<'a> {
    machine: &'a Machine,
    isa: Isa,
    found: Found,
}

impl<'a> Search<'a> {
    pub(super) fn new(machine: &'a Machine, isa: Isa) -> Self {
        let found = Found { usable: Vec::new(), unreadable: Vec::new(), looked: Vec::new() };
        Self { machine, isa, found }
    }

    pub(super) fn explicit(&mut self, path: Option<&Path>) -> Result<(), PresetError> {
        let place = Place::Explicit;
        let at = path.map(|p| p.display().to_string()).unwrap_or_default();
        if let Some(path) = path {
            let preset = Preset::load(path)?;
            let likeness = preset.likeness(self.machine, self.isa);
            // Asked for by name, so it is used whatever it was tuned on.
            let origin = at.clone();
            self.found.usable.push(Usable { place, found_in: place, origin, likeness, preset });
        }
        self.found.looked.push(Looked { place, at, notes: Vec::new(), absent: "not given" });
        Ok(())
    }

    pub(super) fn files(&mut self, place: Place, paths: &[PathBuf], absent: &'static str) {
        let mut notes = Vec::new();
        for path in paths.iter().filter(|p| !p.as_os_str().is_empty()) {
            match preset_files(path) {
                Ok(files) if files.is_empty() => {
                    notes.push(format!("{}: no .toml files", path.display()));
                }
                Ok(files) => {
                    for file in files {
                        let origin = file.display().to_string();
                        notes.extend(self.offer(place, origin, Preset::load(&file)));
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
                {
                    let what = format!("{}: does not exist", path.display());
                    notes.push(what.clone());
                    // The other places need not be there; this one was named.
                    if place == Place::Environment {
                        self.found.unreadable.push(Unreadable { place, what, hint: None });
                    }
                }
                Err(error) => {
                    notes.push(format!("{}: skipped, {error}", path.display()));
                    let what = format!("{}: {error}", path.display());
                    self.found.unreadable.push(Unreadable { place, what, hint: None });
                }
            }
        }
        let at: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
        self.found.looked.push(Looked { place, at: at.join(", "), notes, absent });
    }

    pub(super) fn shipped(&mut self, shipped: &[(&str, &str)]) {
        let place = Place::Cpu;
        let mut notes = Vec::new();
        for (name, text) in shipped {
            let preset = Preset::parse(text, name);
            notes.extend(self.offer(place, format!("shipped {name}"), preset));
        }
        let absent = "no presets are shipped with this build";
        self.found.looked.push(Looked { place, at: String::new(), notes, absent });
    }

    /// Takes a preset in on the rung that it fits; says why if there is none.
    fn offer(
        &mut self,
        found_in: Place,
        origin: String,
        preset: Result<Preset, PresetError>,
    ) -> Option<String> {
        let preset = match preset {
            Ok(preset) => preset,
            Err(error) => {
                let what = error.with_cause();
                let note = format!("{origin}: skipped, {what}");
                let hint = error.hint();
                self.found.unreadable.push(Unreadable { place: found_in, what, hint });
                return Some(note);
            }
        };
        let likeness = preset.likeness(self.machine, self.isa);
        let place = match likeness {
            Likeness::SameCpu => found_in,
            Likeness::SameMicroarchitecture => Place::Microarchitecture,
            Likeness::SameIsa => Place::Isa,
            Likeness::Foreign => {
                let isa = preset.provenance.isa;
                return Some(format!("{origin}: skipped, tuned for {isa} on {}", preset.machine));
            }
        };
        self.found.usable.push(Usable { place, found_in, origin, likeness, preset });
        None
    }

    pub(super) fn finish(self) -> Found {
        self.found.sorted(self.machine)
    }
}

/// A file itself, or the `.toml` files of a directory in the order of their names.
fn preset_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        // Hidden files are side files that are being written.
        let hidden = file.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if !hidden && file.extension().is_some_and(|e| e == "toml") {
            files.push(file);
        }
    }
    files.sort_unstable();
    Ok(files)
}
