//! Writes to code, and pages of code that move.

use super::guest::{DEVICE, Guest, PAGE, PRESENT, assemble, entry, on_every_engine};
use iced_x86::code_asm::*;
use vmm::cpu::registers::gpr::{EAX, EBX, ECX, ESI};
use vmm::engine::Engine;

/// Where most code is.
const CODE: u32 = 0x2_0000;
/// Another page, and one more.
const OTHER: u32 = 0x3_0000;
const THIRD: u32 = 0x4_0000;
/// Data.
const DATA: u32 = 0x5_0000;
/// Opcode of MOV EAX, imm32: one byte, then the constant.
const OPCODE: u32 = 1;

/// `mov eax, value; ret`.
fn function(value: u32) -> Vec<u8> {
    assemble(0, |a| {
        a.mov(eax, value)?;
        a.ret()
    })
}

fn units_dropped(guest: &Guest) -> u64 {
    match &guest.engine {
        Engine::Shadow(shadow) => shadow.statistics().units_dropped,
        Engine::Interp(_) => 0,
    }
}

/// Counts ECX down from `count`, and adds up what `mov eax, ?` says, whose constant `store` writes.
fn sum_of_stores(count: u32, store: impl Fn(&mut CodeAssembler, u32) -> Result<(), IcedError>) -> Vec<u8> {
    let assemble_for = |target: u32| {
        let mut target_found = 0;
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.xor(ebx, ebx)?;
            a.mov(ecx, count)?;
            a.set_label(&mut again)?;
            store(a, target)?;
            a.mov(eax, 0x5555_5555)?;
            a.add(ebx, eax)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        if let Some(at) = code.windows(4).position(|window| window == [0x55; 4]) {
            target_found = CODE + at as u32;
        }
        (code, target_found)
    };
    let (_, target) = assemble_for(CODE);
    assemble_for(target).0
}

#[test]
fn a_store_into_the_next_instruction_is_seen_by_it() {
    on_every_engine(|guest| {
        let code = sum_of_stores(100, |a, target| a.mov(dword_ptr(target), ecx));
        guest.load(CODE, &code);
        guest.run(CODE);
        assert_eq!(guest.register(EBX), (1..=100).sum());
    });
}

#[test]
fn a_repeated_store_into_the_next_instruction_is_seen_by_it() {
    on_every_engine(|guest| {
        let code = sum_of_stores(50, |a, target| {
            a.mov(edx, ecx)?;
            a.mov(eax, ecx)?;
            a.mov(edi, target)?;
            a.mov(ecx, 1)?;
            a.rep().stosd()?;
            a.mov(ecx, edx)
        });
        guest.load(CODE, &code);
        guest.run(CODE);
        assert_eq!(guest.register(EBX), (1..=50).sum());
    });
}

#[test]
fn a_push_into_the_next_instruction_is_seen_by_it() {
    on_every_engine(|guest| {
        let code = sum_of_stores(50, |a, target| {
            a.mov(ebp, esp)?;
            a.mov(esp, target + 4)?;
            a.push(ecx)?;
            a.mov(esp, ebp)
        });
        guest.load(CODE, &code);
        guest.run(CODE);
        assert_eq!(guest.register(EBX), (1..=50).sum());
    });
}

#[test]
fn a_read_modify_write_of_the_next_instruction_is_seen_by_it() {
    on_every_engine(|guest| {
        let code = sum_of_stores(50, |a, target| {
            a.mov(edx, ecx)?;
            a.xchg(dword_ptr(target), edx)
        });
        guest.load(CODE, &code);
        guest.run(CODE);
        assert_eq!(guest.register(EBX), (1..=50).sum());
    });
}

#[test]
fn a_store_through_an_alias_is_seen() {
    on_every_engine(|guest| {
        let alias = THIRD - CODE;
        let code = sum_of_stores(50, |a, target| a.mov(dword_ptr(target.wrapping_add(alias)), ecx));
        guest.load(CODE, &code);
        guest.page();
        guest.map(THIRD, CODE);
        guest.run(CODE);
        assert_eq!(guest.register(EBX), (1..=50).sum());
    });
}

