//! The CPUs that this process may use: cores with their sibling threads, fast and slow ones, memory nodes,
//! and the quota of the container.
//!
//! Only Linux tells these things in files; elsewhere [`Cores::read`] finds none, and callers go by what the
//! standard library says.

use super::control_groups::{Group, groups};
use super::topology::{cpu_list, line, listed};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The speed of the fastest cores, as the kernel counts it.
pub const FULL_SPEED: u32 = 1024;

/// Cores slower than this part of the fastest (in 1024ths) get no thread by default: with operations that
/// end at a barrier, and some that cannot be cut to fit, they hold up more than they help.
const SLOW: u32 = 768;

/// A physical core, as far as this process may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core {
    /// Its logical CPUs that may be used, sorted.
    pub cpus: Vec<usize>,
    /// Its speed; [`FULL_SPEED`] for the fastest.
    pub speed: u32,
    /// The memory node that it is near to.
    pub node: usize,
}

/// The cores that this process may use, the fastest first, then by memory node and number.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cores {
    /// The cores; empty where the system tells nothing.
    pub cores: Vec<Core>,
    /// How many CPUs' worth of time the container may use, if that is limited.
    pub quota: Option<f64>,
}

/// Where one thread belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// The CPUs that it should run on; empty where any will do.
    pub cpus: Vec<usize>,
    /// Its share of the work, relative to other threads.
    pub weight: u32,
    /// The memory node that it is near to; 0 where any CPU will do.
    pub node: usize,
}

impl Cores {
    /// The cores of this process.
    pub fn detect() -> Self {
        Self::read(Path::new("/"))
    }

    /// As `/sys`, `/proc/self` and the control groups under `root` tell.
    pub fn read(root: &Path) -> Self {
        let system = root.join("sys/devices/system/cpu");
        let online = line(&system.join("online")).and_then(|text| cpu_list(&text));
        let mut cpus = online.unwrap_or_else(|| listed(&system));
        if let Some(allowed) = allowed(&root.join("proc/self/status")) {
            cpus.retain(|cpu| allowed.contains(cpu));
        }
        let (nodes, speeds) = (nodes(root), speeds(root, &cpus));
        let mut cores: BTreeMap<String, Core> = BTreeMap::new();
        for &cpu in &cpus {
            let topology = system.join(format!("cpu{cpu}/topology"));
            let siblings = line(&topology.join("core_cpus_list"))
                .or_else(|| line(&topology.join("thread_siblings_list")));
            let speed = speeds.get(&cpu).copied().unwrap_or(FULL_SPEED);
            let node = nodes.get(&cpu).copied().unwrap_or(0);
            let core = cores.entry(siblings.unwrap_or_else(|| cpu.to_string()));
            core.or_insert(Core { cpus: Vec::new(), speed, node }).cpus.push(cpu);
        }
        let mut cores: Vec<Core> = cores.into_values().collect();
        cores.sort_by_key(|core| (std::cmp::Reverse(core.speed), core.node, core.cpus.clone()));
        Self { cores, quota: quota(root) }
    }

    /// The number of threads to use: one for each fast physical core, within the quota; `None` where the
    /// system tells nothing.
    pub fn threads(&self) -> Option<usize> {
        let fast = self.cores.iter().filter(|core| core.speed >= SLOW).count();
        let quota = self.quota.map_or(usize::MAX, |cpus| (cpus as usize).max(1));
        (fast > 0).then(|| fast.min(quota))
    }

    /// Whether it matters where a thread runs.
    pub fn are_alike(&self) -> bool {
        let kinds: BTreeSet<_> = self.cores.iter().map(|core| (core.speed, core.node)).collect();
        kinds.len() <= 1
    }

    /// Seats for so many threads, those of one memory node next to each other, so that neighbouring parts
    /// of a matrix are near to each other. Where all cores are alike, and where there are more threads
    /// than cores, the operating system seats better, and all shares are even.
    pub fn seats(&self, threads: usize) -> Vec<Seat> {
        if self.are_alike() || threads > self.cores.len() {
            return vec![Seat { cpus: Vec::new(), weight: 1, node: 0 }; threads];
        }
        let mut taken = self.cores[..threads].to_vec();
        taken.sort_by_key(|core| (core.node, std::cmp::Reverse(core.speed)));
        let seat = |core: Core| {
            let (weight, node) = (core.speed.max(1), core.node);
            Seat { cpus: core.cpus, weight, node }
        };
        taken.into_iter().map(seat).collect()
    }
}

