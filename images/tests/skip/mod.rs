//! Tests that cannot run here say so on the terminal, and fail in CI, where everything is installed.

use std::io::Write;

/// Says that the calling test does not run because of `why`. The caller returns then.
pub fn skip(why: &str) {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    assert!(!ci, "{why}: in CI it must be there");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not `eprintln!`, whose output of passing tests nobody sees. A closed terminal is no failure.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
}
