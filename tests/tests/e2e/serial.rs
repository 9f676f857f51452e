//! Serial ports with input: a socket, a pseudo-terminal, pipes, and a chipset process that dies meanwhile.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use vmsim_tests::{Home, PATIENCE, Vm, poll};

/// A boot sector that says `OK` on COM1 and then sends back every character, plus one.
const BOOT_CODE: &[u8] = &[
    0xfa, // 7c00 cli
    0xba, 0xfb, 0x03, // 7c01 mov dx, 3fbh
    0xb0, 0x83, 0xee, // 7c04 mov al, 83h; out dx, al: divisor latch, 8N1
    0xba, 0xf8, 0x03, 0xb0, 0x01, 0xee, // 7c07 mov dx, 3f8h; mov al, 1; out dx, al: 115200 baud
    0xba, 0xfb, 0x03, 0xb0, 0x03, 0xee, // 7c0d mov dx, 3fbh; mov al, 3; out dx, al
    0xba, 0xfa, 0x03, 0xb0, 0x01, 0xee, // 7c13 mov dx, 3fah; mov al, 1; out dx, al: FIFOs
    0xba, 0xf8, 0x03, // 7c19 mov dx, 3f8h
    0xb0, b'O', 0xee, // 7c1c mov al, 'O'; out dx, al
    0xb0, b'K', 0xee, // 7c1f mov al, 'K'; out dx, al
    0xb2, 0xfd, // 7c22 mov dl, 0fdh
    0xec, // 7c24 in al, dx
    0xa8, 0x01, // 7c25 test al, 1
    0x74, 0xfb, // 7c27 jz 7c24h
    0xb2, 0xf8, // 7c29 mov dl, 0f8h
    0xec, // 7c2b in al, dx
    0xfe, 0xc0, // 7c2c inc al
    0xee, // 7c2e out dx, al
    0xeb, 0xf1, // 7c2f jmp 7c22h
];

/// A VM that runs [`BOOT_CODE`] on the built-in firmware.
pub fn echoing(args: &[&str]) -> Vm {
    let home = Home::new();
    let mut floppy = vec![0; 1440 << 10];
    floppy[..BOOT_CODE.len()].copy_from_slice(BOOT_CODE);
    floppy[510..512].copy_from_slice(&[0x55, 0xaa]);
    let image = home.write("echo.img", &floppy);
    let mut all = vec!["--demo", "--floppy", &image];
    all.extend(args);
    Vm::start_in(home, &all)
}

fn place(vm: &Vm) -> PathBuf {
    vm.home().runtime_dir().join("vmsim").join(vm.name()).join("serial1")
}

