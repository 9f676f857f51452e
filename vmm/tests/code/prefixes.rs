//! Encodings that mean something else to processors which are newer than the guest's.

use super::guest::on_every_engine;
use vmm::cpu::registers::gpr::{EAX, ECX};

const CODE: u32 = 0x2_0000;
const HLT: u8 = 0xf4;

#[test]
fn bsf_and_bsr_with_a_rep_prefix_are_bsf_and_bsr() {
    on_every_engine(|guest| {
        const SOURCE: u32 = 0x0001_0100;
        for (opcode, expected) in [(0xbc, SOURCE.trailing_zeros()), (0xbd, SOURCE.ilog2())] {
            // REP BSF ECX, EAX: TZCNT and LZCNT to newer processors.
            guest.load(CODE, &[0xf3, 0x0f, opcode, 0xc8, HLT]);
            guest.engine.forget_code(&mut guest.cpu);
            guest.cpu.state.gpr[EAX] = SOURCE;
            guest.run(CODE);
            assert_eq!(guest.register(ECX), expected);
            // Of zero they leave the destination as it was.
            guest.cpu.state.gpr[EAX] = 0;
            guest.run(CODE);
            assert_eq!(guest.register(ECX), expected);
        }
    });
}
