use super::*;
use crate::device::Width;
use crate::testing::Bench;

/// SeaBIOS: probe, then print character by character.
#[test]
fn seabios_probe_finds_the_port_and_text_arrives() {
    let mut bench = Bench::new(DebugPorts::new());
    assert_eq!(bench.inb(0x402), 0xe9);
    assert_eq!(bench.inb(0xe9), 0xe9);
    for byte in b"SeaBIOS\n" {
        bench.outb(0x402, *byte);
    }
    bench.outb(0xe9, b'!');
    assert_eq!(bench.host.console, b"SeaBIOS\n!");
}

#[test]
fn rep_outsb_is_text_too() {
    let mut bench = Bench::new(DebugPorts::new());
    let at = Access { region: SEABIOS, address: 0x402, offset: 0, width: Width::Byte };
    bench.device.write_burst(at, b"hello", &mut bench.host).unwrap();
    assert_eq!(bench.host.console, b"hello");
}

#[test]
fn the_last_post_code_is_kept_over_a_restart_but_not_over_a_reset() {
    let mut bench = Bench::new(DebugPorts::new());
    bench.outb(0x80, 0x11);
    bench.outb(0x80, 0x55);
    assert_eq!(bench.inb(0x80), 0x55);
    bench.host.mirror.clear();
    bench.restart(DebugPorts::new());
    assert_eq!((bench.inb(0x80), bench.inb(0x402)), (0x55, 0xe9));
    assert_eq!(bench.device.post_code(), 0x55);
    bench.device.reset(ResetKind::Hard, &mut bench.host);
    assert_eq!(bench.inb(0x80), 0);
}

#[test]
fn text_does_not_change_the_state_but_a_new_post_code_does() {
    let mut bench = Bench::new(DebugPorts::new());
    bench.take_changed();
    bench.outb(0x402, b'x');
    assert!(!bench.take_changed());
    bench.outb(0x80, 1);
    assert!(bench.take_changed());
    bench.outb(0x80, 1);
    assert!(!bench.take_changed());
}

#[test]
fn malformed_states_are_refused() {
    let mut device = DebugPorts::new();
    assert!(device.load(1, &[]).is_err());
    assert!(device.load(1, &[1, 2]).is_err());
    assert!(device.load(9, &[1]).is_err());
}
