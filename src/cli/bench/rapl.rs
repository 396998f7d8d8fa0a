//! Joules, from the energy counters that Linux offers under `/sys/class/powercap` (RAPL; Intel and AMD
//! use the same files).
//!
//! Counted are the packages and, where they have a counter of their own, the memory beside them. Cores
//! and graphics are parts of a package, and `psys` contains everything: neither is added again. A counter
//! is that of the whole machine, whoever uses it.

use std::path::{Path, PathBuf};

/// Where the counters are.
pub(super) const ROOT: &str = "/sys/class/powercap";

/// The counters of this machine.
#[derive(Debug)]
pub(super) struct Rapl {
    domains: Vec<Domain>,
}

#[derive(Debug)]
struct Domain {
    /// What it counts, `package-0`, or `package-0/dram` for a part.
    name: String,
    counter: PathBuf,
    /// The counter returns to 0 after this.
    range: u64,
}

/// What the counters showed at one moment, in microjoules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counters(Vec<u64>);

impl Rapl {
    /// Finds the counters under `root`, or says why there are none.
    pub(super) fn find(root: &Path) -> Result<Self, String> {
        let none = || "the system has no energy counters".to_owned();
        let mut zones: Vec<String> = std::fs::read_dir(root)
            .map_err(|_| none())?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("intel-rapl") && name.contains(':'))
            .collect();
        // `intel-rapl:0` comes before `intel-rapl-mmio:0`, a second way to the same counter.
        zones.sort_by_key(|zone| (zone.contains("mmio"), zone.clone()));
        let mut domains: Vec<Domain> = Vec::new();
        for zone in &zones {
            let Some(name) = domain(root, zone) else { continue };
            if domains.iter().any(|known| known.name == name) {
                continue;
            }
            let at = root.join(zone);
            let counter = at.join("energy_uj");
            number(&counter).map_err(|error| {
                format!("the energy counter {} cannot be read ({error})", counter.display())
            })?;
            let range = number(&at.join("max_energy_range_uj")).unwrap_or(u64::MAX);
            domains.push(Domain { name, counter, range });
        }
        if domains.is_empty() { Err(none()) } else { Ok(Self { domains }) }
    }

    /// What is counted, for a person.
    pub(super) fn names(&self) -> String {
        self.domains.iter().map(|domain| domain.name.as_str()).collect::<Vec<_>>().join(" + ")
    }

    /// The counters now; `None` when one cannot be read any more.
    pub(super) fn read(&self) -> Option<Counters> {
        self.domains
            .iter()
            .map(|domain| number(&domain.counter).ok())
            .collect::<Option<_>>()
            .map(Counters)
    }

    /// Joules between two readings. A counter that went back wrapped, once.
    pub(super) fn joules(&self, from: &Counters, to: &Counters) -> f64 {
        let spent =
            self.domains.iter().zip(from.0.iter().zip(&to.0)).map(|(domain, (&from, &to))| {
                if to >= from { to - from } else { domain.range.saturating_sub(from) + to }
            });
        spent.map(|microjoules| microjoules as f64 / 1e6).sum()
    }
}

/// The name of a zone that is to be counted.
fn domain(root: &Path, zone: &str) -> Option<String> {
    let name = |zone: &str| {
        let text = std::fs::read_to_string(root.join(zone).join("name")).ok()?;
        Some(text.trim().to_owned())
    };
    let own = name(zone)?;
    if own.starts_with("package") {
        return Some(own);
    }
    // `intel-rapl:0:1` is a part of `intel-rapl:0`.
    let (parent, _) = zone.rsplit_once(':').filter(|(parent, _)| parent.contains(':'))?;
    (own == "dram").then(|| name(parent).map(|parent| format!("{parent}/{own}")))?
}

fn number(path: &Path) -> Result<u64, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    text.trim().parse().map_err(|_| format!("`{}` is no number", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree like that of a machine with two packages.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn zone(&self, zone: &str, name: &str, energy: &str) -> &Self {
            let at = self.0.path().join(zone);
            std::fs::create_dir_all(&at).unwrap();
            for (file, text) in
                [("name", name), ("energy_uj", energy), ("max_energy_range_uj", "1000000")]
            {
                std::fs::write(at.join(file), format!("{text}\n")).unwrap();
            }
            self
        }

        fn find(&self) -> Result<Rapl, String> {
            Rapl::find(self.0.path())
        }
    }

    #[test]
    fn packages_and_memory_are_counted_once() {
        let tree = Tree::new();
        tree.zone("intel-rapl:0", "package-0", "100")
            .zone("intel-rapl:0:0", "core", "50")
            .zone("intel-rapl:0:1", "dram", "7")
            .zone("intel-rapl:1", "package-1", "900000")
            .zone("intel-rapl:2", "psys", "1")
            .zone("intel-rapl-mmio:0", "package-0", "100")
            .zone("dtpm", "nothing", "3");
        let rapl = tree.find().unwrap();
        assert_eq!(rapl.names(), "package-0 + package-0/dram + package-1");
        let before = rapl.read().unwrap();
        assert_eq!(before, Counters(vec![100, 7, 900_000]));
        tree.zone("intel-rapl:0", "package-0", "500100")
            .zone("intel-rapl:0:0", "core", "400000")
            .zone("intel-rapl:0:1", "dram", "250007")
            // Past its range of a joule.
            .zone("intel-rapl:1", "package-1", "150000");
        let joules = rapl.joules(&before, &rapl.read().unwrap());
        assert!((joules - (0.5 + 0.25 + 0.25)).abs() < 1e-9, "{joules}");
    }

    #[test]
    fn amd_has_packages_and_cores() {
        let tree = Tree::new();
        tree.zone("intel-rapl:0", "package-0", "5").zone("intel-rapl:0:0", "core", "4");
        assert_eq!(tree.find().unwrap().names(), "package-0");
    }

    #[test]
    fn what_is_missing_is_said() {
        let tree = Tree::new();
        assert!(tree.find().unwrap_err().contains("no energy counters"));
        assert!(Rapl::find(&tree.0.path().join("nowhere")).unwrap_err().contains("no energy"));
        tree.zone("intel-rapl:0", "package-0", "secret");
        let error = tree.find().unwrap_err();
        assert!(error.contains("cannot be read") && error.contains("`secret`"), "{error}");
    }

    #[test]
    fn a_counter_that_disappears_is_no_energy() {
        let tree = Tree::new();
        tree.zone("intel-rapl:0", "package-0", "5");
        let rapl = tree.find().unwrap();
        std::fs::remove_file(tree.0.path().join("intel-rapl:0/energy_uj")).unwrap();
        assert_eq!(rapl.read(), None);
    }
}
