//! How fast the interpreter is. Run with
//! `cargo test --release -p vmsim-vmm --test interp_speed -- --ignored --nocapture`.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use ipc::time::VirtualTime;
use ipc::width::Width;
use std::cell::Cell;
use std::ptr::NonNull;
use std::time::Duration;
use vmm::cpu::bus::{Bus, PageGrant};
use vmm::cpu::registers::{cr0, rights};
use vmm::cpu::{Segment, Vcpu};
use vmm::interp::{Exit, Interp};

const RAM: usize = 8 << 20;
const CODE: u32 = 0x1000;
const STACK: u32 = 0x9000;
const DATA: u32 = 0x10_0000;

struct RamBus(Box<[Cell<u8>]>);

impl Bus for RamBus {
    fn page(&mut self, address: u64) -> PageGrant {
        if address as usize >= RAM {
            return PageGrant::default();
        }
        let host = NonNull::new(self.0.as_ptr().cast::<u8>().cast_mut().wrapping_add(address as usize));
        PageGrant { read: host, write: host, cacheable_code: true }
    }
    fn map_generation(&self) -> u64 {
        0
    }
    fn read_memory(&mut self, _address: u64, width: Width) -> u32 {
        width.mask()
    }
    fn write_memory(&mut self, _address: u64, _width: Width, _value: u32) {}
    fn read_port(&mut self, _port: u16, width: Width) -> u32 {
        width.mask()
    }
    fn write_port(&mut self, _port: u16, _width: Width, _value: u32) {}
    fn a20_enabled(&self) -> bool {
        true
    }
    fn attention(&self, _: bool) -> bool {
        std::hint::black_box(false)
    }
    fn interrupt_pending(&self) -> bool {
        false
    }
    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        None
    }
    fn mark_code(&mut self, _address: u64) {}
    fn unmark_code(&mut self, _address: u64) {}
    fn take_written_code(&mut self) -> Option<(u64, u64)> {
        None
    }
    fn now(&mut self) -> VirtualTime {
        VirtualTime(0)
    }
}

/// Time that this thread has run: the machine may be busy with other things.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn measure(name: &str, write: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) {
    let mut assembler = CodeAssembler::new(32).unwrap();
    write(&mut assembler).unwrap();
    let code = assembler.assemble(u64::from(CODE)).unwrap();
    let bus = RamBus(vec![Cell::new(0); RAM].into_boxed_slice());
    for (n, byte) in code.iter().enumerate() {
        bus.0[CODE as usize + n].set(*byte);
    }
    let mut cpu = Vcpu::new(bus);
    for n in 0..6 {
        let kind = if n == 1 { rights::FLAT_CODE } else { rights::FLAT_DATA };
        cpu.state.segments[n] = Segment::new(8, kind, 0, u32::MAX);
    }
    cpu.state.cr0 |= cr0::PE;
    cpu.state.eip = CODE;
    cpu.state.gpr[4] = STACK;
    cpu.state_replaced();
    let mut interp = Interp::new();

    let start = cpu_time();
    assert_eq!(interp.run(&mut cpu, u64::MAX), Exit::Halted);
    let elapsed = cpu_time() - start;

    let statistics = interp.statistics();
    let per_instruction = elapsed.as_secs_f64() * 1e9 / statistics.instructions as f64;
    println!(
        "{name:8} {:10} instructions, {:9} blocks, {elapsed:8.1?}: {per_instruction:.2} ns each, {:.0} MIPS",
        statistics.instructions,
        statistics.blocks,
        1e3 / per_instruction
    );
}

#[test]
#[ignore = "a measurement, not a test"]
fn speed() {
    measure("alu", |a| {
        let mut top = a.create_label();
        a.mov(ecx, 20_000_000)?;
        a.set_label(&mut top)?;
        a.add(eax, ecx)?;
        a.xor(edx, eax)?;
        a.lea(ebx, dword_ptr(eax + edx * 4 + 17))?;
        a.shr(edx, 3)?;
        a.dec(ecx)?;
        a.jnz(top)?;
        a.hlt()
    });
    measure("sieve", |a| {
        let mut outer = a.create_label();
        let mut inner = a.create_label();
        let mut skip = a.create_label();
        a.mov(esi, 2)?;
        a.set_label(&mut outer)?;
        a.cmp(byte_ptr(esi + DATA), 0)?;
        a.jne(skip)?;
        a.lea(edi, dword_ptr(esi + esi))?;
        a.set_label(&mut inner)?;
        a.mov(byte_ptr(edi + DATA), 1)?;
        a.add(edi, esi)?;
        a.cmp(edi, 5_000_000)?;
        a.jb(inner)?;
        a.set_label(&mut skip)?;
        a.inc(esi)?;
        a.cmp(esi, 2_500_000)?;
        a.jb(outer)?;
        a.hlt()
    });
    measure("fib", |a| {
        let mut fib = a.create_label();
        let mut recurse = a.create_label();
        a.mov(eax, 30)?;
        a.call(fib)?;
        a.hlt()?;
        a.set_label(&mut fib)?;
        a.push(ebp)?;
        a.mov(ebp, esp)?;
        a.push(ebx)?;
        a.push(esi)?;
        a.mov(ebx, eax)?;
        a.cmp(eax, 2)?;
        a.jae(recurse)?;
        a.pop(esi)?;
        a.pop(ebx)?;
        a.pop(ebp)?;
        a.ret()?;
        a.set_label(&mut recurse)?;
        a.lea(eax, dword_ptr(ebx - 1))?;
        a.call(fib)?;
        a.mov(esi, eax)?;
        a.lea(eax, dword_ptr(ebx - 2))?;
        a.call(fib)?;
        a.add(eax, esi)?;
        a.pop(esi)?;
        a.pop(ebx)?;
        a.pop(ebp)?;
        a.ret()
    });
    measure("memory", |a| {
        let mut top = a.create_label();
        a.mov(ecx, 20_000_000)?;
        a.set_label(&mut top)?;
        a.mov(eax, dword_ptr(DATA))?;
        a.add(eax, ecx)?;
        a.mov(dword_ptr(DATA + 4), eax)?;
        a.add(dword_ptr(DATA), 3)?;
        a.dec(ecx)?;
        a.jnz(top)?;
        a.hlt()
    });
    measure("copy", |a| {
        let mut top = a.create_label();
        a.mov(edx, 500)?;
        a.set_label(&mut top)?;
        a.mov(ecx, 0x4_0000)?;
        a.mov(esi, DATA)?;
        a.mov(edi, DATA + 0x20_0000)?;
        a.rep().movsd()?;
        a.dec(edx)?;
        a.jnz(top)?;
        a.hlt()
    });
}
