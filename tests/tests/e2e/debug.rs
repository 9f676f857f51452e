//! Looking at the guest and debugging it: `vmsim regs`, `disasm`, `mem`, `trace`, and GDB.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use vmsim_tests::{Home, Missing, PATIENCE, Vm, poll, program_in_path, run, skip};

/// A boot sector whose loop at 7C18h counts in memory, writes a port, and raises INT 60h and a divide error.
const BOOT_CODE: &[u8] = &[
    0x31, 0xc0, // 7c00 xor ax, ax
    0x8e, 0xd8, // 7c02 mov ds, ax
    0xc7, 0x06, 0x80, 0x01, 0x30, 0x7c, // 7c04 mov word [180h], 7c30h
    0xa3, 0x82, 0x01, // 7c0a mov [182h], ax
    0xc7, 0x06, 0x00, 0x00, 0x31, 0x7c, // 7c0d mov word [0], 7c31h
    0xa3, 0x02, 0x00, // 7c13 mov [2], ax
    0x31, 0xc9, // 7c16 xor cx, cx
    0xff, 0x06, 0x00, 0x06, // 7c18 inc word [600h]
    0xe6, 0x80, // 7c1c out 80h, al
    0xcd, 0x60, // 7c1e int 60h
    0xf7, 0xf1, // 7c20 div cx
    0xfb, // 7c22 sti
    0xeb, 0xf3, // 7c23 jmp 7c18h
    0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, // to 7c30
    0xcf, // 7c30 iret
    0x55, // 7c31 push bp
    0x89, 0xe5, // 7c32 mov bp, sp
    0x83, 0x46, 0x02, 0x02, // 7c34 add word [bp+2], 2: past the division
    0x5d, // 7c38 pop bp
    0xcf, // 7c39 iret
];

/// A VM that runs [`BOOT_CODE`] on the built-in firmware.
fn counting(args: &[&str]) -> Vm {
    let home = Home::new();
    let mut floppy = vec![0; 1440 << 10];
    floppy[..BOOT_CODE.len()].copy_from_slice(BOOT_CODE);
    floppy[510..512].copy_from_slice(&[0x55, 0xaa]);
    let image = home.write("count.img", &floppy);
    let mut all = vec!["--demo", "--floppy", &image];
    all.extend(args);
    Vm::start_in(home, &all)
}

/// Waits until the guest counts.
fn wait_counting(vm: &Vm) {
    let counter = || vm.vmsim(&["mem", "phys:600", "-n", "2"]).ok();
    poll("code of the boot sector", PATIENCE, || {
        vm.vmsim(&["mem", "7c18", "-n", "2"]).ok().contains("ff 06").then_some(())
    });
    poll("counter that counts", PATIENCE, || {
        let before = counter();
        std::thread::sleep(Duration::from_millis(20));
        (counter() != before).then_some(())
    });
}

fn socket(vm: &Vm) -> std::path::PathBuf {
    vm.home().runtime_dir().join("vmsim").join(vm.name()).join("gdb")
}

/// Runs GDB on a script; returns what it said. `None` without GDB.
fn gdb(vm: &Vm, address: &str, script: &str) -> Option<String> {
    let Some(program) = program_in_path("gdb") else {
        skip("gdb is not installed", Missing::Installable);
        return None;
    };
    let text = format!(
        "set pagination off\nset confirm off\nset architecture i8086\ntarget remote {address}\n{script}"
    );
    let path = vm.home().write("script.gdb", text.as_bytes());
    let mut command = Command::new(program);
    command.args(["-nx", "-batch", "-x", &path]).env("HOME", vm.home().temporary_dir()).env("LC_ALL", "C");
    let said = run(command);
    Some(format!("{}{}", said.out, said.err))
}

#[track_caller]
fn assert_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => panic!("{part:?} is missing, or not in its place, in:\n{text}"),
        }
    }
}

