//! MXCSR, EMMS, and what only orders or hints: fences and CLFLUSH. (PREFETCHh and PAUSE are NOPs: see `mov.rs`.)

use super::{Unit, Xmm};
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::{Exec, Fault};
use crate::cpu::model::feature::{CLFSH, MMX, SSE, SSE2};
use crate::interp::decode::Decoded;
use crate::interp::op::{Handler, Op};
use iced_x86::Mnemonic;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    Some(match form.mnemonic {
        Mnemonic::Ldmxcsr => load_mxcsr::<B>,
        Mnemonic::Stmxcsr => store_mxcsr::<B>,
        Mnemonic::Emms => emms::<B>,
        Mnemonic::Sfence => fence::<B, SSE>,
        Mnemonic::Lfence | Mnemonic::Mfence => fence::<B, SSE2>,
        Mnemonic::Clflush => flush_line::<B>,
        _ => return None,
    })
}

fn load_mxcsr<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    Xmm::<SSE>::check(cpu)?;
    let offset = op.offset(cpu);
    let value = cpu.read_u32(op.segment, offset)?;
    if value & !cpu.state.model.mxcsr_mask() != 0 {
        return Err(Fault::gp(0));
    }
    cpu.state.fpu.mxcsr = value;
    Ok(())
}

fn store_mxcsr<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    Xmm::<SSE>::check(cpu)?;
    let offset = op.offset(cpu);
    cpu.write_u32(op.segment, offset, cpu.state.fpu.mxcsr)
}

fn emms<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.check_mmx(MMX)?;
    cpu.state.fpu.leave_mmx();
    Ok(())
}

/// Instructions execute in order, one after the other: nothing to do.
fn fence<B: Bus, const FEATURE: u32>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    if cpu.state.model.has(FEATURE) { Ok(()) } else { Err(Fault::ud()) }
}

/// There is no cache to flush, but the line must be readable.
fn flush_line<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    if !cpu.state.model.has(CLFSH) {
        return Err(Fault::ud());
    }
    let offset = op.offset(cpu);
    cpu.probe_read(op.segment, offset, 1)
}
