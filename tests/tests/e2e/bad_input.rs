//! What cannot work ends with one line that says what to do, and leaves nothing behind.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use vmsim_tests::{Home, Missing, PATIENCE, Vm, guest, is_root, poll, program_in_path, run, skip};

/// Runs a VM that cannot start, detached and in the foreground, and checks what is said of it
/// both times: one line with each of `words`.
#[track_caller]
fn refused(home: &Home, args: &[&str], words: &[&str]) {
    for detach in [true, false] {
        refused_with(home, args, words, detach, |_| {});
    }
}

#[track_caller]
fn refused_with(
    home: &Home,
    args: &[&str],
    words: &[&str],
    detach: bool,
    environment: impl Fn(&mut Command),
) {
    let name = home.fresh_name();
    let mut all = vec!["run", "--name", &name, "--display", "none"];
    all.extend(detach.then_some("--detach"));
    all.extend(args);
    let mut command = home.command(&all);
    environment(&mut command);

    let line = run(command).one_line_error();

    for word in words {
        assert!(line.contains(word), "no '{word}' in: {line}");
    }
    assert_eq!(home.left_of(&name), [] as [String; 0]);
    assert_eq!(home.temporary_files(), [] as [std::path::PathBuf; 0]);
}

fn executable(home: &Home, name: &str, script: &str) -> String {
    let path = home.write(name, script.as_bytes());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("an executable");
    path
}

#[test]
fn missing_image() {
    let home = Home::new();
    let path = home.file("none.img").display().to_string();
    refused(&home, &["--demo", "--floppy", &path], &[&path, "image"]);
    refused(&home, &["--demo", "--disk", &path], &[&path, "image"]);
}

#[test]
fn image_that_is_a_folder() {
    let home = Home::new();
    let path = home.temporary_dir().display().to_string();
    refused(&home, &["--demo", "--floppy", &path], &[&path, "not a file"]);
}

#[test]
fn truncated_images() {
    let home = Home::new();
    let floppy = home.write("short-floppy.img", &[0; 700_000]);
    let disk = home.write("short-disk.img", &[0; 1_000_001]);
    let empty = home.write("empty.img", &[]);
    refused(&home, &["--demo", "--floppy", &floppy], &[&floppy, "700000", "truncated"]);
    refused(&home, &["--demo", "--disk", &disk], &[&disk, "1000001", "truncated"]);
    refused(&home, &["--demo", "--floppy", &empty], &[&empty, "truncated"]);
    refused(&home, &["--demo", "--disk", &empty], &[&empty, "truncated"]);
}

#[test]
fn hard_disk_image_in_a_floppy_drive() {
    let home = Home::new();
    let disk = home.file("disk.img").display().to_string();
    home.vmsim(&["image", "create", &disk, "--size", "16M"]).ok();
    refused(&home, &["--demo", "--floppy", &disk], &[&disk, "--disk", "1.44M"]);
}

#[test]
fn too_many_drives() {
    let home = Home::new();
    let image = home.write("a.img", &vec![0; 1440 * 1024]);
    let floppies = ["--demo", "--floppy", &image, "--floppy", &image, "--floppy", &image];
    refused(&home, &floppies, &["two floppy drives"]);
}

#[test]
fn machine_file_with_an_unknown_key_a_wrong_type_or_missing() {
    let home = Home::new();
    let unknown = home.write("unknown.toml", b"ram = \"64M\"\nflopy = \"a.img\"\n");
    let wrong = home.write("wrong.toml", b"ram = 64\n");
    let broken = home.write("broken.toml", b"ram = \"64M\"\n[[floppy\n");
    let missing = home.file("none.toml").display().to_string();
    refused(&home, &[&unknown, "--demo"], &[&unknown, "line 2", "flopy"]);
    refused(&home, &[&wrong, "--demo"], &[&wrong, "line 1"]);
    refused(&home, &[&broken, "--demo"], &[&broken, "line 2"]);
    refused(&home, &[&missing, "--demo"], &[&missing]);
}

#[test]
fn impossible_ram_sizes() {
    let home = Home::new();
    for (ram, word) in [("0", "1M"), ("1000", "1M"), ("much", "64M"), ("999G", "M"), ("1.5M", "64M")] {
        refused(&home, &["--demo", "--ram", ram], &[word]);
    }
}

#[test]
fn a_screen_that_is_to_be_shown_in_no_way() {
    let said = Home::new().vmsim(&["screen", "--vm", "any"]);
    assert!(
        said.code == Some(2) && said.err.contains("--text") && said.err.contains("--png"),
        "{}",
        said.err
    );
}

