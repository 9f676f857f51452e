//! `vmsim screen` and `vmsim wait`.

use crate::cli::ScreenArgs;
use crate::client;
use anyhow::{Context, Result, bail};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often `wait` looks at the screen.
const LOOK: Duration = Duration::from_millis(20);

/// Prints or saves what is on the screen.
pub fn screen(args: &ScreenArgs) -> Result<()> {
    let vm = client::find(args.vm.as_deref())?;
    let screen = client::screen(&vm)?;
    let frame = client::frame(screen.picture().context("Nothing is on the screen yet")?);
    if let Some(path) = &args.how.png {
        display::screenshot::save(&frame, path)?;
    }
    if args.how.text {
        match &frame.text {
            Some(text) => super::print_text(&display::text::plain_text(text))?,
            None => {
                bail!("The screen is in a graphics mode ({} x {}): use --png FILE", frame.width, frame.height)
            }
        }
    }
    Ok(())
}

/// Waits until `text` is on the screen.
pub fn wait(text: &str, timeout: f64, name: Option<&str>) -> Result<ExitCode> {
    let vm = client::find(name)?;
    let screen = client::screen(&vm)?;
    let seconds = if timeout.is_finite() { timeout.clamp(0.0, 1e9) } else { 0.0 };
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    let mut seen = None;
    loop {
        let sequence = screen.sequence();
        if seen != Some(sequence) {
            seen = Some(sequence);
            if client::screen_text(&screen).is_some_and(|shown| shown.contains(text)) {
                return Ok(ExitCode::SUCCESS);
            }
        }
        if Instant::now() >= deadline {
            eprintln!("vmsim: '{text}' did not come on the screen within {timeout} s; there is:");
            eprint!("{}", client::screen_text(&screen).unwrap_or_else(|| "(no text)\n".into()));
            return Ok(ExitCode::FAILURE);
        }
        if !vm.is_running() {
            bail!("The VM '{}' ended while '{text}' was waited for", vm.name());
        }
        std::thread::sleep(LOOK);
    }
}
