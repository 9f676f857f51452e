//! Shows where this system's firmware is, fetching it when there is none.
//!
//! `--no-system` leaves the system's directories out; `--memtest` looks for Memtest86+ instead.

use images::firmware::{Search, find_or_fetch_in, find_or_fetch_memtest_in};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |option: &str| arguments.iter().any(|argument| argument == option);
    let mut search = Search::from_environment();
    let mut root = Path::new("/");
    if given("--no-system") {
        search.system.clear();
        root = Path::new("/nonexistent");
    }
    let progress = ProgressBar::new(100);
    progress.set_style(ProgressStyle::with_template("{msg} {wide_bar} {percent}%")?);
    if given("--memtest") {
        println!("{}", find_or_fetch_memtest_in(&search, root, &progress)?.display());
    } else {
        let firmware = find_or_fetch_in(&search, &progress)?;
        println!("{}\n{}\nfrom {}", firmware.bios.display(), firmware.vga_rom.display(), firmware.source);
    }
    Ok(())
}
