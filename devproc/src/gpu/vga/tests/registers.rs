//! Ports, timing, PCI configuration and saved state.

use super::*;
use crate::device::{Device, ResetKind, StateError};
use proptest::prelude::*;

#[test]
fn indexed_registers_read_back_with_their_implemented_bits() {
    let mut bench = bench();
    bench.outb(0x3c2, 0x63);
    for (port, index, expected) in [
        (0x3c4, 1, 0x3d),
        (0x3c4, 2, 0x0f),
        (0x3c4, 4, 0x0e),
        (0x3ce, 1, 0x0f),
        (0x3ce, 5, 0x7b),
        (0x3ce, 8, 0xff),
        (0x3d4, 0x18, 0xff),
        (0x3d4, 0x30, 0x00),
    ] {
        bench.outb(port, index);
        bench.outb(port + 1, 0xff);
        assert_eq!(bench.inb(port + 1), expected, "port {port:#x} register {index:#x}");
        assert_eq!(bench.inw(port), u16::from_le_bytes([index, expected]));
    }
}

#[test]
fn the_crtc_answers_only_at_the_selected_address() {
    let mut bench = bench();
    bench.outb(0x3c2, 0x63);
    bench.outw(0x3d4, 0x550e);
    bench.outw(0x3b4, 0xaa0e);
    assert_eq!((bench.inb(0x3d5), bench.inb(0x3b5)), (0x55, 0xff));
    assert_eq!(bench.inb(0x3ba), 0xff);
    bench.outb(0x3c2, 0x62);
    assert_eq!((bench.inb(0x3d5), bench.inb(0x3b5)), (0xff, 0x55));
    assert_eq!(bench.inb(0x3cc), 0x62);
}

#[test]
fn write_protection_leaves_only_the_line_compare_bit() {
    let mut bench = bench();
    bench.outb(0x3c2, 0x63);
    bench.outw(0x3d4, 0x1100);
    bench.outw(0x3d4, 0x8011);
    bench.outw(0x3d4, 0xff00);
    bench.outb(0x3d4, 0);
    assert_eq!(bench.inb(0x3d5), 0x11);
    bench.outw(0x3d4, 0xff07);
    assert_eq!(bench.inb(0x3d5), 0x10);
    bench.outw(0x3d4, 0x770c);
    assert_eq!(bench.inb(0x3d5), 0x77);
}

#[test]
fn the_attribute_port_takes_address_and_data_in_turn() {
    let mut bench = bench();
    bench.outb(0x3c2, 0x63);
    bench.inb(0x3da);
    bench.outb(0x3c0, 0x05);
    bench.inb(0x3da); // starts over
    bench.outb(0x3c0, 0x11);
    bench.outb(0x3c0, 0x2a);
    bench.outb(0x3c0, 0x31);
    assert_eq!((bench.inb(0x3c0), bench.inb(0x3c1)), (0x31, 0x2a));
}

#[test]
fn the_dac_counts_through_components_and_colors() {
    let mut bench = bench();
    bench.outb(0x3c8, 255);
    for level in [0xc1, 2, 3, 4, 5, 6] {
        bench.outb(0x3c9, level);
    }
    assert_eq!((bench.inb(0x3c7), bench.inb(0x3c8)), (0, 1));
    bench.outb(0x3c7, 255);
    assert_eq!(bench.inb(0x3c7), 3);
    let back: Vec<u8> = (0..6).map(|_| bench.inb(0x3c9)).collect();
    assert_eq!(back, [1, 2, 3, 4, 5, 6], "six bits each, and colour 0 after colour 255");
}

#[test]
fn a_half_written_color_survives_a_restart() {
    let mut bench = bench();
    bench.outb(0x3c8, 7);
    bench.outb(0x3c9, 10);
    bench.outb(0x3c9, 20);
    restart(&mut bench);
    bench.outb(0x3c9, 30);
    bench.outb(0x3c7, 7);
    assert_eq!([0; 3].map(|_| bench.inb(0x3c9)), [10, 20, 30]);
}

#[test]
fn retrace_comes_seventy_times_a_second_in_mode_3() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_3);
    let (mut retraces, mut blank, mut last) = (0, 0, 0);
    for _ in 0..100_000 {
        bench.advance(10_000);
        let status = bench.inb(0x3da);
        retraces += u32::from(status & !last & 8 != 0);
        blank += u32::from(status & 1);
        last = status;
    }
    assert!((69..=71).contains(&retraces), "{retraces} retraces in a second");
    // 400 of 449 lines, 80 of 100 characters are shown.
    assert!((27_000..=30_500).contains(&blank), "{blank} of 100000 samples blank");
}