#[test]
fn bad_names() {
    let home = Home::new();
    for name in ["../up", "UPPER", "", "with space", "a-name-that-is-much-longer-than-any-name-should-be"] {
        let line =
            home.vmsim(&["run", "--demo", "--display", "none", "--detach", "--name", name]).one_line_error();
        assert!(line.contains("VM name"), "{line}");
    }
    assert_eq!(home.temporary_files(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn firmware_file_that_is_no_firmware() {
    let home = Home::new();
    let odd = home.write("odd.rom", &[0; 5000]);
    let empty = home.write("empty.rom", &[]);
    let missing = home.file("none.rom").display().to_string();
    let floppy = home.write("a.img", &vec![0; 1440 * 1024]);
    refused(&home, &["--floppy", &floppy, "--firmware", &odd], &[&odd, "5000"]);
    refused(&home, &["--floppy", &floppy, "--firmware", &empty], &[&empty]);
    refused(&home, &["--floppy", &floppy, "--firmware", &missing], &[&missing]);
}

#[test]
fn no_firmware_and_no_download() {
    let home = Home::new();
    let floppy = home.write("a.img", &vec![0; 1440 * 1024]);
    // A chosen place without firmware, which is like a system without the package.
    let nothing = home.file("nothing");
    std::fs::create_dir(&nothing).expect("an empty folder");
    for detach in [true, false] {
        refused_with(&home, &["--floppy", &floppy], &["nothing"], detach, |command| {
            command.env("VMSIM_FIRMWARE", &nothing).env("VMSIM_OFFLINE", "1").env("XDG_CACHE_HOME", &nothing);
        });
    }
}

#[test]
fn a_system_without_the_seabios_package() {
    if !is_root() {
        return skip("hiding /usr/share/seabios takes root", Missing::Privilege);
    }
    if program_in_path("unshare").is_none() {
        return skip("unshare (package util-linux) is not installed", Missing::Installable);
    }
    let home = Home::new();
    let floppy = home.write("a.img", &vec![0; 1440 * 1024]);
    let cache = home.file("cache");
    let program = Home::built("vmsim-under-test");
    let script = "for folder in seabios seavgabios vgabios qemu qemu-kvm kvm; do \
                  if [ -d /usr/share/$folder ]; then mount -t tmpfs none /usr/share/$folder || exit 99; fi; done; \
                  exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "/bin/sh", "-c", script, "sh"]).arg(program);
    command.args(["run", "--display", "none", "--floppy", &floppy]);
    command.env("XDG_RUNTIME_DIR", home.runtime_dir()).env("TMPDIR", home.temporary_dir());
    command.env("VMSIM_OFFLINE", "1").env("XDG_CACHE_HOME", cache);

    let said = run(command);

    if said.code == Some(99) {
        return skip("this system lets nobody mount", Missing::Privilege);
    }
    let line = said.one_line_error();
    assert!(line.contains("SeaBIOS") && line.contains("--firmware"), "{line}");
}

#[test]
fn a_name_that_is_taken() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    let before = vm.ps();

    let line = vm
        .home()
        .vmsim(&["run", "--demo", "--name", vm.name(), "--display", "none", "--detach"])
        .one_line_error();

    assert!(line.contains(vm.name()) && line.contains("--name") && line.contains("vmsim stop"), "{line}");
    assert_eq!(vm.ps().processes, before.processes);
    vm.key("1");
    vm.wait_text("All 256 attributes");
    vm.stop();
}

#[test]
fn device_executable_that_ends_at_once() {
    let home = Home::new();
    let silent = executable(&home, "silent", "#!/bin/sh\nexit 3\n");
    let talks =
        executable(&home, "talks", "#!/bin/sh\necho 'first line' >&2\necho 'no silicon today' >&2\nexit 1\n");
    refused(&home, &["--demo", "--device", &format!("gpu={silent}")], &["gpu", "3"]);
    refused(&home, &["--demo", "--device", &format!("gpu={talks}")], &["gpu", "no silicon today"]);
}

#[test]
fn device_executable_that_cannot_be_run() {
    let home = Home::new();
    let plain = home.write("plain", b"text");
    let missing = home.file("missing").display().to_string();
    let nonsense = executable(&home, "nonsense", "neither a script nor a program");
    refused(&home, &["--demo", "--device", &format!("gpu={plain}")], &[&plain]);
    refused(&home, &["--demo", "--device", &format!("gpu={missing}")], &[&missing]);
    refused(&home, &["--demo", "--device", &format!("gpu={nonsense}")], &["gpu"]);
    refused(&home, &["--demo", "--device", "gpu"], &["DEVICE=PATH"]);
    refused(&home, &["--demo", "--device", &format!("vmm={}", Home::built("other-gpu").display())], &["vmm"]);
}

#[test]
fn files_for_output_in_a_folder_that_is_not_there() {
    let home = Home::new();
    let path = home.file("no/such/folder/console").display().to_string();
    refused(&home, &["--demo", "--debug-console", &path], &[&path]);
    refused(&home, &["--demo", "--serial", &path], &[&path]);
}

#[test]
fn standard_output_that_cannot_be_opened_a_second_time() {
    let home = Home::new();
    let name = home.fresh_name();
    // So it is with the terminal of another user, from which one has come by 'su'.
    let (socket, _other_end) = UnixStream::pair().expect("a pair of sockets");
    let args = ["run", "--name", &name, "--display", "none", "--demo", "--debug-console", "-"];
    let mut command = home.command(&args);
    let mut child = command.stdout(OwnedFd::from(socket)).stderr(Stdio::piped()).spawn().expect("it starts");
    poll("end of it", PATIENCE, || child.try_wait().expect("it is our child"));
    let output = child.wait_with_output().expect("what it said");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("standard output cannot be opened a second time"), "{said}");
    assert_eq!(home.left_of(&name), [] as [String; 0]);
}

/// A command in a mount namespace of its own, where `folder` is a file system of `bytes` bytes.
fn with_small_folder(home: &Home, folder: &Path, bytes: u64, args: &[&str]) -> Command {
    let script = "mount -t tmpfs -o size=$1 none \"$2\" || exit 99; shift 2; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "/bin/sh", "-c", script, "sh", &bytes.to_string()]).arg(folder);
    command.arg(Home::built("vmsim-under-test")).args(args);
    command.env("XDG_RUNTIME_DIR", home.runtime_dir()).env("TMPDIR", home.temporary_dir());
    command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    command
}

/// Whether the tests may mount; says so if not.
fn may_mount() -> bool {
    if !is_root() {
        skip("a small file system takes root", Missing::Privilege);
        return false;
    }
    if program_in_path("unshare").is_none() {
        skip("unshare (package util-linux) is not installed", Missing::Installable);
        return false;
    }
    let allowed = run({
        let mut command = Command::new("unshare");
        command.args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]);
        command
    });
    if allowed.code != Some(0) {
        skip("this system lets nobody mount", Missing::Privilege);
    }
    allowed.code == Some(0)
}

