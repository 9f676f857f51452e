//! String instructions on memory, alone and repeated. (INS and OUTS: `io.rs`.)
//!
//! A repeated instruction commits ECX, ESI and EDI after each element, so that it can fault or be
//! interrupted between any two: it returns with EIP back on itself, and the engine runs it again.

use super::alu::compare_values;
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::Exec;
use crate::cpu::registers::{Seg, eflags};
use crate::interp::bulk;
use crate::interp::decode::{Decoded, Kind};
use crate::interp::op::{Byte, Dword, EAX, ECX, EDI, ESI, Ends, Handler, Op, Size, Word};
use iced_x86::Mnemonic;

/// Elements moved before the engine gets a chance to poll.
const CHUNK: u32 = 4096;
/// How often an element loop looks for interrupts by itself (device memory can be slow).
const POLL_MASK: u32 = 31;

/// How an instruction is repeated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Not at all.
    Once,
    /// REP, REPE.
    WhileEqual,
    /// REPNE.
    WhileNotEqual,
}

/// The repeat prefix.
pub fn repeat_prefix(form: &Decoded) -> Repeat {
    if form.instruction.has_repne_prefix() {
        Repeat::WhileNotEqual
    } else if form.instruction.has_rep_prefix() {
        Repeat::WhileEqual
    } else {
        Repeat::Once
    }
}

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded, op: &mut Op<B>) -> Option<Handler<B>> {
    use Mnemonic::*;
    let size = match form.mnemonic {
        Movsb | Stosb | Lodsb | Cmpsb | Scasb => 1,
        Movsw | Stosw | Lodsw | Cmpsw | Scasw => 2,
        // SSE2 has an instruction of this name.
        Movsd if form.kinds[0] != Kind::String => return None,
        Movsd | Stosd | Lodsd | Scasd => 4,
        Cmpsd if form.kinds[0] == Kind::String => 4,
        _ => return None,
    };
    let repeat = repeat_prefix(form);
    if repeat != Repeat::Once {
        op.ends = Ends::Full;
    }
    Some(match form.mnemonic {
        Movsb | Movsw | Movsd => plain::<B, Move>(size, form.wide_address, repeat),
        Stosb | Stosw | Stosd => plain::<B, Store>(size, form.wide_address, repeat),
        Lodsb | Lodsw | Lodsd => plain::<B, Load>(size, form.wide_address, repeat),
        Cmpsb | Cmpsw | Cmpsd => comparing::<B, Compare>(size, form.wide_address, repeat),
        _ => comparing::<B, Scan>(size, form.wide_address, repeat),
    })
}

macro_rules! by_sizes {
    ($size:expr, $wide:expr, $handler:ident, $element:ty) => {
        match ($size, $wide) {
            (1, false) => $handler::<B, Byte, Word, $element> as Handler<B>,
            (1, true) => $handler::<B, Byte, Dword, $element>,
            (2, false) => $handler::<B, Word, Word, $element>,
            (2, true) => $handler::<B, Word, Dword, $element>,
            (_, false) => $handler::<B, Dword, Word, $element>,
            (_, true) => $handler::<B, Dword, Dword, $element>,
        }
    };
}

fn plain<B: Bus, E: Element>(size: u8, wide: bool, repeat: Repeat) -> Handler<B> {
    match repeat {
        Repeat::Once => by_sizes!(size, wide, once, E),
        _ => by_sizes!(size, wide, repeated, E),
    }
}

fn comparing<B: Bus, E: Element>(size: u8, wide: bool, repeat: Repeat) -> Handler<B> {
    match repeat {
        Repeat::Once => by_sizes!(size, wide, once, E),
        Repeat::WhileEqual => by_sizes!(size, wide, repeated_while_equal, E),
        Repeat::WhileNotEqual => by_sizes!(size, wide, repeated_while_not_equal, E),
    }
}

/// What one repetition does.
trait Element: 'static {
    /// Does it for operands of size `S` at addresses of size `A`.
    fn step<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec;

    /// Does several at once, if it can: the number done, at most `count`. Those that compare do none that ends the
    /// repetition, which goes on while operands are `equal`, or are not.
    #[inline(always)]
    fn bulk<B: Bus, S: Size, A: Size>(_cpu: &mut Vcpu<B>, _op: &Op<B>, _count: u32, _equal: bool) -> u32 {
        0
    }
}

struct Move;
struct Store;
struct Load;
struct Compare;
struct Scan;

/// Moves an index register to the next element.
#[inline(always)]
pub fn advance<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, register: u8, elements: u32) {
    let bytes = elements.wrapping_mul(S::BITS / 8);
    let old = A::get(cpu, register);
    let backwards = cpu.state.eflags & eflags::DF != 0;
    A::set(cpu, register, if backwards { old.wrapping_sub(bytes) } else { old.wrapping_add(bytes) });
}

impl Element for Move {
    #[inline(always)]
    fn step<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
        let (source, target) = (A::get(cpu, ESI), A::get(cpu, EDI));
        let value = S::load(cpu, op.segment, source)?;
        S::store(cpu, Seg::Es, target, value)?;
        advance::<B, S, A>(cpu, ESI, 1);
        advance::<B, S, A>(cpu, EDI, 1);
        Ok(())
    }

    #[inline(always)]
    fn bulk<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, op: &Op<B>, count: u32, _: bool) -> u32 {
        let (source, target) = (A::get(cpu, ESI), A::get(cpu, EDI));
        let moved = bulk::copy::<B, S, A>(cpu, op.segment, source, target, count);
        advance::<B, S, A>(cpu, ESI, moved);
        advance::<B, S, A>(cpu, EDI, moved);
        moved
    }
}

