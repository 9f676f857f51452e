//! Only the user who started a VM gets at it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use vmsim_tests::{Home, Missing, PATIENCE, Toy, Vm, is_root, poll, program_in_path, run, skip};

const PERMISSIONS: u32 = 0o777;
/// The user and group that own nothing, on every Linux system.
const NOBODY: &str = "65534";

fn segments(vm: &Vm) -> Vec<PathBuf> {
    let marker = format!("-{}-", vm.name());
    let entries = std::fs::read_dir("/dev/shm").expect("shared memory").flatten();
    let found: Vec<_> = entries.map(|e| e.path()).filter(|p| p.to_string_lossy().contains(&marker)).collect();
    assert!(found.len() >= 4, "board, RAM, screen, links: {found:?}");
    found
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & PERMISSIONS
}

#[test]
fn segments_socket_and_logs_are_for_their_owner_only() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    let place = vm.home().runtime_dir().join("vmsim").join(vm.name());

    for segment in segments(&vm) {
        assert_eq!(mode(&segment), 0o600, "{}", segment.display());
    }
    assert_eq!(mode(place.parent().expect("a folder")), 0o700);
    assert_eq!(mode(&place), 0o700);
    for entry in std::fs::read_dir(&place).expect("the VM's folder").flatten() {
        assert_eq!(mode(&entry.path()) & 0o077, 0, "{}", entry.path().display());
    }
    assert_eq!(mode(&place.join("control")), 0o600);
    vm.stop();
}

#[test]
fn another_user_can_open_nothing_of_a_vm() {
    if !is_root() {
        return skip("becoming another user takes root", Missing::Privilege);
    }
    if program_in_path("setpriv").is_none() {
        return skip("setpriv (package util-linux) is not installed", Missing::Installable);
    }
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    let as_nobody = |script: &str, path: &Path| {
        let mut command = Command::new("setpriv");
        let identity = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()];
        command.args(identity).args(["/bin/sh", "-c", script, "sh"]).arg(path);
        run(command)
    };
    // The other user can do what everybody can: what fails below fails for its reason.
    assert_eq!(as_nobody("cat \"$1\"", Path::new("/etc/passwd")).code, Some(0));

    for segment in segments(&vm) {
        assert_ne!(as_nobody("cat \"$1\" > /dev/null", &segment).code, Some(0), "{}", segment.display());
        assert_ne!(as_nobody("printf x >> \"$1\"", &segment).code, Some(0), "{}", segment.display());
        assert_ne!(as_nobody("rm -f \"$1\"", &segment).code, Some(0), "{}", segment.display());
    }
    // Even if the folders above it were open to all, the socket and the supervisor refuse.
    let place = vm.home().runtime_dir().join("vmsim").join(vm.name());
    assert_ne!(as_nobody("ls \"$1\"", &place).code, Some(0));
    let runtime_dir = vm.home().runtime_dir();
    let top = runtime_dir.parent().expect("the test's folder");
    set_mode(&place, top, 0o755);
    assert_eq!(as_nobody("ls \"$1\"", &place).code, Some(0), "the folders are open now");
    let connect = "import socket, sys\nsocket.socket(socket.AF_UNIX).connect(sys.argv[1])";
    if let Some(python) = program_in_path("python3") {
        let script = format!("{} -c '{connect}' \"$1\"", python.display());
        let said = as_nobody(&script, &place.join("control"));
        assert!(said.code != Some(0) && said.err.contains("Permission"), "{said:?}");
    }
    assert!(as_nobody("cat \"$1\"", &place.join("vmm.log")).code != Some(0));
    set_mode(&place, top, 0o700);
    vm.stop();
}

/// Sets the mode of folders from `place` up to `top`.
fn set_mode(place: &Path, top: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    for folder in place.ancestors().take_while(|folder| folder.starts_with(top)) {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).expect("the folder's mode");
    }
}

