//! Guests that nobody here wrote start and work.

use std::collections::BTreeMap;
use vmsim_tests::{Home, PATIENCE, Vm, guest, poll};

#[test]
fn freedos_1440_lists_its_directory() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();

    vm.type_text("dir\\n");

    vm.wait_text("1,337,344 bytes free");
    vm.stop();
}

#[test]
fn freedos_360_lists_its_directory() {
    let Some(image) = guest("freedos-360.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();

    vm.type_text("dir\\n");

    vm.wait_text("242,688 bytes free");
    vm.stop();
}

#[test]
fn freedos_720_with_himem_runs_primes() {
    let Some(image) = guest("freedos-720-himem.img") else { return };
    let vm = Vm::with_floppy(&image);
    assert!(vm.wait_prompt().contains("XMS"));

    // Written to a file, as this program does, and shown from there.
    vm.dos("primes /p /n:100");
    let screen = vm.dos("type primes.txt");

    let numbers: Vec<u32> =
        screen.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    let first = numbers.iter().position(|number| *number == 2).expect("the first prime");
    let primes = (2..100u32).filter(|n| (2..*n).all(|divisor| n % divisor != 0)).collect::<Vec<_>>();
    assert_eq!(numbers[first..], primes);
    vm.stop();
}

#[test]
fn vim_edits_a_file_on_the_full_screen() {
    let Some(image) = guest("freedos-720-himem.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    vm.write_with_vim();
    vm.stop();
}

#[test]
fn sierpinski_draws_in_a_graphics_mode() {
    let Some(image) = guest("freedos-720-himem.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();

    vm.type_text("sierpi~1\\n");

    // A triangle of 128 rows in mode 13h: seven times three parts make 3^7 white dots.
    let dots = 3usize.pow(7);
    poll("triangle", PATIENCE, || {
        let picture = vm.screen_png();
        let whole = BTreeMap::from([([0; 3], 320 * 200 - dots), ([0xff; 3], dots)]);
        ((picture.width, picture.height) == (320, 200) && picture.histogram() == whole).then_some(())
    });
    vm.key("esc");
    vm.wait_prompt();
    vm.stop();
}

#[test]
fn mikeos_answers_the_keyboard() {
    let Some(image) = guest("mikeos.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_text("Thanks for trying out MikeOS");

    vm.key("enter");

    vm.wait_text("Please select a file");
    vm.wait_text("KERNEL.BIN");
    vm.key("esc");
    vm.wait_text("Thanks for trying out MikeOS");
    vm.stop();
}

#[test]
fn memtest_runs_its_tests_without_errors() {
    let home = Home::new();
    let image = home.file("memtest.img").display().to_string();
    let made = home.vmsim(&["image", "memtest", &image]);
    if made.code != Some(0) {
        vmsim_tests::skip(made.err.trim(), vmsim_tests::Missing::Installable);
        return;
    }
    let vm = Vm::start_in(home, &["--floppy", &image, "--ram", "16M"]);
    vm.wait_text("Memtest86+");
    let test = |text: &str| {
        let (_, number) = text.split_once("Test #")?;
        number.split_whitespace().next()?.parse::<u32>().ok()
    };

    let first = poll("first memory test", PATIENCE, || test(&vm.screen_text()));
    let later = poll("next memory test", PATIENCE, || test(&vm.screen_text()).filter(|now| *now > first));

    assert!(later > first);
    assert!(vm.shows("Errors: 0"), "{}", vm.screen_text());
    vm.stop();
}
