//! IN, OUT, INS, OUTS.

use super::by_size;
use super::string::{Repeat, advance, again, repeat_prefix};
use crate::cpu::Vcpu;
use crate::cpu::bus::{Bus, PAGE_SIZE};
use crate::cpu::fault::Exec;
use crate::cpu::registers::{Seg, eflags};
use crate::interp::decode::{Decoded, Kind};
use crate::interp::op::{Dword, EAX, ECX, EDI, EDX, ESI, Ends, Handler, Imm, Op, Place, Reg, Rm, Size, Word};
use iced_x86::Mnemonic;

/// Most bytes that one burst moves.
const BURST: usize = PAGE_SIZE as usize;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded, op: &mut Op<B>) -> Option<Handler<B>> {
    use Mnemonic::*;
    let handler = match form.mnemonic {
        In => match form.kinds[1] {
            Kind::Immediate => by_size!(form.register(0).size(), input, Imm),
            _ => by_size!(form.register(0).size(), input, Rm),
        },
        Out => match form.kinds[0] {
            Kind::Immediate => by_size!(form.register(1).size(), output, Imm),
            _ => by_size!(form.register(1).size(), output, Reg),
        },
        Insb | Insw | Insd => {
            let size = match form.mnemonic {
                Insb => 1,
                Insw => 2,
                _ => 4,
            };
            match (repeat_prefix(form), form.wide_address) {
                (Repeat::Once, false) => by_size!(size, input_string, Word),
                (Repeat::Once, true) => by_size!(size, input_string, Dword),
                (_, false) => by_size!(size, input_repeated, Word),
                (_, true) => by_size!(size, input_repeated, Dword),
            }
        }
        Outsb | Outsw | Outsd => {
            let size = match form.mnemonic {
                Outsb => 1,
                Outsw => 2,
                _ => 4,
            };
            match (repeat_prefix(form), form.wide_address) {
                (Repeat::Once, false) => by_size!(size, output_string, Word),
                (Repeat::Once, true) => by_size!(size, output_string, Dword),
                (_, false) => by_size!(size, output_repeated, Word),
                (_, true) => by_size!(size, output_repeated, Dword),
            }
        }
        _ => return None,
    };
    // A port access can change the memory map or ask for attention.
    op.ends = Ends::Full;
    Some(handler)
}

/// The port: an immediate byte, or DX whatever register number the decoder stored.
#[inline(always)]
fn port<B: Bus, P: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec<u16> {
    Ok(P::read::<B, Word>(cpu, op)? as u16)
}

fn input<B: Bus, S: Size, P: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let port = port::<B, P>(cpu, op)?;
    let value = cpu.port_read(port, S::WIDTH)?;
    S::set(cpu, EAX, value);
    Ok(())
}

fn output<B: Bus, S: Size, P: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let port = port::<B, P>(cpu, op)?;
    let value = S::get(cpu, EAX);
    cpu.port_write(port, S::WIDTH, value)
}

fn input_string<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let port = Word::get(cpu, EDX) as u16;
    let target = A::get(cpu, EDI);
    cpu.check_io(port, S::WIDTH)?;
    // The port must not be read when its data has nowhere to go.
    cpu.probe_write(Seg::Es, target, S::BITS / 8)?;
    let value = cpu.port_read(port, S::WIDTH)?;
    S::store(cpu, Seg::Es, target, value)?;
    advance::<B, S, A>(cpu, EDI, 1);
    Ok(())
}

fn output_string<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let port = Word::get(cpu, EDX) as u16;
    cpu.check_io(port, S::WIDTH)?;
    let source = A::get(cpu, ESI);
    let value = S::load(cpu, op.segment, source)?;
    cpu.port_write(port, S::WIDTH, value)?;
    advance::<B, S, A>(cpu, ESI, 1);
    Ok(())
}

/// Elements from `offset` on that a burst may move: forwards, not past the page or the address size.
fn burst<B: Bus, S: Size, A: Size>(cpu: &Vcpu<B>, segment: Seg, offset: u32, count: u32) -> u32 {
    let backwards_or_stepping = cpu.state.eflags & (eflags::DF | eflags::TF) != 0;
    if backwards_or_stepping || cpu.data_is_watched() {
        return 1;
    }
    let linear = cpu.state.segment(segment).base().wrapping_add(offset);
    let in_page = (PAGE_SIZE as u32 - linear % PAGE_SIZE as u32) / (S::BITS / 8);
    let before_wrap = (A::MASK - offset) / (S::BITS / 8);
    count.min(in_page).min(before_wrap).max(1)
}

fn input_repeated<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let size = S::BITS / 8;
    let port = Word::get(cpu, EDX) as u16;
    let count = A::get(cpu, ECX);
    if count == 0 {
        return Ok(());
    }
    let target = A::get(cpu, EDI);
    let elements = burst::<B, S, A>(cpu, Seg::Es, target, count);
    cpu.check_io(port, S::WIDTH)?;
    if elements == 1 || cpu.probe_write(Seg::Es, target, elements * size).is_err() {
        input_string::<B, S, A>(cpu, op)?;
        A::set(cpu, ECX, count - 1);
    } else {
        let mut data = [0; BURST];
        let bytes = (elements * size) as usize;
        let Some(data) = data.get_mut(..bytes) else { return Ok(()) };
        cpu.port_read_string(port, S::WIDTH, data);
        for (i, chunk) in data.chunks_exact(size as usize).enumerate() {
            let value = chunk.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
            S::store(cpu, Seg::Es, target.wrapping_add(i as u32 * size), value)?;
        }
        advance::<B, S, A>(cpu, EDI, elements);
        A::set(cpu, ECX, count - elements);
    }
    // The engine polls for interrupts and comes back.
    if A::get(cpu, ECX) != 0 {
        again(cpu, op);
    }
    Ok(())
}

fn output_repeated<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let size = S::BITS / 8;
    let port = Word::get(cpu, EDX) as u16;
    let count = A::get(cpu, ECX);
    if count == 0 {
        return Ok(());
    }
    let source = A::get(cpu, ESI);
    let elements = burst::<B, S, A>(cpu, op.segment, source, count);
    cpu.check_io(port, S::WIDTH)?;
    if elements == 1 || cpu.probe_read(op.segment, source, elements * size).is_err() {
        output_string::<B, S, A>(cpu, op)?;
        A::set(cpu, ECX, count - 1);
    } else {
        let mut data = [0; BURST];
        let bytes = (elements * size) as usize;
        let Some(data) = data.get_mut(..bytes) else { return Ok(()) };
        for (i, chunk) in data.chunks_exact_mut(size as usize).enumerate() {
            let value = S::load(cpu, op.segment, source.wrapping_add(i as u32 * size))?;
            chunk.copy_from_slice(&value.to_le_bytes()[..size as usize]);
        }
        cpu.port_write_string(port, S::WIDTH, data);
        advance::<B, S, A>(cpu, ESI, elements);
        A::set(cpu, ECX, count - elements);
    }
    if A::get(cpu, ECX) != 0 {
        again(cpu, op);
    }
    Ok(())
}
