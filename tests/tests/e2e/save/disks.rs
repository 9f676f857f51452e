//! Images that stay outside.

use super::*;

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
