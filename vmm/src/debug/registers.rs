//! All registers as text for people.

use super::memory::Place;
use super::{disassembly, fpu};
use crate::cpu::bus::Bus;
use crate::cpu::descriptor::system_type;
use crate::cpu::registers::{cr0, cr4, dr7, eflags, rights};
use crate::cpu::state::{Activity, CpuState, InterruptShadow, Segment};
use crate::cpu::{Seg, Vcpu};
use std::fmt::{self, Write as _};

/// Names of the bits of a register, from high to low.
type Bits = &'static [(u32, &'static str)];

const EFLAGS: Bits = &[
    (eflags::ID, "ID"),
    (eflags::VIP, "VIP"),
    (eflags::VIF, "VIF"),
    (eflags::AC, "AC"),
    (eflags::VM, "VM"),
    (eflags::RF, "RF"),
    (eflags::NT, "NT"),
    (eflags::OF, "OF"),
    (eflags::DF, "DF"),
    (eflags::IF, "IF"),
    (eflags::TF, "TF"),
    (eflags::SF, "SF"),
    (eflags::ZF, "ZF"),
    (eflags::AF, "AF"),
    (eflags::PF, "PF"),
    (eflags::CF, "CF"),
];

const CR0: Bits = &[
    (cr0::PG, "PG"),
    (cr0::CD, "CD"),
    (cr0::NW, "NW"),
    (cr0::AM, "AM"),
    (cr0::WP, "WP"),
    (cr0::NE, "NE"),
    (cr0::ET, "ET"),
    (cr0::TS, "TS"),
    (cr0::EM, "EM"),
    (cr0::MP, "MP"),
    (cr0::PE, "PE"),
];

const CR4: Bits = &[
    (cr4::OSXMMEXCPT, "OSXMMEXCPT"),
    (cr4::OSFXSR, "OSFXSR"),
    (cr4::PCE, "PCE"),
    (cr4::PGE, "PGE"),
    (cr4::MCE, "MCE"),
    (cr4::PAE, "PAE"),
    (cr4::PSE, "PSE"),
    (cr4::DE, "DE"),
    (cr4::TSD, "TSD"),
    (cr4::PVI, "PVI"),
    (cr4::VME, "VME"),
];

const GPR_NAMES: [&str; 8] = ["EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI"];
const SEGMENT_NAMES: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];

/// All registers, and the instruction to be executed next.
pub fn describe<B: Bus>(cpu: &mut Vcpu<B>) -> String {
    cpu.sync_flags();
    let next = Place::next_instruction(cpu);
    let (code, _) = disassembly::instruction(cpu, next);
    let linear = cpu.state.segment(Seg::Cs).base().wrapping_add(cpu.state.eip);
    let physical = next.physical(cpu).map_or("not mapped".into(), |at| format!("physical {at:08x}"));
    let mut out = String::new();
    // Writing to a string cannot fail.
    _ = writeln!(out, "{next}  {code}");
    _ = writeln!(out, "linear {linear:08x}, {physical}, {}", mode(&cpu.state));
    _ = integers(&mut out, &cpu.state);
    _ = segments(&mut out, &cpu.state);
    _ = control(&mut out, &cpu.state);
    _ = fpu::describe(&mut out, &cpu.state.fpu);
    out
}

/// What kind of code runs, and what keeps it from running.
fn mode(state: &CpuState) -> String {
    let kind = match (state.protected(), state.v86()) {
        (false, _) => "real mode",
        (_, true) => "virtual-8086 mode",
        _ if state.segment(Seg::Cs).big() => "32-bit protected mode",
        _ => "16-bit protected mode",
    };
    let mut text = format!("{kind}, CPL {}", state.cpl);
    if state.cr0 & cr0::PG != 0 {
        text.push_str(", paging");
    }
    text.push_str(match state.activity {
        Activity::Running => "",
        Activity::Halted => ", halted",
        Activity::Shutdown => ", shut down",
    });
    text.push_str(match state.interrupt_shadow {
        InterruptShadow::None => "",
        InterruptShadow::Sti => ", shadow of STI",
        InterruptShadow::MovSs => ", shadow of MOV SS",
    });
    if state.nmi_blocked {
        text.push_str(", NMI blocked");
    }
    text
}

fn names(value: u32, bits: Bits) -> String {
    let set: Vec<_> = bits.iter().filter(|(bit, _)| value & bit != 0).map(|(_, name)| *name).collect();
    set.join(" ")
}

fn integers(out: &mut String, state: &CpuState) -> fmt::Result {
    const ORDER: [[usize; 4]; 2] = [[0, 3, 1, 2], [6, 7, 5, 4]];
    for row in ORDER {
        let cells = row.map(|i| format!("{} {:08x}", GPR_NAMES[i], state.gpr[i]));
        writeln!(out, "{}", cells.join("  "))?;
    }
    writeln!(
        out,
        "EIP {:08x}  EFLAGS {:08x} [{}] IOPL {}",
        state.eip,
        state.eflags,
        names(state.eflags, EFLAGS),
        state.iopl()
    )
}