#[test]
fn code_that_runs_at_two_addresses_changes_at_both() {
    on_every_engine(|guest| {
        // The function runs at OTHER and at THIRD, which are one page, and is written through either.
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.xor(ebx, ebx)?;
            a.mov(ecx, 20)?;
            a.set_label(&mut again)?;
            for (write, call) in [(OTHER, THIRD), (THIRD, OTHER), (OTHER, OTHER), (THIRD, THIRD)] {
                a.mov(dword_ptr(write + OPCODE), ecx)?;
                a.call(u64::from(call))?;
                a.add(ebx, eax)?;
            }
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.load(OTHER, &function(0));
        guest.page();
        guest.map(THIRD, OTHER);
        guest.run(CODE);
        assert_eq!(guest.register(EBX), 4 * (1..=20).sum::<u32>());
    });
}

#[test]
fn a_jump_in_the_running_loop_is_redirected() {
    on_every_engine(|guest| {
        // The short jump goes over one INC, then over none.
        const JMP_SHORT: u8 = 0xeb;
        let assemble_for = |jump: u32| {
            assemble(CODE, |a| {
                let mut again = a.create_label();
                let mut stay = a.create_label();
                let mut over = a.create_label();
                a.xor(ebx, ebx)?;
                a.mov(ecx, 10)?;
                a.set_label(&mut again)?;
                a.cmp(ecx, 5)?;
                a.jne(stay)?;
                a.mov(byte_ptr(jump + 1), 0)?;
                a.set_label(&mut stay)?;
                a.jmp(over)?;
                a.inc(ebx)?;
                a.set_label(&mut over)?;
                a.dec(ecx)?;
                a.jne(again)?;
                a.hlt()
            })
        };
        let jump = assemble_for(CODE).iter().position(|byte| *byte == JMP_SHORT).expect("it is there");
        let code = assemble_for(CODE + jump as u32);
        guest.load(CODE, &code);
        guest.run(CODE);
        assert_eq!(guest.register(EBX), 5);
    });
}

#[test]
fn what_a_device_wrote_is_executed() {
    on_every_engine(|guest| {
        let code = assemble(CODE, |a| {
            a.call(u64::from(OTHER))?;
            a.mov(ebx, eax)?;
            a.call(u64::from(OTHER))?;
            a.add(ebx, eax)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.load(OTHER, &function(1));
        guest.run(CODE);
        assert_eq!(guest.register(EBX), 2);
        guest.cpu.bus.write_by_device(OTHER + OPCODE, &[7]);
        guest.run(CODE);
        assert_eq!(guest.register(EBX), 14);
    });
}

#[test]
fn a_loop_ends_when_a_device_writes_over_it() {
    on_every_engine(|guest| {
        // Waits for what the device that it starts writes into the loop itself: JNE becomes a jump that is not taken.
        let mut loop_end = 0;
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.mov(dx, u32::from(DEVICE))?;
            a.out(dx, al)?;
            a.xor(eax, eax)?;
            a.set_label(&mut again)?;
            a.inc(eax)?;
            a.test(eax, eax)?;
            a.jne(again)?;
            a.hlt()
        });
        if let Some(at) = code.iter().position(|byte| *byte == 0x75) {
            loop_end = at as u32;
        }
        guest.load(CODE, &code);
        const JE: u8 = 0x74;
        guest.cpu.bus.transfer = Some((CODE + loop_end, vec![JE]));
        guest.run(CODE);
        assert!(guest.cpu.bus.transfer.is_none());
        assert_eq!(guest.register(EAX), 1);
    });
}

#[test]
fn variables_between_code_do_not_cost_the_code() {
    on_every_engine(|guest| {
        const COUNT: u32 = 5000;
        let variable = CODE + 0x800;
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.mov(ecx, COUNT)?;
            a.set_label(&mut again)?;
            a.inc(dword_ptr(variable))?;
            a.mov(eax, dword_ptr(variable))?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.run(CODE);
        assert_eq!(guest.register(EAX), COUNT);
        assert!(units_dropped(guest) < 3, "{} units dropped", units_dropped(guest));
    });
}

