//! The memory of running `trilut` processes: what they share shows only in their proportional set sizes.

use super::failure::Failure;
use super::output::outln;
use super::table::Table;
use std::path::Path;

/// What the system says about a process's memory, in kB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Memory {
    /// In memory, shared pages in full.
    resident: u64,
    /// In memory, shared pages divided by the number of processes that share them.
    proportional: u64,
    /// In memory and in no other process.
    private: u64,
}

impl Memory {
    /// Reads the text of a `smaps_rollup`.
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        Some(Self {
            resident: field("Rss")?,
            proportional: field("Pss")?,
            private: field("Private_Clean")? + field("Private_Dirty")?,
        })
    }
}

/// Prints every process that runs this program, and their sum.
pub(crate) fn print() -> Result<(), Failure> {
    let found = processes(Path::new("/proc"));
    if found.is_empty() {
        return Err(Failure::new("this system does not tell the memory of processes")
            .because("/proc/PID/smaps_rollup cannot be read"));
    }
    outln!("{}", table(&found).plain().trim_end());
    Ok(())
}

fn table(processes: &[(u32, String, Memory)]) -> Table {
    let mut table = Table::new(&["command", "process", "RSS, MB", "PSS, MB", "private, MB"], 1);
    let mb = |kb: u64| format!("{:.1}", kb as f64 * 1024.0 / 1e6);
    let mut sum = Memory::default();
    for (id, command, memory) in processes {
        let Memory { resident, proportional, private } = *memory;
        table.row([command.clone(), id.to_string(), mb(resident), mb(proportional), mb(private)]);
        sum.resident += resident;
        sum.proportional += proportional;
        sum.private += private;
    }
    let sums = [sum.resident, sum.proportional, sum.private].map(mb);
    let [resident, proportional, private] = sums;
    table.row(["all".to_owned(), String::new(), resident, proportional, private]);
    table
}

/// The processes of this program, this one left out, as far as the user may see them.
fn processes(proc: &Path) -> Vec<(u32, String, Memory)> {
    let own = std::fs::read_link(proc.join("self/exe")).ok();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(proc).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let path = entry.path();
        if own.is_none() || std::fs::read_link(path.join("exe")).ok() != own {
            continue;
        }
        let read = |file: &str| std::fs::read_to_string(path.join(file)).ok();
        let Some(memory) = read("smaps_rollup").and_then(|text| Memory::parse(&text)) else {
            continue;
        };
        let command = read("cmdline").unwrap_or_default();
        // The name of the program, its subcommand and what follows, as far as it fits.
        let words: Vec<&str> = command.split('\0').skip(1).take(3).collect();
        let command: String =
            super::failure::printable(&words.join(" ")).chars().take(48).collect();
        found.push((id, command, memory));
    }
    found.sort_by_key(|(id, ..)| *id);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLLUP: &str = "00400000-7fff00000000 ---p 00000000 00:00 0    [rollup]\n\
        Rss:              120000 kB\nPss:               70000 kB\nPss_Dirty:   5 kB\n\
        Shared_Clean:     100000 kB\nPrivate_Clean:      2000 kB\nPrivate_Dirty:     18000 kB\n";

    #[test]
    fn rollups_are_read() {
        let memory = Memory { resident: 120_000, proportional: 70_000, private: 20_000 };
        assert_eq!(Memory::parse(ROLLUP), Some(memory));
        assert_eq!(Memory::parse("Rss: many kB\n"), None);
        let table = table(&[(7, "run a".to_owned(), memory), (8, "run b".to_owned(), memory)]);
        let last = table.plain().lines().last().unwrap().to_owned();
        assert_eq!(last.split_whitespace().collect::<Vec<_>>(), ["all", "245.8", "143.4", "41.0"]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_program_is_found() {
        let found = processes(Path::new("/proc"));
        assert!(found.iter().any(|(id, ..)| *id == std::process::id()));
    }
}
