//! A device process, and somebody at the control socket, that do their worst: the VM lives.

use crate::floppy::with_program;
use ipc::control::{Request, Role};
use ipc::message::PROTOCOL_VERSION;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vmsim_tests::{Home, PATIENCE, Vm, cpu_time, guest, poll};

/// HAMMER.COM: reads and writes port 300h until a key is pressed.
const HAMMER: &[u8] = &[
    0xb9, 0x00, 0x10, // again: mov cx, 1000h
    0xba, 0x00, 0x03, // mov dx, 300h
    0xec, // next: in al, dx
    0xee, // out dx, al
    0xe2, 0xfc, // loop next
    0xb4, 0x01, // mov ah, 1
    0xcd, 0x16, // int 16h
    0x74, 0xf0, // jz again
    0xb4, 0x00, // mov ah, 0
    0xcd, 0x16, // int 16h
    0xcd, 0x20, // int 20h
];

/// Attacks, unless the variable says otherwise.
const ATTACKS: u64 = 100_000;
/// How long they may take at most.
const TIME: Duration = Duration::from_secs(120);

fn attacks(seen: &Path) -> u64 {
    let text = std::fs::read_to_string(seen).unwrap_or_default();
    text.lines().filter_map(|line| line.parse::<u64>().ok()).sum()
}

fn attacks_wanted() -> u64 {
    let wanted = std::env::var("VMSIM_HOSTILE_MESSAGES").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or(ATTACKS)
}

/// A VM with DOS from a copy of `image` with HAMMER.COM, and a hostile device process whose executable has this name; and the
/// file that says what it does.
fn attacked_vm(image: &Path, name: &str) -> (Vm, PathBuf) {
    let home = Home::new();
    let floppy = with_program(&home, image, "HAMMER.COM", HAMMER);
    let exe = home.file(name);
    std::os::unix::fs::symlink(Home::built("hostile-device"), &exe).expect("a link");
    // By its name its link is the last.
    let option = format!("worst={}", exe.display());
    let vm = Vm::start_in(home, &["--floppy", &floppy, "--no-sandbox", "--device", &option]);
    (vm, exe.with_extension("seen"))
}

#[test]
fn a_hostile_device_process_ends_neither_the_vm_nor_the_guest() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let wanted = attacks_wanted();
    let (vm, seen) = attacked_vm(&image, "hostile");
    let vmm = vm.pid_of("vmm");
    vm.wait_prompt();
    vm.type_text("hammer\\n");

    let started = Instant::now();
    while attacks(&seen) < wanted {
        assert!(started.elapsed() < TIME.max(Duration::from_millis(wanted)), "{} attacks", attacks(&seen));
        let status = vm.ps();
        assert_eq!(status.process("vmm").pid, Some(vmm));
        if status.process("worst").state == "offline" {
            // A device that does not come back, or not yet, is what such a one deserves.
            let _ = vm.vmsim(&["device", "restart", "worst", "--state", "cold"]);
        }
        std::thread::sleep(Duration::from_millis(50));
    }

    // Whatever state it is in, the guest goes on without it.
    let asked = Instant::now();
    vm.type_text("x");
    poll("the prompt", PATIENCE, || {
        // The watchdog takes a while for one that holds up the guest.
        let text = vm.screen_text();
        (text.trim_end().ends_with(r"A:\>") || text.trim_end().ends_with(r"A:\>x")).then_some(())
    });
    let stolen: Vec<_> = std::fs::read_to_string(&seen)
        .unwrap_or_default()
        .lines()
        .filter(|line| line.contains(' '))
        .map(str::to_owned)
        .collect();
    assert!(stolen.is_empty(), "RAM outside its range: {stolen:?}");
    println!("{} attacks; the guest is back after {:?}", attacks(&seen), asked.elapsed());
    assert_eq!(vm.ps().process("vmm").pid, Some(vmm));
    vm.stop();
}

#[test]
fn a_call_of_the_vcpu_for_nothing_does_not_keep_it_from_sleeping() {
    let Some(image) = guest("mikeos.img") else { return };
    let (vm, _) = attacked_vm(&image, "hostile-board");
    let vmm = vm.pid_of("vmm");

    // The call was made while it started.
    vm.wait_text("Thanks for trying out MikeOS");

    poll("a guest that sleeps", PATIENCE, || {
        let before = cpu_time(vmm);
        std::thread::sleep(Duration::from_secs(1));
        (cpu_time(vmm) - before < Duration::from_millis(250)).then_some(())
    });
    vm.stop();
}

