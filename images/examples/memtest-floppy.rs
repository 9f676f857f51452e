//! Writes a floppy image that boots Memtest86+ (or the kernel given second) to the file given first.

use images::recipes::{kernel_floppy, memtest_floppy};
use indicatif::ProgressBar;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let target = arguments.next().unwrap_or_else(|| "memtest.img".into());
    let image = match arguments.next() {
        Some(kernel) => kernel_floppy(&std::fs::read(kernel)?, &arguments.next().unwrap_or_default())?,
        None => memtest_floppy("", &ProgressBar::new(100))?,
    };
    std::fs::write(target, image)?;
    Ok(())
}
