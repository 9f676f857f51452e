//! What shadow code calls while it runs: to have an empty slot filled, and to have a terminal instruction interpreted in place; and how
//! flags change hands.
#![expect(unsafe_code, reason = "shadow code calls with pointers")]

use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::registers::{cr0, eflags, gpr};
use crate::cpu::state::{Activity, InterruptShadow};
use crate::interp::op::Op;
use crate::shadow::bridge::{Context, Leave};
use crate::shadow::classify::Terminal;
use crate::shadow::fpu;
use crate::shadow::mode::{self, Mode};
use crate::shadow::translate::access;
use std::ffi::c_void;

/// The attention bit of an interrupt, which counts only while EFLAGS.IF is set.
const INTR: u8 = ipc::board::attention::INTR as u8;
/// SF, ZF, AF, PF, CF: where they are in EFLAGS and in AH after LAHF.
const LAHF_FLAGS: u32 = 0xd5;

/// Called by shadow code whose access met an empty slot: R8D and R9D.
pub(super) unsafe extern "sysv64" fn fill<B: Bus>(cpu: *mut c_void, linear: u32, bits: u32) -> u32 {
    // SAFETY: `Context::vcpu` is set from the `&mut Vcpu<B>` of `enter`, which is not used while shadow code runs.
    let cpu = unsafe { &mut *cpu.cast::<Vcpu<B>>() };
    u32::from(cpu.make_direct(linear, bits & access::SIZE, bits & access::WRITE != 0))
}

/// Called by shadow code that came to a terminal instruction: it is interpreted in place. Shadow code goes on (zero) when nothing
/// changed but what it could not tell from any other instruction.
pub(super) unsafe extern "sysv64" fn interpret<B: Bus>(context: *mut Context, op: *const c_void) -> u32 {
    // SAFETY: R13, which is the context that `task_switch` got; nobody uses it while shadow code runs.
    let context = unsafe { &mut *context };
    // SAFETY: as in `fill`.
    let cpu = unsafe { &mut *context.vcpu.cast::<Vcpu<B>>() };
    // SAFETY: shadow code has the addresses of its own unit's operations, which live as long as the unit is entered.
    let op = unsafe { &*op.cast::<Op<B>>() };
    if context.in_lockstep && !stays_covered(context.terminal) {
        cpu.state.eip = cpu.state.eip.wrapping_sub(u32::from(op.len));
        context.leave = Leave::InterpretFloat as u32;
        return 1;
    }
    if let Some(count) = context.in_place.get_mut((context.terminal as usize).wrapping_sub(1)) {
        *count += 1;
    }
    context.terminal = 0;
    if context.fpu_loaded != 0 {
        fpu::resolve(&mut cpu.state, context);
    }
    take_flags(context, cpu);
    let next = cpu.state.eip;
    let esp = cpu.state.gpr[gpr::ESP];
    if let Err(fault) = (op.handler)(cpu, op) {
        if !fault.in_new_task() {
            cpu.state.eip = next.wrapping_sub(u32::from(op.len));
            cpu.state.gpr[gpr::ESP] = esp;
        }
        context.fault = Some(fault);
        context.leave = Leave::Fault as u32;
        return 1;
    }
    let goes_on = cpu.state.eip == next
        && !cpu.code.has_written()
        && cpu.hooks.hit().is_none()
        && cpu.state.activity == Activity::Running
        && cpu.state.pending_debug == 0
        && cpu.state.interrupt_shadow == InterruptShadow::None
        && cpu.state.eflags & (eflags::TF | eflags::RF) == 0
        && !cpu.wants_attention()
        && cpu.bus.map_generation() == context.generation
        && !cpu.direct().is_some_and(|map| map.has_flushes())
        && !cpu.breakpoints_enabled()
        && (context.fpu_loaded == 0 || cpu.state.cr0 & (cr0::EM | cr0::TS) == 0)
        && Mode::of(cpu).ok() == context.mode;
    if !goes_on {
        context.leave = Leave::Done as u32;
        return 1;
    }
    give_flags(context, cpu);
    0
}

/// Whether a terminal instruction does nothing that the copies of lockstep could not take back, and stores no flags, of which some
/// may be undefined.
pub(super) fn stays_covered(terminal: u32) -> bool {
    let kinds = [Terminal::Segment, Terminal::Float, Terminal::Rare];
    kinds.into_iter().any(|kind| kind as u32 + 1 == terminal)
}

/// What shadow code does with arithmetic flags, DF and IF is the processor's from now on.
pub(super) fn take_flags<B: Bus>(context: &Context, cpu: &mut Vcpu<B>) {
    cpu.lazy.set_bits(from_host_flags(context.flags));
    let df = if context.direction < 0 { eflags::DF } else { 0 };
    cpu.state.eflags = cpu.state.eflags & !eflags::DF | df;
}

/// The reverse of [`take_flags`].
pub(super) fn give_flags<B: Bus>(context: &mut Context, cpu: &Vcpu<B>) {
    let interrupts = cpu.state.eflags & eflags::IF != 0;
    context.flags = to_host_flags(cpu.lazy.to_bits());
    context.direction = mode::direction(cpu.state.eflags);
    context.exec[usize::from(INTR)] = context.maps[usize::from(interrupts)];
    context.wanted = if interrupts { u8::MAX } else { !INTR };
}

/// Arithmetic flags as the bridge takes them: OF in bit 0, the others as LAHF has them in bits 8 to 15.
pub(super) const fn to_host_flags(flags: u32) -> u32 {
    (flags & LAHF_FLAGS) << 8 | (flags & eflags::OF != 0) as u32
}

pub(super) const fn from_host_flags(flags: u32) -> u32 {
    let overflow = if flags & 1 != 0 { eflags::OF } else { 0 };
    flags >> 8 & LAHF_FLAGS | overflow
}