#[test]
fn shared_memory_too_small_for_the_guests_ram() {
    if !may_mount() {
        return;
    }
    let home = Home::new();
    // No room for guest RAM, for what follows it, for anything.
    for bytes in [32 << 20, 65 << 20, 76 << 20, 64 << 10] {
        let name = home.fresh_name();
        let args = ["run", "--demo", "--name", &name, "--display", "none", "--ram", "64M"];

        let said = run(with_small_folder(&home, Path::new("/dev/shm"), bytes, &args));

        let line = said.one_line_error();
        assert!(line.contains("/dev/shm") && line.contains("RAM"), "{line}");
        assert_eq!(home.left_of(&name), [] as [String; 0]);
        assert_eq!(home.temporary_files(), [] as [std::path::PathBuf; 0]);
    }
}

#[test]
fn a_full_disk_is_an_error_for_the_guest_which_lives_on() {
    let Some(image) = guest("freedos-1440.img") else { return };
    if !may_mount() {
        return;
    }
    let home = Home::new();
    // A sparse image on a file system that has room for what is on it and hardly more.
    let folder = home.file("small");
    std::fs::create_dir(&folder).expect("a folder");
    let floppy = folder.join("a.img").display().to_string();
    let name = home.fresh_name();
    let script = "mount -t tmpfs -o size=400k none \"$1\" && cp --sparse=always \"$2\" \"$1/a.img\" || exit 99; \
                  shift 2; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "/bin/sh", "-c", script, "sh"]).arg(&folder).arg(&image);
    command.arg(Home::built("vmsim-under-test"));
    command.args(["run", "--name", &name, "--display", "none", "--detach", "--floppy", &floppy]);
    command.env("XDG_RUNTIME_DIR", home.runtime_dir()).env("TMPDIR", home.temporary_dir());
    let vm = Vm::adopt(home, name);
    run(command).ok();
    vm.wait_prompt();

    // DOS copies until it asks what to do about an error: abort, until it has no more questions.
    for copy in 0.. {
        vm.type_text(&format!("cls\\ncopy command.com copy{copy}.com\\n"));
        let done = format!("=> copy{copy}.com");
        let screen = vm.wait_screen("end of the copy or error", |text| {
            text.contains("(F)ail?") || text.contains(&done) && text.trim_end().ends_with(r"A:\>")
        });
        if screen.contains("(F)ail?") {
            break;
        }
    }
    poll("prompt after the errors", PATIENCE, || {
        let screen = vm.screen_text();
        if screen.trim_end().ends_with("(F)ail?") {
            vm.type_text("a");
            vm.wait_screen("effect of the answer", |now| now != screen);
        }
        screen.trim_end().ends_with(r"A:\>").then_some(())
    });
    assert!(vm.dos("echo still here").contains("still here"));
    assert!(vm.log(&["--device", "storage"]).to_lowercase().contains("space"), "{}", vm.log(&[]));
    vm.stop();
}
