//! The items that describe a VMSim machine to SeaBIOS.

use super::Items;
use super::spec;
use ipc::machine::{BootDevice, MachineConfig};

/// The items for `config`.
pub fn standard_items(config: &MachineConfig) -> Items {
    let word = |value: u16| value.to_le_bytes().to_vec();
    let keys = vec![
        (spec::KEY_RAM_SIZE, config.ram_bytes.to_le_bytes().to_vec()),
        (spec::KEY_NOGRAPHIC, word(0)),
        (spec::KEY_NB_CPUS, word(1)),
        (spec::KEY_MAX_CPUS, word(1)),
        // SeaBIOS names this item etc/show-boot-menu. Without the menu it need not wait for a key.
        (spec::KEY_BOOT_MENU, word(0)),
        (spec::KEY_IRQ0_OVERRIDE, 1u32.to_le_bytes().to_vec()),
    ];
    let file = |name: &str, contents: Vec<u8>| (name.to_owned(), contents);
    let files = vec![
        file("bootorder", boot_order(config)),
        file("etc/boot-fail-wait", spec::BOOT_FAIL_STAY.to_le_bytes().to_vec()),
        file("etc/e820", e820_entry(0, config.ram_bytes, spec::E820_RAM)),
        file("etc/system-states", spec::SYSTEM_STATES.to_vec()),
    ];
    Items { keys, files }
}

/// One entry of `etc/e820`: address, length and type, little-endian and packed.
fn e820_entry(address: u64, len: u64, kind: u32) -> Vec<u8> {
    [&address.to_le_bytes()[..], &len.to_le_bytes(), &kind.to_le_bytes()].concat()
}

/// `bootorder`: Open Firmware paths, one a line, ended by a zero.
fn boot_order(config: &MachineConfig) -> Vec<u8> {
    let paths: Vec<String> =
        config.boot_order.iter().filter_map(|device| boot_path(config, *device)).collect();
    let mut text = paths.join("\n").into_bytes();
    text.push(0);
    text
}

fn boot_path(config: &MachineConfig, device: BootDevice) -> Option<String> {
    match device {
        BootDevice::Floppy => Some("/pci@i0cf8/isa@1/fdc@03f0/floppy@0".to_owned()),
        BootDevice::Disk => {
            let first = config.disks.iter().position(Option::is_some)?;
            Some(format!("/pci@i0cf8/ide@1,1/drive@{}/disk@{}", first / 2, first % 2))
        }
    }
}
