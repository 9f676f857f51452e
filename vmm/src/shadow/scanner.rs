//! The scanner: from guest bytes to a unit of instructions that are made into shadow code together.
//!
//! From one address it decodes until
//! 1. an instruction crosses the page's boundary,
//! 2. it is *terminal*: it must be interpreted,
//! 3. it has been scanned already,
//! 4. it is invalid;
//!
//! a conditional jump, LOOP, JCXZ or near CALL with a target on the page makes it scan both ways, a near JMP moves the
//! scan to its target, a jump that leaves the page ends it. Then it computes which arithmetic flags each instruction
//! leaves that anybody reads. It knows neither processor nor memory: it gets a page's bytes.
#![expect(unsafe_code, reason = "copies code that devices may write meanwhile")]

use super::classify::{Kind, Terminal, classify, has_memory};
use super::mode::Mode;
use iced_x86::{Decoder, DecoderOptions, Instruction, Register, RflagsBits};
use std::collections::BTreeMap;

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// No instruction is longer.
const MAX_LENGTH: usize = 15;
/// Most instructions of a unit.
const MOST: usize = 192;

/// What a P6 decodes, as the interpreter has it.
pub const OPTIONS: u32 = DecoderOptions::FORCE_RESERVED_NOP
    | DecoderOptions::NO_PAUSE
    | DecoderOptions::NO_WBNOINVD
    | DecoderOptions::NO_MPFX_0FBC
    | DecoderOptions::NO_MPFX_0FBD;

/// All arithmetic flags.
pub const ALL_FLAGS: u32 =
    RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;

/// Where an instruction has an immediate operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveImmediate {
    /// From the instruction's first byte.
    pub offset: u8,
    /// Bytes.
    pub size: u8,
}

/// An instruction of a unit.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// As iced-x86 sees it, with its EIP.
    pub instruction: Instruction,
    /// What is done with it.
    pub kind: Kind,
    /// Its last bytes are on the next page.
    pub crosses: bool,
    /// Its immediate operand is read from guest memory when it runs.
    pub live: Option<LiveImmediate>,
    /// Its access has met devices again and again.
    pub device: bool,
    /// CALL: of code that only loads its return address into this register, by number.
    pub reads_eip: Option<u8>,
    /// FOP, of an x87 instruction that is not a control instruction.
    pub fop: Option<u16>,
    /// Something may jump here.
    pub leader: bool,
    /// Arithmetic flags that are read before they are written again, seen from before it.
    pub live_in: u32,
    /// The same from after it.
    pub live_out: u32,
}

impl Scanned {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.instruction.len()
    }
}

/// The bytes of a page, and the first of the page after it when that is known.
#[derive(PartialEq, Eq)]
pub struct CodeBytes {
    bytes: [u8; PAGE + MAX_LENGTH],
    len: usize,
}

impl CodeBytes {
    /// Copies a page.
    ///
    /// # Safety
    /// A page can be read at `page`, and at `next` if there is one.
    pub unsafe fn copy(page: *const u8, next: Option<*const u8>) -> Self {
        let mut copy = Self { bytes: [0; PAGE + MAX_LENGTH], len: PAGE };
        // SAFETY: promised by the caller; the copy is long enough for both.
        unsafe {
            std::ptr::copy_nonoverlapping(page, copy.bytes.as_mut_ptr(), PAGE);
            if let Some(next) = next {
                std::ptr::copy_nonoverlapping(next, copy.bytes.as_mut_ptr().add(PAGE), MAX_LENGTH);
                copy.len += MAX_LENGTH;
            }
        }
        copy
    }

    /// Of pages that have been copied.
    pub fn of(page: &[u8; PAGE], next: Option<&[u8; PAGE]>) -> Self {
        let mut copy = Self { bytes: [0; PAGE + MAX_LENGTH], len: PAGE };
        copy.bytes[..PAGE].copy_from_slice(page);
        if let Some(next) = next {
            copy.bytes[PAGE..].copy_from_slice(&next[..MAX_LENGTH]);
            copy.len += MAX_LENGTH;
        }
        copy
    }

    /// What is known from `offset` on.
    pub fn from(&self, offset: usize) -> &[u8] {
        self.bytes.get(offset..self.len).unwrap_or(&[])
    }
}

/// Instructions by their offset in the page.
#[derive(Debug, Default)]
pub struct Unit {
    /// The instructions.
    pub instructions: BTreeMap<u16, Scanned>,
}