/// The CPUs that this process is bound to.
fn allowed(status: &Path) -> Option<BTreeSet<usize>> {
    let text = std::fs::read_to_string(status).ok()?;
    let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    cpu_list(list.trim()).filter(|cpus| !cpus.is_empty())
}

/// The memory node of each CPU.
fn nodes(root: &Path) -> BTreeMap<usize, usize> {
    let directory = root.join("sys/devices/system/node");
    let mut nodes = BTreeMap::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix("node")?.parse::<usize>().ok());
        let cpus = line(&entry.path().join("cpulist")).and_then(|text| cpu_list(&text));
        if let (Some(node), Some(cpus)) = (number, cpus) {
            nodes.extend(cpus.into_iter().map(|cpu| (cpu, node)));
        }
    }
    nodes
}

/// The speed of each CPU, in 1024ths of the fastest: the kernel's own figure, or the highest frequency. A
/// CPU that the system calls an efficiency core is never counted as a full one.
fn speeds(root: &Path, cpus: &BTreeSet<usize>) -> BTreeMap<usize, u32> {
    let system = root.join("sys/devices/system/cpu");
    let read = |cpu: &usize, file: &str| -> Option<u64> {
        line(&system.join(format!("cpu{cpu}/{file}")))?.parse().ok().filter(|n| *n > 0)
    };
    let figures = |file: &str| -> Option<BTreeMap<usize, u64>> {
        cpus.iter().map(|cpu| Some((*cpu, read(cpu, file)?))).collect()
    };
    let Some(figures) = figures("cpu_capacity")
        .or_else(|| figures("acpi_cppc/highest_perf"))
        .or_else(|| figures("cpufreq/cpuinfo_max_freq"))
    else {
        return BTreeMap::new();
    };
    let most = figures.values().copied().max().unwrap_or(1);
    let small = line(&root.join("sys/devices/cpu_atom/cpus")).and_then(|text| cpu_list(&text));
    let speed = |(cpu, figure): (usize, u64)| {
        let share = u32::try_from(figure * u64::from(FULL_SPEED) / most).unwrap_or(FULL_SPEED);
        let is_small = small.as_ref().is_some_and(|cpus| cpus.contains(&cpu));
        // A tenth is what boost bins of cores of one kind differ by.
        let is_full = share > FULL_SPEED * 9 / 10 && !is_small;
        (cpu, if is_full { FULL_SPEED } else { share.min(if is_small { SLOW - 1 } else { share }) })
    };
    figures.into_iter().map(speed).collect()
}

/// The least quota of the process's control group and those above it, in CPUs.
fn quota(root: &Path) -> Option<f64> {
    groups(root, "cpu").iter().filter_map(own_quota).reduce(f64::min)
}

