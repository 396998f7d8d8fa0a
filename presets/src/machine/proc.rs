//! What `/proc` tells about the CPU and the memory.

use super::microarchitecture::vendor_word;
use std::path::Path;

/// The first processor of `/proc/cpuinfo`; what is missing stays empty or 0.
#[derive(Debug, Default)]
pub(super) struct CpuInfo {
    pub(super) vendor: String,
    pub(super) brand: String,
    pub(super) family: u32,
    pub(super) model: u32,
    pub(super) stepping: u32,
    pub(super) features: Vec<String>,
    pub(super) hypervisor: Option<String>,
    pub(super) microcode: Option<String>,
    /// The number of processors listed.
    pub(super) processors: Option<usize>,
}

/// `(the kernel's flag, the compiler's name)` of the extensions that are recorded.
const FLAGS: &[(&str, &str)] = &[
    ("amx_int8", "amx-int8"),
    ("asimd", "neon"),
    ("asimddp", "dotprod"),
    ("avx", "avx"),
    ("avx2", "avx2"),
    ("avx512_bf16", "avx512bf16"),
    ("avx512_vbmi2", "avx512vbmi2"),
    ("avx512_vnni", "avx512vnni"),
    ("avx512bw", "avx512bw"),
    ("avx512dq", "avx512dq"),
    ("avx512f", "avx512f"),
    ("avx512vbmi", "avx512vbmi"),
    ("avx512vl", "avx512vl"),
    ("avx_vnni", "avxvnni"),
    ("bmi2", "bmi2"),
    ("f16c", "f16c"),
    ("fma", "fma"),
    ("gfni", "gfni"),
    ("i8mm", "i8mm"),
    ("sve", "sve"),
    ("sve2", "sve2"),
];

impl CpuInfo {
    pub(super) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut info = Self::default();
        let processors = text.lines().filter(|l| field(l).0 == "processor").count();
        info.processors = (processors > 0).then_some(processors);
        let (mut variant, mut revision) = (0, 0);
        // The first processor stands for all: the block up to the first empty line.
        for line in text.lines().take_while(|l| !l.trim().is_empty()) {
            let (key, value) = field(line);
            match key {
                "vendor_id" => info.vendor = vendor_word(value),
                "model name" => info.brand = value.to_owned(),
                "cpu family" => info.family = number(value),
                "model" => info.model = number(value),
                "stepping" => info.stepping = number(value),
                "microcode" => info.microcode = Some(value.to_owned()),
                "CPU implementer" => {
                    info.family = number(value);
                    info.vendor = if info.family == 0x41 { "arm".into() } else { value.into() };
                }
                "CPU part" => info.model = number(value),
                "CPU variant" => variant = number(value),
                "CPU revision" => revision = number(value),
                "flags" | "Features" => {
                    let has = |flag: &str| value.split_ascii_whitespace().any(|f| f == flag);
                    info.features =
                        FLAGS.iter().filter(|f| has(f.0)).map(|f| f.1.to_owned()).collect();
                    info.features.sort_unstable();
                    info.hypervisor = has("hypervisor").then(|| "virtual machine".to_owned());
                }
                _ => {}
            }
        }
        if info.stepping == 0 {
            info.stepping = variant * 16 + revision;
        }
        info
    }
}

/// Total memory in bytes, or 0.
pub(super) fn memory_bytes(path: &Path) -> u64 {
    meminfo(path, "MemTotal").unwrap_or(0)
}

/// One line of `/proc/meminfo` or its like, such as `MemAvailable`, in bytes.
pub fn meminfo(path: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let (_, value) = text.lines().map(field).find(|(key, _)| *key == name)?;
    Some(value.strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024))
}

fn field(line: &str) -> (&str, &str) {
    let (key, value) = line.split_once(':').unwrap_or((line, ""));
    (key.trim(), value.trim())
}

/// A decimal or `0x` number, or 0.
fn number(text: &str) -> u32 {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).unwrap_or(0),
        None => text.parse().unwrap_or(0),
    }
}
