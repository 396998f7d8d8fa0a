//! `trilut presets export`: what was tuned here, under the names by which presets are shipped.

use super::super::failure::{Failure, one_line};
use super::super::output::{self, outln, say};
use std::path::{Path, PathBuf};
use trilut_presets::Preset;
use trilut_presets::machine::Likeness;

/// What becomes one file: all that the cache holds of one CPU and instruction set.
struct Export {
    preset: Preset,
    sources: Vec<PathBuf>,
}

impl Export {
    /// The file in the directory that presets are contributed in.
    fn name(&self) -> PathBuf {
        let Preset { machine, provenance, .. } = &self.preset;
        let file = format!("{}-{}.toml", word(&machine.microarchitecture), provenance.isa);
        Path::new(&word(&machine.arch)).join(file)
    }

    /// A name that no other CPU of the microarchitecture has.
    fn whole_name(&self) -> PathBuf {
        let cpu = self.preset.machine.key();
        let cpu = cpu.strip_prefix(&format!("{}-", self.preset.machine.arch)).unwrap_or(&cpu);
        let stem = self.name().with_extension("");
        stem.with_file_name(format!(
            "{}-{cpu}.toml",
            stem.file_name().unwrap_or_default().display()
        ))
    }

    fn is_same_cpu(&self, other: &Preset) -> bool {
        other.likeness(&self.preset.machine, self.preset.provenance.isa) == Likeness::SameCpu
    }

    fn said(&self) -> String {
        let names = self.sources.iter().map(|source| source.display().to_string());
        names.collect::<Vec<_>>().join(" and ")
    }
}

/// A word of a preset as a part of a file's name, wherever the preset comes from.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.chars().map(|c| if plain(c) { c } else { '-' }).collect()
}

pub(super) fn export(cache: &Path, directory: &Path, force: bool) -> Result<(), Failure> {
    let exports = collect(cache);
    if exports.is_empty() {
        return Err(Failure::new(format!("nothing was tuned here: {}", cache.display()))
            .hint("trilut tune -m MODEL"));
    }
    let names: Vec<PathBuf> = exports.iter().map(Export::name).collect();
    let mut files = Vec::new();
    for (export, name) in exports.iter().zip(&names) {
        let is_shared = names.iter().filter(|other| *other == name).count() > 1;
        let own = if is_shared { export.whole_name() } else { name.clone() };
        if is_shared {
            say!(
                "note: {} is not the only one for {}: it is named by its CPU",
                export.said(),
                name.display()
            );
        }
        files.push(directory.join(own));
    }
    // Before anything is written.
    for (export, file) in exports.iter().zip(&files) {
        let is_same = || {
            let text = Some(file).filter(|file| file.is_file()).map(std::fs::read_to_string);
            text.is_some_and(|text| text.is_ok_and(|text| text == export.preset.to_text()))
        };
        if file.exists() && !force && !is_same() {
            return Err(Failure::new(format!("{} is there already", file.display()))
                .hint("name another directory, or replace it with --force"));
        }
    }
    for file in &files {
        output::check_file(file)?;
    }
    for (export, file) in exports.iter().zip(&files) {
        super::save(&export.preset, file)?;
        outln!("{}", file.display());
    }
    Ok(())
}

/// The presets of the cache, those for one CPU and instruction set as one.
fn collect(cache: &Path) -> Vec<Export> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(cache)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.retain(|file| file.extension().is_some_and(|e| e == "toml"));
    files.sort_unstable();
    let mut exports: Vec<Export> = Vec::new();
    for file in files {
        let preset = match Preset::load(&file) {
            Ok(preset) => preset,
            Err(error) => {
                say!("note: left out: {}", one_line(&Failure::from(error).summary()));
                continue;
            }
        };
        match exports.iter().position(|export| export.is_same_cpu(&preset)) {
            Some(at) => {
                let Export { preset: known, mut sources } = exports.remove(at);
                sources.push(file);
                let preset = known.combine(preset).preset;
                let export = Export { preset, sources };
                say!("note: {} are for the same CPU: one file is made of them", export.said());
                exports.insert(at, export);
            }
            None => exports.push(Export { preset, sources: vec![file] }),
        }
    }
    exports
}
