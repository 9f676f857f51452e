//! Says which round it was when generated code kills the process.
#![expect(unsafe_code, reason = "handles signals")]

use std::cell::Cell;
use std::sync::Once;

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// Notes the round that this thread runs.
pub fn set_seed(seed: u64) {
    SEED.set(seed);
}

/// Installs the handlers, once for all tests of this program. Before any engine runs: an engine's own handler comes before these and hands on
/// what is not its own, and would be lost if it were the other way round.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(install);
}

#[cfg(unix)]
fn install() {
    for signal in [libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGBUS] {
        let handler = handle as extern "C" fn(i32);
        // SAFETY: the handler only uses what may be used in one, and dies of the signal.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

#[cfg(not(unix))]
fn install() {}

#[cfg(unix)]
extern "C" fn handle(signal: i32) {
    let mut text = *b"signal 00 in a round: repeat it with VMSIM_FUZZ_SEED=00000000000000000000\n";
    let mut write = |last: usize, digits: usize, mut number: u64| {
        for n in 0..digits {
            text[last - n] = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    const SIGNAL_END: usize = 8;
    write(SIGNAL_END, 2, signal as u64);
    const SEED_DIGITS: usize = 20;
    write(72, SEED_DIGITS, SEED.get());
    // SAFETY: both may be called in a signal handler; the text is on this stack.
    unsafe {
        libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
