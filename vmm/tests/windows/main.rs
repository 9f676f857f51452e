//! User code in windows ([`vmm::shadow`]): what it computes is what the interpreter computes, whatever the page tables and the code do.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![expect(unsafe_code, reason = "guest memory that can be mapped twice")]

mod calls;
mod frame_buffer;
mod limits;
mod refused;
mod stack;
mod tight_loops;

use iced_x86::code_asm::*;
use ipc::time::VirtualTime;
use ipc::width::Width;
use rustix::mm::{MapFlags, ProtFlags};
use std::ptr::NonNull;
use vmm::cpu::bus::{Bus, PageGrant};
use vmm::cpu::registers::{cr0, cr4, gpr, rights};
use vmm::cpu::{Segment, Vcpu};
use vmm::interp::{Exit, Interp};
use vmm::shadow::{Shadow, WindowPolicy};

const PAGE: u32 = 4096;
const RAM: usize = 96 << 20;
/// Page table entry: present, writable, for users, and for one that has been used.
const PRESENT: u32 = 7;
const READ_ONLY: u32 = 5;

struct Ram(NonNull<u8>);

impl Ram {
    fn new() -> Self {
        let (protection, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), RAM, protection, flags) };
        Self(NonNull::new(at.expect("there is memory").cast()).expect("nothing is mapped at zero"))
    }

    fn read(&self, address: u32, data: &mut [u8]) {
        assert!(address as usize + data.len() <= RAM);
        // SAFETY: within the mapping.
        unsafe {
            self.0.as_ptr().add(address as usize).copy_to_nonoverlapping(data.as_mut_ptr(), data.len())
        };
    }

    fn load(&self, address: u32, data: &[u8]) {
        assert!(address as usize + data.len() <= RAM);
        // SAFETY: within the mapping.
        unsafe { self.0.as_ptr().add(address as usize).copy_from_nonoverlapping(data.as_ptr(), data.len()) };
    }

    fn set(&self, address: u32, value: u32) {
        self.load(address, &value.to_le_bytes());
    }

    fn get(&self, address: u32) -> u32 {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes);
        u32::from_le_bytes(bytes)
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody uses it any more.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), RAM) };
    }
}

impl Bus for Ram {
    fn page(&mut self, address: u64) -> PageGrant {
        if address as usize >= RAM {
            return PageGrant::default();
        }
        let host = NonNull::new(self.0.as_ptr().wrapping_add(address as usize));
        PageGrant { read: host, write: host, cacheable_code: true }
    }
    fn map_generation(&self) -> u64 {
        0
    }
    fn read_memory(&mut self, _address: u64, width: Width) -> u32 {
        width.mask() & 0x5a5a_5a5a
    }
    fn now(&mut self) -> VirtualTime {
        VirtualTime(0)
    }
}

/// Physical addresses of the page directory and the one page table, which maps the first 4 MiB.
const DIRECTORY: u32 = 0x1000;
const TABLE: u32 = 0x2000;
/// Physical address of linear page 0.
const START: u32 = 0x10_0000;
/// Linear addresses.
const CODE: u32 = 0x1_0000;
const STACK: u32 = 0x2_8000;
const DATA: u32 = 0x3_0000;
/// Base of GS.
const THREAD: u32 = 0x4_0000;

/// A user, with the first 4 MiB mapped to scattered physical pages, at `CODE`.
fn user(code: &[u8]) -> Vcpu<Ram> {
    user_of(memory(code))
}

/// The memory of such a user.
fn memory(code: &[u8]) -> Ram {
    let ram = Ram::new();
    ram.set(DIRECTORY, TABLE | PRESENT);
    for n in 0..1024 {
        ram.set(TABLE + 4 * n, physical(n * PAGE) | PRESENT);
    }
    for n in 0..64 * PAGE {
        ram.load(physical(DATA + n), &[(n ^ n >> 8) as u8]);
    }
    for (n, byte) in code.iter().enumerate() {
        ram.load(physical(CODE + n as u32), &[*byte]);
    }
    ram
}

/// The user in such memory.
fn user_of<B: Bus>(bus: B) -> Vcpu<B> {
    let mut cpu = Vcpu::new(bus);
    cpu.reset();
    for n in 0..6 {
        let kind = if n == 1 { rights::FLAT_CODE } else { rights::FLAT_DATA } | rights::DPL;
        cpu.state.segments[n] = Segment::new(0xb, kind, if n == 5 { THREAD } else { 0 }, u32::MAX);
    }
    cpu.state.cr0 |= cr0::PE | cr0::PG | cr0::WP;
    cpu.state.cr0 &= !(cr0::TS | cr0::EM);
    cpu.state.cr4 |= cr4::OSFXSR | cr4::PSE;
    cpu.state.cpl = 3;
    cpu.state.cr3 = DIRECTORY;
    cpu.state.eip = CODE;
    cpu.state.gpr[gpr::ESP] = STACK;
    cpu.state_replaced();
    cpu
}

