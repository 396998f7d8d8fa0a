//! The machine code of kernels as they lie in this program, and why that of others is not there.

use crate::cli::assembly;
use crate::cli::failure::Failure;
use crate::cli::output::say;
use std::env::consts::ARCH;
use trilut_codegen::{Named, lattice};
use trilut_presets::KernelName;

/// Reasons that a failure gives; more say nothing new.
const MOST_REASONS: usize = 8;

/// The listings of those that can be shown, and a line of comment for each other one.
pub(super) fn listings(members: &[Named]) -> Result<String, Failure> {
    let (mut texts, mut refused) = (Vec::new(), Vec::new());
    for member in members {
        match listing(member) {
            Ok(text) => texts.push(text),
            Err(failure) => {
                texts.push(format!("; {}\n", failure.summary()));
                refused.push(failure);
            }
        }
    }
    if refused.len() < texts.len() {
        return Ok(super::blocks(texts.into_iter()));
    }
    let more = refused.len().saturating_sub(MOST_REASONS);
    let mut refused = refused.into_iter().take(MOST_REASONS);
    let failure = match refused.next() {
        Some(only) if refused.len() == 0 => return Err(only),
        Some(first) => first.context("none of these kernels can be shown as machine code"),
        None => Failure::new("there is no kernel to show"),
    };
    let failure = refused.fold(failure, |failure, other| failure.because(other.summary()));
    Err(if more > 0 { failure.because(format!("and {more} more")) } else { failure })
}

/// The machine code of a kernel; of one made for a number of inputs, if that is not compiled in, of the one
/// for any number.
fn listing(member: &Named) -> Result<String, Failure> {
    let (name, isa) = (member.to_string(), member.isa());
    if let Some(other) = isa.target_arch().filter(|&arch| arch != ARCH) {
        return Err(Failure::new(format!("{name} is for {other}, this program for {ARCH}"))
            .hint(format!("trilut codegen --kernel {name} --emit rust")));
    }
    if let Some(code) = code(&name) {
        return assembly::listing(&name, code);
    }
    if let Named::Gemv(plan) = member {
        let any = KernelName { fixed: Default::default(), ..plan.spec.name }.to_string();
        if let Some(code) = code(&any) {
            say!("note: {name} is not compiled into this program; shown is {any}");
            return assembly::listing(&any, code);
        }
    }
    // What there is of its kind; specialised ones would say the same again.
    let alike = lattice::members(isa, &[])?.into_iter();
    let alike = alike.filter(|m| (m.kind(), m.format()) == (member.kind(), member.format()));
    let alike: Vec<String> = alike.map(|member| member.to_string()).collect();
    let missing = format!("{name} is not compiled into this program");
    Err(match alike.first() {
        Some(first) => Failure::new(format!("{missing}, which has {}", alike.join(", ")))
            .hint(format!("trilut codegen --kernel {first} --emit asm")),
        None => Failure::new(format!("{missing}, which has none of its kind for {isa}"))
            .hint(format!("trilut codegen --kernel {name} --emit rust")),
    })
}

/// Where the machine code of a kernel of this program begins.
fn code(name: &str) -> Option<*const u8> {
    let gemv = trilut_kernels::find(name).map(|kernel| kernel.code());
    let gemm = || trilut_kernels::find_gemm(name).map(|kernel| kernel.code());
    let batch = || trilut_kernels::find_batch(name).map(|kernel| kernel.code());
    gemv.or_else(gemm).or_else(batch)
}