#[test]
fn registers_code_and_memory_of_a_running_and_of_a_paused_guest() {
    let vm = counting(&[]);
    wait_counting(&vm);

    assert!(vm.vmsim(&["regs"]).ok().contains("real mode, CPL 0"));
    let code = vm.vmsim(&["disasm", "7c18", "-n", "3"]).ok();
    assert_in_order(
        &code,
        &["00007c18  ff060006", "inc word [0x600]", "00007c1c  e680", "out 0x80, al", "int 0x60"],
    );
    assert!(vm.vmsim(&["disasm", "07c0:0023", "-n", "1"]).ok().starts_with("07c0:0023  ebf3"));
    assert!(vm.vmsim(&["mem", "07c0:001c", "-n", "2"]).ok().starts_with("07c0:001c  e6 80 "));
    assert!(vm.vmsim(&["mem", "7c1c", "-n", "2"]).ok().starts_with("00007c1c  e6 80 "));
    assert!(vm.vmsim(&["mem", "phys:7c1c", "-n", "2"]).ok().starts_with("phys:00007c1c  e6 80 "));

    vm.vmsim(&["pause"]).ok();
    poll("pause", PATIENCE, || (vm.ps().state == "paused").then_some(()));
    let registers = vm.vmsim(&["regs"]).ok();
    for name in ["EAX ", "EFLAGS ", "CS   ", "LDTR ", "GDTR ", "CR0 ", "DR7 ", "ST0 ", "XMM7 ", "MXCSR "] {
        assert!(registers.contains(name), "{name} is missing in:\n{registers}");
    }
    assert_eq!(vm.vmsim(&["regs"]).ok(), registers);
    let next = vm.vmsim(&["disasm", "-n", "1"]).ok();
    assert_eq!(registers.lines().next(), next.lines().next());
    vm.vmsim(&["resume"]).ok();
    wait_counting(&vm);

    assert!(vm.vmsim(&["mem", "0", "-n", "999999"]).one_line_error().contains("At most"));
    vm.stop();
}

#[test]
fn trace_shows_ports_exceptions_and_interrupts() {
    let vm = counting(&[]);
    wait_counting(&vm);

    let ports = vm.vmsim(&["trace", "--ports=80", "-n", "3"]).ok();
    // A guest that makes more records than the tracer fetches is no failure.
    let is_record = |line: &&str| !line.contains(" records lost");
    assert_eq!(ports.lines().filter(is_record).count(), 3);
    let mut records = ports.lines().filter(is_record);
    assert!(records.all(|line| line.contains("0000:00007c1e out       0080.1 <- 00")), "{ports}");
    let exceptions = vm.vmsim(&["trace", "--exceptions", "--limit", "2"]).ok();
    let mut records = exceptions.lines().filter(is_record);
    assert!(records.all(|line| line.ends_with("0000:00007c20 exception 00 #DE")), "{exceptions}");
    let everything = vm.vmsim(&["trace", "-n", "20"]).ok();
    for part in ["int       60 EAX", "#DE", "0080.1"] {
        assert!(everything.contains(part), "{part} is missing in:\n{everything}");
    }
    let times: Vec<f64> =
        everything.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    assert!(times.is_sorted() && times.len() >= 20 && times[0] > 0.0, "{everything}");
    assert!(vm.vmsim(&["trace", "--ports=zz"]).one_line_error().contains("hexadecimal"));
    wait_counting(&vm);
    vm.stop();

    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    assert!(vm.vmsim(&["trace", "--interrupts", "-n", "5"]).ok().contains("interrupt 08"));
    vm.stop();
}

#[test]
fn gdb_breaks_steps_watches_and_lets_go() {
    let vm = counting(&["--wait-gdb"]);
    assert_eq!(vm.ps().instructions, 0);
    assert_eq!(vm.ps().state, "held by a debugger");
    assert_eq!(vm.ps().seconds, 0.0);
    let script = "\
printf \"start %x\\n\", $eip
monitor regs
hbreak *0x7c00
continue
printf \"boot %x\\n\", $eip
x/4xb 0x7c00
delete
break *0x7c1c
continue
printf \"break %x\\n\", $eip
stepi
printf \"step %x\\n\", $eip
continue
printf \"again %x\\n\", $eip
delete
watch *(unsigned short *)0x600
continue
continue
printf \"watch %x\\n\", $eip
delete
set var *(unsigned short *)0x602 = 0x5a17
set $ebx = 0x1234
printf \"ebx %x\\n\", $ebx
monitor xp 602 2
detach
";
    let Some(said) = gdb(&vm, &socket(&vm).display().to_string(), script) else { return };

    assert_in_order(
        &said,
        &[
            "start fff0",
            "boot 7c00",
            "0x31\t0xc0\t0x8e\t0xd8",
            "break 7c1c",
            "step 7c1e",
            "again 7c1c",
            "Hardware watchpoint",
            "watch 7c1c",
            "ebx 1234",
            "detached",
        ],
    );
    for part in ["f000:fff0  ", "real mode", "phys:00000602  17 5a"] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
    wait_counting(&vm);
    assert_ne!(vm.ps().state, "held by a debugger");
    vm.stop();
}