/// What the toy device says of each of its attempts to get out of its sandbox, or without one.
fn attempts(args: &[&str]) -> Vec<String> {
    let home = Home::new();
    let toy = Toy::new(&home, "toy", 2);
    toy.tell("escape");
    let option = toy.option();
    let mut all = vec!["--demo", "--device", &option];
    all.extend(args);
    let vm = Vm::start_in(home, &all);
    let lines = poll("the last attempt", PATIENCE, || {
        let lines = toy.seen();
        lines.iter().any(|line| line.starts_with("signal ")).then_some(lines)
    });
    // The device works all the same.
    vm.wait_text("Press 1 to 6");
    assert_eq!(vm.ps().process("toy").restarts, 0);
    vm.stop();
    lines.into_iter().filter(|line| !line.starts_with("starts")).collect()
}

#[test]
fn a_device_process_does_not_get_out_of_its_sandbox() {
    let sandboxed = attempts(&[]);

    assert_eq!(sandboxed.len(), 14);
    for line in &sandboxed {
        assert!(line.contains(" is refused "), "{line}");
    }
    // Without the sandbox the same attempts work, so it is the sandbox that refuses them.
    let free = attempts(&["--no-sandbox"]);
    for line in &free {
        // What is mapped from a file that was opened for reading is read-only for good.
        let expected = if line.starts_with("unlock ") { " is refused " } else { " works " };
        assert!(line.contains(expected), "{line}");
    }
}

/// What of guest RAM a process has mapped, and whether it has it open.
fn ram_of(pid: u32) -> (u64, bool) {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("its mappings");
    let bytes = |line: &str| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some(u64::from_str_radix(end, 16).ok()? - u64::from_str_radix(start, 16).ok()?)
    };
    let mapped = maps.lines().filter(|line| line.ends_with("-ram")).filter_map(bytes).sum();
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its files").flatten();
    let open = files
        .flat_map(|file| std::fs::read_link(file.path()))
        .any(|to| to.to_string_lossy().ends_with("-ram"));
    (mapped, open)
}

#[test]
fn every_device_process_has_the_ram_that_it_may_reach_and_no_other() {
    let home = Home::new();
    let machine =
        home.write("machine.toml", b"ram = \"32M\"\n[device.storage]\ndma = [\"0-640K\", \"1M-8M\"]\n");
    let vm = Vm::start_in(home, &[&machine, "--demo"]);
    vm.wait_text("Press 1 to 6");

    for device in ["gpu", "keyboard"] {
        assert_eq!(ram_of(vm.pid_of(device)), (0, false), "{device}");
    }
    assert_eq!(ram_of(vm.pid_of("chipset")), (16 << 20, false), "what the 8237 can address");
    assert_eq!(ram_of(vm.pid_of("storage")), ((640 << 10) + (7 << 20), false));
    let ps = vm.home().vmsim(&["ps"]).ok();
    for (device, dma) in [("gpu", "-"), ("chipset", "0-16M"), ("storage", "0-640K,1M-8M")] {
        let line = ps.lines().find(|line| line.trim_start().starts_with(device)).expect("a line");
        assert!(line.split_whitespace().any(|word| word == dma), "{ps}");
    }
    // The diskette is read by DMA to where it may.
    assert!(!ps.contains("refused"), "{ps}");
    // A successor has what its predecessor had.
    let old = vm.kill("storage");
    vm.wait_restarted("storage", old);
    assert_eq!(ram_of(vm.pid_of("storage")), ((640 << 10) + (7 << 20), false));
    vm.stop();
}

#[test]
fn every_device_process_is_in_a_sandbox() {
    let vm = Vm::start(&["--demo"]);
    for device in ["chipset", "gpu", "keyboard", "storage"] {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", vm.pid_of(device))).expect("its status");
        let filters = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        assert_eq!(filters.map(str::trim), Some("2"), "{device}: {status}");
    }
    assert_eq!(vm.log(&[]).matches("Sandboxed: files: restricted").count(), 4);
    vm.stop();
}