#[test]
fn the_vertical_interrupt_bit_is_held_until_it_is_cleared() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_3);
    bench.outw(0x3d4, 0x1e11);
    assert_eq!(bench.inb(0x3c2) & 0x80, 0);
    bench.advance(15_000_000);
    assert_eq!(bench.inb(0x3c2) & 0x80, 0x80);
    restart(&mut bench);
    assert_eq!(bench.inb(0x3c2) & 0x80, 0x80);
    bench.outw(0x3d4, 0x0e11);
    bench.outw(0x3d4, 0x1e11);
    assert_eq!(bench.inb(0x3c2) & 0x80, 0);
}

#[test]
fn a_disabled_subsystem_answers_nothing_but_its_enable_port() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_13);
    bench.outb(0x3c3, 0);
    assert_eq!((bench.inb(0x3cc), bench.inb(0x3c5), bench.inb(0x3da)), (0xff, 0xff, 0xff));
    assert_eq!(bench.mem_read(A0000, Width::Byte), 0xff);
    bench.outb(0x3c3, 1);
    assert_eq!(bench.inb(0x3cc), 0x63);
    assert!(direct(&bench, A0000, true).is_some());
}

#[test]
fn configuration_space_has_the_standard_vga_identity() {
    let mut bench = Bench::new(Vga::new(Some(vec![0x55, 0xaa, 0x01])));
    assert_eq!(bench.config_read(0x00, Width::Dword), 0x1111_1234);
    assert_eq!(bench.config_read(0x08, Width::Dword), 0x0300_0002);
    assert_eq!(bench.config_read(0x2c, Width::Dword), 0x1100_1af4);
    assert_eq!(bench.config_read(0x3d, Width::Byte), 0);
    for (register, expected) in [(0x10, 0xff00_0008), (0x14, 0), (0x18, 0xffff_f000)] {
        bench.config_write(register, Width::Dword, 0xffff_ffff);
        assert_eq!(bench.config_read(register, Width::Dword), expected);
    }
    bench.config_write(0x30, Width::Dword, 0xffff_fffe);
    assert_eq!(bench.config_read(0x30, Width::Dword), 0xffff_0000);
}

#[test]
fn bars_move_their_regions() {
    let mut bench = Bench::new(Vga::new(Some(vec![0x55, 0xaa, 0x01])));
    bench.config_write(0x10, Width::Dword, 0xe000_0000);
    bench.config_write(0x30, Width::Dword, 0xfea0_0001);
    assert!(direct(&bench, 0xe000_0000, true).is_none());
    bench.config_write(0x04, Width::Word, 0x0003);
    assert_eq!(bench.config_read(0x04, Width::Word), 0x0003);
    assert_eq!(direct(&bench, 0xe012_3456, true), Some(0x12_3456));
    assert!(direct(&bench, 0xfea0_0000, true).is_none(), "the ROM cannot be written");
    assert_eq!([0, 1, 2, 3].map(|n| peek(&mut bench, 0xfea0_0000 + n)), [0x55, 0xaa, 0x01, 0xff]);
    bench.config_write(0x04, Width::Word, 0);
    assert!(direct(&bench, 0xe012_3456, true).is_none());
}

#[test]
fn an_adapter_without_a_rom_has_no_rom_bar() {
    let mut bench = bench();
    bench.config_write(0x30, Width::Dword, 0xffff_ffff);
    assert_eq!(bench.config_read(0x30, Width::Dword), 0);
}

#[test]
fn reset_takes_the_windows_away_and_keeps_memory() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_3);
    poke(&mut bench, B8000 + 2, b'k');
    bench.device.reset(ResetKind::Hard, &mut bench.host);
    assert!(direct(&bench, B8000, true).is_none());
    assert_eq!(bench.inb(0x3cc), 0);
    set_mode(&mut bench, &MODE_3);
    assert_eq!(peek(&mut bench, B8000 + 2), b'k');
}

#[test]
fn a_state_of_another_version_or_with_impossible_values_is_refused() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_13);
    let mut state = Vec::new();
    bench.device.save(&mut state);
    let mut fresh = Vga::new(None);
    assert_eq!(fresh.load(2, &state), Err(StateError::Version { found: 2, newest: 1 }));
    assert!(matches!(fresh.load(1, &state[..state.len() - 1]), Err(StateError::Malformed(_))));
    // The first byte is the miscellaneous output register; bit 4 does not exist.
    state[0] = 0x10;
    assert_eq!(fresh.load(1, &state), Err(StateError::OutOfRange("miscellaneous output")));
    let mut untouched = Vec::new();
    fresh.save(&mut untouched);
    let mut power_on = Vec::new();
    Vga::new(None).save(&mut power_on);
    assert_eq!(untouched, power_on);
}

