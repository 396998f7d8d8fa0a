use super::*;
use crate::Isa;
use std::fs;

/// A directory with files `(path, text)`.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

const ZEN2: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: 49\n\
    model name\t: AMD EPYC 7B12\nstepping\t: 0\nmicrocode\t: 0x1000065\n\
    flags\t\t: fpu sse2 hypervisor avx f16c avx2 bmi2\n\nprocessor\t: 1\ncpu family\t: 99\n\n";

#[test]
fn a_machine_with_two_threads_per_core_is_read_from_its_files() {
    let cpu = "sys/devices/system/cpu";
    let mut files: Vec<(String, String)> = vec![
        ("proc/cpuinfo".into(), ZEN2.into()),
        ("proc/meminfo".into(), "MemTotal:  8000 kB\nMemFree: 1 kB\n".into()),
        (format!("{cpu}/online"), "0-3\n".into()),
    ];
    for n in 0..4 {
        let siblings = if n % 2 == 0 { "0,2" } else { "1,3" };
        files.push((format!("{cpu}/cpu{n}/topology/core_cpus_list"), siblings.into()));
    }
    let caches = [
        ("0", "1", "Data", "32K", "0,2"),
        ("1", "1", "Instruction", "32K", "0,2"),
        ("2", "2", "Unified", "512K", "0,2"),
        ("3", "3", "Unified", "16384K", "0-1"),
    ];
    for (index, level, kind, size, shared) in caches {
        let at = format!("{cpu}/cpu0/cache/index{index}");
        for (name, text) in
            [("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)]
        {
            files.push((format!("{at}/{name}"), format!("{text}\n")));
        }
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (&p[..], &t[..])).collect();
    let root = tree(&files);

    let machine = Machine::detect_at(root.path());
    assert_eq!((&machine.vendor[..], machine.family, machine.model), ("amd", 0x17, 0x31));
    assert_eq!(machine.microarchitecture, "zen2");
    assert_eq!(machine.features, ["avx", "avx2", "bmi2", "f16c"]);
    assert_eq!((machine.logical_cpus, machine.physical_cores), (4, 2));
    assert_eq!(machine.caches.len(), 3);
    assert!(machine.caches.iter().any(|c| (c.level, c.bytes) == (2, 512 << 10)));
    assert_eq!(machine.last_level_bytes(), 2 * (16 << 20));
    assert_eq!(machine.memory_bytes, 8000 * 1024);
    assert_eq!(machine.microcode.as_deref(), Some("0x1000065"));
    assert!(machine.hypervisor.is_some());
    assert!(machine.key().ends_with("-amd-17-31-0-amd-epyc-7b12"), "{}", machine.key());
    assert!(machine.to_string().contains("zen2, 2 cores, 4 threads, 16 MiB L3"), "{machine}");
}

#[test]
fn an_arm_core_is_named_by_its_part() {
    let text = "processor : 0\nFeatures : fp asimd asimddp i8mm\nCPU implementer : 0x41\n\
        CPU architecture: 8\nCPU variant : 0x1\nCPU part : 0xd40\nCPU revision : 1\n";
    let machine = Machine::detect_at(tree(&[("proc/cpuinfo", text)]).path());
    assert_eq!(machine.microarchitecture, "neoverse-v1");
    assert_eq!(machine.stepping, 17);
    assert_eq!(machine.features, ["dotprod", "i8mm", "neon"]);
}

#[test]
fn an_empty_or_nonsensical_tree_is_no_error() {
    let machine = Machine::detect_at(tree(&[]).path());
    assert_eq!((machine.logical_cpus, machine.physical_cores), (1, 1));
    assert_eq!(machine.last_level_bytes(), 0);

    let nonsense = tree(&[
        ("proc/cpuinfo", "\u{0}:::\nmodel : 99999999999999\nflags\n"),
        ("proc/meminfo", "MemTotal: many kB"),
        ("sys/devices/system/cpu/online", "9-0,x,-"),
        ("sys/devices/system/cpu/cpu0/cache/index0/size", "K"),
    ]);
    let machine = Machine::detect_at(nonsense.path());
    assert_eq!((machine.model, machine.memory_bytes), (0, 0));
    let huge = tree(&[("sys/devices/system/cpu/online", "0-18446744073709551615")]);
    assert_eq!(Machine::detect_at(huge.path()).logical_cpus, 1);
}

#[test]
fn this_machine_is_described() {
    let machine = Machine::detect();
    assert_eq!(machine.arch, std::env::consts::ARCH);
    assert!(machine.logical_cpus >= machine.physical_cores && machine.physical_cores >= 1);
    assert!(!machine.key().contains(['/', ' ', '.']), "{}", machine.key());
}

#[test]
fn every_named_generation_is_told_apart() {
    for (vendor, family, model, stepping, expected) in [
        ("amd", 0x17, 0x71, 0, "zen2"),
        ("amd", 0x19, 0x01, 1, "zen3"),
        ("amd", 0x19, 0x21, 0, "zen3"),
        ("amd", 0x19, 0x11, 1, "zen4"),
        ("amd", 0x19, 0x61, 2, "zen4"),
        ("amd", 0x1a, 0x02, 1, "zen5"),
        ("intel", 6, 0x3f, 2, "haswell"),
        ("intel", 6, 0x55, 4, "skylake-server"),
        ("intel", 6, 0x55, 7, "cascadelake"),
        ("intel", 6, 0x6a, 6, "icelake-server"),
        ("intel", 6, 0x97, 2, "alderlake"),
        ("intel", 6, 0x8f, 8, "sapphirerapids"),
    ] {
        assert_eq!(microarchitecture::name(vendor, family, model, stepping), Some(expected));
    }
    assert_eq!(microarchitecture::name("intel", 6, 0x2a, 0), None);
}

#[test]
fn likeness_falls_from_cpu_to_foreign() {
    let this = Machine {
        arch: "x86_64".into(),
        vendor: "amd".into(),
        family: 0x1a,
        model: 2,
        microarchitecture: "zen5".into(),
        ..Machine::default()
    };
    let desktop = Machine { model: 0x44, ..this.clone() };
    let intel = Machine { microarchitecture: "icelake".into(), model: 0x6a, ..this.clone() };
    let like = |other: &Machine, isa| this.likeness(Isa::Avx512, other, isa);
    assert_eq!(like(&this, Isa::Avx512), Likeness::SameCpu);
    assert_eq!(like(&desktop, Isa::Avx512), Likeness::SameMicroarchitecture);
    assert_eq!(like(&intel, Isa::Avx512), Likeness::SameIsa);
    assert_eq!(like(&this, Isa::Avx2), Likeness::Foreign);
    let other = Machine { arch: "aarch64".into(), ..this.clone() };
    assert_eq!(like(&other, Isa::Avx512), Likeness::Foreign);
}

#[test]
fn available_memory_is_read() {
    let root = tree(&[
        ("meminfo", "MemTotal: 9 kB\nMemAvailable:   1024 kB\n"),
        ("odd", "MemAvailable: lots\n"),
    ]);
    let read = |name: &str| super::meminfo(&root.path().join(name), "MemAvailable");
    assert_eq!(read("meminfo"), Some(1 << 20));
    assert_eq!(read("odd"), None);
    assert_eq!(read("missing"), None);
}
