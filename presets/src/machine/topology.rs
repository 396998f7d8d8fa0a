//! Cores and caches as `/sys/devices/system/cpu` lists them.

use super::Cache;
use std::collections::BTreeSet;
use std::path::Path;

/// What the tree tells; `None` and empty where it tells nothing.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Topology {
    pub(super) logical_cpus: Option<usize>,
    pub(super) physical_cores: Option<usize>,
    pub(super) caches: Vec<Cache>,
}

impl Topology {
    pub(super) fn read(root: &Path) -> Self {
        let online = line(&root.join("online")).and_then(|text| cpu_list(&text));
        let cpus = online.unwrap_or_else(|| listed(root));
        let cores: BTreeSet<String> = cpus
            .iter()
            .filter_map(|cpu| {
                let topology = root.join(format!("cpu{cpu}/topology"));
                line(&topology.join("core_cpus_list"))
                    .or_else(|| line(&topology.join("thread_siblings_list")))
            })
            .collect();
        let caches = cpus.first().map(|cpu| caches(&root.join(format!("cpu{cpu}/cache"))));
        Self {
            logical_cpus: (!cpus.is_empty()).then_some(cpus.len()),
            physical_cores: (!cores.is_empty()).then_some(cores.len()),
            caches: caches.unwrap_or_default(),
        }
    }
}

/// The CPUs that have a directory, for trees without an `online` file.
pub(super) fn listed(root: &Path) -> BTreeSet<usize> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.strip_prefix("cpu")?.parse().ok()).collect()
}

fn caches(root: &Path) -> Vec<Cache> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut caches: Vec<Cache> = entries
        .filter_map(|entry| {
            let read = |name: &str| line(&entry.path().join(name));
            if read("type")? == "Instruction" {
                return None;
            }
            let shared_by = read("shared_cpu_list").and_then(|text| cpu_list(&text));
            Some(Cache {
                level: read("level")?.parse().ok()?,
                bytes: size(&read("size")?)?,
                shared_by: shared_by.map_or(1, |cpus| cpus.len().max(1)),
            })
        })
        .collect();
    caches.sort_unstable_by_key(|c| c.level);
    caches
}

/// `32768K`, `32M` or plain bytes.
fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `0-3,8,10-11`; `None` when the text is not such a list.
pub(super) fn cpu_list(text: &str) -> Option<BTreeSet<usize>> {
    /// More CPUs than any machine has: a longer range is nonsense and would only eat memory.
    const MOST: usize = 1 << 16;
    let mut cpus = BTreeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

pub(super) fn line(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}