#[test]
fn a_debugger_stops_time_and_one_that_is_lost_lets_go() {
    let vm = counting(&[]);
    wait_counting(&vm);
    let command = vm.vmsim(&["gdb"]).ok();
    assert_eq!(command.trim_end(), format!("gdb -ex 'target remote {}'", socket(&vm).display()));
    assert_eq!(vm.vmsim(&["gdb"]).ok(), command);

    let debugger = UnixStream::connect(socket(&vm)).expect("the stub listens");

    let held = poll("a guest that is held", PATIENCE, || {
        Some(vm.ps()).filter(|status| status.state == "held by a debugger")
    });
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((vm.ps().seconds, vm.ps().instructions), (held.seconds, held.instructions));
    assert!(vm.vmsim(&["regs"]).ok().contains("real mode"));
    drop(debugger);
    wait_counting(&vm);
    vm.stop();
}

#[test]
fn a_debugger_over_tcp_can_reset_and_kill() {
    let vm = counting(&[]);
    wait_counting(&vm);
    let command = vm.vmsim(&["gdb", "--port", "0"]).ok();
    let address =
        command.trim_end().trim_end_matches('\'').rsplit(' ').next().expect("an address").to_owned();
    assert!(address.starts_with("127.0.0.1:"), "{command}");
    let script = "\
monitor reset
maintenance flush register-cache
printf \"after reset %x\\n\", $eip
kill
";
    let Some(said) = gdb(&vm, &address, script) else { return };

    assert!(said.contains("after reset fff0") && said.contains("The machine is reset"), "{said}");
    vm.assert_nothing_left(Duration::from_secs(10));
}

#[test]
fn a_second_debugger_is_turned_away_and_ctrl_c_stops_a_running_guest() {
    let vm = counting(&["--gdb=tcp:0"]);
    wait_counting(&vm);
    let command = vm.vmsim(&["gdb", "--port", "0"]).ok();
    let address =
        command.trim_end().trim_end_matches('\'').rsplit(' ').next().expect("an address").to_owned();
    let mut first = TcpStream::connect(&address).expect("the stub listens");
    first.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    first.write_all(b"$?#3f").expect("a packet");
    read_until(&mut first, "#");

    let mut second = TcpStream::connect(&address).expect("the stub listens");
    second.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    assert_eq!(second.read(&mut [0; 8]).expect("an end"), 0);

    first.write_all(b"+$c#63").expect("a packet");
    wait_counting(&vm);
    first.write_all(&[3]).expect("Ctrl-C");
    assert!(read_until(&mut first, "#").contains("02"));
    // The answer to Ctrl-C may be here before the board says what the vCPU does now.
    poll("guest held by the debugger", PATIENCE, || (vm.ps().state == "held by a debugger").then_some(()));
    first.write_all(b"+$D#44").expect("a packet");
    wait_counting(&vm);
    vm.stop();
}

/// A packet of GDB's remote protocol, with its sum.
fn packet(text: &str) -> String {
    let sum = text.bytes().fold(0_u8, |sum, byte| sum.wrapping_add(byte));
    format!("${text}#{sum:02x}")
}

#[test]
fn breakpoints_count_for_a_debugger_that_lets_go_before_the_stop_is_noticed() {
    let vm = counting(&[]);
    wait_counting(&vm);
    vm.vmsim(&["gdb"]).ok();
    let mut debugger = UnixStream::connect(socket(&vm)).expect("the stub listens");
    debugger.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    debugger.write_all(packet("?").as_bytes()).expect("a packet");
    read_until(&mut debugger, "#");
    debugger.write_all(format!("+{}", packet("c")).as_bytes()).expect("a packet");
    wait_counting(&vm);

    let ctrl_c = '\x03';
    let all = format!("{ctrl_c}+{}+{}", packet("Z0,7c1c,2"), packet("c"));
    debugger.write_all(all.as_bytes()).expect("packets");

    assert!(read_until(&mut debugger, "#").contains("02"));
    assert!(read_until(&mut debugger, "#").contains("OK"));
    assert!(read_until(&mut debugger, "#").contains("$T05"));
    drop(debugger);
    wait_counting(&vm);
    vm.stop();
}

/// Reads until `end` was read, and then the rest of that packet's sum.
fn read_until(stream: &mut impl Read, end: &str) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.contains(end) {
        stream.read_exact(&mut byte).expect("an answer");
        text.push(char::from(byte[0]));
    }
    stream.read_exact(&mut [0; 2]).expect("the sum");
    text
}

#[test]
fn places_to_listen_that_cannot_be_had_are_named() {
    let home = Home::new();
    let name = home.fresh_name();
    let blocked = Path::new("/nonexistent/gdb");
    let place = format!("--gdb=unix:{}", blocked.display());
    let error = home.vmsim(&["run", "--demo", "--name", &name, "--display", "none", &place]).one_line_error();
    assert!(error.contains("/nonexistent/gdb"), "{error}");
    assert!(home.left_of(&name).is_empty());
}
