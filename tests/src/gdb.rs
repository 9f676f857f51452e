//! gdb on a process, told what to do on its standard input.

use crate::{Missing, PATIENCE, poll, program_in_path, skip};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A gdb that runs. It lets go of its process when it is dropped.
pub struct Gdb {
    child: Child,
    said: Arc<Mutex<String>>,
    /// Questions asked so far.
    asked: u32,
}

impl Gdb {
    /// On a process that runs. `None`, said on the terminal, where there is no gdb.
    pub fn attach(pid: u32) -> Option<Self> {
        Self::start(&["-p", &pid.to_string()])
    }

    /// On a program that is yet to be started, with `run`. `None` as above.
    pub fn program(exe: &Path, args: &[&str]) -> Option<Self> {
        Self::start(&[&["--args", &exe.display().to_string()], args].concat())
    }

    fn start(args: &[&str]) -> Option<Self> {
        let Some(gdb) = program_in_path("gdb") else {
            skip("gdb is not installed", Missing::Installable);
            return None;
        };
        let mut command = Command::new(gdb);
        let settings = ["set pagination off", "set confirm off", "set width 0", "set breakpoint pending off"];
        command.args(["-nx", "-q"]).args(settings.iter().flat_map(|setting| ["-iex", setting])).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("gdb starts");
        let said = Arc::new(Mutex::new(String::new()));
        listen(child.stdout.take().expect("its output"), said.clone());
        listen(child.stderr.take().expect("its complaints"), said.clone());
        Some(Self { child, said, asked: 0 })
    }

    /// Gives a command and waits for nothing.
    pub fn say(&mut self, command: &str) {
        let input = self.child.stdin.as_mut().expect("its input");
        writeln!(input, "{command}").expect("gdb listens");
    }

    /// Gives a command and waits until it has been dealt with: what gdb says to it. For `continue` and the like that is
    /// when the process stops again.
    pub fn ask(&mut self, command: &str) -> String {
        let from = self.said().len();
        self.asked += 1;
        self.say(command);
        // What gdb computes, so that no echo of a command is taken for its answer.
        self.say(&format!("printf \"#%d answered\\n\", {}", self.asked));
        let mark = format!("#{} answered", self.asked);
        poll(&format!("answer of gdb to '{command}'"), PATIENCE, || {
            let said = self.said();
            let answer = said.get(from..)?;
            answer.split_once(&mark).map(|(answer, _)| answer.replace("(gdb) ", ""))
        })
    }

    /// All that gdb and the program under it have said.
    pub fn said(&self) -> String {
        self.said.lock().expect("nobody panics with it").clone()
    }
}

/// Puts what comes behind what has been said.
fn listen(mut from: impl Read + Send + 'static, said: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(len @ 1..) = from.read(&mut piece) {
            let text = String::from_utf8_lossy(&piece[..len]).into_owned();
            said.lock().expect("nobody panics with it").push_str(&text);
        }
    });
}

impl Drop for Gdb {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
