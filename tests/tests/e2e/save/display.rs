//! A VM whose window is open.

use super::*;
use crate::display::Server;

/// What a window shows once that does not change any more.
fn steady_picture(server: &Server, window: &str) -> Vec<u8> {
    let mut same = 0;
    let mut last = Vec::new();
    poll("a picture that stands", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(100));
        let picture = server.picture(window);
        same = if picture == last { same + 1 } else { 0 };
        last.clone_from(&picture);
        (same >= 10).then_some(picture)
    })
}

#[test]
fn a_window_shows_the_picture_at_once_after_a_restore() {
    let Some(server) = Server::start() else { return };
    let mut home = Home::new();
    home.set_display(Some(server.display()));
    let vm = Vm::start_in(home, &["--demo", "--display", "window"]);
    vm.wait_text("Press 1 to 6");
    vm.key("2");
    poll("a picture with many colours", PATIENCE, || (vm.screen_png().histogram().len() > 32).then_some(()));
    vm.vmsim(&["pause"]).ok();
    let shown = steady_picture(&server, &server.window(vm.name()));
    let (mut home, file) = suspend(vm, "demo.saved", &[]);
    poll("end of the window", PATIENCE, || (!server.has_window("VMSim")).then_some(()));

    // Without the option there is a window because there was one.
    for display in [&["--display", "window"][..], &[]] {
        let name = home.fresh_name();
        let vm = Vm::adopt(home, name.clone());
        let mut args = vec!["restore", &file, "--name", &name, "--detach", "--paused"];
        args.extend(display);
        vm.home().vmsim(&args).ok();
        let window = server.window(vm.name());
        // Nothing draws: what is to be seen is what was saved.
        poll("the picture in the window", PATIENCE, || (server.picture(&window) == shown).then_some(()));

        vm.vmsim(&["resume"]).ok();
        poll("a picture that moves", PATIENCE, || (server.picture(&window) != shown).then_some(()));
        server.press(&window, "Escape");
        vm.wait_text("Press 1 to 6");
        home = vm.stop();
        poll("end of the window", PATIENCE, || (!server.has_window("VMSim")).then_some(()));
    }
}
