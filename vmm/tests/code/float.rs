//! Floating-point instructions of which processors have different opinions: the guest sees what the manual says.

use super::guest::{assemble, on_every_engine};
use iced_x86::code_asm::*;
use vmm::cpu::fpu::fsw;
use vmm::cpu::registers::{cr4, gpr};

const CODE: u32 = 0x2_0000;

#[test]
fn comparisons_that_set_flags_clear_c1() {
    on_every_engine(|guest| {
        let code = assemble(CODE, |a| {
            a.fninit()?;
            a.fld1()?;
            a.fld1()?;
            a.fld1()?;
            a.fchs()?;
            // C1 is the sign.
            a.fxam()?;
            a.fnstsw(ax)?;
            a.mov(ebx, eax)?;
            a.fcomi(st0, st1)?;
            a.fnstsw(ax)?;
            a.mov(ecx, eax)?;
            a.fxam()?;
            a.fucomip(st0, st1)?;
            a.fnstsw(ax)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.run(CODE);
        let c1 = |register| guest.register(register) & u32::from(fsw::C1);
        assert_ne!(c1(gpr::EBX), 0);
        assert_eq!([gpr::ECX, gpr::EAX].map(c1), [0; 2]);
        // Nothing else has changed: one was popped.
        assert_eq!(guest.register(gpr::EAX) & u32::from(fsw::TOP), 6 << fsw::TOP.trailing_zeros());
    });
}

#[test]
fn conversions_of_integers_in_memory_to_singles_are_mmx_instructions_and_those_to_doubles_are_not() {
    on_every_engine(|guest| {
        const DATA: u32 = 0x3_0000;
        let code = assemble(CODE, |a| {
            a.fninit()?;
            a.fld1()?;
            a.fld1()?;
            a.cvtpi2pd(xmm1, qword_ptr(DATA))?;
            a.fnstsw(ax)?;
            a.mov(ebx, eax)?;
            a.cvtpi2ps(xmm1, qword_ptr(DATA))?;
            a.fnstsw(ax)?;
            // All registers are valid now, so there is no room.
            a.fld1()?;
            a.mov(ecx, eax)?;
            a.fnstsw(ax)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.cpu.state.cr4 |= cr4::OSFXSR;
        guest.cpu.state_replaced();
        guest.run(CODE);
        let [before, between, behind] =
            [gpr::EBX, gpr::ECX, gpr::EAX].map(|register| guest.register(register));
        let top = |status| (status & u32::from(fsw::TOP)) >> fsw::TOP.trailing_zeros();
        assert_eq!((top(before), top(between)), (6, 0));
        assert_ne!(behind & u32::from(fsw::SF), 0, "the stack was not full");
    });
}
