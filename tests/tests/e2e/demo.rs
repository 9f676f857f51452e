//! The built-in demo, which needs nothing else on the machine.

use vmsim_tests::{Home, Missing, PATIENCE, Vm, poll, skip};

/// The demo floppy as a file in new surroundings.
fn with_demo_floppy() -> (Home, String) {
    let home = Home::new();
    let image = home.file("demo.img").display().to_string();
    home.vmsim(&["image", "demo", &image]).ok();
    (home, image)
}

#[test]
fn menu_opens_every_page_and_comes_back() {
    let vm = Vm::start(&["--demo"]);
    for (key, shown) in [("1", "All 256 attributes"), ("3", "Type something"), ("5", "Read by INT 13h")] {
        vm.wait_text("Press 1 to 6");
        vm.key(key);
        vm.wait_text(shown);
        vm.key("esc");
    }
    vm.wait_text("Press 1 to 6");
    vm.stop();
}

#[test]
fn graphics_page_shows_mode_13h() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");

    vm.key("2");

    let picture = poll("picture with many colours", PATIENCE, || {
        let picture = vm.screen_png();
        (picture.histogram().len() > 32).then_some(picture)
    });
    assert_eq!((picture.width % 320, picture.height % 200), (0, 0));
    assert!(vm.vmsim(&["screen", "--text"]).one_line_error().contains("--png"));
    vm.key("esc");
    vm.wait_text("Press 1 to 6");
    vm.stop();
}

#[test]
fn echo_page_shows_what_is_typed() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    vm.key("3");
    vm.wait_text("Type something");

    vm.type_text("The quick brown fox: 0123456789 <{[(#$%&*+=)]}>");

    vm.wait_text("The quick brown fox: 0123456789 <{[(#$%&*+=)]}>");
    vm.stop();
}

#[test]
fn demo_floppy_boots_on_the_built_in_firmware_and_echoes_keys() {
    let (home, image) = with_demo_floppy();
    let vm = Vm::start_in(home, &["--demo", "--floppy", &image]);
    vm.wait_text("signature 55 AA found");

    vm.type_text("Hello, floppy");

    vm.wait_text("Hello, floppy");
    vm.stop();
}

#[test]
fn demo_floppy_boots_under_seabios() {
    let (home, image) = with_demo_floppy();
    let firmware = home.vmsim(&["firmware"]);
    if firmware.code != Some(0) {
        return skip(firmware.err.trim(), Missing::Installable);
    }
    let vm = Vm::start_in(home, &["--floppy", &image]);
    vm.wait_text("signature 55 AA found");

    vm.type_text("Hello, SeaBIOS");

    vm.wait_text("Hello, SeaBIOS");
    vm.stop();
}