/// Something that a guest, or time, can do.
#[derive(Clone, Debug)]
enum Step {
    Out(u16, u8, u16),
    In(u16, u8),
    Store(u32, u8, u32),
    Load(u32, u8),
    Config(u8, u32),
    Time(u32),
    Render,
    Restart,
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 0x3b0..0x3e0_u16, 2 => Just(0x3c4_u16), 2 => Just(0x3ce_u16), 2 => Just(0x3d4_u16), 2 => 0x1ce..0x1d2_u16]
}

fn address() -> impl Strategy<Value = u32> {
    prop_oneof![0xa_0000..0xc_0000_u32, 0xfe00_0000..0xfe00_1000_u32, 0xe000_0000..0xe100_0000_u32]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (port(), 0..3_u8, any::<u16>()).prop_map(|(p, w, v)| Step::Out(p, w, v)),
        // DISPI index and data with values near the edges.
        6 => (0..12_u16, prop_oneof![0..64_u16, any::<u16>()]).prop_map(|(i, v)| Step::Out(0x1ce, 3 + i as u8, v)),
        4 => (port(), 0..3_u8).prop_map(|(p, w)| Step::In(p, w)),
        4 => (address(), 0..3_u8, any::<u32>()).prop_map(|(a, w, v)| Step::Store(a, w, v)),
        4 => (address(), 0..3_u8).prop_map(|(a, w)| Step::Load(a, w)),
        1 => (any::<u8>(), any::<u32>()).prop_map(|(r, v)| Step::Config(r & 0xfc, v)),
        1 => any::<u32>().prop_map(Step::Time),
        2 => Just(Step::Render),
        1 => Just(Step::Restart),
    ]
}

fn width(n: u8) -> Width {
    [Width::Byte, Width::Word, Width::Dword][usize::from(n % 3)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn nothing_a_guest_does_panics(steps in prop::collection::vec(step(), 1..150), vbe in any::<bool>()) {
        let mut bench = bench();
        bench.config_write(0x10, Width::Dword, 0xe000_0000);
        bench.config_write(0x18, Width::Dword, 0xfe00_0000);
        bench.config_write(0x04, Width::Word, 3);
        set_mode(&mut bench, if vbe { &MODE_13 } else { &MODE_3 });
        for step in steps {
            match step {
                Step::Out(0x1ce, index @ 3.., value) => {
                    bench.outw(0x1ce, u16::from(index - 3));
                    bench.outw(0x1cf, value);
                }
                Step::Out(port, 0, value) => bench.outb(port, value as u8),
                Step::Out(port, 1, value) => bench.outw(port, value),
                Step::Out(port, _, value) => bench.outl(port, u32::from(value) * 0x1_0001),
                Step::In(port, 0) => drop(bench.inb(port)),
                Step::In(port, 1) => drop(bench.inw(port)),
                Step::In(port, _) => drop(bench.inl(port)),
                Step::Store(at, w, value) => bench.mem_write(at.into(), width(w), value),
                Step::Load(at, w) => drop(bench.mem_read(at.into(), width(w))),
                Step::Config(register, value) => bench.config_write(register, Width::Dword, value),
                Step::Time(nanos) => bench.advance(nanos.into()),
                Step::Render => drop(screen(&mut bench)),
                Step::Restart => restart(&mut bench),
            }
        }
        screen(&mut bench);
        restart(&mut bench);
    }

    #[test]
    fn hostile_states_are_refused_or_harmless(at in 0..1600_usize, value in any::<u8>(), vbe in any::<bool>()) {
        let mut bench = bench();
        set_mode(&mut bench, &MODE_12);
        if vbe {
            vbe::set_vbe_mode(&mut bench, 640, 480, 32, 0x40);
        }
        let mut state = Vec::new();
        bench.device.save(&mut state);
        let index = at % state.len();
        state[index] = value;
        let mut fresh = Vga::new(None);
        if fresh.load(1, &state).is_ok() {
            fresh.attach(&mut bench.host);
            bench.device = fresh;
            screen(&mut bench);
            bench.inb(0x3da);
            bench.inb(0x3c9);
            bench.mem_write(A0000 + 0xffff, Width::Byte, 1);
        }
    }
}
