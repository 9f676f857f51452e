//! Control instructions: control and status word, the environment in its four formats, the whole state, the stack
//! pointer. Those whose name starts with FN do not report pending exceptions.

use super::unit::{begin, set_c1};
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::Exec;
use crate::cpu::fpu::{FpuState, OPCODE, fcw, fsw};
use crate::cpu::registers::Seg;
use crate::interp::decode::{Decoded, Kind};
use crate::interp::op::{EAX, Handler, Op, Size, Word};
use crate::softfloat::F80;
use iced_x86::{Code, Mnemonic};

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    use Mnemonic::*;
    let code = form.instruction.code();
    Some(match form.mnemonic {
        Fnstcw => store_control::<B>,
        Fldcw => load_control::<B>,
        Fnstsw if form.kinds[0] == Kind::Memory => store_status::<B>,
        Fnstsw => status_to_ax::<B>,
        Fnclex => clear_exceptions::<B>,
        Fninit => initialize::<B>,
        Fnop => no_operation::<B>,
        // What the 8087 and 287 had to say to their processors.
        Fneni | Fndisi | Fnsetpm => ignored::<B>,
        Ffree => free::<B, false>,
        Ffreep => free::<B, true>,
        Fincstp => rotate::<B, 1>,
        Fdecstp => rotate::<B, 7>,
        Fnstenv if code == Code::Fnstenv_m28byte => store_environment::<B, true>,
        Fnstenv => store_environment::<B, false>,
        Fldenv if code == Code::Fldenv_m28byte => load_environment::<B, true>,
        Fldenv => load_environment::<B, false>,
        Fnsave if code == Code::Fnsave_m108byte => save::<B, true>,
        Fnsave => save::<B, false>,
        Frstor if code == Code::Frstor_m108byte => restore::<B, true>,
        Frstor => restore::<B, false>,
        _ => return None,
    })
}

fn store_control<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    cpu.check_fpu()?;
    let offset = op.offset(cpu);
    cpu.write_u16(op.segment, offset, cpu.state.fpu.control)
}

fn load_control<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    let offset = op.offset(cpu);
    let value = cpu.read_u16(op.segment, offset)?;
    cpu.state.fpu.control = fcw::kept(value);
    cpu.update_fpu_summary();
    Ok(())
}

fn store_status<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    cpu.check_fpu()?;
    let offset = op.offset(cpu);
    cpu.write_u16(op.segment, offset, cpu.state.fpu.status)
}

fn status_to_ax<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.check_fpu()?;
    let status = cpu.state.fpu.status;
    Word::set(cpu, EAX, status.into());
    Ok(())
}

fn clear_exceptions<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.check_fpu()?;
    cpu.state.fpu.status &= !fsw::CLEARED;
    cpu.update_fpu_summary();
    Ok(())
}

fn initialize<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.check_fpu()?;
    cpu.state.fpu.initialize();
    cpu.update_fpu_summary();
    Ok(())
}

fn no_operation<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    begin(cpu)
}

fn ignored<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.check_fpu()
}

fn free<B: Bus, const POP: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    cpu.state.fpu.free(op.reg);
    set_c1(&mut cpu.state.fpu, false);
    if POP {
        cpu.state.fpu.pop();
    }
    Ok(())
}

/// FINCSTP and FDECSTP: TOP alone.
fn rotate<B: Bus, const BY: u8>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    begin(cpu)?;
    let fpu = &mut cpu.state.fpu;
    fpu.set_top(fpu.top() + BY);
    set_c1(fpu, false);
    Ok(())
}

/// Words of an environment, before the registers in FNSAVE's image. With 32-bit operand size each is followed by
/// another word.
const ENVIRONMENT_WORDS: usize = 7;
/// Words of a register in FNSAVE's image.
const REGISTER_WORDS: u32 = 5;
const REGISTERS: u32 = 8;
/// What the upper half of a dword is that has nothing to say.
const UNUSED: u16 = 0xffff;
/// In the real-mode formats, what shares a word with bits 16 and up of an address starts here.
const REAL_UPPER_SHIFT: u32 = 12;

/// Lower and upper halves of the environment's words; the upper ones exist with 32-bit operand size.
type Environment = [(u16, u16); ENVIRONMENT_WORDS];

/// Whether the environment has selectors in it.
fn has_selectors<B: Bus>(cpu: &Vcpu<B>) -> bool {
    cpu.state.protected() && !cpu.state.v86()
}

const fn halves(value: u32) -> (u16, u16) {
    (value as u16, (value >> 16) as u16)
}

const fn whole((low, high): (u16, u16)) -> u32 {
    low as u32 | (high as u32) << 16
}

fn environment(fpu: &FpuState, selectors: bool, wide: bool) -> Environment {
    let words = [fpu.control, fpu.status, fpu.tag_word()].map(|word| (word, UNUSED));
    let [control, status, tags] = words;
    let (code, data) = (fpu.instruction_selector, fpu.operand_selector);
    let (code_offset, data_offset) = (fpu.instruction_offset, fpu.operand_offset);
    let opcode = fpu.opcode & OPCODE;
    if selectors {
        let [fip, fdp] = [code_offset, data_offset].map(halves);
        return [control, status, tags, fip, (code, opcode), fdp, (data, UNUSED)];
    }
    let linear = |selector: u16, offset: u32| (u32::from(selector) << 4).wrapping_add(offset);
    let (fip, fdp) = (linear(code, code_offset), linear(data, data_offset));
    // Bits 16 and up of an address and FOP, in a word or a dword.
    let upper = |address: u32, low: u16| {
        let high = if wide { address >> 16 } else { address >> 16 & 0xf };
        halves(high << REAL_UPPER_SHIFT | u32::from(low))
    };
    let lower = |address: u32| (address as u16, 0);
    [control, status, tags, lower(fip), upper(fip, opcode), lower(fdp), upper(fdp, 0)]
}