fn segments(out: &mut String, state: &CpuState) -> fmt::Result {
    for (name, segment) in SEGMENT_NAMES.iter().zip(&state.segments) {
        writeln!(out, "{name:<4} {}", segment_text(segment))?;
    }
    writeln!(out, "LDTR {}", segment_text(&state.ldtr))?;
    writeln!(out, "TR   {}", segment_text(&state.tr))?;
    for (name, table) in [("GDTR", state.gdtr), ("IDTR", state.idtr)] {
        writeln!(out, "{name}      base {:08x} limit {:08x}", table.base, table.limit)?;
    }
    Ok(())
}

fn segment_text(segment: &Segment) -> String {
    format!(
        "{:04x} base {:08x} limit {:08x} rights {:04x} {}",
        segment.selector,
        segment.base(),
        segment.limit(),
        segment.rights(),
        rights_text(segment.rights())
    )
}

/// The attributes of a segment in words.
fn rights_text(attributes: u16) -> String {
    let has = |bit: u16| attributes & bit != 0;
    if !has(rights::PRESENT) {
        return "not usable".into();
    }
    let dpl = (attributes & rights::DPL) >> rights::DPL_SHIFT;
    if !has(rights::NOT_SYSTEM) {
        let kind = match attributes & rights::TYPE {
            system_type::LDT => "LDT",
            system_type::TSS16_AVAILABLE => "16-bit TSS",
            system_type::TSS16_BUSY => "16-bit TSS, busy",
            system_type::TSS32_AVAILABLE => "32-bit TSS",
            system_type::TSS32_BUSY => "32-bit TSS, busy",
            _ => "system",
        };
        return format!("{kind}, DPL {dpl}");
    }
    let size = if has(rights::BIG) { "32-bit" } else { "16-bit" };
    let mut text = if has(rights::CODE) {
        let reading = if has(rights::READABLE) { "execute/read" } else { "execute" };
        format!("{size} code, {reading}{}", if has(rights::CONFORMING) { ", conforming" } else { "" })
    } else {
        let writing = if has(rights::WRITABLE) { "read/write" } else { "read" };
        format!("{size} data, {writing}{}", if has(rights::EXPAND_DOWN) { ", expand-down" } else { "" })
    };
    // Writing to a string cannot fail.
    _ = write!(text, ", DPL {dpl}");
    text
}

fn control(out: &mut String, state: &CpuState) -> fmt::Result {
    writeln!(out, "CR0 {:08x} [{}]", state.cr0, names(state.cr0, CR0))?;
    writeln!(
        out,
        "CR2 {:08x}  CR3 {:08x}  CR4 {:08x} [{}]",
        state.cr2,
        state.cr3,
        state.cr4,
        names(state.cr4, CR4)
    )?;
    let dr = &state.dr;
    writeln!(out, "DR0 {:08x}  DR1 {:08x}  DR2 {:08x}  DR3 {:08x}", dr[0], dr[1], dr[2], dr[3])?;
    let enabled: Vec<_> =
        (0..4).filter(|i| dr[7] & dr7::ENABLES & 3 << (2 * i) != 0).map(|i| format!("DR{i}")).collect();
    writeln!(out, "DR6 {:08x}  DR7 {:08x} [{}]", dr[6], dr[7], enabled.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{protected, vcpu};

    #[test]
    fn everything_after_reset_is_there_and_decoded() {
        let mut cpu = vcpu();
        // The reset vector: a far jump as every BIOS has it.
        cpu.bus.load(0xffff_fff0, &[0xea, 0x5b, 0xe0, 0x00, 0xf0]);
        let text = describe(&mut cpu);
        for line in [
            "f000:fff0  ea5be000f0            jmp 0xf000:0xe05b\n",
            "linear fffffff0, physical fffffff0, real mode, CPL 0\n",
            "EIP 0000fff0  EFLAGS 00000002 [] IOPL 0\n",
            "CS   f000 base ffff0000 limit 0000ffff rights 0093 16-bit data, read/write, DPL 0\n",
            "IDTR      base 00000000 limit 0000ffff\n",
            "CR0 60000010 [CD NW ET]\n",
            "DR6 ffff0ff0  DR7 00000400 []\n",
        ] {
            assert!(text.contains(line), "{line:?} is missing in:\n{text}");
        }
    }

    #[test]
    fn protected_mode_shows_what_descriptors_say() {
        let mut cpu = protected();
        cpu.set_flags(eflags::IF | eflags::ZF | eflags::IOPL);
        cpu.state.dr[7] |= 2 << 4;
        let text = describe(&mut cpu);
        for part in [
            "32-bit protected mode, CPL 0",
            "[IF ZF] IOPL 3",
            "CS   0008 base 00000000 limit ffffffff rights c09b 32-bit code, execute/read, DPL 0",
            "TR   0028 base 00003000 limit 000000a7 rights 008b 32-bit TSS, busy, DPL 0",
            "FS   0000 base 00000000 limit 00000000 rights 0000 not usable",
            "[DR2]",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }
}
