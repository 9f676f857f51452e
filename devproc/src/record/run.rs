//! The command-line face of a replay: what `EXE DEVICE --replay FILE` prints and how it ends.

use super::replay::{Difference, ReplayError, Report, replay};
use crate::process::Builder;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Exit code when there was a difference.
const DIFFERENT: u8 = 1;
/// Exit code when there was nothing to compare.
const FAILED: u8 = 2;

/// Replays the recording at `path` and says what came of it: exit code 0 when there was no difference, 1 when there
/// was one, 2 when it could not be replayed. Ends with difference number `limit`.
pub fn run(path: &Path, limit: u64, builder: impl Fn(&str) -> Option<Builder>) -> ExitCode {
    let mut out = std::io::stdout();
    let mut told = 0;
    let tell = |difference: &Difference| {
        told += 1;
        // A reader that has seen enough is no error.
        let seen = out.write_all(describe(difference).as_bytes()).and_then(|()| out.flush());
        seen.is_ok() && told < limit
    };
    let file = File::open(path).map_err(|error| ReplayError::Format(error.into()));
    match file.and_then(|file| replay(BufReader::with_capacity(1 << 20, file), builder, tell)) {
        Ok(report) => {
            // As above.
            let _ = std::io::stdout().write_all(summary(&report).as_bytes());
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
