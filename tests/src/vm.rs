//! A running VM.

use crate::home::{Home, Said};
use crate::image::{Pixels, read_png};
use crate::process::{is_alive, with_argument};
use crate::{PATIENCE, poll};
use std::time::Duration;

/// A line of `vmsim ps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRow {
    /// `vmm`, `gpu`...
    pub name: String,
    /// `None` while there is none.
    pub pid: Option<u32>,
    /// `ready`, `restarting`...
    pub state: String,
    /// How often it was started again.
    pub restarts: u32,
}

/// What `vmsim ps` says of a VM.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// `running`, `idle`, `paused`...
    pub state: String,
    /// Virtual time, seconds.
    pub seconds: f64,
    /// Guest instructions that were interpreted.
    pub instructions: u64,
    /// Its processes.
    pub processes: Vec<ProcessRow>,
}

impl Status {
    fn parse(text: &str, name: &str) -> Option<Self> {
        let mut lines = text.lines().skip_while(|line| !line.starts_with(&format!("{name}: ")));
        let (_, facts) = lines.next()?.split_once(": ")?;
        let mut facts = facts.split(", ");
        let state = facts.next()?.to_owned();
        let mut number = |before: &str, after: &str| {
            facts.find_map(|fact| fact.strip_prefix(before)?.strip_suffix(after)?.parse::<f64>().ok())
        };
        let seconds = number("virtual time ", " s")?;
        let instructions = number("", " instructions interpreted")? as u64;
        let rows = lines.skip(1).take_while(|line| line.starts_with("  "));
        let processes = rows.filter_map(ProcessRow::parse).collect();
        Some(Self { state, seconds, instructions, processes })
    }

    /// The process `name`.
    #[track_caller]
    pub fn process(&self, name: &str) -> &ProcessRow {
        let found = self.processes.iter().find(|process| process.name == name);
        found.unwrap_or_else(|| panic!("no process {name} in {self:?}"))
    }

    /// Numbers of all processes that run.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().filter_map(|process| process.pid).collect()
    }
}

impl ProcessRow {
    fn parse(line: &str) -> Option<Self> {
        // A state may have words in it: name and pid stand first, restarts and models last.
        let words: Vec<_> = line.split_whitespace().collect();
        let [name, pid, state, restarts, ..] = words[..] else { return None };
        Some(Self {
            name: name.into(),
            pid: pid.parse().ok(),
            state: state.into(),
            restarts: restarts.parse().ok()?,
        })
    }
}

/// A running VM. Dropping it ends it, whatever state it is in.
pub struct Vm {
    home: Home,
    name: String,
}

impl Vm {
    /// Starts a VM without a display in surroundings of its own: `vmsim run ARGS...`.
    #[track_caller]
    pub fn start(args: &[&str]) -> Self {
        Self::start_in(Home::new(), args)
    }

    /// The same with a floppy in drive A: a copy of `image`.
    #[track_caller]
    pub fn with_floppy(image: &std::path::Path) -> Self {
        let home = Home::new();
        let copy = home.copy(image);
        Self::start_in(home, &["--floppy", &copy])
    }

