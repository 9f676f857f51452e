//! How fast the interpreter is. Run with
//! `cargo test --release -p vmsim-vmm --test interp_speed -- --ignored --nocapture`.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use ipc::time::VirtualTime;
use std::cell::Cell;
use std::ptr::NonNull;
use std::time::Duration;
use vmm::cpu::bus::{Bus, PageGrant};
use vmm::cpu::model::CpuModel;
use vmm::cpu::registers::{cr0, cr4, rights};
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
    fn attention(&self, _: bool) -> bool {
        std::hint::black_box(false)
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
    let mut cpu = Vcpu::with_model(bus, CpuModel::Max);
    cpu.state.cr4 |= cr4::OSFXSR;
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
    let loops = |name: &str, body: &dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        measure(name, |a| {
            let mut top = a.create_label();
            a.mov(ecx, 1_000_000)?;
            a.mov(eax, DATA)?;
            a.set_label(&mut top)?;
            for _ in 0..4 {
                body(a)?;
            }
            a.dec(ecx)?;
            a.jnz(top)?;
            a.hlt()
        });
    };
    // As compilers write a sum of products: load, multiply, add, pop.
    measure("x87", |a| {
        let mut top = a.create_label();
        a.fninit()?;
        a.mov(dword_ptr(DATA + 4), 0x3ff3_c0ca)?;
        a.mov(dword_ptr(DATA + 12), 0x3fe1_2345)?;
        a.fldz()?;
        a.mov(ecx, 3_000_000)?;
        a.set_label(&mut top)?;
        a.fld(qword_ptr(DATA))?;
        a.fmul(qword_ptr(DATA + 8))?;
        a.faddp(st1, st0)?;
        a.fld(st0)?;
        a.fsub(qword_ptr(DATA))?;
        a.fstp(qword_ptr(DATA + 16))?;
        a.dec(ecx)?;
        a.jnz(top)?;
        a.hlt()
    });
    loops("mmx", &|a| {
        a.movq(mm0, qword_ptr(eax))?;
        a.paddb(mm0, mm1)?;
        a.pmullw(mm2, mm0)?;
        a.punpcklbw(mm3, mm0)?;
        a.pcmpgtw(mm4, mm3)?;
        a.packuswb(mm3, mm4)?;
        a.psrlw(mm3, 3)?;
        a.movq(qword_ptr(eax), mm3)
    });
    loops("sse2 int", &|a| {
        a.movdqa(xmm0, xmmword_ptr(eax))?;
        a.paddb(xmm0, xmm1)?;
        a.pmullw(xmm2, xmm0)?;
        a.punpcklbw(xmm3, xmm0)?;
        a.pcmpgtw(xmm4, xmm3)?;
        a.packuswb(xmm3, xmm4)?;
        a.psadbw(xmm3, xmm2)?;
        a.movdqa(xmmword_ptr(eax), xmm3)
    });
    loops("paddb", &|a| a.paddb(xmm0, xmm1));
    loops("packuswb", &|a| a.packuswb(xmm0, xmm1));
    loops("punpckbw", &|a| a.punpcklbw(xmm0, xmm1));
    loops("psadbw", &|a| a.psadbw(xmm0, xmm1));
    loops("pmaddwd", &|a| a.pmaddwd(xmm0, xmm1));
    loops("pmovmskb", &|a| a.pmovmskb(edx, xmm1));
    loops("shufps", &|a| a.shufps(xmm0, xmm1, 0x1b));
    loops("movaps m", &|a| a.movaps(xmm0, xmmword_ptr(eax)));
    // A root and its reciprocal: results are inexact, as most are.
    let operands = |a: &mut CodeAssembler| {
        a.mov(edx, 3)?;
        a.cvtsi2ss(xmm1, edx)?;
        a.shufps(xmm1, xmm1, 0)?;
        a.sqrtps(xmm1, xmm1)?;
        a.rcpps(xmm0, xmm1)
    };
    let float = |name: &str, body: &dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        measure(name, |a| {
            let mut top = a.create_label();
            operands(a)?;
            a.mov(ecx, 1_000_000)?;
            a.set_label(&mut top)?;
            for _ in 0..4 {
                body(a)?;
            }
            a.dec(ecx)?;
            a.jnz(top)?;
            a.hlt()
        });
    };
    float("addps", &|a| a.addps(xmm0, xmm1));
    float("addss", &|a| a.addss(xmm0, xmm1));
    float("mul/divps", &|a| {
        a.mulps(xmm0, xmm1)?;
        a.divps(xmm0, xmm1)
    });
    float("sqrtps", &|a| a.sqrtps(xmm0, xmm1));
    float("minps", &|a| a.minps(xmm0, xmm1));
    float("cmpps", &|a| a.cmpps(xmm0, xmm1, 1));
    float("cvtps2dq", &|a| a.cvtps2dq(xmm2, xmm1));
    float("cvtdq2ps", &|a| a.cvtdq2ps(xmm2, xmm1));
    float("comiss", &|a| a.comiss(xmm0, xmm1));
}
