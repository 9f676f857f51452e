//! Writes a hard disk image that boots Linux to the file given; what follows goes to the kernel's command line.

use images::recipes::linux;
use indicatif::ProgressBar;
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let target = arguments.next().unwrap_or_else(|| "linux.img".into());
    let append = arguments.collect::<Vec<_>>().join(" ");
    let options = linux::Options { append, ..linux::Options::default() };
    linux::create(Path::new(&target), &options, &ProgressBar::new(100))?;
    Ok(())
}
