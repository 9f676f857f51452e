//! Faults that the machine file asks for, as real guests meet them.

use crate::recovery::{dos_with_toy_in, port};
use vmsim_tests::{Home, PATIENCE, Vm, guest, poll};

/// DOS from a floppy, with a fault of the storage process.
fn dos_with_fault(fault: &str) -> Option<Vm> {
    let image = guest("freedos-1440.img")?;
    let home = Home::new();
    let floppy = home.copy(&image);
    let machine = format!(
        "fault_seed = 7\n[[floppy]]\npath = \"{floppy}\"\n[[fault]]\ndevice = \"storage\"\n{fault}\n"
    );
    let machine = home.write("machine.toml", machine.as_bytes());
    let vm = Vm::start_in(home, &[&machine]);
    vm.wait_prompt();
    Some(vm)
}

fn faults(vm: &Vm) -> Vec<String> {
    let log = vm.log(&["--device", "storage"]);
    let fault = |line: &str| Some(line.split_once("Fault: ")?.1.to_owned());
    log.lines().filter_map(fault).collect()
}

/// DOS copies a file in spite of it; what the log says of the faults, and whether the copy is the same.
fn copies(vm: Vm) -> (Vec<String>, bool) {
    vm.type_text("cls\\ncopy /y command.com copy.com\\n");
    poll("the copy", 4 * PATIENCE, || {
        let text = vm.screen_text().to_lowercase();
        (text.contains("=> copy.com") && text.trim_end().ends_with(r"a:\>")).then_some(())
    });
    let faults = faults(&vm);
    let image = vm.home().file("freedos-1440.img");
    let _home = vm.stop();
    let read = crate::floppy::reader(&image);
    (faults, read("COPY.COM") == read("COMMAND.COM"))
}

#[test]
fn the_guest_reads_all_ones_once_where_a_read_floats() {
    let fault = "[[fault]]\ndevice = \"toy\"\nwhat = \"float-read\"\naddress = 0x300\nat = 2\n";
    let Some((vm, _toy)) = dos_with_toy_in(fault) else { return };
    vm.dos("out300");

    assert_eq!([(); 3].map(|()| port(&vm)), ["5A", "FF", "5A"]);

    assert!(vm.log(&["--device", "toy"]).contains("Fault: read 2, of 0300"));
    vm.stop();
}

#[test]
fn a_process_that_is_killed_at_a_request_goes_on_with_that_request() {
    let Some(vm) = dos_with_fault("what = \"kill\"\nevery = 700") else { return };
    let restarts = vm.ps().process("storage").restarts;
    assert!(restarts > 0);

    let (faults, same) = copies(vm);

    assert!(same, "the copy differs");
    assert!(faults.len() > restarts as usize);
    let numbers: Vec<u64> = faults
        .iter()
        .map(|line| line.split("request ").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok()))
        .collect::<Option<_>>()
        .expect("numbers");
    // No request kills twice.
    assert!(numbers.iter().zip(1..).all(|(number, n)| *number == 700 * n), "{numbers:?}");
}

#[test]
fn dos_copies_although_interrupts_of_the_floppy_are_late_and_repeated() {
    for fault in [
        "what = \"delay-interrupt\"\nirq = 6\nmicros = 2000\nevery = 2",
        "what = \"repeat-interrupt\"\nirq = 6\nevery = 1",
    ] {
        let Some(vm) = dos_with_fault(fault) else { return };
        let (faults, same) = copies(vm);
        assert!(same && faults.len() > 10, "{same} {faults:?}");
    }
}

#[test]
fn dos_tries_again_when_an_interrupt_of_the_floppy_is_dropped() {
    let Some(vm) = dos_with_fault("what = \"drop-interrupt\"\nirq = 6\nat = 180") else { return };

    let (faults, same) = copies(vm);

    assert_eq!(faults, ["interrupt 180 of IRQ 6 is dropped"]);
    assert!(same, "the copy differs");
}

#[test]
fn a_short_transfer_corrupts_the_copy() {
    // Up to its prompt DOS makes some 260 transfers, and as many for the copy, most of them of the file.
    let Some(vm) = dos_with_fault("what = \"short-dma\"\nbytes = 100\nat = 400") else { return };

    let (faults, same) = copies(vm);

    assert_eq!(faults, ["100 bytes of DMA transfer 400, of 512 bytes, arrive"]);
    assert!(!same);
}

#[test]
fn the_same_seed_strikes_at_the_same_numbers() {
    let struck = || {
        let vm = dos_with_fault("what = \"delay-interrupt\"\nirq = 6\nmicros = 100\nchance = 0.1")?;
        let faults = faults(&vm);
        vm.stop();
        Some(faults)
    };
    let (Some(first), Some(second)) = (struck(), struck()) else { return };
    let common = first.len().min(second.len());
    assert!(common > 0 && first[..common] == second[..common], "{first:?} {second:?}");
}
