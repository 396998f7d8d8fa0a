//! The tuned presets that ship with trilut, as text.
//!
//! A crate of its own, so that a new preset never rebuilds the kernels; the program hands
//! [`SHIPPED`] to `trilut_presets::ladder`.

/// `(name, TOML text)` of every shipped preset, sorted by name.
pub const SHIPPED: &[(&str, &str)] = &[
    ("x86_64/sapphirerapids", include_str!("../../x86_64/sapphirerapids.toml")),
    ("x86_64/zen3", include_str!("../../x86_64/zen3.toml")),
    ("x86_64/zen4", include_str!("../../x86_64/zen4.toml")),
    ("x86_64/zen4-avx2", include_str!("../../x86_64/zen4-avx2.toml")),
    ("x86_64/zen5", include_str!("../../x86_64/zen5.toml")),
];

#[cfg(test)]
mod tests {
    use super::SHIPPED;
    use std::path::Path;
    use trilut_presets::Preset;
    use trilut_presets::preset::Effort;

    #[test]
    fn every_preset_is_valid_and_written_as_the_tuner_writes_it() {
        for (name, text) in SHIPPED {
            let preset = Preset::parse(text, name).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(preset.to_text(), *text, "{name}");
            let arch = name.split('/').next();
            assert_eq!(arch, Some(&preset.machine.arch[..]), "{name}");
        }
        assert!(SHIPPED.is_sorted_by_key(|(name, _)| name));
    }

    /// The noise is that which a newest run typically saw; the effort of the head is that of the newest run alone.
    #[test]
    fn every_record_was_measured_and_the_newest_run_was_quiet() {
        for (name, text) in SHIPPED {
            let preset = Preset::parse(text, name).unwrap_or_else(|e| panic!("{e}"));
            for record in preset.records() {
                let (layer, phase, threads) = (record.shape, record.phase, record.threads);
                assert!(record.effort >= Effort::Measure, "{name}: {layer} {phase} {threads}");
            }
            assert!(preset.provenance.noise.is_some_and(|noise| noise <= 0.05), "{name}");
        }
    }

    #[test]
    fn every_file_is_listed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for arch in ["x86_64", "aarch64"] {
            for file in std::fs::read_dir(root.join(arch)).into_iter().flatten() {
                let path = file.expect("the directory can be read").path();
                let Some(stem) = path.file_stem().and_then(|s| s.to_str()) else { continue };
                if path.extension().is_some_and(|e| e == "toml") {
                    let name = format!("{arch}/{stem}");
                    assert!(SHIPPED.iter().any(|(n, _)| *n == name), "{name} is not listed");
                }
            }
        }
    }
}
