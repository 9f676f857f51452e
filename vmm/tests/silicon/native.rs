//! The host's processor as an engine: programs run in 32-bit compatibility mode of this very process.
//!
//! A trampoline below 4 GiB loads all registers and goes to the program with IRETQ; the program comes back by
//! a far jump to the 64-bit code segment. An exception becomes a signal; its handler notes everything and
//! continues in the trampoline. Thread-local data stays valid, because FS is only changed by programs
//! that say so, and is then put back before anything else runs.
#![expect(unsafe_code, reason = "maps fixed addresses, runs generated machine code, handles its signals")]

use super::machine::{
    Engine, Event, FxArea, IMAGE, Image, LOCAL_SEGMENTS, Machine, Outcome, PAGE, Program, at, exit_jump,
    read_only_page, selector,
};
use iced_x86::BlockEncoderOptions;
use iced_x86::code_asm::*;
use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vmm::cpu::registers::{eflags, vector};

/// Where in the trampoline page the way in starts; the way out starts at offset zero.
const ENTER_OFFSET: u32 = 0x400;
/// EFLAGS of a user program that has done nothing: the reserved one and IF.
const PLAIN_FLAGS: u32 = 0x202;
/// Bytes of the stack that the signal handler runs on.
const HANDLER_STACK: usize = 256 << 10;
/// Page-fault error code: an instruction fetch. Set by processors with NX only.
const FETCH: u32 = 1 << 4;
/// Exceptions that push an error code (SDM vol. 3, "Exception and Interrupt Reference").
const WITH_ERROR_CODE: [u8; 7] =
    [vector::DF, vector::TS, vector::NP, vector::SS, vector::GP, vector::PF, vector::AC];
/// Values of [`Context::fault`].
const NO_EXCEPTION: u32 = 0;
const EXCEPTION: u32 = 1;
/// The program could not be entered.
const ENTERING: u32 = 2;
/// The program had ended already.
const LEFT: u32 = 3;

/// What the trampoline and the signal handler work on. Fields that they use are found by `offset!`.
#[repr(C, align(64))]
struct Context {
    before: FxArea,
    after: FxArea,
    gpr: [u32; 8],
    eip: u32,
    eflags: u32,
    segments: [u32; 6],
    host_rsp: u64,
    fs_base: u64,
    loads_fs: u32,
    mxcsr: u32,
    fault: u32,
    vector: u32,
    error: u32,
    address: u32,
    /// Addresses that the handler continues at, and the instruction that enters the program.
    recover: u64,
    enter_at: u64,
    host_cs: u16,
    host_ss: u16,
}

/// The context of the program that runs, for the signal handler.
static ACTIVE: AtomicPtr<Context> = AtomicPtr::new(null_mut());
/// Fixed addresses and signal handlers: one engine at a time.
static ONE: Mutex<()> = Mutex::new(());

/// Why the host cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// A system call failed.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What came of it.
        error: io::Error,
    },
    /// Something else of this process is below 4 GiB: programs could reach it.
    #[error("this process has other memory below 4 GiB")]
    MemoryBelow4GiB,
    /// The trial run failed.
    #[error("no 32-bit compatibility mode")]
    NoCompatibilityMode,
}

/// The host's processor.
pub struct Native {
    context: Box<Context>,
    enter: extern "C" fn(*mut Context),
    /// The code pages once more, writable: programs cannot write theirs.
    code: NonNull<u8>,
    handler_stack: Vec<u8>,
    _one: MutexGuard<'static, ()>,
}

fn last_error(what: &'static str) -> Unavailable {
    Unavailable::System { what, error: io::Error::last_os_error() }
}

fn map(address: u32, size: u32, protection: i32) -> Result<(), Unavailable> {
    // SAFETY: MAP_FIXED_NOREPLACE replaces no mapping that exists.
    let mapped = unsafe {
        libc::mmap(
            address as usize as *mut libc::c_void,
            size as usize,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        )
    };
    if mapped as usize == address as usize { Ok(()) } else { Err(last_error("mmap below 4 GiB")) }
}

