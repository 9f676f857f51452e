//! From a scanned unit to host code.
//!
//! Registers while shadow code runs are listed in [`super::bridge`]. The scratch registers have habits:
//! R8 the linear address (or the target of a jump), R9 the slot of its page, R10 saved flags, R11 a value on its way from one access to
//! another.
//!
//! Nothing of the guest's state changes before the last access of an instruction is known to be plain. So whatever is not (it
//! faults, crosses a page, meets a device or kept code) leaves to the interpreter *before* the instruction, which does
//! all of it.

mod far;
mod float;
mod flow;
mod live;
mod memory;
mod notes;
mod plain;
mod segment;
mod stack;
mod string;
mod system;
mod tight;

pub use flow::{Fills, Returns};
pub use memory::access;

use super::asm::{self, Asm, Label, Reg};
use super::bridge::{Bridge, Context, Leave};
use super::classify::{Kind, Terminal};
use super::mode::Mode;
use super::scanner::{Scanned, Unit, on_page, target};
use crate::cpu::CpuState;
use crate::cpu::Segment;
use crate::cpu::registers::{Seg, gpr};
use iced_x86::{Encoder, Register, RflagsBits};
use memory::Stub;
use notes::{Late, Notes};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;
use tight::TightLoop;

/// Where the engine's own code is.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The bridge.
    pub bridge: Bridge,
    /// Leaves with [`Leave::Miss`] for the linear address in R8D.
    pub miss: u64,
    /// Where returns go that were not predicted.
    pub returns: Returns,
    /// Where places go that have an empty cell.
    pub fills: Fills,
    /// Where the attention byte is, from R13.
    pub attention: i32,
}

/// What a unit is made for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its mode.
    pub mode: Mode,
    /// EIP of the page's first byte.
    pub page_eip: u32,
    /// Address of the page's entry table.
    pub table: u64,
    /// What the exec map says of the next linear page if it is the one whose bytes the unit has at its end.
    pub next_page: Option<u64>,
    /// Addresses of the first cell for its [links](crate::shadow::links), and of the end of those that are free.
    pub cells: [u32; 2],
    /// What counts down [`Context::budget`].
    pub counts: Counts,
    /// It is compared with the interpreter.
    pub lockstep: bool,
}

/// What counts down [`Context::budget`], until shadow code leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// Nothing: it leaves when attention is wanted.
    Nothing,
    /// What every loop comes across: backward jumps and calls, indirect ones, and returns that were not predicted.
    Loops,
    /// The same and every return; nothing is predicted. It also leaves after STI, for interrupts that no attention byte tells of.
    All,
}

/// What is put back when the access of an instruction faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Borrow {
    /// EDI is in R11.
    Destination,
    /// Part of ECX is in R11, to be added.
    Count,
}

/// Code of another unit of the same page, which a unit may jump to by itself as long as both are kept.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour {
    /// Where it is.
    pub code: u64,
    /// Arithmetic flags that are read there before they are written again.
    pub live: u32,
}

/// Neighbours by their offset in the page.
pub type Neighbours = BTreeMap<u16, Neighbour>;

/// What came of it.
pub struct Translated {
    /// Offsets in the page of instructions that can be entered, and where their code is from the start.
    pub entries: Vec<(u16, u32)>,
    /// The neighbours' code that it jumps to.
    pub links: Vec<u64>,
    /// What is at first in the cells that it has taken, in order: where in the code, or 1.
    pub cells: Vec<Option<u32>>,
    /// Terminal instructions: offset in the page, and where in the code the address of the instruction's `Op` belongs.
    pub ops: Vec<(u16, u32)>,
    /// Offsets of instructions whose access is made while a guest's register is not what it should be.
    pub borrows: Vec<(u16, Borrow)>,
    /// Where the code starts of instructions whose faults leave by a way of their own, and where that is.
    pub ways_out: Vec<(u32, u32)>,
    /// Offset of each instruction, and where its code starts. Loops are in it several times.
    pub map: Vec<(u16, u32)>,
    /// Where the code starts that is needed rarely.
    pub stubs: u32,
}

