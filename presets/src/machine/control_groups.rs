//! The control groups of this process, by which containers are held to a part of the machine.

use super::proc::meminfo;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Where the files of a group are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The directory; it need not be there.
    pub path: PathBuf,
    /// Whether its files are those of the second version of control groups.
    pub is_second: bool,
}

impl Group {
    /// The first line of a file.
    pub(crate) fn line(&self, file: &str) -> Option<String> {
        let text = read_to_string(self.path.join(file)).ok()?;
        text.lines().next().map(|line| line.trim().to_owned())
    }
}

/// The process's group for a controller (`cpu`, `memory`) and those above it. In a container the path may be that
/// of the host: then only the root is there.
pub fn groups(root: &Path, controller: &str) -> Vec<Group> {
    let own = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut groups = Vec::new();
    for group in own.lines() {
        let mut parts = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let is_second = controllers.is_empty();
        if !is_second && !controllers.split(',').any(|name| name == controller) {
            continue;
        }
        let mounts = if is_second { ["", "unified"] } else { [controllers, controller] };
        for mount in mounts {
            let mount = root.join("sys/fs/cgroup").join(mount);
            let each = Path::new(path.trim_start_matches('/')).ancestors();
            groups.extend(each.map(|group| Group { path: mount.join(group), is_second }));
        }
    }
    groups
}

/// Bytes of memory that this process may still take: what the machine has free, or less where a group holds it to
/// less. `None` where the system does not tell.
pub fn free_memory(root: &Path) -> Option<u64> {
    let machine = meminfo(&root.join("proc/meminfo"), "MemAvailable");
    groups(root, "memory").iter().filter_map(left).chain(machine).min()
}

/// What a group's limit leaves; cached files count as free.
fn left(group: &Group) -> Option<u64> {
    let [limit, used, cached] = match group.is_second {
        true => ["memory.max", "memory.current", "inactive_file"],
        false => ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"],
    };
    let number = |file: &str| group.line(file)?.parse::<u64>().ok();
    let stat = read_to_string(group.path.join("memory.stat")).unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix(cached)?.trim().parse().ok());
    let used = number(used)?.saturating_sub(cached.unwrap_or(0));
    Some(number(limit)?.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_container_has_what_its_limit_leaves() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        };
        let free = || free_memory(root.path());
        assert_eq!(free(), None);
        file("proc/meminfo", "MemAvailable:     1024 kB");
        assert_eq!(free(), Some(1 << 20));
        file("proc/self/cgroup", "0::/a/b");
        file("sys/fs/cgroup/a/b/memory.max", "max");
        file("sys/fs/cgroup/a/b/memory.current", "5000");
        assert_eq!(free(), Some(1 << 20));
        // The limit of a group above it.
        file("sys/fs/cgroup/a/memory.max", "9000");
        file("sys/fs/cgroup/a/memory.current", "8000");
        file("sys/fs/cgroup/a/memory.stat", "anon 5000\ninactive_file 3000");
        assert_eq!(free(), Some(4000));
        // The first version, in a container that sees the path of the host.
        file("proc/self/cgroup", "4:memory:/docker/host/path\n3:cpu:/docker/host/path");
        file("sys/fs/cgroup/memory/memory.limit_in_bytes", "6000");
        file("sys/fs/cgroup/memory/memory.usage_in_bytes", "7000");
        assert_eq!(free(), Some(0));
        file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
        assert_eq!(free(), Some(1 << 20));
    }
}
