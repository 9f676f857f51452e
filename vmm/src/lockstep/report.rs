//! A difference as text for people.

use super::Run;
use super::reference::Differs;
use crate::cpu::bus::PAGE_SIZE;
use crate::cpu::{CpuState, Seg};
use crate::shadow::scanner::decode;
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, NasmFormatter};
use ipc::time::VirtualTime;
use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};

/// Host code by the offset of its guest instruction in the page: where it is, and its bytes.
pub(crate) type HostCode = BTreeMap<u16, (u64, Vec<u8>)>;

const PAGE: u32 = PAGE_SIZE as u32;
/// Most host instructions that are shown of one guest instruction: behind the last one are the stubs of all.
const MOST_HOST_LINES: usize = 48;
/// Most guest instructions that are shown.
const MOST_GUEST: usize = 200;
/// Width of the guest's column.
const GUEST_COLUMN: usize = 58;

/// What is known of a difference.
pub(super) struct Report<'a> {
    pub(super) number: u64,
    pub(super) instructions: u64,
    pub(super) time: VirtualTime,
    pub(super) run: &'a Run,
    pub(super) before: &'a CpuState,
    pub(super) shadow: &'a CpuState,
    pub(super) differs: &'a Differs,
    pub(super) path: &'a [u32],
    pub(super) host: &'a HostCode,
}

/// All registers by name.
fn registers(state: &CpuState) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, value) in ["EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI"].iter().zip(state.gpr) {
        all.push(((*name).into(), format!("{value:08x}")));
    }
    let mut put = |name: &str, value: &dyn Debug| all.push((name.into(), format!("{value:x?}")));
    put("EIP", &state.eip);
    put("EFLAGS", &state.eflags);
    for (name, seg) in
        [("ES", Seg::Es), ("CS", Seg::Cs), ("SS", Seg::Ss), ("DS", Seg::Ds), ("FS", Seg::Fs), ("GS", Seg::Gs)]
    {
        let segment = state.segment(seg);
        put(name, &(segment.selector, segment.base(), segment.limit(), segment.rights()));
    }
    for (name, value) in [("CR0", state.cr0), ("CR2", state.cr2), ("CR3", state.cr3), ("CR4", state.cr4)] {
        put(name, &value);
    }
    put("CPL", &state.cpl);
    let fpu = &state.fpu;
    put("FCW", &fpu.control);
    put("FSW", &fpu.status);
    put("FTW", &fpu.valid);
    put("FOP", &fpu.opcode);
    put("FIP", &(fpu.instruction_selector, fpu.instruction_offset));
    put("FDP", &(fpu.operand_selector, fpu.operand_offset));
    put("MXCSR", &fpu.mxcsr);
    for (i, register) in fpu.registers.iter().enumerate() {
        put(&format!("R{i}"), &(register.sign_exponent, register.significand));
    }
    for (i, register) in fpu.xmm.iter().enumerate() {
        put(&format!("XMM{i}"), register);
    }
    put("LDTR", &state.ldtr);
    put("TR", &state.tr);
    put("GDTR", &state.gdtr);
    put("IDTR", &state.idtr);
    put("DR", &state.dr);
    put("PDPTE", &state.pdpte);
    put("MSR", &state.msr);
    put(
        "activity",
        &(state.activity, state.interrupt_shadow, state.nmi_pending, state.nmi_blocked, state.pending_debug),
    );
    all
}

/// Names of the registers that are not the same in both.
pub(super) fn register_differences(a: &CpuState, b: &CpuState) -> Vec<String> {
    registers(a).into_iter().zip(registers(b)).filter(|(a, b)| a != b).map(|(a, _)| a.0).collect()
}

