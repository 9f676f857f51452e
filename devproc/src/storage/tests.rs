use super::*;
use crate::device::ResetKind;
use crate::testing::TestHost;
use ipc::machine::SerialBackend;
use std::fs;
use std::path::Path;

fn machine() -> MachineConfig {
    MachineConfig {
        name: "test".to_owned(),
        cpu: "pentium3".into(),
        engine: "interp".into(),
        ram_bytes: 1 << 20,
        firmware: PathBuf::new(),
        video_rom: None,
        floppies: [None, None],
        disks: [None, None, None, None],
        boot_order: Vec::new(),
        cmos: None,
        debug_console: None,
        serial: [SerialBackend::Absent, SerialBackend::Absent],
    }
}

fn drive(path: &Path) -> Option<DriveConfig> {
    Some(DriveConfig { path: path.to_path_buf(), read_only: true, geometry: None })
}

#[test]
fn both_controllers_exist_without_any_drive() {
    let models = models(&machine(), &Outside::live()).unwrap();
    let names: Vec<_> = models.iter().map(|m| m.name()).collect();
    assert_eq!(names, ["fdc", "ide"]);
    for mut model in models {
        let mut host = TestHost::new(model.as_ref());
        model.attach(&mut host);
        model.reset(ResetKind::PowerOn, &mut host);
    }
}

#[test]
fn configured_images_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (floppy, disk) = (dir.path().join("a.img"), dir.path().join("c.img"));
    fs::write(&floppy, vec![0; 1_474_560]).unwrap();
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let mut config = machine();
    config.floppies[0] = drive(&floppy);
    config.disks[3] = drive(&disk);
    assert_eq!(models(&config, &Outside::live()).unwrap().len(), 2);
}

#[test]
fn what_cannot_be_built_names_drive_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("odd.img");
    fs::write(&odd, vec![0; 1000]).unwrap();
    let mut config = machine();
    config.floppies[1] = drive(&odd);
    let message = models(&config, &Outside::live()).err().unwrap().to_string();
    assert!(message.starts_with("Floppy drive B: image ") && message.contains("odd.img"), "{message}");
    let mut config = machine();
    config.disks[1] = drive(&odd);
    let message = models(&config, &Outside::live()).err().unwrap().to_string();
    assert!(message.starts_with("Primary slave: ") && message.contains("multiple of 512"), "{message}");
    config.disks[1] = drive(&dir.path().join("gone.img"));
    let message = models(&config, &Outside::live()).err().unwrap().to_string();
    assert!(message.contains("gone.img does not exist"), "{message}");
}