/// Makes units into code.
pub struct Translator {
    asm: Asm,
    encoder: Encoder,
    places: Places,
}

/// What is in a cell at first.
enum First {
    /// The address of code.
    Code(Label),
    /// 1.
    One,
}

/// One unit being made into code.
struct Emit<'a> {
    asm: &'a mut Asm,
    encoder: &'a mut Encoder,
    places: Places,
    target: Target,
    mode: Mode,
    labels: BTreeMap<u16, Label>,
    neighbours: &'a Neighbours,
    /// See [`Translated::links`].
    links: BTreeSet<u64>,
    /// See [`Translated::cells`].
    cells: Vec<First>,
    stubs: Vec<Late>,
    /// What the floating-point unit is to remember still.
    notes: Notes,
    /// See [`Translated::ways_out`].
    ways_out: Vec<(u32, Label)>,
    ops: Vec<(u16, u32)>,
    /// The offset of the instruction being emitted.
    offset: u16,
    /// Where its code starts.
    start: u32,
    /// The instruction being emitted is one whose access meets devices: EIP behind it, and where its code ends.
    device: Option<(u32, Label)>,
    /// See [`Emit::reached`].
    place: asm::Mem,
    /// See [`Translated::borrows`].
    borrows: Vec<(u16, Borrow)>,
    /// The instruction before was STI: interrupts are taken after this one.
    polls_next: bool,
    /// The floating-point unit is known to be loaded here.
    fpu_is_loaded: bool,
    /// The selector of CS has been noted since the last label.
    fpu_cs_noted: bool,
    /// The segment whose selector was noted last since the last label, in code of 16 bits.
    fpu_operand_noted: Option<Seg>,
}

const fn context(offset: usize) -> asm::Mem {
    asm::at(asm::R13, offset as i32)
}

const fn state(offset: usize) -> asm::Mem {
    asm::at(asm::R14, offset as i32)
}

const fn segment_field(seg: Seg, field: usize) -> asm::Mem {
    state(offset_of!(CpuState, segments) + seg as usize * size_of::<Segment>() + field)
}

/// Where a guest register is.
const fn host(register: usize) -> Reg {
    if register == gpr::ESP { asm::R12 } else { Reg(register as u8) }
}

/// The number of a guest's general register of 16 or 32 bits, or of an 8-bit one among AL to BL.
fn number(register: Register) -> usize {
    register.number()
}

fn seg_of(register: Register) -> Seg {
    match register {
        Register::ES => Seg::Es,
        Register::CS => Seg::Cs,
        Register::SS => Seg::Ss,
        Register::FS => Seg::Fs,
        Register::GS => Seg::Gs,
        _ => Seg::Ds,
    }
}

impl Translator {
    /// A translator whose code uses these places.
    pub fn new(places: Places) -> Self {
        Self { asm: Asm::new(0), encoder: Encoder::new(64), places }
    }

    /// Makes `unit` into code that will be at `base`. The code itself is in [`Translator::code`] until the next call.
    pub fn translate(
        &mut self,
        unit: &Unit,
        target: Target,
        neighbours: &Neighbours,
        base: u64,
    ) -> Translated {
        self.asm.restart(base);
        let mut labels = BTreeMap::new();
        for (offset, item) in &unit.instructions {
            if item.leader {
                labels.insert(*offset, self.asm.label());
            }
        }
        let mut emit = Emit {
            asm: &mut self.asm,
            encoder: &mut self.encoder,
            places: self.places,
            target,
            mode: target.mode,
            labels,
            neighbours,
            links: BTreeSet::new(),
            cells: Vec::new(),
            stubs: Vec::new(),
            notes: Notes::default(),
            ways_out: Vec::new(),
            ops: Vec::new(),
            offset: 0,
            start: 0,
            device: None,
            place: asm::at(asm::R15, 0),
            borrows: Vec::new(),
            polls_next: false,
            fpu_is_loaded: false,
            fpu_cs_noted: false,
            fpu_operand_noted: None,
        };
        let map = emit.unit(unit);
        let stubs = emit.asm.code.len() as u32;
        emit.stubs();
        let (labels, ops, borrows, ways_out) = (emit.labels, emit.ops, emit.borrows, emit.ways_out);
        let links = emit.links.into_iter().collect();
        let cells = emit.cells;
        self.asm.finish();
        let place = |label: &Label| self.asm.place(*label);
        let entries = labels.iter().filter_map(|(offset, label)| Some((*offset, place(label)?))).collect();
        let ways_out = ways_out.iter().filter_map(|(start, label)| Some((*start, place(label)?))).collect();
        let first = |first: &First| match first {
            First::Code(label) => place(label),
            First::One => None,
        };
        let cells = cells.iter().map(first).collect();
        Translated { entries, links, cells, ops, borrows, ways_out, map, stubs }
    }