impl Element for Store {
    #[inline(always)]
    fn step<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
        let target = A::get(cpu, EDI);
        let value = S::get(cpu, EAX);
        S::store(cpu, Seg::Es, target, value)?;
        advance::<B, S, A>(cpu, EDI, 1);
        Ok(())
    }

    #[inline(always)]
    fn bulk<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, _op: &Op<B>, count: u32, _: bool) -> u32 {
        let target = A::get(cpu, EDI);
        let value = S::get(cpu, EAX);
        let stored = bulk::fill::<B, S, A>(cpu, target, value, count);
        advance::<B, S, A>(cpu, EDI, stored);
        stored
    }
}

impl Element for Load {
    #[inline(always)]
    fn step<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
        let source = A::get(cpu, ESI);
        let value = S::load(cpu, op.segment, source)?;
        S::set(cpu, EAX, value);
        advance::<B, S, A>(cpu, ESI, 1);
        Ok(())
    }
}

impl Element for Compare {
    #[inline(always)]
    fn step<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
        let (first, second) = (A::get(cpu, ESI), A::get(cpu, EDI));
        let a = S::load(cpu, op.segment, first)?;
        let b = S::load(cpu, Seg::Es, second)?;
        compare_values::<S>(&mut cpu.lazy, a, b);
        advance::<B, S, A>(cpu, ESI, 1);
        advance::<B, S, A>(cpu, EDI, 1);
        Ok(())
    }

    #[inline(always)]
    fn bulk<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, op: &Op<B>, count: u32, equal: bool) -> u32 {
        let (first, second) = (A::get(cpu, ESI), A::get(cpu, EDI));
        let skipped = bulk::compare::<B, S, A>(cpu, op.segment, first, second, count, equal);
        advance::<B, S, A>(cpu, ESI, skipped);
        advance::<B, S, A>(cpu, EDI, skipped);
        skipped
    }
}

impl Element for Scan {
    #[inline(always)]
    fn step<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
        let target = A::get(cpu, EDI);
        let b = S::load(cpu, Seg::Es, target)?;
        let a = S::get(cpu, EAX);
        compare_values::<S>(&mut cpu.lazy, a, b);
        advance::<B, S, A>(cpu, EDI, 1);
        Ok(())
    }

    #[inline(always)]
    fn bulk<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, _op: &Op<B>, count: u32, equal: bool) -> u32 {
        let target = A::get(cpu, EDI);
        let value = S::get(cpu, EAX);
        let skipped = bulk::scan::<B, S, A>(cpu, target, value, count, equal);
        advance::<B, S, A>(cpu, EDI, skipped);
        skipped
    }
}

fn once<B: Bus, S: Size, A: Size, E: Element>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    E::step::<B, S, A>(cpu, op)
}

fn repeated<B: Bus, S: Size, A: Size, E: Element>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    repeat_while::<B, S, A, E>(cpu, op, true, |_| true)
}

fn repeated_while_equal<B: Bus, S: Size, A: Size, E: Element>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    repeat_while::<B, S, A, E>(cpu, op, true, |cpu| cpu.lazy.zero())
}

fn repeated_while_not_equal<B: Bus, S: Size, A: Size, E: Element>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    repeat_while::<B, S, A, E>(cpu, op, false, |cpu| !cpu.lazy.zero())
}

#[inline(always)]
fn repeat_while<B: Bus, S: Size, A: Size, E: Element>(
    cpu: &mut Vcpu<B>,
    op: &Op<B>,
    equal: bool,
    goes_on: impl Fn(&Vcpu<B>) -> bool,
) -> Exec {
    let mut count = A::get(cpu, ECX);
    let mut done = 0;
    while count != 0 {
        let moved = match cpu.state.eflags & (eflags::TF | eflags::DF) {
            0 => E::bulk::<B, S, A>(cpu, op, count.min(CHUNK), equal),
            _ => 0,
        };
        if moved != 0 {
            count -= moved;
            done += moved;
        } else {
            E::step::<B, S, A>(cpu, op)?;
            count -= 1;
            done += 1;
        }
        A::set(cpu, ECX, count);
        // What was done at once has not ended it.
        if count == 0 || moved == 0 && !goes_on(cpu) {
            return Ok(());
        }
        if interrupted(cpu, done) {
            again(cpu, op);
            return Ok(());
        }
    }
    Ok(())
}

/// Whether a repeated instruction must give way after `done` elements: to a poll for interrupts, a debug
/// trap, or because it wrote over decoded instructions, perhaps itself.
#[inline(always)]
pub fn interrupted<B: Bus>(cpu: &Vcpu<B>, done: u32) -> bool {
    done >= CHUNK
        || cpu.code.has_written()
        || cpu.state.eflags & eflags::TF != 0
        || cpu.state.pending_debug != 0
        || done & POLL_MASK == 0 && cpu.wants_attention()
}

/// Makes the same instruction the next one.
#[inline(always)]
pub fn again<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) {
    cpu.state.eip = cpu.state.eip.wrapping_sub(u32::from(op.len));
}
