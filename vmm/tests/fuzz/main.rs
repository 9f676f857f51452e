//! Guests that execute garbage on hostile tables: the processor must reset, halt or go on as a PC does, and
//! its state must stay one that a processor can be in. Nothing may panic.
//!
//! Each round is made from one number. A short run is part of the test suite; `VMSIM_FUZZ_SECONDS=3600` makes
//! it longer, `VMSIM_FUZZ_SEED=N` repeats the one round that failed, `VMSIM_FUZZ_FROM=N` all rounds from one on: what fails may depend on
//! what an engine has kept of earlier ones.

mod crash;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod followed;
mod guest;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[path = "../common/liveness.rs"]
mod liveness;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod lockstep;
#[path = "../common/ram.rs"]
mod ram;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[path = "../common/undefined.rs"]
mod undefined;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod user;

use guest::{Machine, Random, check, prepare};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use vmm::cpu::Vcpu;
use vmm::cpu::bus::Bus;
use vmm::cpu::registers::eflags;
use vmm::engine::{Engine, EngineKind};
use vmm::interp::Exit;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use vmm::shadow::WindowPolicy;

const SECONDS: u64 = 10;
/// Slices of guest code in a round.
const SLICES: u32 = 60;
/// Most instructions in a slice.
const SLICE: u64 = 400;

/// One round; says how it ended.
fn round(cpu: &mut Vcpu<Machine>, engine: &mut Engine<Machine>, seed: u64) -> &'static str {
    let mut random = Random(seed);
    cpu.bus.random = Random(!seed);
    (cpu.bus.a20, cpu.bus.interrupt) = (true, false);
    prepare(cpu, &mut random, guest::code);
    engine.forget_code(cpu);
    for _ in 0..SLICES {
        let exit = if random.one_in(3) {
            engine.step(cpu)
        } else {
            engine.run(cpu, 1 + u64::from(random.below(SLICE as u32)))
        };
        check(cpu);
        match exit {
            Exit::Shutdown => return "shutdowns",
            Exit::Halted if cpu.state.eflags & eflags::IF == 0 => return "halts for ever",
            _ => {}
        }
        if random.one_in(3) || exit == Exit::Halted {
            cpu.bus.interrupt = true;
        }
        if cpu.bus.interrupt && cpu.accepts_interrupts() {
            let vector = cpu.bus.acknowledge_interrupt().unwrap_or_default();
            cpu.deliver_external(vector);
            check(cpu);
        }
    }
    "rounds that went on"
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// A round takes milliseconds; one that takes this long hangs.
const ROUND_PATIENCE: Duration = Duration::from_secs(60);

/// Ends the test program, with the number of the round, when one hangs. Until `current` is dropped.
fn watch_over(current: &Arc<AtomicU64>) {
    let current = Arc::downgrade(current);
    std::thread::spawn(move || {
        let number = || Some(current.upgrade()?.load(Ordering::Relaxed));
        while let Some(seed) = number() {
            std::thread::sleep(ROUND_PATIENCE);
            if number() == Some(seed) {
                eprintln!("round {seed} hangs: repeat it with VMSIM_FUZZ_SEED={seed}");
                std::process::abort();
            }
        }
    });
}

/// Runs rounds for a while, or the one that was asked for; what came of them, by their number.
fn repeat(mut round: impl FnMut(u64) -> &'static str) -> BTreeMap<&'static str, u64> {
    let single = number("VMSIM_FUZZ_SEED");
    let duration = Duration::from_secs(number("VMSIM_FUZZ_SECONDS").unwrap_or(SECONDS));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let first = single.or(number("VMSIM_FUZZ_FROM")).unwrap_or(now);
    println!("fuzzing from seed {first}");
    let started = Instant::now();
    let mut ends = BTreeMap::new();
    let mut seed = first;
    let current = Arc::new(AtomicU64::new(seed));
    watch_over(&current);
    while started.elapsed() < duration {
        current.store(seed, Ordering::Relaxed);
        crash::set_seed(seed);
        match catch_unwind(AssertUnwindSafe(|| round(seed))) {
            Ok(end) => *ends.entry(end).or_insert(0u64) += 1,
            Err(_) => panic!("round {seed} failed: repeat it with VMSIM_FUZZ_SEED={seed}"),
        }
        if single.is_some() {
            break;
        }
        seed = seed.wrapping_add(1);
    }
    ends
}

/// Rounds of garbage on an engine.
fn garbage_on(mut engine: Engine<Machine>) {
    crash::prepare();
    let mut cpu = Vcpu::new(Machine::new());
    let ends = repeat(|seed| {
        // A round must not depend on what earlier ones left.
        cpu.bus.ram.iter().for_each(|cell| cell.set(0));
        round(&mut cpu, &mut engine, seed)
    });
    println!("{ends:?}; {} instructions interpreted", engine.interpreted());
    assert!(number("VMSIM_FUZZ_SEED").is_some() || ends.len() > 1 && engine.interpreted() > 0);
}

#[test]
fn garbage_on_hostile_tables_never_panics() {
    garbage_on(Engine::new(EngineKind::Interp).expect("it needs nothing"));
}

/// Garbage on the shadow engine.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn garbage_on_shadow(policy: WindowPolicy) {
    let mut shadow = vmm::shadow::Shadow::new().expect("there is memory");
    // Nobody asks for attention here.
    shadow.set_counting();
    shadow.use_windows(policy);
    garbage_on(Engine::Shadow(Box::new(shadow)));
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn garbage_on_hostile_tables_never_breaks_the_shadow_engine() {
    garbage_on_shadow(WindowPolicy::Off);
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn garbage_on_hostile_tables_never_breaks_windows() {
    garbage_on_shadow(WindowPolicy::Always);
}

/// The shadow engine against the interpreter.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn compare(policy: WindowPolicy, guests: lockstep::Guests) -> lockstep::Pair {
    let mut pair = lockstep::Pair::new(policy, guests);
    let ends = repeat(|seed| pair.round(seed).unwrap_or_else(|difference| panic!("{difference}")));
    println!("{ends:?}; {}", pair.account());
    assert!(number("VMSIM_FUZZ_SEED").is_some() || pair.is_meaningful(), "{}", pair.account());
    pair
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn the_shadow_engine_does_what_the_interpreter_does() {
    compare(WindowPolicy::Off, lockstep::Guests::Any);
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn users_in_changing_page_tables_do_what_they_do_on_the_interpreter() {
    compare(WindowPolicy::Off, lockstep::Guests::Users);
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn users_in_windows_do_what_they_do_on_the_interpreter() {
    let windows = compare(WindowPolicy::Always, lockstep::Guests::Users).windows();
    println!("{windows:?}");
    assert!(number("VMSIM_FUZZ_SEED").is_some() || windows.pages_mapped > 1000, "{windows:?}");
}
