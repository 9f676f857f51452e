//! Progress bars on standard error, where it is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that appears once something takes a while.
pub fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes}");
    let bar = ProgressBar::new(0);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar
}
