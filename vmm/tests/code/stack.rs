//! Runs of pushes and pops, whose place is looked up together: what one of them meets must not show in the others.

use super::guest::{PAGE, PRESENT, assemble, entry, on_every_engine_uninterrupted};
use iced_x86::code_asm::*;
use vmm::cpu::registers::gpr::{EAX, EBX, EDI, EDX, ESI, ESP};
use vmm::cpu::registers::vector;

const CODE: u32 = 0x2_0000;
const CALLEE: u32 = 0x2_1000;
const HANDLER: u32 = 0x4_0000;
/// Linear pages of a stack, and where they are.
const STACK: u32 = 0x10_0000;
const BELOW: u32 = 0x14_0000;
const ABOVE: u32 = 0x15_0000;

#[test]
fn a_run_that_faults_in_its_midst_has_done_what_came_before() {
    on_every_engine_uninterrupted(|guest| {
        guest.page();
        guest.map(STACK, BELOW);
        guest.load(entry(STACK + PAGE), &0_u32.to_le_bytes());
        let values = [0x1111_u32, 0x2222, 0x3333, 0x4444].map(u32::to_le_bytes).concat();
        guest.load(BELOW + PAGE - 8, &values[..8]);
        guest.load(ABOVE, &values[8..]);
        guest.gate(vector::PF, HANDLER);
        let handler = assemble(HANDLER, |a| {
            // Error code and EIP.
            a.mov(ebp, dword_ptr(esp + 4))?;
            a.mov(edi, esp)?;
            a.mov(dword_ptr(entry(STACK + PAGE)), ABOVE | PRESENT)?;
            a.add(esp, 4)?;
            a.iretd()
        });
        guest.load(HANDLER, &handler);
        let code = assemble(CODE, |a| {
            a.mov(esp, STACK + PAGE - 8)?;
            a.stc()?;
            a.pop(eax)?;
            a.pop(ebx)?;
            a.pop(edx)?;
            a.pop(esi)?;
            a.adc(esi, 0)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.run(CODE);
        let registers = [EAX, EBX, EDX, ESI].map(|n| guest.register(n));
        assert_eq!(registers, [0x1111, 0x2222, 0x3333, 0x4445]);
        // At the third, with a frame of error code, EIP, CS and EFLAGS below where ESP was.
        assert_eq!(guest.register(EDI), STACK + PAGE - 16);
        assert_eq!(guest.register(ESP), STACK + PAGE + 8);
        assert_eq!(guest.register(vmm::cpu::registers::gpr::EBP), CODE + 8);
    });
}

#[test]
fn runs_across_pages_reach_both_wherever_they_are() {
    on_every_engine_uninterrupted(|guest| {
        guest.page();
        guest.map(STACK, BELOW);
        guest.map(STACK + PAGE, ABOVE);
        let callee = assemble(CALLEE, |a| {
            a.push(ebx)?;
            a.push(esi)?;
            a.push(ds)?;
            a.push(0x5a5a)?;
            a.mov(ebx, 0)?;
            a.mov(esi, 0)?;
            a.pop(eax)?;
            a.pop(edx)?;
            a.pop(esi)?;
            a.pop(ebx)?;
            a.ret_1(4)
        });
        guest.load(CALLEE, &callee);
        // At each place around the boundary, aligned or not, from above to below and back up.
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.mov(ecx, 64)?;
            a.mov(edi, 0)?;
            a.set_label(&mut again)?;
            a.lea(esp, dword_ptr(ecx + (STACK + PAGE - 16)))?;
            a.lea(ebx, dword_ptr(ecx + 7))?;
            a.lea(esi, dword_ptr(ecx * 8 + 1))?;
            a.push(ecx)?;
            a.mov(eax, CALLEE)?;
            a.call(eax)?;
            a.lea(ebp, dword_ptr(ecx + (STACK + PAGE - 16)))?;
            a.sub(ebp, esp)?;
            a.add(edi, ebp)?;
            a.add(edi, eax)?;
            a.add(edi, ebx)?;
            a.add(edi, esi)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.run(CODE);
        let sum: u32 = (1..=64).map(|n| 0x5a5a + (n + 7) + (n * 8 + 1)).sum();
        assert_eq!((guest.register(EDI), guest.register(EDX)), (sum, super::guest::DATA.into()));
    });
}