impl Report<'_> {
    /// The whole report.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let differs = self.differs;
        let cs = self.before.segment(Seg::Cs).selector;
        writeln!(out, "The shadow engine and the interpreter differ")?;
        writeln!(
            out,
            "run {} of shadow code, after {} instructions that agree, at virtual time {} ns",
            self.number, self.instructions, self.time.0
        )?;
        writeln!(out, "from {cs:04x}:{:08x} (linear {:08x})", self.before.eip, self.run.start)?;
        writeln!(out, "mode: {}", self.run.mode)?;
        let how = if self.run.declined { "declined the instruction at" } else { "was left for" };
        writeln!(out, "shadow code {how} EIP {:08x}", self.shadow.eip)?;
        match (differs.same_place, differs.stopped) {
            (true, _) => {
                writeln!(out, "the interpreter is there after {} instructions", differs.instructions)?
            }
            (_, Some(why)) => {
                writeln!(
                    out,
                    "the interpreter never comes there: {why} after {} instructions",
                    differs.instructions
                )?;
            }
            _ => {
                writeln!(out, "the interpreter did not come there in {} instructions", differs.instructions)?
            }
        }

        writeln!(out, "\n{:8} {:>28} {:>28} {:>28}", "register", "before", "interpreter", "shadow")?;
        let versions = registers(&differs.state).into_iter().zip(registers(self.shadow));
        for (n, ((name, before), ((_, reference), (_, shadow)))) in
            registers(self.before).into_iter().zip(versions).enumerate()
        {
            /// General registers, EIP and EFLAGS: shown whether they differ or not.
            const ALWAYS: usize = 10;
            let mark = if reference != shadow { "  <--" } else { "" };
            if n < ALWAYS || reference != shadow {
                writeln!(out, "{name:8} {before:>28} {reference:>28} {shadow:>28}{mark}")?;
            }
        }
        writeln!(out, "(of EFLAGS, {:x} may differ)", differs.free_flags)?;
        if !differs.memory.is_empty() {
            writeln!(out, "\n{:16} {:>16} {:>16} {:>16}", "physical", "before", "interpreter", "shadow")?;
            for at in &differs.memory {
                writeln!(
                    out,
                    "{:016x} {:016x} {:016x} {:016x}",
                    at.physical, at.before, at.second, at.first
                )?;
            }
        }
        self.code(out)
    }

    /// The instructions that the interpreter executed, each beside its shadow code.
    fn code(&self, out: &mut String) -> std::fmt::Result {
        let Some(bytes) = &self.differs.code else { return Ok(()) };
        let page = self.run.start & !(PAGE - 1);
        let page_eip = page.wrapping_sub(self.run.mode.cs_base);
        writeln!(out, "\nguest code, and its shadow code:")?;
        let left = self.run.mode.linear(self.shadow.eip);
        let declined = self.run.declined.then_some(&left);
        for linear in self.path.iter().take(shown(self.differs)).chain(declined) {
            if linear & !(PAGE - 1) != page {
                writeln!(out, "{linear:08x}  (on another page)")?;
                continue;
            }
            let offset = linear % PAGE;
            let guest = match decode(bytes, self.run.mode, page_eip, offset as usize) {
                Some((instruction, _)) => {
                    let rest = bytes.from(offset as usize);
                    let hex = hex(rest.get(..instruction.len()).unwrap_or(rest));
                    format!("{linear:08x}  {hex:<20}  {}", text(&instruction))
                }
                None => format!("{linear:08x}  (bad)"),
            };
            let mut host = self
                .host
                .get(&(offset as u16))
                .map_or(Vec::new(), |(at, code)| host_lines(*at, code))
                .into_iter();
            writeln!(
                out,
                "{guest:<GUEST_COLUMN$} | {}",
                host.next().unwrap_or_else(|| "(no shadow code)".into())
            )?;
            for line in host {
                writeln!(out, "{:<GUEST_COLUMN$} | {line}", "")?;
            }
        }
        Ok(())
    }
}

/// How many instructions are shown.
fn shown(differs: &Differs) -> usize {
    usize::try_from(differs.instructions).map_or(MOST_GUEST, |all| all.min(MOST_GUEST))
}

fn host_lines(address: u64, code: &[u8]) -> Vec<String> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut lines = Vec::new();
    while decoder.can_decode() && lines.len() < MOST_HOST_LINES {
        let instruction = decoder.decode();
        let start = (instruction.ip() - address) as usize;
        let hex = hex(code.get(start..start + instruction.len()).unwrap_or_default());
        lines.push(format!("{:08x}  {hex:<20}  {}", instruction.ip(), text(&instruction)));
    }
    lines
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(instruction: &Instruction) -> String {
    let mut formatter = NasmFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_small_hex_numbers_in_decimal(false);
    let mut text = String::new();
    formatter.format(instruction, &mut text);
    text
}