/// Where a linear address below 4 MiB is: pairs of pages are in reverse order.
fn physical(linear: u32) -> u32 {
    START + (linear ^ PAGE)
}

fn assembled(build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut asm = CodeAssembler::new(32).expect("32 is a bitness");
    build(&mut asm).expect("it can be encoded");
    asm.assemble(u64::from(CODE)).expect("it can be encoded")
}

fn engine<B: Bus + 'static>(policy: WindowPolicy) -> Shadow<B> {
    let mut shadow = Shadow::new().expect("there is memory");
    shadow.set_counting();
    shadow.use_windows(policy);
    shadow
}

/// Registers, EIP, flags and memory after a while.
type Outcome = ([u32; 8], u32, u32, Vec<u8>);

/// All of it is the same but for flags, some of which may be dead.
#[track_caller]
fn assert_same(found: &Outcome, expected: &Outcome, when: &str) {
    assert_eq!(found.0, expected.0, "registers, {when}");
    assert_eq!(found.1, expected.1, "EIP, {when}");
    let differs = found.3.iter().zip(&expected.3).position(|(a, b)| a != b);
    assert_eq!(differs, None, "offset in memory, {when}");
}

fn outcome(cpu: &mut Vcpu<Ram>) -> Outcome {
    let mut memory = vec![0; 128 * PAGE as usize];
    cpu.bus.read(START, &mut memory);
    // The accessed and dirty bits too.
    let mut table = vec![0; PAGE as usize];
    cpu.bus.read(TABLE, &mut table);
    memory.extend(table);
    cpu.sync_flags();
    (cpu.state.gpr, cpu.state.eip, cpu.state.eflags & 0xcd5, memory)
}

/// Runs code, which ends in a jump to itself, with all engines.
fn same_everywhere(code: &[u8]) -> Shadow<Ram> {
    let mut cpu = user(code);
    let mut interp = Interp::new();
    interp.run(&mut cpu, 200_000);
    let expected = outcome(&mut cpu);
    for policy in [WindowPolicy::Off, WindowPolicy::Always] {
        let mut shadow = engine(policy);
        let mut cpu = user(code);
        for _ in 0..20 {
            shadow.run(&mut cpu, 10_000);
        }
        let found = outcome(&mut cpu);
        assert_same(&found, &expected, &format!("{policy:?}"));
        assert_eq!(found.2, expected.2, "flags, {policy:?}");
        if policy == WindowPolicy::Always {
            assert!(shadow.statistics().windows.promotions > 0, "this host has no windows for us");
            return shadow;
        }
    }
    unreachable!("the last one returns")
}