impl Unit {
    /// Whether the instructions of `len` bytes from `offset` on are all in it.
    pub fn has_whole(&self, offset: u16, len: usize) -> bool {
        let end = usize::from(offset) + len;
        let mut next = usize::from(offset);
        while next < end {
            let Some(item) = u16::try_from(next).ok().and_then(|at| self.instructions.get(&at)) else {
                return false;
            };
            next += item.len();
        }
        true
    }

    /// How many bytes of the next page its last instruction has, if it has any.
    pub fn spill(&self) -> Option<u16> {
        let (offset, last) = self.instructions.last_key_value()?;
        last.crosses.then(|| (usize::from(*offset) + last.len() - PAGE) as u16)
    }
}

/// Bytes of code that [`reads_eip`] knows.
pub const READS_EIP: usize = 4;

/// The register that code only loads its return address into: `mov register, [esp]`, `ret`.
pub fn reads_eip(bytes: [u8; READS_EIP]) -> Option<u8> {
    // MOV r32, r/m32; a SIB byte says [ESP]; RET.
    const ESP: u8 = 4;
    match bytes {
        [0x8b, modrm, 0x24, 0xc3] if modrm & 0xc7 == ESP && modrm >> 3 != ESP => Some(modrm >> 3),
        _ => None,
    }
}

/// A branch's target: the offset in the page, if it is on the page.
pub fn on_page(mode: Mode, page_eip: u32, target: u32) -> Option<u16> {
    // Not by EIP alone: a 16-bit target may have wrapped round to the page's other end.
    let offset = mode.linear(target).wrapping_sub(mode.linear(page_eip));
    ((offset as usize) < PAGE).then_some(offset as u16)
}

/// Scans from `entry`. `page_eip` is the EIP of the page's first byte (modulo 2^32: it may lie before the segment's start).
/// `scanned` tells the offsets that have shadow code already. An empty unit: not even the first can be taken.
pub fn scan(bytes: &CodeBytes, mode: Mode, page_eip: u32, entry: u16, scanned: impl Fn(u16) -> bool) -> Unit {
    scan_up_to(MOST, bytes, mode, page_eip, entry, scanned)
}

/// Arithmetic flags that are read before they are written again at an offset, as far as the page shows: at least those that no
/// unit takes for dead.
pub fn live_flags(bytes: &CodeBytes, mode: Mode, page_eip: u32, offset: u16) -> u32 {
    let unit = scan_up_to(PAGE, bytes, mode, page_eip, offset, |_| false);
    unit.instructions.get(&offset).map_or(ALL_FLAGS, |item| item.live_in)
}

fn scan_up_to(
    most: usize,
    bytes: &CodeBytes,
    mode: Mode,
    page_eip: u32,
    entry: u16,
    scanned: impl Fn(u16) -> bool,
) -> Unit {
    let mut unit = Unit::default();
    let mut work = vec![entry];
    while let Some(start) = work.pop() {
        let mut offset = usize::from(start);
        let mut leader = true;
        while offset < PAGE {
            // (Of a full unit too: a jump to what is not known to be a leader leaves it.)
            if let Some(known) = unit.instructions.get_mut(&(offset as u16)) {
                known.leader |= leader;
                break;
            }
            if unit.instructions.len() >= most {
                break;
            }
            if offset != usize::from(entry) && scanned(offset as u16) {
                break;
            }
            let Some((instruction, kind)) = decode(bytes, mode, page_eip, offset) else { break };
            let next = offset + instruction.len();
            let fop = fop(&instruction, bytes.from(offset));
            let crosses = offset + instruction.len() > PAGE && !matches!(kind, Kind::Terminal(_));
            let item = Scanned {
                instruction,
                kind,
                crosses,
                live: None,
                device: false,
                reads_eip: None,
                fop,
                leader,
                live_in: ALL_FLAGS,
                live_out: ALL_FLAGS,
            };
            unit.instructions.insert(offset as u16, item);
            leader = false;
            match kind {
                _ if kind.has_target() => {
                    if let Some(target) = on_page(mode, page_eip, target(&instruction)) {
                        work.push(target);
                    }
                    if kind == Kind::Jump {
                        break;
                    }
                    // What CALL returns to is entered from elsewhere.
                    leader = kind == Kind::Call;
                }
                Kind::Return
                | Kind::JumpIndirect
                | Kind::FarJump
                | Kind::FarReturn
                | Kind::InterruptReturn => break,
                Kind::CallIndirect | Kind::FarCall => leader = true,
                // A poll comes behind it.
                Kind::PopFlags => leader = true,
                // Interpreted in place; what comes next is entered anew when that changed more than it.
                Kind::Terminal(_) if kind.goes_on(&instruction) => leader = true,
                Kind::Terminal(_) => break,
                _ => {}
            }
            offset = next;
        }
    }
    find_live_flags(&mut unit, mode, page_eip);
    unit
}