/// Maps the code pages, executable for programs and writable elsewhere.
fn map_code() -> Result<NonNull<u8>, Unavailable> {
    let size = at::CODE_SIZE as usize;
    // SAFETY: maps new memory: once at an address of the kernel's choice, once where nothing else is
    // (MAP_FIXED_NOREPLACE). The descriptor is this function's own.
    unsafe {
        let file = libc::memfd_create(c"silicon".as_ptr(), libc::MFD_CLOEXEC);
        if file < 0 || libc::ftruncate(file, size as libc::off_t) != 0 {
            return Err(last_error("memfd_create"));
        }
        let flags = libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE;
        let fixed = at::CODE as usize as *mut libc::c_void;
        let low = libc::mmap(fixed, size, libc::PROT_READ | libc::PROT_EXEC, flags, file, 0);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let high = libc::mmap(null_mut(), size, protection, libc::MAP_SHARED, file, 0);
        let error = last_error("mmap of code");
        libc::close(file);
        if low != fixed || high == libc::MAP_FAILED {
            return Err(error);
        }
        NonNull::new(high.cast()).ok_or(error)
    }
}

fn unmap_all() {
    for (address, size) in MAPPINGS {
        // SAFETY: these ranges are only ever mapped by this module, under `ONE`, and no reference to them is kept.
        unsafe { libc::munmap(address as usize as *mut libc::c_void, size as usize) };
    }
    // SAFETY: the same of the code pages.
    unsafe { libc::munmap(at::CODE as usize as *mut libc::c_void, at::CODE_SIZE as usize) };
}

/// All that this module maps.
const MAPPINGS: [(u32, u32); 3] =
    [(at::DATA, at::DATA_SIZE + PAGE), (at::STACK, PAGE), (at::TRAMPOLINE, PAGE)];

/// Whether anything is mapped below 4 GiB.
fn low_memory_used() -> bool {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return true };
    maps.lines().any(|line| {
        let start = line.split('-').next().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        start.is_none_or(|start| start < 1 << 32)
    })
}

/// Loads the local descriptor table.
fn set_local_segments() -> Result<(), Unavailable> {
    const WRITE: i32 = 0x11;
    const WIDE: u32 = 1 << 0;
    const CONTENTS_STACK: u32 = 1 << 1;
    const READ_ONLY: u32 = 1 << 3;
    for (number, segment) in LOCAL_SEGMENTS.iter().enumerate() {
        let mut flags = WIDE;
        if segment.expand_down {
            flags |= CONTENTS_STACK;
        }
        if segment.read_only {
            flags |= READ_ONLY;
        }
        // struct user_desc of asm/ldt.h: entry number, base, limit, bit fields.
        let descriptor = [number as u32, segment.base, segment.limit, flags];
        // SAFETY: the kernel reads the 16 bytes; nothing of this process uses a local descriptor table.
        let result = unsafe {
            libc::syscall(libc::SYS_modify_ldt, WRITE, descriptor.as_ptr(), size_of_val(&descriptor))
        };
        if result != 0 {
            return Err(last_error("modify_ldt"));
        }
    }
    Ok(())
}

fn field(at: usize) -> i32 {
    at as i32
}

macro_rules! offset {
    ($($field:tt)+) => { field(std::mem::offset_of!(Context, $($field)+)) };
}

