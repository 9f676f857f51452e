//! Instructions on EFLAGS.

use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::Exec;
use crate::cpu::registers::eflags;
use crate::interp::decode::Decoded;
use crate::interp::op::{AH, Byte, EAX, Ends, Handler, Op, Size};
use iced_x86::Mnemonic;

/// The flags that LAHF and SAHF move.
const AH_FLAGS: u32 = eflags::CF | eflags::PF | eflags::AF | eflags::ZF | eflags::SF;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded, op: &mut Op<B>) -> Option<Handler<B>> {
    let (handler, ends_block): (Handler<B>, bool) = match form.mnemonic {
        Mnemonic::Clc => (clear_carry::<B>, false),
        Mnemonic::Stc => (set_carry::<B>, false),
        Mnemonic::Cmc => (complement_carry::<B>, false),
        Mnemonic::Cld => (clear_direction::<B>, false),
        Mnemonic::Std => (set_direction::<B>, false),
        Mnemonic::Cli => (clear_interrupt::<B>, false),
        Mnemonic::Sti => (set_interrupt::<B>, true),
        Mnemonic::Lahf => (load_ah::<B>, false),
        Mnemonic::Sahf => (store_ah::<B>, false),
        Mnemonic::Salc => (set_al_on_carry::<B>, false),
        Mnemonic::Pushf => (push_flags::<B, false>, false),
        Mnemonic::Pushfd => (push_flags::<B, true>, false),
        Mnemonic::Popf => (pop_flags::<B, false>, true),
        Mnemonic::Popfd => (pop_flags::<B, true>, true),
        _ => return None,
    };
    if ends_block {
        op.ends = Ends::Full;
    }
    Some(handler)
}

fn clear_carry<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.lazy.set_carry(false);
    Ok(())
}

fn set_carry<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.lazy.set_carry(true);
    Ok(())
}

fn complement_carry<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let carry = cpu.lazy.carry();
    cpu.lazy.set_carry(!carry);
    Ok(())
}

fn clear_direction<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.state.eflags &= !eflags::DF;
    Ok(())
}

fn set_direction<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.state.eflags |= eflags::DF;
    Ok(())
}

fn clear_interrupt<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.cli()
}

fn set_interrupt<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.sti()
}

fn load_ah<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let flags = cpu.flags() & AH_FLAGS | eflags::FIXED;
    Byte::set(cpu, AH, flags);
    Ok(())
}

fn store_ah<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let new = Byte::get(cpu, AH) & AH_FLAGS;
    let kept = cpu.lazy.to_bits() & !AH_FLAGS;
    cpu.lazy.set_bits(kept | new);
    Ok(())
}

/// SALC, undocumented until the P6: AL becomes all copies of CF.
fn set_al_on_carry<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let value = if cpu.lazy.carry() { 0xff } else { 0 };
    Byte::set(cpu, EAX, value);
    Ok(())
}

fn push_flags<B: Bus, const WIDE: bool>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.pushf(WIDE)
}

fn pop_flags<B: Bus, const WIDE: bool>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.popf(WIDE)
}
