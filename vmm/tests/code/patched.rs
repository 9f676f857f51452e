//! Instructions that are written over again and again: operands, which shadow code then reads from memory, and everything else, which
//! is interpreted for a while.

use super::guest::{Guest, assemble, on_every_engine};
use iced_x86::code_asm::*;
use vmm::cpu::registers::gpr::{EAX, EBX, ESI};
use vmm::engine::Engine;

const CODE: u32 = 0x2_0000;
const DATA: u32 = 0x5_0000;
const TURNS: u32 = 500;
/// Units that are made anew before operands are known to change.
const FEW: u64 = 6;

fn units_dropped(guest: &Guest) -> u64 {
    match &guest.engine {
        Engine::Shadow(shadow) => shadow.statistics().units_dropped,
        Engine::Interp(_) => 0,
    }
}

/// Runs a loop that counts ECX down, in which `store` writes `at` bytes behind the start of an instruction of its own, one of
/// `patched`, which is found by its bytes `marker`.
fn run_patching(
    guest: &mut Guest,
    marker: &[u8],
    at: u32,
    store: impl Fn(&mut CodeAssembler, u32) -> Result<(), IcedError>,
    patched: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>,
) {
    let make = |target: u32| {
        assemble(CODE, |a| {
            let mut again = a.create_label();
            a.xor(ebx, ebx)?;
            a.xor(esi, esi)?;
            a.mov(edi, DATA)?;
            a.mov(ecx, TURNS)?;
            a.set_label(&mut again)?;
            store(a, target)?;
            patched(a)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        })
    };
    let code = make(CODE);
    let found = code.windows(marker.len()).rposition(|window| window == marker).expect("it is there");
    let code = make(CODE + found as u32 + at);
    guest.load(CODE, &code);
    guest.run(CODE);
}

#[test]
fn operands_that_change_are_read_when_they_are_used() {
    on_every_engine(|guest| {
        run_patching(
            guest,
            &[0xb8, 0x55, 0x55, 0x55, 0x55],
            1,
            |a, target| a.mov(dword_ptr(target), ecx),
            |a| {
                a.mov(eax, 0x5555_5555)?;
                a.add(ebx, eax)
            },
        );
        assert_eq!(guest.register(EBX), (1..=TURNS).sum::<u32>());
        assert!(units_dropped(guest) < FEW, "{}", units_dropped(guest));
    });
}

#[test]
fn a_part_of_an_operand_may_change() {
    on_every_engine(|guest| {
        run_patching(
            guest,
            &[0x81, 0xc3, 0x55, 0x55, 0x55, 0x55],
            3,
            |a, target| a.mov(byte_ptr(target), cl),
            |a| a.add(ebx, 0x5555_5555),
        );
        let sum = (1..=TURNS).fold(0_u32, |sum, n| sum.wrapping_add(0x5555_0055 | (n & 0xff) << 8));
        assert_eq!(guest.register(EBX), sum);
        assert!(units_dropped(guest) < FEW, "{}", units_dropped(guest));
    });
}

#[test]
fn operands_of_a_byte_keep_their_sign() {
    on_every_engine(|guest| {
        run_patching(
            guest,
            &[0x83, 0xc3, 0x55],
            2,
            |a, target| a.mov(byte_ptr(target), cl),
            |a| a.add(ebx, 0x55),
        );
        let sum = (1..=TURNS).fold(0_u32, |sum, n| sum.wrapping_add(n as i8 as u32));
        assert_eq!(guest.register(EBX), sum);
        assert!(units_dropped(guest) < FEW, "{}", units_dropped(guest));
    });
}

#[test]
fn flags_live_across_an_operand_that_changes() {
    on_every_engine(|guest| {
        run_patching(
            guest,
            &[0xc7, 0x07, 0x55, 0x55, 0x55, 0x55],
            2,
            |a, target| {
                a.mov(dword_ptr(target), ecx)?;
                a.cmp(ecx, 100)
            },
            |a| {
                // Neither changes flags: ADC adds the carry of the comparison.
                a.mov(dword_ptr(edi), 0x5555_5555)?;
                a.adc(esi, dword_ptr(edi))
            },
        );
        assert_eq!(guest.register(ESI), (1..=TURNS).sum::<u32>() + 99);
        assert!(units_dropped(guest) < FEW, "{}", units_dropped(guest));
    });
}

#[test]
fn comparisons_with_operands_that_change() {
    on_every_engine(|guest| {
        run_patching(
            guest,
            &[0x81, 0xf9, 0x55, 0x55, 0x55, 0x55],
            2,
            |a, target| {
                a.mov(edx, ecx)?;
                a.and(edx, !1)?;
                a.mov(dword_ptr(target), edx)
            },
            |a| {
                let mut differs = a.create_label();
                a.cmp(ecx, 0x5555_5555)?;
                a.jne(differs)?;
                a.inc(ebx)?;
                a.set_label(&mut differs)?;
                a.nop()
            },
        );
        assert_eq!(guest.register(EBX), TURNS / 2);
        assert!(units_dropped(guest) < FEW, "{}", units_dropped(guest));
    });
}

#[test]
fn pushes_of_operands_that_change() {
    on_every_engine(|guest| {
        run_patching(
            guest,
            &[0x68, 0x55, 0x55, 0x55, 0x55],
            1,
            |a, target| a.mov(dword_ptr(target), ecx),
            |a| {
                a.push(0x5555_5555)?;
                a.pop(eax)?;
                a.add(ebx, eax)
            },
        );
        assert_eq!(guest.register(EBX), (1..=TURNS).sum::<u32>());
        assert_eq!(guest.register(EAX), 1);
        assert!(units_dropped(guest) < FEW, "{}", units_dropped(guest));
    });
}

#[test]
fn opcodes_that_change_are_seen_and_do_not_make_code_for_ever() {
    on_every_engine(|guest| {
        run_patching(
            guest,
            &[0x43, 0x90],
            0,
            // INC EBX or DEC EBX, in turn.
            |a, target| a.xor(byte_ptr(target), 0x43 ^ 0x4b),
            |a| {
                a.inc(ebx)?;
                a.nop()?;
                a.add(ebx, 2)
            },
        );
        assert_eq!(guest.register(EBX), 2 * TURNS);
        assert!(units_dropped(guest) < u64::from(TURNS) / 4, "{}", units_dropped(guest));
    });
}
