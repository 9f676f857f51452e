//! Faults of shadow code: the host's SIGSEGV, for accesses in windows that are not mapped (or not writable) there, and for a return
//! stack that is full.
//!
//! The signal interrupts shadow code only, never Rust: so the engine may be called from here as it is called from shadow
//! code otherwise. Whatever is not a fault of this thread's shadow code goes to whoever handled the signal before, so that a
//! crash stays one.
#![expect(unsafe_code, reason = "a signal handler")]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::OnceLock;

/// An access that faulted.
pub struct Access<'a> {
    /// Address of the instruction.
    pub at: u64,
    /// What it accessed; `None` when the host does not say (a misaligned operand).
    pub address: Option<u64>,
    /// It writes.
    pub write: bool,
    registers: &'a mut [libc::greg_t],
}

impl Access<'_> {
    /// Sets RSP.
    pub fn set_stack(&mut self, top: u64) {
        self.registers[libc::REG_RSP as usize] = top as libc::greg_t;
    }

    /// Puts back what shadow code had moved from RDI into R11 for the time of the access.
    pub fn return_destination(&mut self) {
        self.registers[libc::REG_RDI as usize] = self.registers[libc::REG_R11 as usize];
    }

    /// Adds to RCX what shadow code had moved from it into R11.
    pub fn return_count(&mut self) {
        self.registers[libc::REG_RCX as usize] += self.registers[libc::REG_R11 as usize];
    }
}

/// What is to be done about it.
pub enum Verdict {
    /// The access is possible now.
    Retry,
    /// Go on there.
    Continue(u64),
    /// It was none of shadow code's accesses to the guest.
    Crash,
}

/// Who is asked about faults while shadow code runs.
pub struct Trap {
    /// Where shadow code is.
    pub code: Range<u64>,
    /// What `decide` gets.
    pub engine: *mut c_void,
    /// Decides.
    pub decide: unsafe fn(*mut c_void, &mut Access<'_>) -> Verdict,
}

thread_local! {
    static TRAP: Cell<*const Trap> = const { Cell::new(std::ptr::null()) };
    static STACK: Cell<bool> = const { Cell::new(false) };
}

/// The handler that was there before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Bytes of the stack that the handler runs on.
const STACK_BYTES: usize = 256 << 10;
/// Bit of a page fault's error code: a write.
const ERROR_WRITE: libc::greg_t = 1 << 1;

/// The signal says no address: a general protection fault.
const SI_KERNEL: c_int = 0x80;

unsafe extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let trap = TRAP.get();
    // SAFETY: the kernel passes both.
    let (info_, context_) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    // Not one that somebody sent.
    if !trap.is_null() && info_.si_code > 0 {
        // SAFETY: set by `guard`, which has not returned: this thread runs within it.
        let trap = unsafe { &*trap };
        let registers = &mut context_.uc_mcontext.gregs;
        let at = registers[libc::REG_RIP as usize] as u64;
        if trap.code.contains(&at) {
            // SAFETY: SIGSEGV has an address.
            let address = unsafe { info_.si_addr() } as u64;
            let mut access = Access {
                at,
                address: (info_.si_code != SI_KERNEL).then_some(address),
                write: registers[libc::REG_ERR as usize] & ERROR_WRITE != 0,
                registers,
            };
            // SAFETY: `engine` is what `decide` expects, and nobody uses it while shadow code runs.
            match unsafe { (trap.decide)(trap.engine, &mut access) } {
                Verdict::Retry => return,
                Verdict::Continue(to) => {
                    registers[libc::REG_RIP as usize] = to as libc::greg_t;
                    return;
                }
                Verdict::Crash => {}
            }
        }
    }
    hand_on(signal, info, context);
}

/// To the handler before this one.
fn hand_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    match BEFORE.get() {
        Some(before) if before.sa_sigaction != libc::SIG_DFL && before.sa_sigaction != libc::SIG_IGN => {
            if before.sa_flags & libc::SA_SIGINFO != 0 {
                // SAFETY: it was installed as a function of this type.
                let handler: unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                    unsafe { std::mem::transmute(before.sa_sigaction) };
                // SAFETY: with what the kernel gave.
                unsafe { handler(signal, info, context) }
            } else {
                // SAFETY: it was installed as a function of this type.
                let handler: unsafe extern "C" fn(c_int) =
                    unsafe { std::mem::transmute(before.sa_sigaction) };
                // SAFETY: with what the kernel gave.
                unsafe { handler(signal) }
            }
        }
        _ => {
            // SAFETY: the default action, which ends the process when the instruction faults again.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}

/// Makes sure that faults of this thread are caught. False: the host does not let us.
pub fn prepare_thread() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let installed = *INSTALLED.get_or_init(|| {
        // SAFETY: all zeros are an empty `sigaction`.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: as above.
        let mut before: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: asks for the present handler.
        if unsafe { libc::sigaction(libc::SIGSEGV, std::ptr::null(), &mut before) } != 0 {
            return false;
        }
        let _ = BEFORE.set(before);
        // SAFETY: the handler hands on whatever is not its own.
        unsafe { libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()) == 0 }
    });
    if installed && !STACK.get() {
        // It stays with the thread: one for each that ever ran shadow code in a window.
        let stack = Box::leak(vec![0_u8; STACK_BYTES].into_boxed_slice());
        let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK_BYTES };
        // SAFETY: memory that is never freed.
        STACK.set(unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) } == 0);
    }
    installed && STACK.get()
}

/// Has `trap` asked about the faults of what `body` runs.
pub fn guard(trap: &Trap, body: impl FnOnce()) {
    TRAP.set(trap);
    body();
    TRAP.set(std::ptr::null());
}

/// Whether this process may set the base of GS by itself.
pub fn can_set_gs() -> bool {
    /// Bit of AT_HWCAP2: FSGSBASE is enabled.
    const HWCAP2_FSGSBASE: u64 = 1 << 1;
    // SAFETY: asks for a number.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & HWCAP2_FSGSBASE != 0 }
}

/// Sets the base of GS, which nothing else uses in a 64-bit Linux process.
///
/// # Safety
/// [`can_set_gs`].
#[inline]
pub unsafe fn set_gs(base: u64) {
    // SAFETY: promised by the caller.
    unsafe { std::arch::asm!("wrgsbase {}", in(reg) base, options(nostack, preserves_flags, nomem)) };
}