#[test]
fn every_form_of_access_does_in_a_window_what_the_interpreter_does() {
    let code = assembled(|a| {
        let d = u64::from(DATA);
        a.mov(ebx, DATA)?;
        a.mov(ecx, 3)?;
        a.mov(eax, dword_ptr(ebx))?;
        a.add(eax, dword_ptr(ebx + ecx * 4 + 0x1ffe))?;
        a.adc(eax, dword_ptr(d + 0x2ffd))?;
        a.mov(dword_ptr(ebx + 0x3ffe), eax)?;
        a.add(dword_ptr(ebx + ecx * 8 + 0x4ffe), eax)?;
        a.sbb(dword_ptr(d + 0x5000), eax)?;
        a.mov(dword_ptr(ebx + 0x12345), eax)?;
        a.mov(edx, dword_ptr(ecx * 4 + DATA as i32))?;
        // An address that wraps round.
        a.mov(edi, 0xffff_fff0_u32)?;
        a.mov(esi, dword_ptr(edi + (DATA as i32 + 0x30)))?;
        a.xor(eax, esi)?;
        // High bytes, with and without ESP; first touches too.
        a.mov(ah, byte_ptr(ebx + 0x6001))?;
        a.mov(byte_ptr(ebx + 0x7001), ah)?;
        a.mov(dword_ptr(esp - 8), eax)?;
        a.mov(byte_ptr(esp - 7), bh)?;
        a.add(dh, byte_ptr(esp - 7))?;
        a.sub(esp, 0x3000)?;
        a.mov(byte_ptr(esp + 3), dh)?;
        a.add(esp, 0x3000)?;
        // Words, and a read and write of one byte.
        a.mov(word_ptr(ebx + 0x8fff), ax)?;
        a.inc(byte_ptr(ebx + 0x9000))?;
        a.xchg(dword_ptr(ebx + 0xa000), edx)?;
        a.lock().xadd(dword_ptr(ebx + 0xafff), edx)?;
        a.cmpxchg(dword_ptr(ebx + 0xb000), edx)?;
        a.bts(dword_ptr(ebx + 0xb000), 7)?;
        a.setc(byte_ptr(ebx + 0xb010))?;
        a.cmove(edx, dword_ptr(ebx + 0xb000))?;
        // The stack.
        a.push(eax)?;
        a.push(dword_ptr(ebx + 0xc000))?;
        a.push(0x1234_5678)?;
        a.pushad()?;
        a.pop(edi)?;
        a.push(edi)?;
        a.popad()?;
        a.pop(esi)?;
        a.pop(ebp)?;
        a.push(ebp)?;
        a.mov(ebp, esp)?;
        a.and(esp, -0x1000)?;
        a.sub(esp, 4)?;
        a.push(esp)?;
        a.lea(esp, dword_ptr(esp - 0x100))?;
        a.push(edx)?;
        a.adc(esp, 3)?;
        a.xchg(esp, edx)?;
        a.xchg(edx, esp)?;
        a.leave()?;
        a.mov(edx, esp)?;
        a.pop(eax)?;
        a.push(esp)?;
        a.pop(esp)?;
        // 64 KiB down and up.
        a.sub(esp, 0x10000)?;
        a.add(esp, 0x10000)?;
        // Strings.
        a.cld()?;
        a.lea(esi, dword_ptr(ebx + 0xff0))?;
        a.lea(edi, dword_ptr(ebx + 0x20ff0))?;
        a.mov(ecx, 0x1801)?;
        a.rep().movsd()?;
        a.mov(eax, 0x55aa)?;
        a.mov(ecx, 0x1003)?;
        a.rep().stosb()?;
        a.mov(ecx, 0)?;
        a.rep().stosd()?;
        a.movsb()?;
        a.lodsd()?;
        a.stosw()?;
        a.scasd()?;
        a.cmpsb()?;
        a.pushfd()?;
        // Thread-local storage.
        a.mov(eax, dword_ptr(0x10).gs())?;
        a.mov(dword_ptr(0x2ffe).gs(), eax)?;
        a.adc(dword_ptr(edx * 1 - (STACK as i32) + 0x3000).gs(), eax)?;
        // Floating point.
        a.fild(dword_ptr(ebx + 0x100))?;
        a.fild(word_ptr(ebx + ecx * 2 + 0x200))?;
        a.faddp(st1, st0)?;
        a.fstp(qword_ptr(ebx + 0x30ffc))?;
        a.movups(xmm1, xmmword_ptr(ebx + 0x31ff8))?;
        a.movaps(xmm2, xmmword_ptr(ebx + ecx * 4 + 0x32000))?;
        a.paddd(xmm1, xmm2)?;
        a.movups(xmmword_ptr(ebx + 0x33ffc), xmm1)?;
        a.fnstcw(word_ptr(ebx + 0x34fff))?;
        // Division.
        a.mov(edx, 0)?;
        a.div(dword_ptr(ebx + 0x35001))?;
        a.mov(al, 5)?;
        a.xlatb()?;
        let mut f = a.create_label();
        let mut end = a.create_label();
        a.call(f)?;
        a.jmp(end)?;
        a.set_label(&mut f)?;
        a.push(ebp)?;
        a.mov(ebp, esp)?;
        a.mov(eax, dword_ptr(ebp + 4))?;
        a.leave()?;
        a.ret_1(0)?;
        a.set_label(&mut end)?;
        a.jmp(end)
    });
    same_everywhere(&code);
}

#[test]
fn code_that_writes_itself_runs_as_written() {
    let code = assembled(|a| {
        let mut again = a.create_label();
        let mut here = a.create_label();
        let mut end = a.create_label();
        a.mov(ecx, 500)?;
        a.xor(eax, eax)?;
        a.set_label(&mut again)?;
        a.call(here)?;
        a.set_label(&mut here)?;
        a.pop(edx)?;
        // The operand of what follows: POP has one byte, this MOV three.
        a.mov(dword_ptr(edx + 5), ecx)?;
        a.mov(ebx, 0x1111_1111)?;
        a.add(eax, ebx)?;
        // And far away, where code was written before.
        a.mov(dword_ptr(DATA), eax)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.set_label(&mut end)?;
        a.jmp(end)
    });
    let shadow = same_everywhere(&code);
    assert!(shadow.statistics().windows.not_plain > 0, "writes to code cannot be plain");
}

