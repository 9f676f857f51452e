//! Assembles the built-in demo ROM and floppies from the sources in `demo/`, the hard disk's boot loader
//! from those in `boot/`, and the floppy with the CPU tests from those in `cputest/`.

#[path = "boot/mod.rs"]
mod boot;
#[path = "cputest/mod.rs"]
mod cputest;
#[path = "demo/mod.rs"]
mod demo;

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=demo");
    println!("cargo::rerun-if-changed=boot");
    println!("cargo::rerun-if-changed=cputest");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    std::fs::write(out.join("demo_rom.bin"), demo::rom()?)?;
    std::fs::write(out.join("demo_floppy.bin"), demo::demo_floppy()?)?;
    std::fs::write(out.join("bench_floppy.bin"), demo::bench_floppy()?)?;
    std::fs::write(out.join("bench_turns.rs"), demo::bench::TURNS.to_string())?;
    std::fs::write(out.join("kernel_floppy.bin"), demo::kernel_floppy()?)?;
    std::fs::write(out.join("disk_loader.bin"), boot::disk_loader()?)?;
    std::fs::write(out.join("cputest_floppy.bin"), cputest::floppy()?)?;
    Ok(())
}