fn set_environment<B: Bus>(cpu: &mut Vcpu<B>, words: &Environment, wide: bool) {
    let selectors = has_selectors(cpu);
    let fpu = &mut cpu.state.fpu;
    let [control, status, tags, fip, code, fdp, data] = *words;
    fpu.control = fcw::kept(control.0);
    fpu.status = status.0;
    fpu.set_tag_word(tags.0);
    if selectors {
        (fpu.instruction_offset, fpu.operand_offset) = (whole(fip), whole(fdp));
        (fpu.instruction_selector, fpu.operand_selector) = (code.0, data.0);
        if wide {
            fpu.opcode = code.1 & OPCODE;
        }
    } else {
        let address =
            |low: (u16, u16), high: (u16, u16)| u32::from(low.0) | whole(high) >> REAL_UPPER_SHIFT << 16;
        (fpu.instruction_offset, fpu.operand_offset) = (address(fip, code), address(fdp, data));
        (fpu.instruction_selector, fpu.operand_selector) = (0, 0);
        fpu.opcode = code.0 & OPCODE;
    }
    cpu.update_fpu_summary();
}

/// Bytes of the environment.
const fn environment_bytes(wide: bool) -> u32 {
    ENVIRONMENT_WORDS as u32 * if wide { 4 } else { 2 }
}

const REGISTERS_BYTES: u32 = 2 * REGISTER_WORDS * REGISTERS;

fn write_environment<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, wide: bool) -> Exec {
    let words = environment(&cpu.state.fpu, has_selectors(cpu), wide);
    let mut at = offset;
    for word in words {
        if wide {
            cpu.write_u32(segment, at, whole(word))?;
            at = at.wrapping_add(4);
        } else {
            cpu.write_u16(segment, at, word.0)?;
            at = at.wrapping_add(2);
        }
    }
    Ok(())
}

fn read_environment<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, wide: bool) -> Exec<Environment> {
    let mut words = [(0, 0); ENVIRONMENT_WORDS];
    let mut at = offset;
    for word in &mut words {
        if wide {
            *word = halves(cpu.read_u32(segment, at)?);
            at = at.wrapping_add(4);
        } else {
            word.0 = cpu.read_u16(segment, at)?;
            at = at.wrapping_add(2);
        }
    }
    Ok(words)
}

fn store_environment<B: Bus, const WIDE: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    cpu.check_fpu()?;
    let offset = op.offset(cpu);
    cpu.probe_write(op.segment, offset, environment_bytes(WIDE))?;
    write_environment(cpu, op.segment, offset, WIDE)?;
    cpu.state.fpu.control |= fcw::MASKS;
    cpu.update_fpu_summary();
    Ok(())
}

fn load_environment<B: Bus, const WIDE: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    let offset = op.offset(cpu);
    cpu.linear_for_read(op.segment, offset, environment_bytes(WIDE))?;
    let words = read_environment(cpu, op.segment, offset, WIDE)?;
    set_environment(cpu, &words, WIDE);
    Ok(())
}

/// FNSAVE. Registers go word by word: they are not aligned.
fn save<B: Bus, const WIDE: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    cpu.check_fpu()?;
    let offset = op.offset(cpu);
    cpu.probe_write(op.segment, offset, environment_bytes(WIDE) + REGISTERS_BYTES)?;
    write_environment(cpu, op.segment, offset, WIDE)?;
    let mut at = offset.wrapping_add(environment_bytes(WIDE));
    for i in 0..REGISTERS as u8 {
        let value = cpu.state.fpu.st(i);
        let words = [0, 16, 32, 48].map(|shift| (value.significand >> shift) as u16);
        for word in words.into_iter().chain([value.sign_exponent]) {
            cpu.write_u16(op.segment, at, word)?;
            at = at.wrapping_add(2);
        }
    }
    cpu.state.fpu.initialize();
    cpu.update_fpu_summary();
    Ok(())
}

fn restore<B: Bus, const WIDE: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    let offset = op.offset(cpu);
    cpu.linear_for_read(op.segment, offset, environment_bytes(WIDE) + REGISTERS_BYTES)?;
    let environment = read_environment(cpu, op.segment, offset, WIDE)?;
    let mut values = [F80::ZERO; REGISTERS as usize];
    let mut at = offset.wrapping_add(environment_bytes(WIDE));
    for value in &mut values {
        for shift in [0, 16, 32, 48] {
            value.significand |= u64::from(cpu.read_u16(op.segment, at)?) << shift;
            at = at.wrapping_add(2);
        }
        value.sign_exponent = cpu.read_u16(op.segment, at)?;
        at = at.wrapping_add(2);
    }
    // Tags are those of the image, whatever is set here.
    cpu.state.fpu.status = environment[1].0;
    for (i, value) in values.into_iter().enumerate() {
        cpu.state.fpu.set_st(i as u8, value);
    }
    set_environment(cpu, &environment, WIDE);
    Ok(())
}
