//! The window, on an X server of the test's own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use vmsim_tests::{Home, Missing, PATIENCE, Vm, guest, kill, poll, program_in_path, run, skip};

/// An X server without a screen, ended when dropped.
pub struct Server {
    child: Child,
    display: String,
}

impl Server {
    /// `None`, said on the terminal, where what it takes is not installed.
    pub fn start() -> Option<Self> {
        for (program, package) in [("Xvfb", "xvfb"), ("xdotool", "xdotool")] {
            if program_in_path(program).is_none() {
                skip(&format!("{program} (package {package}) is not installed"), Missing::Installable);
                return None;
            }
        }
        // The server chooses a free number and writes it to standard output once it serves. By default it starts anew
        // when its last client leaves, such as an xdotool that found no window yet, and turns away who comes then.
        let mut child = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "1280x1024x24", "-nolisten", "tcp", "-noreset"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb starts");
        let mut number = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut number).expect("its number");
        Some(Self { child, display: format!(":{}", number.trim()) })
    }

    /// What `$DISPLAY` is to be.
    pub fn display(&self) -> &str {
        &self.display
    }

    fn xdotool(&self, args: &[&str]) -> Option<String> {
        let mut command = Command::new("xdotool");
        command.args(args).env("DISPLAY", &self.display);
        let said = run(command);
        (said.code == Some(0)).then(|| said.out.trim().to_owned())
    }

    /// The window whose title has `text` in it.
    pub fn window(&self, text: &str) -> String {
        poll(&format!("window '{text}'"), PATIENCE, || {
            let found = self.xdotool(&["search", "--onlyvisible", "--name", text])?;
            found.lines().next().map(str::to_owned)
        })
    }

    /// Whether there is one.
    pub fn has_window(&self, text: &str) -> bool {
        self.xdotool(&["search", "--onlyvisible", "--name", text]).is_some_and(|found| !found.is_empty())
    }

    /// Types into a window, as a person does who clicked on it.
    fn type_text(&self, window: &str, text: &str) {
        self.xdotool(&["windowfocus", "--sync", window]).expect("the focus");
        self.xdotool(&["type", "--delay", "30", text]).expect("typing");
    }

    /// Presses a key in a window.
    pub fn press(&self, window: &str, key: &str) {
        self.xdotool(&["windowfocus", "--sync", window]).expect("the focus");
        self.xdotool(&["key", key]).expect("a key");
    }

    /// What a window shows, 4 bytes a pixel.
    pub fn picture(&self, window: &str) -> Vec<u8> {
        use x11rb::protocol::xproto::{ConnectionExt, ImageFormat};
        let (connection, _) = x11rb::connect(Some(&self.display)).expect("a connection");
        let window = window.parse().expect("a window number");
        let size = connection.get_geometry(window).expect("a request").reply().expect("the window's size");
        let image = connection
            .get_image(ImageFormat::Z_PIXMAP, window, 0, 0, size.width, size.height, !0)
            .expect("a request")
            .reply()
            .expect("the window's picture");
        image.data
    }

    /// Closes a window as its close button does.
    fn close(&self, window: &str) {
        use x11rb::protocol::xproto::{ClientMessageEvent, ConnectionExt, EventMask};
        let (connection, _) = x11rb::connect(Some(&self.display)).expect("a connection");
        let atom = |name: &str| {
            let cookie = connection.intern_atom(false, name.as_bytes()).expect("a request");
            cookie.reply().expect("an atom").atom
        };
        let window = window.parse().expect("a window number");
        let data = [atom("WM_DELETE_WINDOW"), x11rb::CURRENT_TIME, 0, 0, 0];
        let event = ClientMessageEvent::new(32, window, atom("WM_PROTOCOLS"), data);
        connection.send_event(false, window, EventMask::NO_EVENT, event).expect("an event");
        // The answer to a later request: the server has handled the event before it sees us leave.
        connection.get_input_focus().expect("a request").reply().expect("an answer");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A VM whose window is open on `server`, at the DOS prompt.
fn with_window(server: &Server) -> Option<(Vm, String)> {
    let image = guest("freedos-1440.img")?;
    let mut home = Home::new();
    home.set_display(Some(&server.display));
    let copy = home.copy(&image);
    let vm = Vm::start_in(home, &["--floppy", &copy, "--display", "window"]);
    let window = server.window(vm.name());
    vm.wait_prompt();
    Some((vm, window))
}

/// What the X server shows in a window, as the share of its pixels that are lit.
fn lit_on_screen(server: &Server, window: &str) -> f64 {
    let picture = server.picture(window);
    let pixels = picture.chunks_exact(4);
    let count = pixels.len();
    let lit = pixels.filter(|pixel| pixel[..3].iter().any(|part| *part > 0x40)).count();
    lit as f64 / count as f64
}

#[test]
fn window_shows_the_prompt_and_takes_typed_keys() {
    let Some(server) = Server::start() else { return };
    let Some((vm, window)) = with_window(&server) else { return };

    vm.dos("dir");
    // Text on black: some of the window is lit, most is not.
    poll("picture in the window", PATIENCE, || {
        let lit = lit_on_screen(&server, &window);
        (0.005..0.5).contains(&lit).then_some(())
    });
    server.type_text(&window, "echo Typed In A Window: 42%");
    server.press(&window, "Return");

    vm.wait_screen("answer of DOS", |text| text.lines().any(|line| line.trim() == "Typed In A Window: 42%"));
    let title = server.xdotool(&["getwindowname", &window]).expect("the title");
    assert!(title.contains("VMSim") && title.contains('%'), "no state and speed in '{title}'");
    vm.stop();
    poll("end of the window", PATIENCE, || (!server.has_window("VMSim")).then_some(()));
}

#[test]
fn closing_and_opening_the_window_leaves_the_guest_alone() {
    let Some(server) = Server::start() else { return };
    let Some((vm, window)) = with_window(&server) else { return };
    vm.dos("echo typed before");
    let before = vm.ps();

    server.close(&window);

    poll("closed window", PATIENCE, || (!server.has_window(vm.name())).then_some(()));
    poll("display that is gone", PATIENCE, || {
        vm.ps().processes.iter().all(|process| process.name != "display").then_some(())
    });
    vm.type_text("echo typed in between\\n");
    vm.wait_text("typed in between");

    vm.vmsim(&["display", "--display", "window"]).ok();
    let window = server.window(vm.name());
    server.type_text(&window, "echo typed after");
    server.press(&window, "Return");

    vm.wait_screen("answer of DOS", |text| text.lines().any(|line| line.trim() == "typed after"));
    assert!(vm.shows("typed before"));
    let after = vm.ps();
    for row in before.processes.iter().filter(|row| row.name != "display") {
        assert_eq!(after.process(&row.name), row);
    }
    vm.stop();
}

#[test]
fn a_window_whose_process_dies_comes_back_and_the_guest_stays() {
    let Some(server) = Server::start() else { return };
    let Some((vm, _window)) = with_window(&server) else { return };
    vm.dos("echo typed before");
    let old = vm.pid_of("display");

    kill(old);

    vm.wait_restarted("display", old);
    let window = server.window(vm.name());
    server.type_text(&window, "dir");
    server.press(&window, "Return");
    vm.wait_text("1,337,344 bytes free");
    assert!(vm.shows("typed before"));
    vm.stop();
}

#[test]
fn a_window_opens_for_a_vm_that_was_started_without_a_display_server() {
    let Some(server) = Server::start() else { return };
    let mut vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    vm.home_mut().set_display(Some(&server.display));

    vm.vmsim(&["display", "--display", "window"]).ok();

    let window = server.window(vm.name());
    server.press(&window, "1");
    vm.wait_text("All 256 attributes");
    vm.stop();
}

#[test]
fn without_a_display_server_a_window_is_refused_and_the_guest_runs() {
    let vm = Vm::start(&["--demo", "--display", "window"]);

    vm.wait_text("Press 1 to 6");

    poll("note in the log", PATIENCE, || vm.log(&[]).contains("display server").then_some(()));
    let line = vm.vmsim(&["display", "--display", "window"]).one_line_error();
    assert!(line.contains("display server") && line.contains("--display terminal"), "{line}");
    vm.key("1");
    vm.wait_text("All 256 attributes");
    vm.stop();
}
