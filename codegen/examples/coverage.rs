//! Which kernels were found exact, and where: a table of instruction sets by kinds of kernels, from the lattice
//! and from what test runs noted.
//!
//! `coverage DIRECTORY`: each file of it lists kernels, a line `exact NAME` each, that ran on this CPU (the
//! file's name begins with `native`) or on an emulated one (`emulated`). A kernel may also be proven by its
//! twin, which is spelled alike for another ISA. Exits with 3 when a kernel of the lattice was found exact
//! nowhere, or an ISA lacks a format that every ISA should read.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use trilut_codegen::{Error, Named, lattice};
use trilut_presets::{Format, GemmAlgorithm, Isa};

/// How well a kernel is proven, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Proof {
    Native,
    Emulated,
    /// Only a kernel that is spelled alike ran.
    Spelling,
    Missing,
}

impl Proof {
    fn words(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Emulated => "emulated",
            Self::Spelling => "emulated spelling only",
            Self::Missing => "HOLE",
        }
    }
}

/// A kernel of the lattice: the column that it counts in, its name and its twin's.
struct Member {
    column: &'static str,
    name: String,
    twin: Option<String>,
}

/// The columns, by format for one token and by algorithm for many.
const COLUMNS: &[&str] = &[
    "gemv i2_s",
    "gemv tl1",
    "gemv tl2",
    "gemv base3",
    "gemm lookup",
    "gemm tile",
    "gemm mix",
    "batch",
];

fn gemv_column(format: Format) -> &'static str {
    match format {
        Format::I2S => COLUMNS[0],
        Format::Tl1 => COLUMNS[1],
        Format::Tl2 => COLUMNS[2],
        Format::Base3 => COLUMNS[3],
    }
}

fn column(kernel: &Named) -> &'static str {
    match kernel {
        Named::Gemv(plan) => gemv_column(plan.spec.name.format),
        Named::Gemm(plan) => match plan.name.algorithm {
            GemmAlgorithm::Vlut { .. } => COLUMNS[4],
            GemmAlgorithm::Dot { .. } | GemmAlgorithm::Madd { .. } | GemmAlgorithm::Mmla { .. } => {
                COLUMNS[5]
            }
            GemmAlgorithm::Mix { .. } => COLUMNS[6],
        },
        Named::Batch(_) => COLUMNS[7],
    }
}

/// The generic kernels of an ISA.
fn members(isa: Isa) -> Result<Vec<Member>, Error> {
    let kernels = lattice::members(isa, &[])?.into_iter();
    let member = |kernel: Named| {
        let twin = kernel.twin()?.map(|twin| twin.to_string());
        Ok(Member { column: column(&kernel), name: kernel.to_string(), twin })
    };
    kernels.map(member).collect()
}

/// What the runs noted, by name.
fn read(directory: &Path) -> std::io::Result<BTreeMap<String, Proof>> {
    let mut proofs = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let file = entry.file_name().into_string().unwrap_or_default();
        let proof = match &file {
            file if file.starts_with("native") => Proof::Native,
            file if file.starts_with("emulated") => Proof::Emulated,
            _ => continue,
        };
        let text = std::fs::read_to_string(entry.path())?;
        for name in text.lines().filter_map(|line| line.trim().strip_prefix("exact ")) {
            let known = proofs.entry(name.to_owned()).or_insert(proof);
            *known = proof.min(*known);
        }
    }
    Ok(proofs)
}

/// Whether the kernels of an ISA must read a format: VBMI adds to AVX-512 only what it is good for.
fn must_read(isa: Isa, format: Format) -> bool {
    format != Format::Base3 && isa != Isa::Avx512Vbmi
}

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("usage: coverage DIRECTORY");
        return ExitCode::from(2);
    };
    let proofs = match read(directory.as_ref()) {
        Ok(proofs) => proofs,
        Err(error) => {
            eprintln!("error: cannot read {}\ncaused by: {error}", directory.display());
            return ExitCode::FAILURE;
        }
    };
    let proof = |member: &Member| {
        let by_twin = member.twin.as_ref().filter(|twin| proofs.contains_key(*twin));
        let own = proofs.get(&member.name).copied();
        own.or(by_twin.map(|_| Proof::Spelling)).unwrap_or(Proof::Missing)
    };
    let mut holes = Vec::new();
    print_row("isa", |column| (*column).to_owned());
    for &isa in Isa::ALL.iter().filter(|&&isa| isa != Isa::Emulated) {
        let members = match members(isa) {
            Ok(members) => members,
            Err(error) => {
                eprintln!("error: the lattice of {isa}\n  caused by: {error}");
                return ExitCode::FAILURE;
            }
        };
        for &format in Format::ALL.iter().filter(|&&format| must_read(isa, format)) {
            if members.iter().all(|member| member.column != gemv_column(format)) {
                holes.push(format!("{isa} reads no {format}"));
            }
        }
        print_row(isa.name(), |column| {
            let proofs: Vec<Proof> =
                members.iter().filter(|m| m.column == *column).map(&proof).collect();
            match proofs.iter().max() {
                None => "-".to_owned(),
                Some(worst) => format!("{} {}", proofs.len(), worst.words()),
            }
        });
        let missing = members.iter().filter(|member| proof(member) == Proof::Missing);
        holes.extend(missing.map(|member| format!("{} was found exact nowhere", member.name)));
    }
    println!("-: CPUs with it run the kernels of a lesser isa");
    for hole in &holes {
        eprintln!("error: {hole}");
    }
    if holes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) }
}

/// A row of the table.
fn print_row(head: &str, cell: impl Fn(&&'static str) -> String) {
    let cells: String = COLUMNS.iter().map(|column| format!("{:<26}", cell(column))).collect();
    println!("{head:<12}{}", cells.trim_end());
}