/// Target of a near branch.
pub fn target(instruction: &Instruction) -> u32 {
    instruction.near_branch_target() as u32
}

/// The instruction at an offset of a page. `None`: it runs past the end of a 16-bit segment.
pub fn decode(bytes: &CodeBytes, mode: Mode, page_eip: u32, offset: usize) -> Option<(Instruction, Kind)> {
    let eip = page_eip.wrapping_add(offset as u32);
    if !mode.code32() && eip > mode.eip_mask() {
        return None;
    }
    let rest = bytes.from(offset);
    let mut decoder = Decoder::with_ip(if mode.code32() { 32 } else { 16 }, rest, u64::from(eip), OPTIONS);
    let instruction = decoder.decode();
    // Rules 1 and 4: both are the interpreter's, with all bytes that they might have.
    if instruction.is_invalid() {
        return Some((opaque(PAGE - offset), Kind::Terminal(Terminal::Boundary)));
    }
    // One that ends at the end of a 16-bit segment would go on at its start.
    let end = eip.wrapping_add(instruction.len() as u32);
    if !mode.code32() && end > mode.eip_mask() {
        return None;
    }
    let kind = classify(&instruction, mode);
    // What is interpreted fetches all of its bytes itself.
    let interpreted = matches!(kind, Kind::Terminal(_) | Kind::Repeat | Kind::LoadSegment);
    if offset + instruction.len() > PAGE && interpreted {
        return Some((opaque(PAGE - offset), Kind::Terminal(Terminal::Boundary)));
    }
    Some((instruction, kind))
}