    /// The code of the last unit.
    pub fn code(&self) -> &[u8] {
        &self.asm.code
    }

    /// Puts an address where [`Translated::ops`] says.
    pub fn set_address(&mut self, place: u32, address: u64) {
        self.asm.set_address(place, address);
    }
}

impl Emit<'_> {
    fn unit(&mut self, unit: &Unit) -> Vec<(u16, u32)> {
        let mut map = Vec::with_capacity(unit.instructions.len());
        let loops = self.loops(unit);
        // Where control goes when the instruction before falls through.
        let mut falls_to: Option<u16> = None;
        let mut instructions = unit.instructions.iter();
        while let Some((&offset, item)) = instructions.next() {
            if let Some(expected) = falls_to.filter(|expected| *expected != offset) {
                self.fall_to(expected);
            }
            let mut tight = None;
            if let Some(&label) = self.labels.get(&offset) {
                self.store_notes();
                tight = loops.contains(&offset).then(|| self.tight_loop(unit, offset)).flatten();
                if loops.contains(&offset) && !tight.as_ref().is_some_and(TightLoop::has_notes) {
                    self.asm.align(LOOP_ALIGNMENT);
                }
                self.bind(label);
            }
            if let Some(tight) = tight {
                falls_to = self.turns(&tight, unit, &mut map);
                instructions.nth(tight.turn() - 2);
                continue;
            }
            let run = if self.polls_next { Vec::new() } else { self.stack_run(unit, offset) };
            if let Some((last, item)) = run.last() {
                falls_to = Some(last + item.len() as u16);
                if let Some(rest) = run.len().checked_sub(2) {
                    instructions.nth(rest);
                }
                if !self.whole_stack_run(run, &mut map) {
                    falls_to = None;
                }
                continue;
            }
            self.begin(offset, &mut map);
            let polls = std::mem::take(&mut self.polls_next);
            let continues = self.instruction(offset, item, unit);
            if polls && continues {
                let next = self.eip(offset).wrapping_add(item.len() as u32);
                self.poll(next, Keep::of(item.live_out));
            }
            falls_to = continues.then(|| offset + item.len() as u16);
        }
        if let Some(expected) = falls_to {
            self.fall_to(expected);
        }
        map
    }

    /// Where control may come from elsewhere, too.
    fn bind(&mut self, label: Label) {
        self.asm.bind(label);
        self.fpu_is_loaded = false;
        self.fpu_cs_noted = false;
        self.fpu_operand_noted = None;
    }

    /// Before the code of an instruction.
    fn begin(&mut self, offset: u16, map: &mut Vec<(u16, u32)>) {
        self.offset = offset;
        self.start = self.asm.code.len() as u32;
        map.push((offset, self.start));
    }

    /// Where jumps go back to.
    fn loops(&self, unit: &Unit) -> BTreeSet<u16> {
        let back = |(offset, item): (&u16, &Scanned)| {
            let jumps = matches!(item.kind, Kind::Jcc(_) | Kind::Loop | Kind::Jump);
            let to = jumps.then(|| target(&item.instruction))?;
            on_page(self.mode, self.target.page_eip, to).filter(|to| to <= offset)
        };
        unit.instructions.iter().filter_map(back).collect()
    }

    fn eip(&self, offset: u16) -> u32 {
        self.target.page_eip.wrapping_add(u32::from(offset)) & self.mode.eip_mask()
    }

    /// Emits one instruction. True when control can go on behind it.
    fn instruction(&mut self, offset: u16, item: &Scanned, unit: &Unit) -> bool {
        let accesses = matches!(item.kind, Kind::Plain | Kind::Push | Kind::Pop | Kind::String);
        if !(item.device && accesses) || item.crosses || item.live.is_some() || self.mode.window() {
            return self.ordinary_instruction(offset, item, unit);
        }
        let (next, end) = (self.eip(offset).wrapping_add(item.len() as u32), self.asm.label());
        self.device = Some((next, end));
        let goes_on = self.ordinary_instruction(offset, item, unit);
        self.device = None;
        self.asm.bind(end);
        goes_on
    }

    fn ordinary_instruction(&mut self, offset: u16, item: &Scanned, unit: &Unit) -> bool {
        let eip = self.eip(offset);
        if self.put_off_stack_move(item) {
            return true;
        }
        self.notes_before(item);
        if item.crosses {
            self.check_next_page(eip, item);
        }
        if let Some(live) = item.live {
            self.with_live_immediate(eip, item, live);
            return true;
        }
        match item.kind {
            Kind::Plain => self.plain(eip, item),
            Kind::Terminal(why @ (Terminal::Float | Terminal::Boundary)) => {
                self.asm.store_imm(asm::W::D, context(offset_of!(Context, terminal)), why as i32 + 1);
                self.leave(eip, Leave::InterpretFloat);
                return false;
            }
            Kind::Terminal(why) => return self.interpret(offset, item, why),
            Kind::Float => self.float(eip, item),
            Kind::Nothing => {}
            Kind::Lea => self.lea(item),
            Kind::Divide => self.divide(eip, item),
            Kind::Push | Kind::Pop | Kind::PushSegment | Kind::Return => {
                return self.stack_instruction(eip, item);
            }
            Kind::PushAll => self.push_all(eip, item),
            Kind::PopAll => self.pop_all(eip, item),
            Kind::Leave => self.leave_frame(eip, item),
            Kind::ReadSegment => self.read_segment(eip, item),
            Kind::LoadSegment => return self.load_segment(offset, item, unit),
            Kind::String => self.string(eip, item),
            Kind::Repeat => self.repeat(offset, eip, item),
            Kind::InterruptFlag => return self.interrupt_flag(offset, item, unit),
            Kind::PushFlags => return self.push_flags(offset, item),
            Kind::PopFlags => return self.pop_flags(offset, item),
            Kind::InterruptReturn => {
                self.interrupt_return(eip);
                return false;
            }
            Kind::FarJump => {
                self.jump_far(eip, item);
                return false;
            }
            Kind::FarCall => {
                self.call_far(eip, item);
                return false;
            }
            Kind::FarReturn => {
                self.return_far(eip, item);
                return false;
            }
            Kind::Direction => self.direction(item),
            Kind::Xlat => self.xlat(eip, item),
            Kind::Jcc(condition) => self.jump_if(eip, condition, item, unit),
            Kind::Loop => self.loop_instruction(eip, item, unit),
            Kind::Jump => {
                self.jump(eip, item, unit);
                return false;
            }
            Kind::Call => return self.call(eip, item, unit),
            Kind::JumpIndirect => {
                self.jump_indirect(eip, item);
                return false;
            }
            Kind::CallIndirect => return self.call_indirect(eip, item),
        }
        true
    }

    /// Has a terminal instruction interpreted in place. True when control can go on behind it.
    fn interpret(&mut self, offset: u16, item: &Scanned, why: Terminal) -> bool {
        let next = self.eip(offset).wrapping_add(item.len() as u32);
        self.call_interpreter(offset, next, why);
        let goes_on = item.kind.goes_on(&item.instruction);
        if !goes_on {
            // A far jump to what follows it has changed nothing else.
            let eip = self.eip(offset);
            self.jump_external(eip, next);
        }
        goes_on
    }

    /// Before an instruction that goes on on the next page: leaves, unless that is still the same.
    fn check_next_page(&mut self, eip: u32, item: &Scanned) {
        let keep = Keep::of(item.live_in);
        let linear = self.mode.linear(eip);
        let other = self.asm.label();
        self.save_flags(keep);
        let entry = ((linear >> PAGE_SHIFT) + 1) * size_of::<u64>() as u32;
        self.asm.load(asm::W::Q, asm::R8, context(offset_of!(Context, maps)));
        self.asm.load(asm::W::Q, asm::R8, asm::at(asm::R8, entry as i32));
        let place = self.asm.mov_address(asm::R9);
        self.asm.set_address(place, self.target.next_page.unwrap_or_default());
        self.asm.alu(asm::Alu::Cmp, asm::W::Q, asm::R8, asm::R9);
        self.asm.jcc(asm::NE, other);
        self.restore_flags(keep);
        self.later(Stub::InterpretFloat { label: other, eip, saved: keep });
    }

    fn call_interpreter(&mut self, offset: u16, next: u32, why: Terminal) {
        self.asm.store_imm(asm::W::D, state(offset_of!(CpuState, eip)), next as i32);
        self.asm.store_imm(asm::W::D, context(offset_of!(Context, terminal)), why as i32 + 1);
        self.ops.push((offset, self.asm.mov_address(asm::R9)));
        self.asm.call_to(self.places.bridge.interpret);
    }

    /// Leaves shadow code with the guest before the instruction at `eip`.
    fn leave(&mut self, eip: u32, why: Leave) {
        self.asm.store_imm(asm::W::D, state(offset_of!(CpuState, eip)), eip as i32);
        self.asm.store_imm(asm::W::D, context(offset_of!(Context, leave)), why as i32);
        self.asm.jmp_to(self.places.bridge.to_host);
    }

    /// Keeps arithmetic flags in R10, so that others may change them. R9 is lost.
    fn save_flags(&mut self, keep: Keep) {
        match keep {
            Keep::Nothing => {}
            Keep::Carry => self.asm.setcc(asm::B, asm::R10),
            Keep::All => {
                self.asm.mov(asm::W::Q, asm::R10, asm::RAX);
                self.asm.lahf();
                self.asm.setcc(asm::O, asm::RAX);
                // XCHG with the accumulator, by moves: they are renamed away.
                self.asm.mov(asm::W::Q, asm::R9, asm::RAX);
                self.asm.mov(asm::W::Q, asm::RAX, asm::R10);
                self.asm.mov(asm::W::Q, asm::R10, asm::R9);
            }
        }
    }

    /// Takes them back from R10. Only R10 is lost.
    fn restore_flags(&mut self, keep: Keep) {
        match keep {
            Keep::Nothing => {}
            Keep::Carry => self.asm.add_low(asm::R10, -1),
            Keep::All => {
                self.asm.bytes(&XCHG_RAX_R10);
                self.asm.al_to_overflow();
                self.asm.sahf();
                self.asm.mov(asm::W::Q, asm::RAX, asm::R10);
            }
        }
    }
}

/// Which arithmetic flags somebody reads later, so that other code has to keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// None.
    Nothing,
    /// CF alone, which INC and DEC keep alive for long: it is cheaper to keep than all.
    Carry,
    /// Any.
    All,
}

impl Keep {
    /// For live flags as iced-x86 numbers them.
    fn of(live: u32) -> Self {
        if live == 0 {
            Self::Nothing
        } else if live == RflagsBits::CF {
            Self::Carry
        } else {
            Self::All
        }
    }
}

const PAGE_SHIFT: u32 = 12;
/// Loops start at multiples of this.
const LOOP_ALIGNMENT: usize = 16;
/// `xchg rax, r10`.
const XCHG_RAX_R10: [u8; 2] = [0x49, 0x92];