/// `cpu.max` of the second version is `MICROSECONDS|max PERIOD`; the first has two files, and a quota of -1 is none.
fn own_quota(group: &Group) -> Option<f64> {
    if group.is_second {
        let text = group.line("cpu.max")?;
        let (quota, period) = text.split_once(' ')?;
        return ratio(quota, period);
    }
    ratio(&group.line("cpu.cfs_quota_us")?, &group.line("cpu.cfs_period_us")?)
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(online: &str) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            tree.file("sys/devices/system/cpu/online", online);
            tree
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }

        fn cpu(&self, cpu: usize, file: &str, text: &str) {
            self.file(&format!("sys/devices/system/cpu/cpu{cpu}/{file}"), text);
        }

        fn read(&self) -> Cores {
            Cores::read(self.0.path())
        }
    }

    fn cpus(cores: &Cores) -> Vec<Vec<usize>> {
        cores.cores.iter().map(|core| core.cpus.clone()).collect()
    }

    #[test]
    fn sibling_threads_share_one_seat() {
        let tree = Tree::new("0-7");
        for cpu in 0..8 {
            let siblings = format!("{},{}", cpu % 4, cpu % 4 + 4);
            tree.cpu(cpu, "topology/core_cpus_list", &siblings);
        }
        let cores = tree.read();
        assert_eq!(cpus(&cores), [[0, 4], [1, 5], [2, 6], [3, 7]]);
        assert_eq!(cores.threads(), Some(4));
        assert!(cores.are_alike());
        let even = Seat { cpus: vec![], weight: 1, node: 0 };
        assert_eq!(cores.seats(4), vec![even; 4]);
        // Bound to the two threads of one core and one of another.
        tree.file("proc/self/status", "Name:\tx\nCpus_allowed_list:\t1,5-6");
        assert_eq!(cpus(&tree.read()), [vec![1, 5], vec![6]]);
        assert_eq!(tree.read().threads(), Some(2));
    }

    #[test]
    fn quotas_of_both_versions_and_of_groups_above_count() {
        let tree = Tree::new("0-15");
        assert_eq!(tree.read().threads(), Some(16));
        tree.file("proc/self/cgroup", "0::/a/b");
        tree.file("sys/fs/cgroup/a/b/cpu.max", "max 100000");
        assert_eq!(tree.read().quota, None);
        tree.file("sys/fs/cgroup/a/cpu.max", "250000 100000");
        assert_eq!((tree.read().quota, tree.read().threads()), (Some(2.5), Some(2)));
        tree.file("sys/fs/cgroup/a/b/cpu.max", "50000 100000");
        assert_eq!((tree.read().quota, tree.read().threads()), (Some(0.5), Some(1)));

        let tree = Tree::new("0-15");
        tree.file("proc/self/cgroup", "4:memory:/m\n3:cpu,cpuacct:/docker/host/path");
        tree.file("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300000");
        tree.file("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000");
        assert_eq!(tree.read().threads(), Some(3));
        tree.file("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1");
        assert_eq!(tree.read().threads(), Some(16));
    }

    #[test]
    fn slow_cores_get_no_thread_by_default_and_less_work_when_asked_for() {
        // Two fast cores of two threads, four small ones: as hybrid desktop CPUs are listed.
        let tree = Tree::new("0-7");
        for cpu in 0..8 {
            let siblings =
                if cpu < 4 { ["0-1", "2-3"][cpu / 2].to_owned() } else { cpu.to_string() };
            tree.cpu(cpu, "topology/core_cpus_list", &siblings);
            let frequency = if cpu < 4 { "5000000" } else { "3900000" };
            tree.cpu(cpu, "cpufreq/cpuinfo_max_freq", frequency);
        }
        tree.file("sys/devices/cpu_atom/cpus", "4-7");
        let cores = tree.read();
        assert_eq!(cores.threads(), Some(2));
        assert!(!cores.are_alike());
        let seats = cores.seats(3);
        assert_eq!(
            seats.iter().map(|s| &s.cpus[..]).collect::<Vec<_>>(),
            [&[0, 1][..], &[2, 3], &[4]]
        );
        assert!(seats[2].weight < seats[1].weight && seats[1].weight == FULL_SPEED);
        // More threads than cores are left to the system.
        assert!(cores.seats(9).iter().all(|seat| seat.cpus.is_empty()));
    }

    #[test]
    fn boost_bins_of_like_cores_are_no_difference() {
        let tree = Tree::new("0-1");
        tree.cpu(0, "acpi_cppc/highest_perf", "166");
        tree.cpu(1, "acpi_cppc/highest_perf", "160");
        assert!(tree.read().are_alike());
        tree.cpu(1, "cpu_capacity", "400");
        tree.cpu(0, "cpu_capacity", "1024");
        assert_eq!(tree.read().cores[1].speed, 400);
    }

    #[test]
    fn threads_of_one_memory_node_sit_together() {
        let tree = Tree::new("0-3");
        tree.file("sys/devices/system/node/node0/cpulist", "0,2");
        tree.file("sys/devices/system/node/node1/cpulist", "1,3");
        tree.file("sys/devices/system/node/online", "0-1");
        let cores = tree.read();
        let seats = cores.seats(4).into_iter();
        let seats: Vec<_> = seats.map(|seat| (seat.cpus[0], seat.node)).collect();
        assert_eq!(seats, [(0, 0), (2, 0), (1, 1), (3, 1)]);
        assert!(cores.seats(2).iter().all(|seat| seat.node == 0));
        // More threads than cores belong nowhere.
        assert!(cores.seats(5).iter().all(|seat| seat.node == 0 && seat.cpus.is_empty()));
        // Two threads fill one node before they begin the next.
        assert!(cores.cores[..2].iter().all(|core| core.node == 0));
    }

    #[test]
    fn nonsense_and_nothing_are_no_error() {
        let empty = tempfile::tempdir().unwrap();
        let none = Cores::read(empty.path());
        assert_eq!((none.threads(), none.quota), (None, None));
        assert_eq!(none.seats(2).len(), 2);
        let tree = Tree::new("9-0,x");
        tree.file("proc/self/status", "Cpus_allowed_list:\tmany");
        tree.file("proc/self/cgroup", "nonsense\n0::\n::::");
        tree.file("sys/fs/cgroup/cpu.max", "0 0");
        assert_eq!(tree.read().quota, None);
        tree.file("sys/devices/system/cpu/online", "0");
        tree.cpu(0, "cpu_capacity", "0");
        assert_eq!(tree.read().threads(), Some(1));
    }
}
