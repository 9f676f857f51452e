//! The silicon comparison: generated sequences of instructions, on the host's processor in 32-bit mode and on
//! the interpreter, or the shadow engine; every register, flag and byte of memory must be the same afterwards.
//!
//! `cargo test --release -p vmsim-vmm --test silicon` runs some; with `-- --ignored --nocapture` many more, and prints
//! what was covered (`-- --ignored --nocapture shadow`: on the shadow engine alone). Set `VMSIM_SILICON_SEQUENCES` to run as many as that, `VMSIM_SILICON_SEED` to start elsewhere.
//!
//! Needs Linux on x86-64; elsewhere it says that it is skipped.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod compare;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod generate;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod guest;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod isa;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[path = "../common/liveness.rs"]
mod liveness;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod machine;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod native;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod operands;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod prepare;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[path = "../common/ram.rs"]
mod ram;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod random;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod runs;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod undefined;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[path = "../common/undefined.rs"]
mod undefined_flags;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod values;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[test]
fn silicon_comparison() {
    println!("skipped: the silicon comparison needs Linux on x86-64");
}
