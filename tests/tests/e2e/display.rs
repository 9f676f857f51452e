//! The window, on an X server of the test's own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use vmsim_tests::{Missing, PATIENCE, Vm, poll, program_in_path, run, skip};

/// An X server without a screen, ended when dropped.
struct Server {
    child: Child,
    display: String,
}

impl Server {
    /// `None`, said on the terminal, where what it takes is not installed.
    fn start() -> Option<Self> {
        for (program, package) in [("Xvfb", "xvfb"), ("xdotool", "xdotool")] {
            if program_in_path(program).is_none() {
                skip(&format!("{program} (package {package}) is not installed"), Missing::Installable);
                return None;
            }
        }
        // The server chooses a free number and writes it to standard output once it serves.
        let mut child = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "1280x1024x24", "-nolisten", "tcp"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb starts");
        let mut number = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut number).expect("its number");
        Some(Self { child, display: format!(":{}", number.trim()) })
    }

    fn xdotool(&self, args: &[&str]) -> Option<String> {
        let mut command = Command::new("xdotool");
        command.args(args).env("DISPLAY", &self.display);
        let said = run(command);
        (said.code == Some(0)).then(|| said.out.trim().to_owned())
    }

    /// The window whose title has `text` in it.
    fn window(&self, text: &str) -> String {
        poll(&format!("window '{text}'"), PATIENCE, || {
            let found = self.xdotool(&["search", "--onlyvisible", "--name", text])?;
            found.lines().next().map(str::to_owned)
        })
    }

    /// Opens the window of a VM.
    fn open(&self, vm: &Vm) -> String {
        // The supervisor starts the window with its own environment: it has no display, so the
        // test opens the window as another user of the VM would.
        self.window(vm.name())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