/// The trampoline for a context: (bytes of the way out, offset of the recovery in them, bytes of the way in,
/// offset of its IRETQ).
fn trampoline(context: *const Context) -> (Vec<u8>, u64, Vec<u8>, u64) {
    let build = || -> Result<_, IcedError> {
        let address = context as u64;
        let mut a = CodeAssembler::new(64)?;
        let mut recover = a.create_label();
        let mut keep_fs = a.create_label();
        // Nothing may be changed before EAX is saved: MOV moffs64, EAX.
        let mut save = vec![0xa3];
        save.extend((address + std::mem::offset_of!(Context, gpr) as u64).to_le_bytes());
        a.db(&save)?;
        a.mov(rax, address)?;
        let others = [(1, ecx), (2, edx), (3, ebx), (4, esp), (5, ebp), (6, esi), (7, edi)];
        for (n, register) in others {
            a.mov(dword_ptr(rax + (offset!(gpr) + 4 * n)), register)?;
        }
        a.mov(rsp, qword_ptr(rax + offset!(host_rsp)))?;
        a.pushfq()?;
        a.pop(rcx)?;
        a.mov(dword_ptr(rax + offset!(eflags)), ecx)?;
        a.fxsave(ptr(rax + offset!(after)))?;
        for (n, register) in [(0, es), (2, ss), (3, ds), (4, fs), (5, gs)] {
            a.mov(ecx, register)?;
            a.mov(dword_ptr(rax + (offset!(segments) + 4 * n)), ecx)?;
        }
        // Here the signal handler continues: RAX is the context, RSP the host's.
        a.set_label(&mut recover)?;
        a.push(PLAIN_FLAGS as i32)?;
        a.popfq()?;
        a.fninit()?;
        a.ldmxcsr(dword_ptr(rax + offset!(mxcsr)))?;
        a.cmp(dword_ptr(rax + offset!(loads_fs)), 0)?;
        a.je(keep_fs)?;
        const ARCH_SET_FS: u32 = 0x1002;
        a.mov(edi, ARCH_SET_FS)?;
        a.mov(rsi, qword_ptr(rax + offset!(fs_base)))?;
        a.mov(eax, libc::SYS_arch_prctl as u32)?;
        a.syscall()?;
        a.set_label(&mut keep_fs)?;
        for register in [r15, r14, r13, r12, rbp, rbx] {
            a.pop(register)?;
        }
        a.ret()?;
        let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
        let out = a.assemble_options(u64::from(at::TRAMPOLINE), options)?;
        let recover_at = out.label_ip(&recover)? - u64::from(at::TRAMPOLINE);

        let mut a = CodeAssembler::new(64)?;
        let mut leave = a.create_label();
        for register in [rbx, rbp, r12, r13, r14, r15] {
            a.push(register)?;
        }
        a.mov(qword_ptr(rdi + offset!(host_rsp)), rsp)?;
        a.fxrstor(ptr(rdi + offset!(before)))?;
        for (n, register) in [(0, es), (3, ds), (5, gs)] {
            a.mov(eax, dword_ptr(rdi + (offset!(segments) + 4 * n)))?;
            a.mov(register, eax)?;
        }
        // The frame of IRETQ: SS, RSP, RFLAGS, CS, RIP.
        for source in
            [offset!(segments) + 8, offset!(gpr) + 16, offset!(eflags), offset!(segments) + 4, offset!(eip)]
        {
            a.mov(eax, dword_ptr(rdi + source))?;
            a.push(rax)?;
        }
        for (n, register) in [(0, eax), (1, ecx), (2, edx), (3, ebx), (5, ebp), (6, esi), (7, edi)] {
            a.mov(register, dword_ptr(rdi + (offset!(gpr) + 4 * n)))?;
        }
        a.set_label(&mut leave)?;
        a.iretq()?;
        let into = a.assemble_options(u64::from(at::TRAMPOLINE + ENTER_OFFSET), options)?;
        let leave_at = into.label_ip(&leave)?;
        Ok((out.inner.code_buffer, recover_at, into.inner.code_buffer, leave_at))
    };
    build().expect("the trampoline assembles")
}

