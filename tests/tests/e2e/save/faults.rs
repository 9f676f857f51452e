//! Faults of the machine file that are under way.

use super::*;

/// How late the keyboard's interrupts are, virtual seconds.
const LATE: f64 = 6.0;

/// DOS, at whose prompt a key was pressed whose interrupt has a fault, and when that was.
fn dos_with_keyboard_fault(what: &str) -> Option<(Vm, f64)> {
    let image = guest("freedos-1440.img")?;
    let home = Home::new();
    let floppy = home.copy(&image);
    let rule = format!("[[fault]]\ndevice = \"keyboard\"\nirq = 1\nevery = 1\n{what}\n");
    let machine = format!("[[floppy]]\npath = \"{floppy}\"\n{rule}");
    let machine = home.write("machine.toml", machine.as_bytes());
    let vm = Vm::start_in(home, &[&machine]);
    vm.wait_prompt();
    let faults = || vm.log(&["--device", "keyboard"]).matches("Fault: interrupt").count();
    let (before, seconds) = (faults(), vm.ps().seconds);
    vm.type_text("x");
    poll("the fault", PATIENCE, || (faults() > before).then_some(()));
    assert!(!is_typed(&vm));
    Some((vm, seconds))
}

fn is_typed(vm: &Vm) -> bool {
    vm.screen_text().trim_end().ends_with(r"A:\>x")
}

#[test]
fn an_interrupt_that_is_late_is_as_late_after_a_restore() {
    let what = format!("what = \"delay-interrupt\"\nmicros = {}", LATE * 1e6);
    let Some((vm, typed)) = dos_with_keyboard_fault(&what) else { return };
    let (home, file) = suspend(vm, "dos.saved", &[]);

    let vm = restore(home, &file, &[]);

    let passed = poll("what was typed", PATIENCE, || is_typed(&vm).then(|| vm.ps().seconds - typed));
    assert!(passed > LATE, "it came after {passed} s");
    vm.stop();
}

#[test]
fn an_interrupt_that_was_dropped_does_not_come_after_a_restore() {
    let Some((vm, _)) = dos_with_keyboard_fault("what = \"drop-interrupt\"") else { return };
    let (home, file) = suspend(vm, "dos.saved", &[]);

    let vm = restore(home, &file, &[]);

    let seconds = vm.ps().seconds;
    poll("a second", PATIENCE, || (vm.ps().seconds > seconds + 1.0).then_some(()));
    assert!(!is_typed(&vm));
    vm.stop();
}
