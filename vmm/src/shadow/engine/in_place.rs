//! What shadow code calls while it runs: to have an empty slot filled, and to have a terminal instruction interpreted in place; and how
//! flags change hands.
#![expect(unsafe_code, reason = "shadow code calls with pointers")]

use crate::cpu::bus::Bus;
use crate::cpu::registers::{cr0, eflags, gpr, selector};
use crate::cpu::state::{Activity, InterruptShadow};
use crate::cpu::{Mode as Rights, Seg, Vcpu};
use crate::interp::op::Op;
use crate::shadow::bridge::{
    Context, FILLED, GOES_ELSEWHERE, GOES_ON, LEAVES, Leave, NOT_PLAIN, SLOT_SHIFT, WITH_INTERRUPTS,
    WITHOUT_INTERRUPTS,
};
use crate::shadow::classify::Terminal;
use crate::shadow::descriptors::NULL_DESCRIPTOR;
use crate::shadow::fpu;
use crate::shadow::mode::{self, Mode};
use crate::shadow::space::FarTable;
use crate::shadow::translate::access;
use crate::shadow::{trap, windowed};
use std::ffi::c_void;

/// The attention bit of an interrupt, which counts only while EFLAGS.IF is set.
const INTR: u8 = ipc::board::attention::INTR as u8;
/// SF, ZF, AF, PF, CF: where they are in EFLAGS and in AH after LAHF.
const LAHF_FLAGS: u32 = 0xd5;

/// Called by shadow code whose access met an empty slot: R8D and R9D.
pub(super) unsafe extern "sysv64" fn fill<B: Bus>(cpu: *mut c_void, linear: u32, bits: u32) -> u64 {
    // SAFETY: `Context::vcpu` is set from the `&mut Vcpu<B>` of `enter`, which is not used while shadow code runs.
    let cpu = unsafe { &mut *cpu.cast::<Vcpu<B>>() };
    let size = bits & access::SIZE;
    if cpu.make_direct(linear, size, bits & access::WRITE != 0) {
        return FILLED;
    }
    let once = if bits & access::ONCE != 0 { cpu.make_direct_once(linear, size) } else { None };
    once.unwrap_or(NOT_PLAIN)
}

/// Called by shadow code that came to a terminal instruction: it is interpreted in place. Shadow code goes on when nothing
/// changed but what it could not tell from any other instruction, or elsewhere when it is known how.
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
        return LEAVES;
    }
    let terminal = std::mem::take(&mut context.terminal);
    if let Some(count) = context.in_place.get_mut((terminal as usize).wrapping_sub(1)) {
        *count += 1;
    }
    if context.fpu_loaded != 0 {
        fpu::resolve(&mut cpu.state, context);
    }
    // Loads of segment registers and port accesses neither read arithmetic flags nor change them; INS and OUTS go by DF.
    let leaves_flags = matches!(terminal, SEGMENT | PORT);
    if terminal == PORT {
        take_direction(context, cpu);
    } else if !leaves_flags {
        take_flags(context, cpu);
    }
    let loading = std::mem::take(&mut context.loading);
    let next = cpu.state.eip;
    let esp = cpu.state.gpr[gpr::ESP];
    let cs_base = cpu.state.segment(Seg::Cs).base();
    let accesses = cpu.device_accesses;
    let result = (op.handler)(cpu, op);
    if terminal == DEVICE && cpu.device_accesses == accesses {
        // It was memory, and only the slot was empty: not the next time.
        cpu.make_direct(context.device_linear, 1, false);
    }
    if result.is_ok() && is_quiet(context, cpu, terminal) {
        let stays = cpu.state.eip == next;
        if let Some(seg) = Seg::from_encoding(loading.wrapping_sub(1)) {
            remember_descriptor(context, cpu, seg);
        }
        let same = match terminal {
            SEGMENT => context.mode.is_some_and(|mode| mode.has_segments_of(cpu)),
            SYSTEM => {
                if !cpu.protected_mode() {
                    context.descriptors.forget();
                }
                let mode = Mode::of(cpu).ok();
                let same = mode == context.mode.map(|mode| mode.with_cs_base(cs_base));
                if !(stays && same) && mode.is_some_and(|mode| redirect(context, cpu, mode)) {
                    return GOES_ELSEWHERE;
                }
                same
            }
            _ => true,
        };
        if stays && same {
            if !leaves_flags {
                give_flags(context, cpu);
            }
            return GOES_ON;
        }
    }
    if leaves_flags {
        take_flags(context, cpu);
    }
    context.leave = Leave::Done as u32;
    if let Err(fault) = result {
        if !fault.in_new_task() {
            cpu.state.eip = next.wrapping_sub(u32::from(op.len));
            cpu.state.gpr[gpr::ESP] = esp;
        }
        context.fault = Some(fault);
        context.leave = Leave::Fault as u32;
    }
    LEAVES
}

/// Remembers where a segment register of a 32-bit supervisor was just loaded from.
#[cold]
fn remember_descriptor<B: Bus>(context: &mut Context, cpu: &mut Vcpu<B>, seg: Seg) {
    if !cpu.protected_mode() {
        return;
    }
    let segment = *cpu.state.segment(seg);
    let descriptor = if segment.selector & !selector::RPL == 0 {
        // A null selector is loaded without a look at the table.
        Some(NULL_DESCRIPTOR)
    } else {
        // (Where shadow code reads it.)
        cpu.descriptor_bytes(segment.selector).and_then(|(address, descriptor)| {
            cpu.make_direct(address, size_of_val(&descriptor) as u32, false).then_some(descriptor)
        })
    };
    if let Some(descriptor) = descriptor {
        context.descriptors.remember(segment, descriptor, Mode::is_flat(cpu, seg));
    }
}