#[test]
fn code_that_is_copied_runs_at_its_new_place() {
    on_every_engine(|guest| {
        // Three functions, one after another copied to the same place and called.
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.xor(ebx, ebx)?;
            a.mov(ebp, 30)?;
            a.set_label(&mut again)?;
            for source in 0..3 {
                a.mov(esi, DATA + 0x100 * source)?;
                a.mov(edi, OTHER)?;
                a.mov(ecx, 8)?;
                a.cld()?;
                a.rep().movsb()?;
                a.call(u64::from(OTHER))?;
                a.add(ebx, eax)?;
            }
            a.dec(ebp)?;
            a.jne(again)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        for n in 0..3 {
            guest.load(DATA + 0x100 * n, &function(10_u32.pow(n)));
        }
        guest.run(CODE);
        assert_eq!(guest.register(EBX), 30 * 111);
    });
}

#[test]
fn an_instruction_that_crosses_pages_changes_with_either() {
    on_every_engine(|guest| {
        // MOV EAX, imm32 with two bytes of the constant on each page.
        let at = OTHER + PAGE - 3;
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.xor(ebx, ebx)?;
            a.mov(ecx, 20)?;
            a.set_label(&mut again)?;
            a.mov(byte_ptr(at + OPCODE), cl)?;
            a.call(u64::from(at))?;
            a.add(ebx, eax)?;
            a.mov(byte_ptr(at + OPCODE + 2), cl)?;
            a.call(u64::from(at))?;
            a.add(ebx, eax)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.load(at, &function(0));
        guest.run(CODE);
        let (mut sum, mut value) = (0_u32, 0_u32);
        for n in (1..=20).rev() {
            value = value & !0xff | n;
            sum += value;
            value = value & !0xff_0000 | n << 16;
            sum += value;
        }
        assert_eq!(guest.register(EBX), sum);
    });
}

#[test]
fn an_instruction_that_crosses_pages_follows_the_mapping_of_both() {
    on_every_engine(|guest| {
        let at = OTHER + PAGE - 3;
        let second = OTHER + PAGE;
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.xor(ebx, ebx)?;
            a.mov(ecx, 10)?;
            a.set_label(&mut again)?;
            for page in [THIRD, second] {
                a.call(u64::from(at))?;
                a.add(ebx, eax)?;
                a.mov(dword_ptr(entry(second)), page | PRESENT)?;
                a.invlpg(byte_ptr(second))?;
            }
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.load(at, &function(0x10_0001));
        // The rest of the same function with another constant.
        guest.load(THIRD, &function(0x20_0001)[3..]);
        guest.page();
        guest.run(CODE);
        assert_eq!(guest.register(EBX), 10 * 0x30_0002);
    });
}

/// A loop at CODE that switches its own page to `other` by `switch`, when ECX is 5; EBX counts by what stands there.
fn loop_that_moves(step: u32, switch: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    assemble(CODE, |a| {
        let mut again = a.create_label();
        let mut stay = a.create_label();
        a.xor(ebx, ebx)?;
        a.mov(ecx, 10)?;
        a.set_label(&mut again)?;
        a.cmp(ecx, 5)?;
        a.jne(stay)?;
        switch(a)?;
        a.set_label(&mut stay)?;
        a.add(ebx, step)?;
        a.dec(ecx)?;
        a.jne(again)?;
        a.hlt()
    })
}

#[test]
fn a_loop_goes_on_in_the_page_that_invlpg_brought() {
    on_every_engine(|guest| {
        for (place, step) in [(CODE, 1), (OTHER, 100)] {
            let code = loop_that_moves(step, |a| {
                a.mov(dword_ptr(entry(CODE)), OTHER | PRESENT)?;
                a.invlpg(byte_ptr(CODE))
            });
            guest.load(place, &code);
        }
        guest.page();
        guest.run(CODE);
        assert_eq!(guest.register(EBX), 5 + 500);
    });
}

