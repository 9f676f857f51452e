//! Names of shadow code for perf: `/tmp/perf-PID.map`, a line for each unit with where it is, how long, and the guest's linear address.
//!
//! Written only when the environment asks for it, and never read here. Code that was dropped stays in it: addresses are used again
//! only after the whole cache was dropped, and then the file begins anew.

use std::fs::File;
use std::io::{BufWriter, Write};

/// Set to anything: write the file.
const VARIABLE: &str = "VMSIM_PERF_MAP";

/// See the module's description.
#[derive(Default)]
pub struct PerfMap {
    file: Option<BufWriter<File>>,
}

impl PerfMap {
    /// One that writes, if the environment wants that.
    pub fn from_environment() -> Self {
        let wanted = std::env::var_os(VARIABLE).is_some();
        let mut map = Self::default();
        if wanted {
            map.restart();
        }
        map
    }

    /// The file without any line.
    fn restart(&mut self) {
        let path = format!("/tmp/perf-{}.map", std::process::id());
        // Not through a link that somebody else put there.
        let _ = std::fs::remove_file(&path);
        match File::create_new(&path) {
            Ok(file) => self.file = Some(BufWriter::new(file)),
            Err(error) => {
                tracing::warn!("No names of shadow code for perf: {path}: {error}");
                self.file = None;
            }
        }
    }

    /// A unit's code was made, which uses a window or not.
    #[inline]
    pub fn add(&mut self, code: u64, len: u32, linear: u32, window: bool) {
        let kind = if window { "@window" } else { "" };
        if let Some(file) = &mut self.file
            && writeln!(file, "{code:x} {len:x} guest:{linear:08x}{kind}")
                .and_then(|()| file.flush())
                .is_err()
        {
            self.file = None;
        }
    }

    /// All code was dropped.
    pub fn clear(&mut self) {
        if self.file.is_some() {
            self.restart();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_lines_until_all_code_is_dropped() {
        let mut map = PerfMap::default();
        map.add(1, 2, 3, false);
        map.clear();
        assert!(map.file.is_none(), "nobody wants it");
        map.restart();
        map.add(0x4000_1000, 0x20, 0xc012_3456, false);
        map.add(0x4000_1020, 0x8, 0x0804_8000, true);
        let path = format!("/tmp/perf-{}.map", std::process::id());
        assert_eq!(
            std::fs::read_to_string(&path).expect("it is there"),
            "40001000 20 guest:c0123456\n40001020 8 guest:08048000@window\n"
        );
        map.clear();
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "");
        std::fs::remove_file(path).expect("it is there");
    }
}
