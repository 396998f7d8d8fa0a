//! The machine code of a kernel as it lies in this program, disassembled.
//!
//! A function has no length once it is compiled. Its end is found by following its branches: it ends with
//! the first instruction that goes nowhere further and that no branch before it jumps over. A call goes
//! nowhere further if it is that of a failed assertion.

use super::failure::Failure;
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, Instruction, IntelFormatter, SymbolResolver,
    SymbolResult,
};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Bytes that no kernel is as long as.
const MOST_BYTES: u64 = 1 << 18;

/// The longest instruction.
const MOST_INSTRUCTION: usize = 15;

/// The smallest unit of memory that is mapped.
const PAGE: usize = 4096;

/// The instructions of a function, one to a line, places that are jumped to with labels. The same program
/// always gives the same text.
pub(crate) fn listing(name: &str, code: *const u8) -> Result<String, Failure> {
    let instructions = instructions(code).ok_or_else(|| {
        Failure::new(format!("the end of the machine code of {name} was not found"))
            .hint("objdump --disassemble target/release/trilut")
    })?;
    let (start, end) = (code.addr() as u64, instructions.last().map_or(0, Instruction::next_ip));
    let inside = |target: &u64| (start..end).contains(target);
    let labels: BTreeSet<u64> = instructions.iter().filter_map(target).filter(inside).collect();
    let labels: Vec<u64> = labels.into_iter().collect();
    let resolver = Labels { start, labels: labels.clone() };
    let mut formatter = IntelFormatter::with_options(Some(Box::new(resolver)), None);
    let options = formatter.options_mut();
    options.set_rip_relative_addresses(true);
    options.set_first_operand_char_index(12);
    options.set_space_after_operand_separator(true);
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    let mut text = format!(
        "; {name}: {} instructions, {} bytes\n",
        instructions.len(),
        end.saturating_sub(start)
    );
    for instruction in &instructions {
        if let Ok(index) = labels.binary_search(&instruction.ip()) {
            let _ = writeln!(text, ".L{index}:");
        }
        text += "    ";
        formatter.format(instruction, &mut text);
        text += "\n";
    }
    Ok(text)
}

/// Where an instruction jumps to, if it says so itself.
fn target(instruction: &Instruction) -> Option<u64> {
    match instruction.flow_control() {
        FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
            Some(instruction.near_branch_target())
        }
        _ => None,
    }
}

/// All instructions of a function; `None` if its end is not found.
fn instructions(code: *const u8) -> Option<Vec<Instruction>> {
    let start = code.addr() as u64;
    let (mut furthest, mut has_returned) = (start, false);
    let mut instructions = Vec::new();
    let mut ip = start;
    while ip < start + MOST_BYTES {
        let instruction = decode(code, (ip - start) as usize)?;
        ip = instruction.next_ip();
        if let Some(target) = target(&instruction)
            && (start..start + MOST_BYTES).contains(&target)
        {
            furthest = furthest.max(target);
        }
        let ends = match instruction.flow_control() {
            FlowControl::Return => {
                has_returned = true;
                true
            }
            FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Exception => true,
            // Behind the last way out there are only the calls of assertions that failed.
            FlowControl::Call | FlowControl::IndirectCall => has_returned,
            _ => false,
        };
        instructions.push(instruction);
        if ends && ip > furthest {
            return Some(instructions);
        }
    }
    None
}

/// The instruction at an offset that the code before it leads to.
fn decode(code: *const u8, offset: usize) -> Option<Instruction> {
    let place = code.wrapping_add(offset);
    let left = PAGE - place.addr() % PAGE;
    for length in [left.min(MOST_INSTRUCTION), MOST_INSTRUCTION] {
        // SAFETY: the place is an instruction of a function of this program, whose code is mapped for
        // reading and never changes. The first length stays in its page; the second is tried where the
        // instruction does not end there, so that the next page is code as well.
        let bytes = unsafe { std::slice::from_raw_parts(place, length) };
        let mut decoder = Decoder::with_ip(64, bytes, place.addr() as u64, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if !instruction.is_invalid() {
            return Some(instruction);
        }
        if decoder.last_error() != iced_x86::DecoderError::NoMoreBytes {
            return None;
        }
    }
    None
}

/// Labels inside of a function; other functions by their distance, which does not depend on where the
/// program was loaded.
struct Labels {
    start: u64,
    labels: Vec<u64>,
}

impl SymbolResolver for Labels {
    fn symbol(
        &mut self,
        instruction: &Instruction,
        _: u32,
        _: Option<u32>,
        address: u64,
        _: u32,
    ) -> Option<SymbolResult<'_>> {
        if !(instruction.is_jmp_short_or_near()
            || instruction.is_jcc_short_or_near()
            || instruction.is_call_near())
        {
            return None;
        }
        let text = match self.labels.binary_search(&address) {
            Ok(index) => format!(".L{index}"),
            Err(_) => match address.checked_sub(self.start) {
                Some(after) => format!("$+{after:#x}"),
                None => format!("$-{:#x}", self.start - address),
            },
        };
        Some(SymbolResult::with_string(address, text))
    }
}
