//! The machine code of a kernel, where it cannot be shown.

use super::failure::Failure;

/// Says why there is nothing to see.
pub(crate) fn listing(name: &str, _: *const u8) -> Result<String, Failure> {
    let why = match cfg!(target_arch = "x86_64") {
        true => "this program was built without the feature `asm`",
        false => "machine code is shown on x86-64 alone",
    };
    let objdump = format!("objdump --disassemble={name} target/release/trilut");
    Err(Failure::new(format!("the machine code of {name} cannot be shown"))
        .because(why)
        .hint(objdump))
}