/// What FOP becomes, if the instruction is no control instruction (SDM vol. 1, 5.2.7): the last three bits of the opcode's first byte and its second.
fn fop(instruction: &Instruction, bytes: &[u8]) -> Option<u16> {
    use iced_x86::Mnemonic::*;
    let control = matches!(
        instruction.mnemonic(),
        Fnop | Fninit
            | Fnclex
            | Fldcw
            | Fnstcw
            | Fnstsw
            | Fnstenv
            | Fldenv
            | Fnsave
            | Frstor
            | Wait
            | Ffree
            | Ffreep
            | Fincstp
            | Fdecstp
            | Fneni
            | Fndisi
            | Fnsetpm
    );
    if !is_x87(instruction) || control {
        return None;
    }
    let is_prefix =
        |byte: &&u8| matches!(**byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let mut rest = bytes.iter().skip_while(is_prefix);
    let (opcode, second) = (*rest.next()?, *rest.next()?);
    Some(u16::from(opcode & 7) << 8 | u16::from(second))
}

fn is_x87(instruction: &Instruction) -> bool {
    use iced_x86::CpuidFeature::*;
    instruction.cpuid_features().iter().any(|feature| matches!(feature, FPU | FPU287 | FPU387))
}

/// An instruction of which only the bytes on this page are known, `left` of them at most.
fn opaque(left: usize) -> Instruction {
    let mut instruction = Instruction::default();
    instruction.set_len(left.min(MAX_LENGTH));
    instruction
}

/// Whether an instruction has an operand in memory at an address on its own page that needs no register, as far as offsets tell:
/// it may write over the code that follows.
fn names_its_page(instruction: &Instruction, page_eip: u32) -> bool {
    has_memory(instruction)
        && instruction.memory_base() == Register::None
        && instruction.memory_index() == Register::None
        && (instruction.memory_displacement32().wrapping_sub(page_eip) as usize) < PAGE
}

/// Flags that an instruction reads, and those that do not depend on their old value after it.
fn flag_use(item: &Scanned, page_eip: u32) -> (u32, u32) {
    use iced_x86::Mnemonic::*;
    let instruction = &item.instruction;
    match item.kind {
        // What follows it then may read other flags than what follows now.
        _ if names_its_page(instruction, page_eip) => return (ALL_FLAGS, 0),
        Kind::PopFlags | Kind::InterruptReturn => return (0, ALL_FLAGS),
        // What it loads is not what they are now.
        Kind::Terminal(Terminal::System) if matches!(instruction.mnemonic(), Iret | Iretd) => {
            return (0, ALL_FLAGS);
        }
        Kind::Terminal(_) | Kind::PushFlags => return (ALL_FLAGS, 0),
        _ => {}
    }
    // What becomes undefined depends on no old value either.
    let written = instruction.rflags_modified();
    let read = instruction.rflags_read() & ALL_FLAGS;
    let killed = match instruction.mnemonic() {
        // A count of zero changes nothing, and it is not known before it runs (or not worth knowing).
        Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd => {
            let counted = instruction.op_count() >= 2
                && matches!(instruction.op_kind(instruction.op_count() - 1), iced_x86::OpKind::Immediate8)
                && instruction.immediate8() & 0x1f != 0;
            if counted { written } else { 0 }
        }
        // Repeated zero times they change nothing.
        Scasb | Scasw | Scasd | Cmpsb | Cmpsw | Cmpsd
            if instruction.has_rep_prefix() || instruction.has_repne_prefix() =>
        {
            0
        }
        _ => written,
    };
    (read, killed & ALL_FLAGS)
}

/// What an instruction does to the flags that are live, and where they are looked at behind it.
struct Flow {
    read: u32,
    killed: u32,
    /// Live behind it whatever the unit has: it leads out of the unit.
    outside: u32,
    /// Instructions of the unit, by number, that may come next.
    next: [Option<usize>; 2],
}

/// Backwards over the unit until nothing changes.
fn find_live_flags(unit: &mut Unit, mode: Mode, page_eip: u32) {
    let offsets: Vec<u16> = unit.instructions.keys().copied().collect();
    let number = |at: u16| offsets.binary_search(&at).ok();
    let flow = |(n, (&offset, item)): (usize, (&u16, &Scanned))| {
        let end = usize::from(offset) + item.len();
        // Mostly it is simply the next one.
        let behind = || match offsets.get(n + 1) {
            Some(&next) if usize::from(next) == end => Some(n + 1),
            _ => u16::try_from(end).ok().and_then(number),
        };
        let there = || on_page(mode, page_eip, target(&item.instruction)).and_then(number);
        let next: &[Option<usize>] = match item.kind {
            Kind::Jump | Kind::Call => &[there()],
            Kind::Jcc(_) | Kind::Loop => &[there(), behind()],
            Kind::Return
            | Kind::JumpIndirect
            | Kind::CallIndirect
            | Kind::FarJump
            | Kind::FarCall
            | Kind::FarReturn
            | Kind::InterruptReturn
            | Kind::Terminal(_) => &[None],
            _ => &[behind()],
        };
        let outside = if next.contains(&None) { ALL_FLAGS } else { 0 };
        let (read, killed) = flag_use(item, page_eip);
        Flow { read, killed, outside, next: [next[0], next.get(1).copied().flatten()] }
    };
    let flows: Vec<Flow> = unit.instructions.iter().enumerate().map(flow).collect();
    let mut live_in = vec![0; flows.len()];
    let live_out = |flow: &Flow, live_in: &[u32]| {
        flow.next.iter().flatten().fold(flow.outside, |live, &next| live | live_in[next])
    };
    loop {
        let mut changed = false;
        for (n, flow) in flows.iter().enumerate().rev() {
            let before = live_out(flow, &live_in) & !flow.killed | flow.read;
            changed |= before != live_in[n];
            live_in[n] = before;
        }
        if !changed {
            break;
        }
    }
    for (n, item) in unit.instructions.values_mut().enumerate() {
        item.live_in = live_in[n];
        item.live_out = live_out(&flows[n], &live_in);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shadow::listing::Snippet;

    fn mode() -> Mode {
        Mode::made_of(&Snippet {
            bytes: &[],
            eip: 0,
            code32: true,
            stack32: true,
            user: true,
            flat: true,
            window: false,
            sse: false,
            segmented: false,
            cs_base: 0,
            reads_eip: None,
        })
    }

    #[test]
    fn loops_of_a_unit_stay_inside_when_it_is_full() {
        // INC EAX, a loop back to the second, and more than a unit takes.
        const INC_EAX: u8 = 0x40;
        const JNZ: [u8; 2] = [0x75, 0xfd];
        let mut page = [INC_EAX; PAGE];
        page[2..4].copy_from_slice(&JNZ);
        let unit = scan(&CodeBytes::of(&page, None), mode(), 0, 0, |_| false);
        assert_eq!(unit.instructions.len(), MOST);
        assert!(unit.instructions[&1].leader);
        assert!(!unit.instructions[&2].leader);
    }

    #[test]
    fn instructions_that_came_with_sse2_are_not_there_without_it() {
        // PADDD and PADDQ with MMX registers.
        let mut page = [0; PAGE];
        page[..6].copy_from_slice(&[0x0f, 0xfe, 0xc1, 0x0f, 0xd4, 0xc1]);
        let kinds = [0, 3].map(|at| decode(&CodeBytes::of(&page, None), mode(), 0, at).map(|(_, kind)| kind));
        assert!(matches!(kinds, [Some(Kind::Float), Some(Kind::Terminal(_))]), "{kinds:?}");
    }
}