extern "C" fn handle(signal: i32, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let active = ACTIVE.load(Ordering::Relaxed);
    // SAFETY: the kernel passes the ucontext of the interrupted code, which this handler may change.
    // `ACTIVE` is null or a context whose program runs on this thread: the code segment tells which.
    unsafe {
        let machine = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        let registers = &mut machine.gregs;
        let segments = registers[libc::REG_CSGSFS as usize] as u64;
        let entering =
            active.as_ref().is_some_and(|active| active.enter_at == registers[libc::REG_RIP as usize] as u64);
        // TF was set before the far jump at the end: the trap comes after it, in 64-bit code.
        let rip = registers[libc::REG_RIP as usize] as u64;
        let left =
            rip == u64::from(at::TRAMPOLINE) && registers[libc::REG_TRAPNO as usize] as u8 == vector::DB;
        // Nothing else is below 4 GiB, so a program was there, if in the wrong mode.
        let program = rip <= u64::from(u32::MAX) && rip as u32 & !(PAGE - 1) != at::TRAMPOLINE;
        if active.is_null() || !program && !entering && !left {
            // Not ours: die of it as if this handler was not there.
            libc::signal(signal, libc::SIG_DFL);
            return;
        }
        // With AC set the handler itself would have to be aligned.
        std::arch::asm!("pushfq", "and dword ptr [rsp], 0xfffbffff", "popfq");
        let active = &mut *active;
        let order = [
            libc::REG_RAX,
            libc::REG_RCX,
            libc::REG_RDX,
            libc::REG_RBX,
            libc::REG_RSP,
            libc::REG_RBP,
            libc::REG_RSI,
            libc::REG_RDI,
        ];
        for (target, source) in active.gpr.iter_mut().zip(order) {
            *target = registers[source as usize] as u32;
        }
        active.eip = registers[libc::REG_RIP as usize] as u32;
        active.eflags = registers[libc::REG_EFL as usize] as u32;
        active.vector = registers[libc::REG_TRAPNO as usize] as u32;
        active.error = registers[libc::REG_ERR as usize] as u32;
        active.address = registers[libc::REG_CR2 as usize] as u32;
        active.fault = if entering {
            ENTERING
        } else if left {
            LEFT
        } else {
            EXCEPTION
        };
        active.segments[1] = u32::from(segments as u16);
        active.segments[2] = u32::from((segments >> 48) as u16);
        // The kernel leaves the others as the program had them.
        let (extra, data, third, fourth): (u32, u32, u32, u32);
        std::arch::asm!("mov {0:e}, es", "mov {1:e}, ds", "mov {2:e}, fs", "mov {3:e}, gs",
            out(reg) extra, out(reg) data, out(reg) third, out(reg) fourth,
            options(nomem, nostack, preserves_flags));
        active.segments[0] = extra;
        active.segments[3] = data;
        active.segments[4] = third;
        active.segments[5] = fourth;
        if !machine.fpregs.is_null() {
            active.after = machine.fpregs.cast::<FxArea>().read_unaligned();
        }
        registers[libc::REG_RAX as usize] = std::ptr::from_mut(active) as i64;
        registers[libc::REG_RSP as usize] = active.host_rsp as i64;
        registers[libc::REG_RIP as usize] = active.recover as i64;
        registers[libc::REG_EFL as usize] = i64::from(PLAIN_FLAGS);
        let selectors = u64::from(active.host_cs) | u64::from(active.host_ss) << 48;
        registers[libc::REG_CSGSFS as usize] = selectors as i64;
    }
}