#[test]
fn what_the_page_tables_take_away_is_not_reached_any_more() {
    // Counts in one page, reads another.
    let code = assembled(|a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.inc(dword_ptr(DATA))?;
        a.mov(eax, dword_ptr(DATA + 5 * PAGE))?;
        a.jmp(again)
    });
    let mut cpu = user(&code);
    let mut shadow = engine(WindowPolicy::Always);
    shadow.run(&mut cpu, 1000);
    let counted = cpu.bus.get(physical(DATA));
    assert!(counted > 100);
    // Another page for both, and CR3 again.
    let (one, other) = (DATA / PAGE, DATA / PAGE + 5);
    cpu.bus.set(TABLE + 4 * one, physical(20 * PAGE) | PRESENT);
    cpu.bus.set(TABLE + 4 * other, physical(21 * PAGE) | READ_ONLY);
    cpu.bus.set(physical(20 * PAGE), 0);
    cpu.bus.set(physical(21 * PAGE), 77);
    cpu.state_replaced();
    shadow.run(&mut cpu, 1000);
    assert!(cpu.bus.get(physical(20 * PAGE)) > 100);
    let behind = cpu.bus.get(physical(DATA));
    shadow.run(&mut cpu, 1000);
    assert_eq!(cpu.bus.get(physical(DATA)), behind);
    assert_eq!(cpu.state.gpr[gpr::EAX], 77);
    let windows = shadow.statistics().windows;
    assert!(windows.changed >= 2 && windows.comparisons >= 1, "{windows:?}");
    // Read-only: nobody is there to take the fault, so the processor shuts down instead of counting on.
    cpu.bus.set(TABLE + 4 * one, physical(20 * PAGE) | READ_ONLY);
    cpu.state_replaced();
    let before = cpu.bus.get(physical(20 * PAGE));
    shadow.run(&mut cpu, 1000);
    assert_eq!(cpu.bus.get(physical(20 * PAGE)), before);
}

/// What an iteration costs with and without windows; `cargo test --release -p vmsim-vmm --test windows -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn loops_are_faster_in_windows() {
    type Build = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let bodies: [(&str, Build); 7] = [
        ("loads", |a| {
            a.mov(eax, dword_ptr(ebx))?;
            a.add(edx, dword_ptr(ebx + 64))?;
            a.add(edx, dword_ptr(ebx + ecx * 4))
        }),
        ("stores", |a| {
            a.mov(dword_ptr(ebx), ecx)?;
            a.mov(dword_ptr(ebx + 64), ecx)?;
            a.mov(dword_ptr(ebx + ecx * 4), edx)
        }),
        ("read and write", |a| {
            a.add(dword_ptr(ebx), ecx)?;
            a.inc(dword_ptr(ebx + 64))
        }),
        ("push and pop", |a| {
            a.push(eax)?;
            a.push(edx)?;
            a.pop(edx)?;
            a.pop(eax)
        }),
        ("call and return", |a| {
            let (mut f, mut over) = (a.create_label(), a.create_label());
            a.call(f)?;
            a.jmp(over)?;
            a.set_label(&mut f)?;
            a.push(ebp)?;
            a.mov(ebp, esp)?;
            a.mov(eax, dword_ptr(ebp + 4))?;
            a.leave()?;
            a.ret()?;
            a.set_label(&mut over)?;
            a.nop()
        }),
        ("long addition", |a| {
            a.add(eax, dword_ptr(ebx))?;
            a.adc(edx, dword_ptr(ebx + 4))?;
            a.adc(esi, dword_ptr(ebx + 8))?;
            a.mov(dword_ptr(ebx + 12), esi)
        }),
        ("a chain", |a| a.mov(edi, dword_ptr(edi))),
    ];
    const ITERATIONS: u32 = 20_000_000;
    for (name, body) in bodies {
        let code = assembled(|a| {
            let (mut again, mut end) = (a.create_label(), a.create_label());
            a.mov(ebx, DATA)?;
            a.mov(edi, DATA + 32 * PAGE)?;
            a.mov(dword_ptr(edi), edi)?;
            a.mov(ebp, ITERATIONS)?;
            a.set_label(&mut again)?;
            a.mov(ecx, ebp)?;
            a.and(ecx, 1023)?;
            body(a)?;
            a.dec(ebp)?;
            a.jnz(again)?;
            a.set_label(&mut end)?;
            a.jmp(end)
        });
        let measured = [WindowPolicy::Off, WindowPolicy::Always].map(|policy| {
            let mut shadow = Shadow::new().expect("there is memory");
            shadow.use_windows(policy);
            shadow.set_counting();
            let mut cpu = user(&code);
            let mut best = f64::MAX;
            for _ in 0..3 {
                cpu.state.eip = CODE;
                let started = std::time::Instant::now();
                shadow.run(&mut cpu, u64::from(ITERATIONS) - 10);
                best = best.min(started.elapsed().as_secs_f64());
            }
            best / f64::from(ITERATIONS) * 1e9
        });
        println!("{name:20} {:6.2} ns {:6.2} ns in a window", measured[0], measured[1]);
    }
}