    /// The same in given surroundings.
    #[track_caller]
    pub fn start_in(home: Home, args: &[&str]) -> Self {
        let name = home.fresh_name();
        // From here on, a failed assertion takes away what was started.
        let vm = Self { home, name };
        vm.run(args).ok();
        vm
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Said {
        let mut all = vec!["run", "--name", &self.name, "--detach"];
        if !args.contains(&"--display") {
            all.extend(["--display", "none"]);
        }
        all.extend(args);
        self.home.vmsim(&all)
    }

    /// A VM that was started by other means, to be looked after.
    pub fn adopt(home: Home, name: String) -> Self {
        Self { home, name }
    }

    /// Its surroundings.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Its surroundings, to be changed.
    pub fn home_mut(&mut self) -> &mut Home {
        &mut self.home
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a command on this VM: `vmsim ARGS... --vm NAME`.
    #[track_caller]
    pub fn vmsim(&self, args: &[&str]) -> Said {
        let mut all = args.to_vec();
        all.extend(["--vm", &self.name]);
        self.home.vmsim(&all)
    }

    /// Waits until `text` is on the screen.
    #[track_caller]
    pub fn wait_text(&self, text: &str) {
        let timeout = PATIENCE.as_secs().to_string();
        self.vmsim(&["wait", "--text", text, "--timeout", &timeout]).ok();
    }

    /// Whether `text` is on the screen now.
    pub fn shows(&self, text: &str) -> bool {
        self.screen_text().contains(text)
    }

    /// Waits until the screen has what `wanted` looks for; returns the screen.
    #[track_caller]
    pub fn wait_screen(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        poll(what, PATIENCE, || Some(self.screen_text()).filter(|text| wanted(text)))
    }

    /// Types a text; `\n` and the like are understood by the program.
    #[track_caller]
    pub fn type_text(&self, text: &str) {
        self.vmsim(&["type", text]).ok();
    }

    /// Presses keys such as `ctrl-alt-del`.
    #[track_caller]
    pub fn key(&self, keys: &str) {
        self.vmsim(&["key", keys]).ok();
    }

    /// What is on the screen; empty in graphics modes and before the first picture.
    #[track_caller]
    pub fn screen_text(&self) -> String {
        let said = self.vmsim(&["screen", "--text"]);
        if said.code == Some(0) { said.out } else { String::new() }
    }

    /// A screenshot.
    #[track_caller]
    pub fn screen_png(&self) -> Pixels {
        let path = self.home.file("screen.png");
        let text = path.display().to_string();
        self.vmsim(&["screen", "--png", &text]).ok();
        let pixels = read_png(&path);
        std::fs::remove_file(path).expect("the screenshot is removed");
        pixels
    }

    /// What `vmsim ps` says; `None` when the VM does not run.
    #[track_caller]
    pub fn try_ps(&self) -> Option<Status> {
        Status::parse(&self.home.vmsim(&["ps"]).ok(), &self.name)
    }

    /// What `vmsim ps` says.
    #[track_caller]
    pub fn ps(&self) -> Status {
        self.try_ps().expect("the VM runs")
    }

    /// Number of a process.
    #[track_caller]
    pub fn pid_of(&self, process: &str) -> u32 {
        let status = self.ps();
        status.process(process).pid.unwrap_or_else(|| panic!("no {process} runs: {status:?}"))
    }

    /// `vmsim log ARGS...`
    #[track_caller]
    pub fn log(&self, args: &[&str]) -> String {
        let mut all = vec!["log"];
        all.extend(args);
        self.vmsim(&all).ok()
    }

    /// Kills a process of the VM; returns its number.
    #[track_caller]
    pub fn kill(&self, process: &str) -> u32 {
        let pid = self.pid_of(process);
        crate::process::kill(pid);
        pid
    }

    /// Waits until a process serves again that was number `old`.
    #[track_caller]
    pub fn wait_restarted(&self, process: &str, old: u32) {
        poll(&format!("new {process}"), PATIENCE, || {
            let status = self.ps();
            let row = status.process(process);
            (row.pid.is_some_and(|pid| pid != old) && row.state == "ready").then_some(())
        });
    }

    /// Waits for the DOS prompt of drive A, empty, in the last line that has text.
    #[track_caller]
    pub fn wait_prompt(&self) -> String {
        self.wait_screen("DOS prompt", |text| {
            text.lines().rev().find(|line| !line.trim().is_empty()).is_some_and(|line| line.trim() == r"A:\>")
        })
    }

    /// Runs a DOS command on a cleared screen; returns the screen at the next prompt.
    #[track_caller]
    pub fn dos(&self, command: &str) -> String {
        self.type_text(&format!("cls\\n{command}\\n"));
        let echo = format!(r"A:\>{}", command.replace("\\\\", "\\"));
        self.wait_screen(&format!("answer to {command}"), |text| {
            let mut lines = text.lines().filter(|line| !line.trim().is_empty());
            // The first prompt is gone from the top when the answer is long.
            let answered = lines.clone().count() > 1
                && (lines.next().is_some_and(|l| l.starts_with(&echo)) || lines.clone().count() > 20);
            answered && text.trim_end().ends_with(r"A:\>")
        })
    }

    /// At the prompt of the floppy that has vim: writes "A line of verse" into a file with it, and checks that it is there.
    #[track_caller]
    pub fn write_with_vim(&self) {
        self.type_text("vim poem.txt\\n");
        let is_empty = |text: &str| text.lines().filter(|line| line.trim() == "~").count() >= 20;
        self.wait_screen("full screen of vim", is_empty);

        self.type_text("iA line of verse\\e");
        self.wait_text("A line of verse");
        self.type_text(":wq\\n");

        self.wait_prompt();
        assert!(self.dos("type poem.txt").contains("A line of verse"));
    }

    /// Ends the VM in order, and checks that nothing of it is left.
    #[track_caller]
    pub fn stop(self) -> Home {
        self.vmsim(&["stop"]).ok();
        self.assert_nothing_left(Duration::from_secs(2));
        assert_eq!(self.home.temporary_files(), [] as [std::path::PathBuf; 0]);
        let mut vm = self;
        std::mem::take(&mut vm.home)
    }

    /// Waits until nothing of the VM is left.
    #[track_caller]
    pub fn assert_nothing_left(&self, patience: Duration) {
        let deadline = std::time::Instant::now() + patience;
        loop {
            let left = self.home.left_of(&self.name);
            if left.is_empty() {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "left behind after {patience:?}: {left:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let left = || with_argument(&self.name);
        if std::thread::panicking() && !left().is_empty() {
            self.tell_about_failure();
        }
        if !left().is_empty() {
            // A VM that a test killed is gone: stopping it fails, and nothing needs to be done.
            let _ = self.home.command(&["stop", "--vm", &self.name]).output();
        }
        for pid in left() {
            if is_alive(pid)
                && let Some(pid) = rustix::process::Pid::from_raw(pid as i32)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        // What a VM left that was killed as a whole.
        for path in self.home.left_of(&self.name).iter().filter(|path| path.starts_with("/dev/shm/")) {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Vm {
    /// Screen, processes and the end of the log, for the reader of a failed test.
    fn tell_about_failure(&self) {
        for args in [&["screen", "--text", "--vm", &self.name][..], &["ps"], &["log", "--vm", &self.name]] {
            if let Ok(output) = self.home.command(args).output() {
                let text = String::from_utf8_lossy(&output.stdout);
                let lines: Vec<_> = text.lines().collect();
                eprintln!("--- vmsim {}", args[0]);
                lines[lines.len().saturating_sub(40)..].iter().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}