/// Connects when the port is free.
pub fn connect(vm: &Vm) -> UnixStream {
    let stream = poll("free serial port", PATIENCE, || {
        let free = !vm.home().vmsim(&["ps"]).ok().contains(", connected");
        free.then(|| UnixStream::connect(place(vm)).ok()).flatten()
    });
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

/// Reads what must come next.
pub fn expect(from: &mut impl Read, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    from.read_exact(&mut got).expect("what the guest sends");
    assert_eq!(got, wanted);
}

/// What the guest answers.
pub fn incremented(data: &[u8]) -> Vec<u8> {
    data.iter().map(|byte| byte.wrapping_add(1)).collect()
}

#[test]
fn a_client_gets_what_was_said_before_it_came_and_its_input_reaches_the_guest() {
    let vm = echoing(&[]);
    let mut first = connect(&vm);
    expect(&mut first, b"OK");
    first.write_all(b"HAL").expect("input");
    expect(&mut first, b"IBM");
    let mut second = UnixStream::connect(place(&vm)).expect("a second client");
    second.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    assert_eq!(second.read(&mut [0]).expect("the end"), 0, "one client at a time");
    drop(first);

    let mut next = connect(&vm);
    next.write_all(b"abc").expect("input");
    expect(&mut next, b"bcd");
    vm.stop();
    assert_eq!(next.read(&mut [0]).expect("the end"), 0);
}

/// More than all buffers hold is sent at once; nothing is lost or doubled, whatever happens to the UART's process.
#[test]
fn the_chipset_dies_while_characters_go_in_and_out() {
    let vm = echoing(&[]);
    let mut line = connect(&vm);
    expect(&mut line, b"OK");
    let data: Vec<u8> = (0..40_000u32).map(|n| (n ^ n >> 8) as u8).collect();
    let (mut sender, sent) = (line.try_clone().expect("the socket"), data.clone());
    let sending = std::thread::spawn(move || sender.write_all(&sent));
    let wanted = incremented(&data);
    let mut rest = wanted.as_slice();
    for _ in 0..5 {
        let (part, after) = rest.split_at(4000);
        expect(&mut line, part);
        let old = vm.kill("chipset");
        vm.wait_restarted("chipset", old);
        rest = after;
    }
    expect(&mut line, rest);
    sending.join().expect("the sender").expect("the socket outlives the chipset");
    line.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out");
    assert!(line.read(&mut [0]).is_err(), "a character came twice");
    vm.stop();
}

#[test]
fn a_pipe_talks_to_the_guest() {
    let vm = echoing(&[]);
    let talk = |args: &[&str], input: &[u8]| {
        let mut all = vec!["serial", "--vm", vm.name()];
        all.extend(args);
        let mut command = vm.home().command(&all);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("vmsim serial");
        child.stdin.take().expect("its input").write_all(input).expect("its input");
        let output = child.wait_with_output().expect("its end");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(talk(&["--wait-text", "OK"], b""), (Some(0), "OK".into()));
    assert_eq!(talk(&[], b"HAL"), (Some(0), "IBM".into()));
    assert_eq!(talk(&["--wait-text", "never", "--timeout", "0.5"], b"x"), (Some(1), "y".into()));
    let refused = vm.vmsim(&["serial", "--port", "2"]).one_line_error();
    assert!(refused.contains("COM2") && refused.contains("serial2"), "{refused}");
    vm.stop();
}

#[test]
fn a_pseudo_terminal_is_a_serial_line() {
    let vm = echoing(&["--serial", "pty"]);
    let said = vm.home().vmsim(&["ps"]).ok();
    assert!(said.contains("serial1 -> /dev/pts/"), "{said}");
    let open = || {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let noctty = rustix::fs::OFlags::NOCTTY.bits() as i32;
        std::fs::File::options()
            .read(true)
            .write(true)
            .custom_flags(nonblocking | noctty)
            .open(place(&vm))
            .expect("the pseudo-terminal")
    };
    let read = |line: &mut std::fs::File, wanted: &[u8]| {
        let mut got: Vec<u8> = Vec::new();
        poll("echo on the pseudo-terminal", PATIENCE, || {
            let mut buffer = [0; 64];
            if let Ok(count) = line.read(&mut buffer) {
                got.extend(&buffer[..count]);
            }
            (got.len() >= wanted.len()).then_some(())
        });
        assert_eq!(got, wanted);
    };
    let mut line = open();
    read(&mut line, b"OK");
    // Control characters arrive as they are, and none comes back by itself.
    line.write_all(b"\x02\x03\r").expect("input");
    read(&mut line, b"\x03\x04\x0e");
    drop(line);
    let mut line = open();
    line.write_all(b"HAL").expect("input");
    read(&mut line, b"IBM");
    vm.stop();
}

/// `vmsim run --serial stdio` with pipes for a terminal.
#[test]
fn standard_input_and_output_are_a_serial_line() {
    let home = Home::new();
    let mut floppy = vec![0; 1440 << 10];
    floppy[..BOOT_CODE.len()].copy_from_slice(BOOT_CODE);
    floppy[510..512].copy_from_slice(&[0x55, 0xaa]);
    let image = home.write("echo.img", &floppy);
    let name = home.fresh_name();
    let args = ["run", "--name", &name, "--demo", "--floppy", &image, "--display", "none", "--serial", "-"];
    let mut command = home.command(&args);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("vmsim run");
    let mut out = child.stdout.take().expect("its output");
    expect(&mut out, b"OK");
    let mut input = child.stdin.take().expect("its input");
    input.write_all(b"HAL").expect("its input");
    expect(&mut out, b"IBM");
    let vm = Vm::adopt(home, name.clone());
    let refused = vm.home().vmsim(&["run", "--demo", "--serial", "stdio", "--display", "none", "--detach"]);
    assert!(refused.one_line_error().contains("--detach"));
    vm.stop();
    assert!(child.wait().expect("its end").success());
}
