//! The tests: a short run, a long one, and that nothing of the instruction set is missing.

use super::compare::Comparison;
use super::guest::Guest;
use super::isa::{self, Class};
use super::native::Native;
use std::collections::BTreeMap;
use std::time::Instant;
use vmm::cpu::CpuModel;

/// Sequences of the short run.
const SHORT: u64 = 400_000;
/// Sequences of the long run; they have some 7 instructions each.
const LONG: u64 = 4_000_000;
/// The shadow engine runs each program twice.
const RUNS_OF_SHADOW: u64 = 2;
/// What ends a program is interpreted: a far jump or an exception, and HLT.
const ENDS: u64 = 2;
/// Percentage of instructions of which the shadow engine may make no code: encodings are generated in equal numbers, and often
/// with x87 exceptions unmasked.
const MOST_INTERPRETED: u64 = 35;
/// Differences that are described before a run gives up.
const SHOWN: usize = 5;

fn from_environment(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is expected"))
}

fn run(sequences: u64, engine: fn(CpuModel) -> Guest) {
    let mut native = match Native::new() {
        Ok(native) => native,
        Err(error) => {
            println!("skipped: this host cannot run 32-bit programs next to the test: {error}");
            return;
        }
    };
    let model = CpuModel::Max;
    let mut guest = engine(model);
    let codes = isa::all().filter(|(code, _)| isa::exists(*code, model));
    let mut comparison = Comparison::new(&mut native, &mut guest, codes);
    let first = from_environment("VMSIM_SILICON_SEED", 1);
    let sequences = from_environment("VMSIM_SILICON_SEQUENCES", sequences);
    comparison.list = std::env::var_os("VMSIM_SILICON_LIST").is_some();
    let start = Instant::now();
    let mut failures = Vec::new();
    for seed in first..first.saturating_add(sequences) {
        if let Err(text) = comparison.check(seed) {
            failures.push(text);
            if failures.len() >= from_environment("VMSIM_SILICON_SHOWN", SHOWN as u64) as usize {
                break;
            }
        }
    }
    let elapsed = start.elapsed();
    let (coverage, missing) = comparison.coverage();
    println!("encodings, completed+faulted, by mnemonic:\n{coverage}");
    println!(
        "{} instructions generated and {} executed in {elapsed:.1?}, {} per second; exceptions by vector: {:?}",
        comparison.instructions,
        comparison.executed(),
        (comparison.instructions as f64 / elapsed.as_secs_f64()) as u64,
        comparison.exceptions
    );
    for (reason, count) in &comparison.excused {
        println!("{count} sequences differ in nothing but: {reason}");
    }
    let mut left_out: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (code, class) in isa::all() {
        if let Class::LeftOut(reason) = class {
            left_out.entry(reason).or_default().push(format!("{code:?}"));
        }
    }
    for (reason, codes) in left_out {
        println!("left out: {reason}: {}", codes.join(" "));
    }
    for failure in &failures {
        println!("{failure}");
    }
    let (executed, programs) =
        (RUNS_OF_SHADOW * comparison.executed(), RUNS_OF_SHADOW * comparison.sequences);
    if let Some((statistics, interpreted)) = guest.statistics() {
        let interpreted = interpreted.saturating_sub(ENDS * programs);
        println!("{statistics:?}; {interpreted} of some {executed} instructions interpreted");
        let share = 100 * interpreted / executed.max(1);
        assert!(
            sequences < SHORT || share < MOST_INTERPRETED,
            "{share} % of the instructions were interpreted"
        );
    }
    assert!(failures.is_empty(), "{} differences", failures.len());
    if sequences >= SHORT {
        assert!(missing.is_empty(), "{} encodings:\n{}", missing.len(), missing.join("\n"));
    }
}

#[test]
fn the_interpreter_agrees_with_the_host() {
    run(SHORT, Guest::interpreter);
}

#[test]
fn the_shadow_engine_agrees_with_the_host() {
    run(SHORT, Guest::shadow);
}

#[test]
fn windows_agree_with_the_host() {
    run(SHORT, Guest::window);
}

#[test]
#[ignore = "takes minutes"]
fn the_interpreter_agrees_with_the_host_for_long() {
    run(LONG, Guest::interpreter);
}

#[test]
#[ignore = "takes minutes"]
fn the_shadow_engine_agrees_with_the_host_for_long() {
    run(LONG, Guest::shadow);
}

#[test]
#[ignore = "takes minutes"]
fn windows_agree_with_the_host_for_long() {
    run(LONG, Guest::window);
}
