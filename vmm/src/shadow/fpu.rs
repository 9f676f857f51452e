//! The guest's floating-point state between [`FpuState`] and the image that FXRSTOR loads and FXSAVE leaves.
//!
//! The last-instruction pointers are not part of it: shadow code keeps them in [`FpuState`] itself, and the host's own are
//! never shown to anybody. Selectors it leaves to [`resolve`], which is called before any can change.

use super::bridge::{Context, Fxsave};
use crate::cpu::CpuState;
use crate::cpu::fpu::FpuState;
use crate::cpu::registers::Seg;

/// In place of FOP: no x87 instruction has run since the last [`resolve`].
pub const NO_OPCODE: u16 = u16::MAX;
/// Beside FOP: the selector of CS has been stored already.
pub const SELECTOR_KNOWN: u16 = 1 << 15;
/// In place of a segment's number: no operand in memory since the last [`resolve`].
pub const NO_SEGMENT: u8 = u8::MAX;

/// Shadow code is to find the guest's state in the host's registers from now on.
pub fn load(state: &mut CpuState, context: &mut Context) {
    to_image(&state.fpu, &mut context.fpu);
    context.fpu_opcode = std::mem::replace(&mut state.fpu.opcode, NO_OPCODE);
    context.fpu_operand_segment = NO_SEGMENT;
    context.fpu_loaded = 1;
}

/// Takes the state back.
pub fn unload(state: &mut CpuState, context: &mut Context) {
    resolve(state, context);
    context.fpu_loaded = 0;
    from_image(&context.fpu, &mut state.fpu);
    state.fpu.opcode = context.fpu_opcode;
}

/// Stores the selectors of the last x87 instruction and its operand, which are those that segments have now.
pub fn resolve(state: &mut CpuState, context: &mut Context) {
    let opcode = std::mem::replace(&mut state.fpu.opcode, NO_OPCODE);
    if opcode == NO_OPCODE {
        return;
    }
    if opcode & SELECTOR_KNOWN == 0 {
        state.fpu.instruction_selector = state.segment(Seg::Cs).selector;
    }
    context.fpu_opcode = opcode & !SELECTOR_KNOWN;
    let segment = std::mem::replace(&mut context.fpu_operand_segment, NO_SEGMENT);
    if let Some(segment) = state.segments.get(usize::from(segment)) {
        state.fpu.operand_selector = segment.selector;
    }
}

/// Where things are in the image (SDM vol. 1, "FXSAVE Area").
mod at {
    pub(super) const FCW: usize = 0;
    pub(super) const FSW: usize = 2;
    pub(super) const FTW: usize = 4;
    pub(super) const MXCSR: usize = 24;
    pub(super) const ST: usize = 32;
    pub(super) const XMM: usize = 160;
    pub(super) const STEP: usize = 16;
}

fn put<const N: usize>(image: &mut Fxsave, offset: usize, bytes: [u8; N]) {
    image.0[offset..offset + N].copy_from_slice(&bytes);
}

fn get<const N: usize>(image: &Fxsave, offset: usize) -> [u8; N] {
    std::array::from_fn(|n| image.0[offset + n])
}

/// Makes the image of a state.
pub fn to_image(fpu: &FpuState, image: &mut Fxsave) {
    put(image, at::FCW, fpu.control.to_le_bytes());
    put(image, at::FSW, fpu.status.to_le_bytes());
    put(image, at::FTW, [fpu.valid]);
    put(image, at::MXCSR, fpu.mxcsr.to_le_bytes());
    for n in 0..8 {
        let register = fpu.st(n as u8);
        put(image, at::ST + at::STEP * n, register.significand.to_le_bytes());
        put(image, at::ST + at::STEP * n + 8, register.sign_exponent.to_le_bytes());
        put(image, at::XMM + at::STEP * n, fpu.xmm[n].to_le_bytes());
    }
}

/// Takes a state back from its image.
pub fn from_image(image: &Fxsave, fpu: &mut FpuState) {
    fpu.control = u16::from_le_bytes(get(image, at::FCW));
    fpu.status = u16::from_le_bytes(get(image, at::FSW));
    fpu.mxcsr = u32::from_le_bytes(get(image, at::MXCSR));
    let top = usize::from(fpu.top());
    for n in 0..8 {
        let register = &mut fpu.registers[(top + n) % 8];
        register.significand = u64::from_le_bytes(get(image, at::ST + at::STEP * n));
        register.sign_exponent = u16::from_le_bytes(get(image, at::ST + at::STEP * n + 8));
        fpu.xmm[n] = u128::from_le_bytes(get(image, at::XMM + at::STEP * n));
    }
    [fpu.valid] = get(image, at::FTW);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::softfloat::F80;

    #[test]
    fn a_state_survives_its_image() {
        let mut fpu = FpuState::at_reset();
        fpu.control = 0x27f;
        fpu.status = 5 << 11 | 0x41;
        fpu.valid = 0b1010_0110;
        for n in 0..8 {
            fpu.registers[n] = F80 { significand: 1 << 63 | n as u64, sign_exponent: 0x3fff + n as u16 };
            fpu.xmm[n] = 0x1234_5678 << n;
        }
        let mut image = Fxsave([0; 512]);
        to_image(&fpu, &mut image);
        let mut back = FpuState::at_reset();
        from_image(&image, &mut back);
        assert_eq!(back, fpu);
    }
}
