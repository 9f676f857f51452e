//! Instructions for operating systems: control and debug registers, descriptor tables, MSRs, HLT.

use super::by_word_size;
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::{Exec, Fault};
use crate::interp::decode::{Decoded, Kind, is_wide_far};
use crate::interp::op::{Dword, Ends, Handler, Mem, Op, Place, Reg, Rm, Size, Target, Word};
use iced_x86::{Mnemonic, Register};

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded, op: &mut Op<B>) -> Option<Handler<B>> {
    let code = form.instruction.code();
    let memory = form.kinds[0] == Kind::Memory;
    let handler: Handler<B> = match form.mnemonic {
        Mnemonic::Hlt => halt::<B>,
        Mnemonic::Cpuid => identify::<B>,
        Mnemonic::Rdtsc => read_time_stamp::<B>,
        Mnemonic::Rdpmc => read_counter::<B>,
        Mnemonic::Rdmsr => read_msr::<B>,
        Mnemonic::Wrmsr => write_msr::<B>,
        Mnemonic::Invd | Mnemonic::Wbinvd => cache_control::<B>,
        Mnemonic::Invlpg => invalidate_page::<B>,
        Mnemonic::Clts => clear_task_switched::<B>,
        Mnemonic::Sysenter => sysenter::<B>,
        Mnemonic::Sysexit => sysexit::<B>,
        Mnemonic::Mov if form.register(0).is_cr() => move_to_control::<B>,
        Mnemonic::Mov if form.register(1).is_cr() => move_from_control::<B>,
        Mnemonic::Mov if form.register(0).is_dr() => move_to_debug::<B>,
        Mnemonic::Mov if form.register(1).is_dr() => move_from_debug::<B>,
        Mnemonic::Lmsw if memory => load_status_word::<B, Mem>,
        Mnemonic::Lmsw => load_status_word::<B, Reg>,
        Mnemonic::Smsw if memory => store_system_word::<B, Mem, StatusWord>,
        Mnemonic::Smsw => by_word_size!(form.size, store_system, StatusWord),
        Mnemonic::Sldt if memory => store_system_word::<B, Mem, LocalTable>,
        Mnemonic::Sldt => by_word_size!(form.size, store_system, LocalTable),
        Mnemonic::Str if memory => store_system_word::<B, Mem, Task>,
        Mnemonic::Str => by_word_size!(form.size, store_system, Task),
        Mnemonic::Lldt if memory => load_local_table::<B, Mem>,
        Mnemonic::Lldt => load_local_table::<B, Reg>,
        Mnemonic::Ltr if memory => load_task::<B, Mem>,
        Mnemonic::Ltr => load_task::<B, Reg>,
        Mnemonic::Sgdt => store_global_table::<B>,
        Mnemonic::Sidt => store_interrupt_table::<B>,
        Mnemonic::Lgdt if is_wide_far(code) => load_global_table::<B, true>,
        Mnemonic::Lgdt => load_global_table::<B, false>,
        Mnemonic::Lidt if is_wide_far(code) => load_interrupt_table::<B, true>,
        Mnemonic::Lidt => load_interrupt_table::<B, false>,
        Mnemonic::Verr if memory => verify_read::<B, Mem>,
        Mnemonic::Verr => verify_read::<B, Reg>,
        Mnemonic::Verw if memory => verify_write::<B, Mem>,
        Mnemonic::Verw => verify_write::<B, Reg>,
        Mnemonic::Lar => match form.kinds[1] {
            Kind::Memory => by_word_size!(destination_size(form), load_rights, Mem),
            _ => by_word_size!(destination_size(form), load_rights, Rm),
        },
        Mnemonic::Lsl => match form.kinds[1] {
            Kind::Memory => by_word_size!(destination_size(form), load_limit, Mem),
            _ => by_word_size!(destination_size(form), load_limit, Rm),
        },
        Mnemonic::Arpl if memory => adjust_privilege::<B, Mem>,
        Mnemonic::Arpl => adjust_privilege::<B, Reg>,
        _ => return None,
    };
    op.ends = Ends::Full;
    Some(handler)
}

fn destination_size(form: &Decoded) -> u8 {
    let register: Register = form.register(0);
    register.size() as u8
}

/// Most of this group is for privilege level 0 only.
fn need_level_0<B: Bus>(cpu: &Vcpu<B>) -> Exec {
    if cpu.cpl() != 0 { Err(Fault::gp(0)) } else { Ok(()) }
}

/// The instructions on selectors do not exist in real and virtual-8086 mode.
fn need_descriptors<B: Bus>(cpu: &Vcpu<B>) -> Exec {
    if cpu.descriptors_used() { Ok(()) } else { Err(Fault::ud()) }
}

fn halt<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.hlt()
}

fn identify<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.cpuid();
    Ok(())
}

fn read_time_stamp<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.rdtsc()
}

fn read_counter<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.rdpmc()
}

fn read_msr<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.rdmsr()
}

fn write_msr<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.wrmsr()
}

/// INVD, WBINVD: there is no cache whose contents could differ from memory.
fn cache_control<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.wbinvd()
}

fn invalidate_page<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let offset = op.offset(cpu);
    cpu.invlpg(op.segment, offset)
}

fn clear_task_switched<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.clts()
}

