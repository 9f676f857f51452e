//! Images: where they are, and those that are kept inside.

use super::*;
use vmsim_tests::Toy;

#[test]
fn an_image_that_was_moved_is_found_where_the_command_line_says() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let mut vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    let (_, file) = place(&vm, "dos.saved");
    vm.vmsim(&["save", &file, "--stop"]).ok();
    let home = std::mem::take(vm.home_mut());
    let (old, new) = (home.file("freedos-1440.img"), home.file("moved.img"));
    std::fs::rename(&old, &new).expect("a file");
    let new = new.display().to_string();

    let line = refused(&home, &file, &[]);
    assert!(line.contains("freedos-1440.img") && line.contains("--floppy"), "{line}");
    let line = refused(&home, &file, &["--floppy", &new, "--disk", &new]);
    assert!(line.contains("more images"), "{line}");
    let vm = restore(home, &file, &["--floppy", &new]);

    assert!(vm.dos("dir").contains("COMMAND"));
    vm.stop();
}

/// What is in a folder, by name.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn images_that_are_kept_outlive_the_vm_and_have_what_the_guest_wrote() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let home = Home::new();
    let first = home.copy(&image);
    // Another image of the same name, in drive B.
    std::fs::create_dir(home.file("b")).expect("a folder");
    let second = home.file("b/freedos-1440.img");
    std::fs::copy(&image, &second).expect("a copy");
    let second = second.display().to_string();
    let vm = Vm::start_in(home, &["--floppy", &first, "--floppy", &second]);
    vm.wait_prompt();
    let (home, file) = suspend(vm, "dos.saved", &["--with-disks"]);
    let saved = std::fs::read(&first).expect("the image");
    let folder = home.file("kept");
    let kept = folder.display().to_string();

    let line = refused(&home, &file, &["--keep-disks", &kept]);
    assert!(line.contains(&format!("no folder {kept}")), "{line}");
    std::fs::create_dir(&folder).expect("a folder");
    let vm = restore(home, &file, &["--keep-disks", &kept]);

    assert_eq!(names_in(&folder), ["freedos-1440-2.img", "freedos-1440.img"]);
    vm.type_text("cls\\ncopy /y command.com copy.com\\n");
    wait_copied(&vm);
    assert!(vm.dos("copy /y command.com b:\\\\copy.com").contains("copy.com"));
    let home = vm.stop();
    for name in names_in(&folder) {
        copy_is_right(&folder.join(name));
    }
    assert!(std::fs::read(&first).expect("the image") == saved, "the original was written");

    // Whatever is there already stays as it is.
    std::fs::remove_file(folder.join("freedos-1440.img")).expect("the image");
    let before = std::fs::read(folder.join("freedos-1440-2.img")).expect("the image");
    let line = refused(&home, &file, &["--keep-disks", &kept]);
    assert!(line.contains("freedos-1440-2.img exists already"), "{line}");
    assert_eq!(names_in(&folder), ["freedos-1440-2.img"]);
    assert!(std::fs::read(folder.join("freedos-1440-2.img")).expect("the image") == before);
}

#[test]
fn images_are_kept_only_if_there_are_any_and_the_vm_starts() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    let (_, inside) = place(&vm, "inside.saved");
    vm.vmsim(&["save", &inside, "--with-disks"]).ok();
    let (home, outside) = suspend(vm, "outside.saved", &[]);
    let folder = home.file("kept");
    std::fs::create_dir(&folder).expect("a folder");
    let kept = folder.display().to_string();

    let line = refused(&home, &outside, &["--keep-disks", &kept]);
    assert!(line.contains("--with-disks") && line.contains("--keep-disks"), "{line}");
    let toy = Toy::new(&home, "toy", 1);
    let other = format!("gpu={}", toy.exe());
    let line = refused(&home, &inside, &["--keep-disks", &kept, "--device", &other]);
    assert!(line.contains("cannot go on"), "{line}");

    assert_eq!(names_in(&folder), [] as [String; 0]);
    let vm = restore(home, &inside, &["--keep-disks", &kept]);
    assert!(vm.dos("dir").contains("COMMAND"));
    // It is saved like any other image: it is outside.
    let (home, again) = suspend(vm, "again.saved", &[]);
    assert_eq!(names_in(&folder), ["freedos-1440.img"]);
    std::fs::rename(folder.join("freedos-1440.img"), home.file("away.img")).expect("the image");
    let line = refused(&home, &again, &[]);
    assert!(line.contains("kept/freedos-1440.img"), "{line}");
}
