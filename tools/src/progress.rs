//! What the program tells the person in front of it: lines and progress bars on standard error.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that appears once something takes a while.
pub fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes}");
    let bar = ProgressBar::new(0);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar
}

/// Prints a line on standard error. Nobody may be reading any more (a detached supervisor, a
/// closed terminal): that must not matter to a VM, and `eprintln!` would panic.
pub fn say(line: &str) {
    use std::io::Write;
    // As said: there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "vmsim: {line}");
}