#[test]
fn a_device_process_that_writes_all_over_the_board_ends_neither_vmm_nor_supervisor() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let wanted = attacks_wanted();
    let (vm, seen) = attacked_vm(&image, "hostile-board");
    let vmm = vm.pid_of("vmm");
    vm.wait_prompt();
    std::fs::write(seen.with_extension("go"), "").expect("a file");

    let started = Instant::now();
    while attacks(&seen) < wanted {
        assert!(started.elapsed() < TIME.max(Duration::from_millis(wanted)), "{} attacks", attacks(&seen));
        // Time, lines and the memory map are anybody's guess: what the guest makes of them does not matter here.
        let status = vm.ps();
        assert_eq!(status.process("vmm").pid, Some(vmm), "{status:?}");
        if status.process("worst").state == "offline" {
            let _ = vm.vmsim(&["device", "restart", "worst", "--state", "cold"]);
        }
        std::thread::sleep(Duration::from_millis(50));
    }

    // It still does what it is told, and ends in order.
    let registers = vm.vmsim(&["regs"]).ok();
    assert!(registers.to_lowercase().contains("eip"), "{registers}");
    vm.vmsim(&["reset"]).ok();
    println!("{} attacks on the board: {:?}", attacks(&seen), vm.ps());
    vm.stop();
}

/// Connects to the control socket and says the version.
fn connect(vm: &Vm) -> UnixStream {
    let socket = vm.home().runtime_dir().join("vmsim").join(vm.name()).join("control");
    let mut stream = UnixStream::connect(socket).expect("somebody listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    stream.write_all(&PROTOCOL_VERSION.to_le_bytes()).expect("it is read");
    stream.read_exact(&mut [0; 4]).expect("a version");
    stream
}

/// Sends bytes and reads what comes, if anything does before the connection ends.
fn say(stream: &mut UnixStream, bytes: &[u8]) {
    // It may be closed by now.
    let _ = stream.write_all(&(bytes.len() as u32).to_le_bytes());
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut [0; 4096]);
}

#[test]
fn nonsense_at_the_control_socket_harms_nobody() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    let pids = vm.ps().pids();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut half_open = Vec::new();
    for round in 0..500u32 {
        let mut stream = connect(&vm);
        let mut bytes: Vec<u8> = (0..next() % 200).map(|_| next() as u8).collect();
        // Stop, Reset and the like are what a client may ask for: numbers of requests that are only questions, with
        // garbage behind them.
        if let Some(first) = bytes.first_mut() {
            *first = [0, 1, 11, 12, 200, 255][(next() % 6) as usize];
        }
        match round % 5 {
            0 => drop(stream.write_all(&u32::MAX.to_le_bytes())),
            1 => {
                // More is said to come than comes.
                drop(stream.write_all(&1000u32.to_le_bytes()));
                drop(stream.write_all(&bytes));
                half_open.push(stream);
            }
            2 => {
                let role = Role::Device(["gpu", "keyboard", "nobody"][(next() % 3) as usize].into());
                let server = ["", "/", "/nowhere", "/dev/null"][(next() % 4) as usize].into();
                let request = Request::Attach { role, pid: next() as u32, server, build: "x".repeat(1000) };
                drop(ipc::control::send(&mut stream, &request));
                drop(stream.read(&mut [0; 4096]));
            }
            3 => {
                let request = Request::StandBy { pid: next() as u32, versions: vec![0xffff; 100] };
                drop(ipc::control::send(&mut stream, &request));
                drop(stream.read(&mut [0; 4096]));
            }
            _ => say(&mut stream, &bytes),
        }
    }
    assert_eq!(vm.ps().pids(), pids);
    vm.key("3");
    vm.wait_text("Type something");
    drop(half_open);
    vm.stop();
}

#[test]
fn a_process_that_attaches_and_does_not_listen_holds_up_nobody() {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect as join, listen, socket_with,
    };
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    // A server whose queue is full: whoever connects waits.
    let path = vm.home().file("deaf");
    let address = SocketAddrUnix::new(&path).expect("a path");
    let socket =
        |flags| socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a socket");
    let deaf = socket(SocketFlags::empty());
    bind(&deaf, &address).expect("a place");
    listen(&deaf, 0).expect("a listener");
    let mut waiting = Vec::new();
    loop {
        let client = socket(SocketFlags::NONBLOCK);
        if join(client.as_fd(), &address).is_err() {
            break;
        }
        waiting.push(client);
    }
    let mut stream = connect(&vm);
    let pid = vm.pid_of("storage");
    let server = path.display().to_string();
    let request = Request::Attach { role: Role::Device("storage".into()), pid, server, build: "deaf".into() };

    ipc::control::send(&mut stream, &request).expect("it is read");

    std::thread::sleep(Duration::from_millis(200));
    let asked = Instant::now();
    assert!(vm.ps().process("storage").pid == Some(pid));
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "the supervisor waits for somebody who does not listen"
    );
    vm.key("3");
    vm.wait_text("Type something");
    vm.stop();
}