impl Native {
    /// Maps the program's address space.
    pub fn new() -> Result<Self, Unavailable> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        if low_memory_used() {
            return Err(Unavailable::MemoryBelow4GiB);
        }
        let (mut host_cs, mut host_ss, mut fs_base) = (0u16, 0u16, 0u64);
        const ARCH_GET_FS: u32 = 0x1003;
        // SAFETY: reads two selectors, and has the kernel write the base of FS to a local.
        let result = unsafe {
            std::arch::asm!("mov {0:x}, cs", "mov {1:x}, ss", inout(reg) host_cs, inout(reg) host_ss,
                options(nomem, nostack, preserves_flags));
            libc::syscall(libc::SYS_arch_prctl, ARCH_GET_FS, &raw mut fs_base)
        };
        if result != 0 {
            return Err(last_error("arch_prctl"));
        }
        set_local_segments()?;
        let mut context = Box::new(Context {
            before: FxArea::initial(),
            after: FxArea::initial(),
            gpr: [0; 8],
            eip: 0,
            eflags: PLAIN_FLAGS,
            segments: [0; 6],
            host_rsp: 0,
            fs_base,
            loads_fs: 0,
            mxcsr: FxArea::initial().u32(super::machine::fx::MXCSR),
            fault: 0,
            vector: 0,
            error: 0,
            address: 0,
            recover: 0,
            enter_at: 0,
            host_cs,
            host_ss,
        });
        let mapped = MAPPINGS
            .iter()
            .try_for_each(|(address, size)| map(*address, *size, libc::PROT_READ | libc::PROT_WRITE));
        let code = match mapped.and_then(|()| map_code()) {
            Ok(code) => code,
            Err(error) => {
                unmap_all();
                return Err(error);
            }
        };
        let (out, recover, into, enter_at) = trampoline(&raw const *context);
        assert!(out.len() < ENTER_OFFSET as usize && into.len() < (PAGE - ENTER_OFFSET) as usize);
        context.recover = u64::from(at::TRAMPOLINE) + recover;
        context.enter_at = enter_at;
        let page = at::TRAMPOLINE as usize as *mut u8;
        // SAFETY: the page was just mapped, is writable, and both pieces fit (asserted). The read-only page is
        // the last of the data mapping. Protections are changed of these mappings only.
        let protected = unsafe {
            std::ptr::copy_nonoverlapping(out.as_ptr(), page, out.len());
            std::ptr::copy_nonoverlapping(into.as_ptr(), page.add(ENTER_OFFSET as usize), into.len());
            let constant = read_only_page();
            let target = at::READ_ONLY as usize as *mut u8;
            std::ptr::copy_nonoverlapping(constant.as_ptr(), target, constant.len());
            let read = libc::PROT_READ;
            let execute = libc::PROT_READ | libc::PROT_EXEC;
            libc::mprotect(page.cast(), PAGE as usize, execute) == 0
                && libc::mprotect(target.cast(), PAGE as usize, read) == 0
        };
        if !protected {
            unmap_all();
            return Err(last_error("mprotect"));
        }
        // SAFETY: the way in is a complete function of the C calling convention: it saves what it must, and
        // returns through the way out or the recovery, which put it back.
        let enter = unsafe {
            std::mem::transmute::<usize, extern "C" fn(*mut Context)>(
                (at::TRAMPOLINE + ENTER_OFFSET) as usize,
            )
        };
        let handler_stack = vec![0; HANDLER_STACK];
        let mut native = Native { context, enter, code, handler_stack, _one: one };
        native.try_out()?;
        Ok(native)
    }

    /// Runs an empty program.
    fn try_out(&mut self) -> Result<(), Unavailable> {
        let mut machine = Machine {
            gpr: [0; 8],
            eip: at::CODE,
            eflags: PLAIN_FLAGS,
            segments: [selector::DATA; 6],
            fx: FxArea::initial(),
        };
        machine.segments[1] = selector::CODE;
        machine.segments[4] = 0;
        let program =
            Program { start: at::CODE, bytes: exit_jump().to_vec(), end: at::CODE, loads_fs: false };
        let outcome = self.run(&program, &machine);
        if outcome.event == Event::End { Ok(()) } else { Err(Unavailable::NoCompatibilityMode) }
    }
}

/// What was there before the signals of exceptions were taken over, for the time of a program: the shadow engine has a handler too.
struct Signals {
    actions: [(i32, libc::sigaction); 5],
    stack: libc::stack_t,
}

