//! The names of microarchitectures: presets of one are good starting points for all of its CPUs.

use std::ops::RangeInclusive;

/// `(vendor, family, models, name)`; the first row that fits wins.
type Row = (&'static str, u32, RangeInclusive<u32>, &'static str);

const TABLE: &[Row] = &[
    ("amd", 0x17, 0x00..=0x2f, "zen"),
    ("amd", 0x17, 0x50..=0x5f, "zen"),
    ("amd", 0x17, 0x30..=0xaf, "zen2"),
    ("amd", 0x19, 0x00..=0x0f, "zen3"),
    ("amd", 0x19, 0x20..=0x5f, "zen3"),
    ("amd", 0x19, 0x10..=0x1f, "zen4"),
    ("amd", 0x19, 0x60..=0xaf, "zen4"),
    ("amd", 0x1a, 0x00..=0x4f, "zen5"),
    ("amd", 0x1a, 0x60..=0x7f, "zen5"),
    ("amd", 0x1a, 0x50..=0x5f, "zen6"),
    ("amd", 0x1a, 0x80..=0xcf, "zen6"),
    ("intel", 6, 0x3c..=0x3c, "haswell"),
    ("intel", 6, 0x3f..=0x3f, "haswell"),
    ("intel", 6, 0x45..=0x46, "haswell"),
    ("intel", 6, 0x3d..=0x3d, "broadwell"),
    ("intel", 6, 0x47..=0x47, "broadwell"),
    ("intel", 6, 0x4f..=0x4f, "broadwell"),
    ("intel", 6, 0x56..=0x56, "broadwell"),
    // Kaby, Coffee and Comet Lake have the same core.
    ("intel", 6, 0x4e..=0x4e, "skylake"),
    ("intel", 6, 0x5e..=0x5e, "skylake"),
    ("intel", 6, 0x8e..=0x8e, "skylake"),
    ("intel", 6, 0x9e..=0x9e, "skylake"),
    ("intel", 6, 0xa5..=0xa6, "skylake"),
    ("intel", 6, 0x55..=0x55, "skylake-server"),
    ("intel", 6, 0x7d..=0x7e, "icelake"),
    ("intel", 6, 0x6a..=0x6a, "icelake-server"),
    ("intel", 6, 0x6c..=0x6c, "icelake-server"),
    ("intel", 6, 0x8c..=0x8d, "tigerlake"),
    ("intel", 6, 0xa7..=0xa7, "rocketlake"),
    ("intel", 6, 0x97..=0x97, "alderlake"),
    ("intel", 6, 0x9a..=0x9a, "alderlake"),
    ("intel", 6, 0xbe..=0xbe, "gracemont"),
    ("intel", 6, 0xb7..=0xb7, "raptorlake"),
    ("intel", 6, 0xba..=0xba, "raptorlake"),
    ("intel", 6, 0xbf..=0xbf, "raptorlake"),
    ("intel", 6, 0xaa..=0xaa, "meteorlake"),
    ("intel", 6, 0xac..=0xac, "meteorlake"),
    ("intel", 6, 0xbd..=0xbd, "lunarlake"),
    ("intel", 6, 0xb5..=0xb5, "arrowlake"),
    ("intel", 6, 0xc5..=0xc6, "arrowlake"),
    ("intel", 6, 0xcc..=0xcc, "pantherlake"),
    // Emerald Rapids has the same core.
    ("intel", 6, 0x8f..=0x8f, "sapphirerapids"),
    ("intel", 6, 0xcf..=0xcf, "sapphirerapids"),
    ("intel", 6, 0xad..=0xae, "graniterapids"),
    ("intel", 6, 0xaf..=0xaf, "sierraforest"),
    ("arm", 0x41, 0xd03..=0xd03, "cortex-a53"),
    ("arm", 0x41, 0xd05..=0xd05, "cortex-a55"),
    ("arm", 0x41, 0xd08..=0xd08, "cortex-a72"),
    ("arm", 0x41, 0xd0b..=0xd0b, "cortex-a76"),
    ("arm", 0x41, 0xd0c..=0xd0c, "neoverse-n1"),
    ("arm", 0x41, 0xd40..=0xd40, "neoverse-v1"),
    ("arm", 0x41, 0xd49..=0xd49, "neoverse-n2"),
    ("arm", 0x41, 0xd4f..=0xd4f, "neoverse-v2"),
    ("arm", 0x41, 0xd84..=0xd84, "neoverse-v3"),
    ("arm", 0x41, 0xd8e..=0xd8e, "neoverse-n3"),
];

/// The name of a CPU's microarchitecture, if the table has it.
pub(super) fn name(vendor: &str, family: u32, model: u32, stepping: u32) -> Option<&'static str> {
    // One model number serves two generations; only the later one has VNNI.
    if (vendor, family, model) == ("intel", 6, 0x55) && stepping >= 5 {
        return Some("cascadelake");
    }
    TABLE
        .iter()
        .find(|(v, f, models, _)| *v == vendor && *f == family && models.contains(&model))
        .map(|row| row.3)
}

/// The short word for a maker that presets use.
pub(super) fn vendor_word(id: &str) -> String {
    match id {
        "AuthenticAMD" => "amd".to_owned(),
        "GenuineIntel" => "intel".to_owned(),
        "HygonGenuine" => "hygon".to_owned(),
        other => other.trim().to_lowercase(),
    }
}