fn sysenter<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.sysenter()
}

fn sysexit<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.sysexit()
}

fn move_to_control<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let value = Dword::get(cpu, op.rm);
    cpu.mov_to_cr(op.reg, value)
}

fn move_from_control<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let value = cpu.mov_from_cr(op.rm)?;
    Dword::set(cpu, op.reg, value);
    Ok(())
}

fn move_to_debug<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let value = Dword::get(cpu, op.rm);
    cpu.mov_to_dr(op.reg, value)
}

fn move_from_debug<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let value = cpu.mov_from_dr(op.rm)?;
    Dword::set(cpu, op.reg, value);
    Ok(())
}

fn load_status_word<B: Bus, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    need_level_0(cpu)?;
    let value = R::read::<B, Word>(cpu, op)?;
    cpu.lmsw(value as u16)
}

/// A register that SMSW, SLDT or STR stores.
trait SystemWord: 'static {
    const NEEDS_DESCRIPTORS: bool;
    fn get<B: Bus>(cpu: &Vcpu<B>) -> u32;
}

struct StatusWord;
struct LocalTable;
struct Task;

impl SystemWord for StatusWord {
    const NEEDS_DESCRIPTORS: bool = false;
    fn get<B: Bus>(cpu: &Vcpu<B>) -> u32 {
        cpu.smsw()
    }
}

impl SystemWord for LocalTable {
    const NEEDS_DESCRIPTORS: bool = true;
    fn get<B: Bus>(cpu: &Vcpu<B>) -> u32 {
        u32::from(cpu.state.ldtr.selector)
    }
}

impl SystemWord for Task {
    const NEEDS_DESCRIPTORS: bool = true;
    fn get<B: Bus>(cpu: &Vcpu<B>) -> u32 {
        u32::from(cpu.state.tr.selector)
    }
}

fn system_word<B: Bus, N: SystemWord>(cpu: &Vcpu<B>) -> Exec<u32> {
    if N::NEEDS_DESCRIPTORS {
        need_descriptors(cpu)?;
    }
    Ok(N::get(cpu))
}

fn store_system<B: Bus, S: Size, N: SystemWord>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let value = system_word::<B, N>(cpu)?;
    S::set(cpu, op.reg, value);
    Ok(())
}

/// To memory always 16 bits.
fn store_system_word<B: Bus, D: Target, N: SystemWord>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let value = system_word::<B, N>(cpu)?;
    D::write::<B, Word>(cpu, op, value)
}

fn load_local_table<B: Bus, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    need_descriptors(cpu)?;
    need_level_0(cpu)?;
    let selector = R::read::<B, Word>(cpu, op)?;
    cpu.lldt(selector as u16)
}

fn load_task<B: Bus, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    need_descriptors(cpu)?;
    need_level_0(cpu)?;
    let selector = R::read::<B, Word>(cpu, op)?;
    cpu.ltr(selector as u16)
}

fn store_global_table<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let offset = op.offset(cpu);
    cpu.sgdt(op.segment, offset)
}

fn store_interrupt_table<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let offset = op.offset(cpu);
    cpu.sidt(op.segment, offset)
}

fn load_global_table<B: Bus, const WIDE: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    need_level_0(cpu)?;
    let offset = op.offset(cpu);
    cpu.lgdt(op.segment, offset, WIDE)
}

fn load_interrupt_table<B: Bus, const WIDE: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    need_level_0(cpu)?;
    let offset = op.offset(cpu);
    cpu.lidt(op.segment, offset, WIDE)
}

fn verify_read<B: Bus, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    need_descriptors(cpu)?;
    let selector = R::read::<B, Word>(cpu, op)? as u16;
    let readable = cpu.verr(selector)?;
    cpu.lazy.set_zero(readable);
    Ok(())
}

fn verify_write<B: Bus, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    need_descriptors(cpu)?;
    let selector = R::read::<B, Word>(cpu, op)? as u16;
    let writable = cpu.verw(selector)?;
    cpu.lazy.set_zero(writable);
    Ok(())
}

fn load_rights<B: Bus, S: Size, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    need_descriptors(cpu)?;
    let selector = R::read::<B, Word>(cpu, op)? as u16;
    let rights = cpu.lar(selector)?;
    if let Some(rights) = rights {
        S::set(cpu, op.reg, rights);
    }
    cpu.lazy.set_zero(rights.is_some());
    Ok(())
}

fn load_limit<B: Bus, S: Size, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    need_descriptors(cpu)?;
    let selector = R::read::<B, Word>(cpu, op)? as u16;
    let limit = cpu.lsl(selector)?;
    if let Some(limit) = limit {
        S::set(cpu, op.reg, limit);
    }
    cpu.lazy.set_zero(limit.is_some());
    Ok(())
}

fn adjust_privilege<B: Bus, D: Target>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    need_descriptors(cpu)?;
    let source = Word::get(cpu, op.rm) as u16;
    let destination = D::read::<B, Word>(cpu, op)? as u16;
    let raised = cpu.arpl(destination, source)?;
    if let Some(raised) = raised {
        D::write::<B, Word>(cpu, op, u32::from(raised))?;
    }
    cpu.lazy.set_zero(raised.is_some());
    Ok(())
}
