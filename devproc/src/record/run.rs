//! The command-line face of a replay: what `EXE replay FILE` is told, what it prints and how it ends.

use super::replay::{Difference, ReplayError, Report, replay};
use crate::process::{Builder, debugger};
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Option: [`Options::limit`].
const LIMIT: &str = "--limit";
/// Option: [`Options::stop_at`].
const STOP_AT: &str = "--stop-at";
/// Exit code when there was a difference.
const DIFFERENT: u8 = 1;
/// Exit code when there was nothing to compare.
const FAILED: u8 = 2;

/// How a replay is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// It ends with difference number so.
    pub limit: u64,
    /// The transaction before which the debugger gets its turn.
    pub stop_at: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { limit: 1, stop_at: None }
    }
}

impl Options {
    /// From arguments; `None` when they are none.
    pub fn parse(args: &[&str]) -> Option<Self> {
        let mut options = Self::default();
        let (pairs, rest) = args.as_chunks::<2>();
        for [name, value] in pairs {
            let value = value.parse().ok().filter(|value| *value > 0)?;
            match *name {
                LIMIT => options.limit = value,
                STOP_AT => options.stop_at = Some(value),
                _ => return None,
            }
        }
        rest.is_empty().then_some(options)
    }

    /// As arguments.
    pub fn arguments(&self) -> Vec<String> {
        let limit = [LIMIT.into(), self.limit.to_string()];
        let stop_at = self.stop_at.map(|number| [STOP_AT.into(), number.to_string()]);
        limit.into_iter().chain(stop_at.into_iter().flatten()).collect()
    }
}

/// Replays the recording at `path` and says what came of it: exit code 0 when there was no difference, 1 when there
/// was one, 2 when it could not be replayed.
pub fn run(path: &Path, options: &Options, builder: impl Fn(&str) -> Option<Builder>) -> ExitCode {
    let Options { limit, stop_at } = *options;
    if stop_at.is_some() && !debugger::is_traced() {
        eprintln!("{STOP_AT} is for a debugger, and none runs this process: gdb --args PROGRAM replay ...");
        return FAILED.into();
    }
    let mut out = std::io::stdout();
    let mut told = 0;
    let tell = |difference: &Difference| {
        told += 1;
        // A reader that has seen enough is no error.
        let seen = out.write_all(describe(difference).as_bytes()).and_then(|()| out.flush());
        seen.is_ok() && told < limit
    };
    let file = File::open(path).map_err(|error| ReplayError::Format(error.into()));
    match file.and_then(|file| replay(BufReader::with_capacity(1 << 20, file), builder, stop_at, tell)) {
        Ok(report) => {
            // As above.
            let _ = std::io::stdout().write_all(summary(&report).as_bytes());
            if let Some(number) = stop_at.filter(|number| *number > report.transactions) {
                eprintln!("{STOP_AT} {number}: the replay ended before that");
            }
            if report.differences == 0 { ExitCode::SUCCESS } else { DIFFERENT.into() }
        }
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            FAILED.into()
        }
    }
}

fn describe(difference: &Difference) -> String {
    let Difference { transaction, call, what, recorded, found } = difference;
    format!(
        "Difference at transaction {transaction}: {call}\n  what       {what}\n  recorded   {recorded}\n  this build {found}\n"
    )
}

fn summary(report: &Report) -> String {
    let Report { device, transactions, guest, host, took, cut, died, differences } = report;
    let lasted = (*host).max(*guest);
    let speed = lasted.as_secs_f64() / took.as_secs_f64().max(Duration::from_nanos(1).as_secs_f64());
    let end = match (died, cut) {
        (true, _) => "; it ends with a call that did not come back",
        (false, true) => "; its end is cut off",
        (false, false) => "",
    };
    let result = match differences {
        0 => "no difference".into(),
        1 => "1 difference".into(),
        count => format!("{count} differences"),
    };
    format!(
        "{device}: {transactions} transactions of {:.3} s of guest time, replayed in {:.3} s, {speed:.1} times as \
         fast as recorded{end}: {result}\n",
        guest.as_secs_f64(),
        took.as_secs_f64(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_what_their_arguments_say() {
        for options in [
            Options::default(),
            Options { limit: 7, stop_at: None },
            Options { limit: u64::MAX, stop_at: Some(1302) },
        ] {
            let arguments = options.arguments();
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            assert_eq!(Options::parse(&arguments), Some(options));
        }
        assert_eq!(Options::parse(&[]), Some(Options::default()));
        for wrong in [
            &["--limit"][..],
            &["--limit", "0"],
            &["--stop-at", "-1"],
            &["--stop", "1"],
            &["--stop-at", "1", "2"],
        ] {
            assert_eq!(Options::parse(wrong), None, "{wrong:?}");
        }
    }
}