/// Takes over the signals of exceptions.
fn take_signals(stack: &mut [u8]) -> Signals {
    // SAFETY: the alternate stack lives as long as the handlers (`Signals` puts both back before it is used otherwise); the structures
    // are plain data for which zero is valid.
    unsafe {
        let new = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
        let mut old_stack: libc::stack_t = std::mem::zeroed();
        assert_eq!(libc::sigaltstack(&raw const new, &raw mut old_stack), 0);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let signals = [libc::SIGSEGV, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGBUS];
        let actions = signals.map(|signal| {
            let mut old: libc::sigaction = std::mem::zeroed();
            assert_eq!(libc::sigaction(signal, &raw const action, &raw mut old), 0);
            (signal, old)
        });
        Signals { actions, stack: old_stack }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (signal, action) in &self.actions {
            // SAFETY: puts back an action that the kernel gave.
            unsafe { libc::sigaction(*signal, action, null_mut()) };
        }
        // SAFETY: puts back the stack that the kernel gave.
        unsafe { libc::sigaltstack(&raw const self.stack, null_mut()) };
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: mapped by `map_code`; nothing refers to it.
        unsafe { libc::munmap(self.code.as_ptr().cast(), at::CODE_SIZE as usize) };
        unmap_all();
    }
}

impl Engine for Native {
    fn name(&self) -> &str {
        "host"
    }

    fn set_memory(&mut self, image: &Image) {
        let (data, stack) = image.split_at(at::DATA_SIZE as usize);
        for (address, bytes) in [(at::DATA, data), (at::STACK, stack)] {
            // SAFETY: both ranges are mapped and writable as long as `self` lives, and nothing refers to them.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as usize as *mut u8, bytes.len())
            };
        }
    }

    fn memory(&self, image: &mut Image) {
        let (data, stack) = image.split_at_mut(at::DATA_SIZE as usize);
        for (address, bytes) in [(at::DATA, data), (at::STACK, stack)] {
            // SAFETY: as in `set_memory`.
            unsafe {
                std::ptr::copy_nonoverlapping(address as usize as *const u8, bytes.as_mut_ptr(), bytes.len())
            };
        }
    }

    fn run(&mut self, program: &Program, before: &Machine) -> Outcome {
        assert!(program.start >= at::CODE);
        assert!(program.start as usize + program.bytes.len() <= (at::CODE + at::CODE_SIZE) as usize);
        let context = &mut *self.context;
        context.before = before.fx;
        context.gpr = before.gpr;
        context.eip = before.eip;
        context.eflags = before.eflags;
        context.segments = before.segments.map(u32::from);
        context.loads_fs = u32::from(program.loads_fs);
        context.fault = 0;
        let context = NonNull::from(context);
        let signals = take_signals(&mut self.handler_stack);
        // SAFETY: the code pages are mapped writable at `code` and large enough (asserted). The way in gets the context
        // that its trampoline was made for; the program can only change the registers, which the
        // trampoline saves and restores, and memory below 4 GiB, where nothing else of this process is.
        let after = unsafe {
            let code = self.code.as_ptr().add((program.start - at::CODE) as usize);
            std::ptr::copy_nonoverlapping(program.bytes.as_ptr(), code, program.bytes.len());
            ACTIVE.store(context.as_ptr(), Ordering::Relaxed);
            (self.enter)(context.as_ptr());
            ACTIVE.store(null_mut(), Ordering::Relaxed);
            context.as_ref()
        };
        drop(signals);
        let mut machine = Machine {
            gpr: after.gpr,
            eip: after.eip,
            eflags: after.eflags & !eflags::RF,
            segments: after.segments.map(|selector| selector as u16),
            fx: after.after,
        };
        let event = match after.fault {
            NO_EXCEPTION | LEFT => {
                machine.eip = program.end;
                machine.segments[1] = selector::CODE;
                Event::End
            }
            EXCEPTION => {
                let number = after.vector as u8;
                Event::Exception {
                    vector: number,
                    error: match number {
                        vector::PF => after.error & !FETCH,
                        _ if WITH_ERROR_CODE.contains(&number) => after.error,
                        _ => 0,
                    },
                    address: if number == vector::PF { after.address } else { 0 },
                }
            }
            _ => Event::Endless,
        };
        Outcome { machine, event }
    }
}

const _: () = assert!(IMAGE == (at::DATA_SIZE + PAGE) as usize);
