//! Logs of a VM's processes: one file each, every line with the virtual time and the guest's
//! CS:EIP that it belongs to, so that `vmsim log` can merge them.

use crate::time::VirtualTime;
use std::cell::Cell;
use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Without VMSIM_LOG. The library that speaks to debuggers tells of every packet that it does not know.
const DEFAULT_FILTER: &str = "info,gdbstub=warn";

thread_local! {
    static CONTEXT: Cell<(VirtualTime, u16, u32)> = const { Cell::new((VirtualTime(0), 0, 0)) };
}

/// Sets what the following log lines of this thread belong to.
#[inline]
pub fn set_context(time: VirtualTime, guest: (u16, u32)) {
    CONTEXT.set((time, guest.0, guest.1));
}

/// A line: `    12.345678901 f000:0000fff0 WARN  gpu vga: text`.
struct LineFormat {
    process: String,
}

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (time, cs, eip) = CONTEXT.get();
        let (seconds, nanos) = (time.0 / 1_000_000_000, time.0 % 1_000_000_000);
        let meta = event.metadata();
        // The module that speaks, without the crate and folder names around it.
        let part = meta.target().rsplit("::").next().unwrap_or_default();
        let (process, level) = (&self.process, meta.level());
        write!(writer, "{seconds:6}.{nanos:09} {cs:04x}:{eip:08x} {level:5} {process} {part}: ")?;
        ctx.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Sends this process's `tracing` events to `path` (appending; mode 0600). Level `info`, or
/// what VMSIM_LOG says.
///
/// # Errors
/// When the file cannot be opened, or logging was set up before.
pub fn to_file(path: &Path, process: &str) -> std::io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let filter = EnvFilter::try_from_env("VMSIM_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .event_format(LineFormat { process: process.into() })
        .with_writer(Mutex::new(file))
        .try_init()
        .map_err(|e| std::io::Error::other(e.to_string()))
}