/// Kinds of terminal instructions as [`Context::terminal`] has them.
const SEGMENT: u32 = Terminal::Segment as u32 + 1;
const PORT: u32 = Terminal::Port as u32 + 1;
const FLAGS: u32 = Terminal::Flags as u32 + 1;
const DEVICE: u32 = Terminal::Device as u32 + 1;
const SYSTEM: u32 = Terminal::System as u32 + 1;

/// Whether a terminal instruction left nothing for the monitor to do, wherever the processor is now. Each kind is asked only for
/// what it can change.
#[inline]
fn is_quiet<B: Bus>(context: &Context, cpu: &mut Vcpu<B>, terminal: u32) -> bool {
    let plain = !cpu.code.has_written()
        && cpu.hooks.hit().is_none()
        && cpu.bus.map_generation() == context.generation
        && !cpu.direct().is_some_and(|map| map.has_flushes());
    let runs = || {
        cpu.state.interrupt_shadow == InterruptShadow::None
            && cpu.state.eflags & (eflags::TF | eflags::RF) == 0
    };
    let quiet = match terminal {
        // Every jump polls: there is no need to do it here too.
        SEGMENT => return plain && cpu.state.interrupt_shadow == InterruptShadow::None,
        FLAGS => runs() && cpu.mode() != Rights::UserAligned,
        SYSTEM => {
            runs()
                && cpu.state.activity == Activity::Running
                && cpu.state.pending_debug == 0
                && !cpu.breakpoints_enabled()
                && (context.fpu_loaded == 0 || cpu.state.cr0 & (cr0::EM | cr0::TS) == 0)
        }
        _ => true,
    };
    plain && quiet && !cpu.wants_attention()
}

/// Has shadow code go on where the processor is now, in `mode`. False: only the monitor knows how.
fn redirect<B: Bus>(context: &mut Context, cpu: &mut Vcpu<B>, mode: Mode) -> bool {
    if !context.redirects {
        return false;
    }
    let (mode, slots, stack_base) = if context.windows && mode.fits_window() {
        let is_outdated = cpu.direct().is_none_or(|direct| direct.has_protected());
        if context.window == 0 || is_outdated || cpu.state.cr0 & cr0::PG == 0 {
            return false;
        }
        (mode.in_window(), context.window.wrapping_add(SLOT_SHIFT as u64), context.window)
    } else {
        (mode, context.sides[usize::from(mode.user())], 0)
    };
    let from = context.mode.map(|from| from.with_cs_base(mode.cs_base));
    if from == Some(mode) && mode.segmented() {
        // SAFETY: the table of the mode that shadow code runs in, as `Known` and `enter` have it from the engine, which is alive.
        let Some(exec) = (unsafe { FarTable::find(context.far, mode.cs_base, context.maps[1]) }) else {
            return false;
        };
        context.maps[0] = exec;
    } else {
        let Some(known) = context.known.iter().flatten().find(|known| known.mode == mode) else {
            return false;
        };
        (context.maps[0], context.far) = (known.exec, known.far);
        (context.slots, context.stack_base) = (slots, stack_base);
    }
    if stack_base != 0 {
        // SAFETY: there is a window, so that is possible.
        unsafe { trap::set_gs(stack_base) };
    } else if context.windows && !mode.user() && context.left_user == 0 {
        context.left_user = windowed::ticks();
    }
    context.exec[0] = context.maps[0];
    context.mode = Some(mode.without_window());
    context.target = u64::from(mode.linear(cpu.state.eip));
    give_flags(context, cpu);
    true
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
    take_direction(context, cpu);
}

/// DF alone.
fn take_direction<B: Bus>(context: &Context, cpu: &mut Vcpu<B>) {
    let df = if context.direction < 0 { eflags::DF } else { 0 };
    cpu.state.eflags = cpu.state.eflags & !eflags::DF | df;
}

/// The reverse of [`take_flags`].
pub(super) fn give_flags<B: Bus>(context: &mut Context, cpu: &Vcpu<B>) {
    let interrupts = cpu.state.eflags & eflags::IF != 0;
    context.flags = to_host_flags(cpu.lazy.to_bits());
    context.direction = mode::direction(cpu.state.eflags);
    context.exec[usize::from(INTR)] = context.maps[usize::from(interrupts)];
    context.wanted = if interrupts { WITH_INTERRUPTS } else { WITHOUT_INTERRUPTS };
}

/// Arithmetic flags as the bridge takes them: OF in bit 0, the others as LAHF has them in bits 8 to 15.
pub(super) const fn to_host_flags(flags: u32) -> u32 {
    (flags & LAHF_FLAGS) << 8 | (flags & eflags::OF != 0) as u32
}

pub(super) const fn from_host_flags(flags: u32) -> u32 {
    let overflow = if flags & 1 != 0 { eflags::OF } else { 0 };
    flags >> 8 & LAHF_FLAGS | overflow
}
