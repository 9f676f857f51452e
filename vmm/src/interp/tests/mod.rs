//! Tests of the engine: blocks, faults, traps, self-modifying code. What single instructions compute is
//! tested against silicon: `vmm/tests/vectors_286.rs` and `host.rs`.

mod debugger;
mod engine;
mod fpu;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod fpu_host;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod host;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod host_simd;
mod instructions;
mod random;
mod simd;

use super::{Exit, Interp};
use crate::cpu::Vcpu;
use crate::cpu::registers::{Seg, cr0, rights};
use crate::cpu::state::Segment;
use crate::cpu::testing::RamBus;
use iced_x86::code_asm::CodeAssembler;

/// Where test code starts.
const CODE: u32 = 0x1000;
/// Top of the test's stack.
const STACK: u32 = 0x8000;
/// Where test data is.
const DATA: u32 = 0x1_0000;

/// A processor with an interpreter.
struct Bench {
    cpu: Vcpu<RamBus>,
    interp: Interp<RamBus>,
}

impl Bench {
    /// Real mode, all segments at zero.
    fn real(code: &[u8]) -> Self {
        let mut cpu = crate::cpu::testing::vcpu();
        cpu.bus.load(u64::from(CODE), code);
        for seg in Seg::ALL {
            cpu.state.segments[seg as usize] = Segment::new(0, rights::REAL_MODE, 0, 0xffff);
        }
        cpu.state.eip = CODE;
        cpu.state.gpr = [0; 8];
        cpu.state.gpr[4] = STACK;
        cpu.state_replaced();
        Bench { cpu, interp: Interp::new() }
    }

    /// Protected mode at level 0, 32-bit flat segments, no paging; faults go nowhere (no IDT).
    fn flat(code: &[u8]) -> Self {
        let mut bench = Self::real(code);
        let state = &mut bench.cpu.state;
        state.cr0 |= cr0::PE;
        for seg in Seg::ALL {
            let kind = if seg == Seg::Cs { rights::FLAT_CODE } else { rights::FLAT_DATA };
            state.segments[seg as usize] = Segment::new(8, kind, 0, u32::MAX);
        }
        state.idtr.limit = 0;
        bench.cpu.state_replaced();
        bench
    }

    /// 32-bit code from an assembler.
    fn assembled(write: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>) -> Self {
        Self::flat(&assemble(32, write))
    }

    /// Runs to HLT.
    fn run(&mut self) {
        assert_eq!(self.interp.run(&mut self.cpu, 1_000_000), Exit::Halted);
    }

    fn eax(&self) -> u32 {
        self.cpu.state.gpr[0]
    }

    fn ecx(&self) -> u32 {
        self.cpu.state.gpr[1]
    }
}

fn assemble(bits: u32, write: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(bits).unwrap();
    write(&mut assembler).unwrap();
    assembler.assemble(u64::from(CODE)).unwrap()
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[test]
#[ignore = "instructions are compared with the host's processor on x86-64 Linux only"]
fn instructions_agree_with_the_host() {}