#[test]
fn a_loop_goes_on_in_the_page_of_another_directory() {
    on_every_engine(|guest| {
        const OTHER_DIRECTORY: u32 = 0x6_0000;
        const OTHER_TABLE: u32 = 0x6_1000;
        for (place, step) in [(CODE, 1), (OTHER, 100)] {
            let code = loop_that_moves(step, |a| {
                a.mov(eax, OTHER_DIRECTORY)?;
                a.mov(cr3, eax)
            });
            guest.load(place, &code);
        }
        guest.page();
        let table = guest.bytes(entry(0), PAGE);
        guest.load(OTHER_TABLE, &table);
        guest.load(OTHER_DIRECTORY, &(OTHER_TABLE | PRESENT).to_le_bytes());
        guest.load(OTHER_TABLE + 4 * (CODE / PAGE), &(OTHER | PRESENT).to_le_bytes());
        guest.run(CODE);
        assert_eq!(guest.register(EBX), 5 + 500);
    });
}

#[test]
fn a_return_goes_to_the_page_that_is_there_now() {
    on_every_engine(|guest| {
        // CODE calls DATA, which maps another page at CODE and returns; both pages have the call, and something else after it.
        for (place, value) in [(CODE, 1_u32), (OTHER, 2)] {
            let code = assemble(CODE, |a| {
                a.call(u64::from(DATA))?;
                a.mov(ebx, value)?;
                a.hlt()
            });
            guest.load(place, &code);
        }
        let function = assemble(DATA, |a| {
            a.mov(eax, dword_ptr(entry(CODE)))?;
            a.xor(eax, (CODE ^ OTHER) as i32)?;
            a.mov(dword_ptr(entry(CODE)), eax)?;
            a.invlpg(byte_ptr(CODE))?;
            a.ret()
        });
        guest.load(DATA, &function);
        guest.page();
        for expected in [2, 1, 2, 1, 2] {
            guest.run(CODE);
            assert_eq!(guest.register(EBX), expected);
        }
    });
}

#[test]
fn jumps_between_pages_follow_the_mapping() {
    on_every_engine(|guest| {
        // A loop over three pages, of which the middle one alternates.
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.xor(ebx, ebx)?;
            a.xor(esi, esi)?;
            a.mov(ecx, 40)?;
            a.set_label(&mut again)?;
            a.call(u64::from(THIRD))?;
            a.add(ebx, eax)?;
            a.xor(dword_ptr(entry(THIRD)), (OTHER ^ DATA) as i32)?;
            a.invlpg(byte_ptr(THIRD))?;
            a.inc(esi)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.load(OTHER, &function(3));
        guest.load(DATA, &function(1000));
        guest.page();
        guest.map(THIRD, OTHER);
        guest.run(CODE);
        assert_eq!((guest.register(EBX), guest.register(ESI), guest.register(ECX)), (20 * 1003, 40, 0));
    });
}

#[test]
fn a_store_that_faults_leaves_the_code_as_it_was() {
    on_every_engine(|guest| {
        // A dword store, half into code and half into a page that is not there: nothing is written.
        let last = OTHER + PAGE - 6;
        let code = assemble(CODE, |a| {
            a.call(u64::from(last))?;
            a.mov(ebx, eax)?;
            a.mov(eax, 0x4141_4141)?;
            a.mov(dword_ptr(OTHER + PAGE - 2), eax)?;
            a.hlt()
        });
        let handler = assemble(DATA, |a| {
            a.call(u64::from(last))?;
            a.mov(ecx, eax)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.load(DATA, &handler);
        guest.load(last, &function(0x1234_5678));
        guest.gate(vmm::cpu::registers::vector::PF, DATA);
        guest.page();
        guest.load(entry(OTHER + PAGE), &0_u32.to_le_bytes());
        guest.run(CODE);
        assert_eq!((guest.register(EBX), guest.register(ECX)), (0x1234_5678, 0x1234_5678));
    });
}
