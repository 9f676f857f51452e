//! Floating-point instructions of which processors have different opinions: the guest sees what the manual says.

use super::guest::{assemble, on_every_engine};
use iced_x86::code_asm::*;
use vmm::cpu::fpu::fsw;
use vmm::cpu::registers::gpr;

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
