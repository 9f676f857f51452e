//! Direct and trapped windows, and the hand-over between them.

use super::*;
use crate::device::{Device, RegionId, Writes};
use proptest::prelude::*;

fn writes_of(bench: &VgaBench, name: &str) -> Writes {
    bench.host.regions.iter().find(|r| r.name == name).expect("a region of this name").writes
}

#[test]
fn control_registers_are_waited_for_only_while_a_window_is_direct() {
    let mut bench = bench();
    let control = ["vga-misc", "vga-sequencer", "vga-graphics"];
    let other = ["vga-crtc", "vga-attribute", "vga-a0000", "vga-b8000"];
    for (mode, expected) in
        [(&MODE_12, Writes::PostedLocal), (&MODE_3, Writes::Sync), (&MODE_13, Writes::Sync)]
    {
        set_mode(&mut bench, mode);
        assert!(control.iter().all(|name| writes_of(&bench, name) == expected));
        assert!(other.iter().all(|name| writes_of(&bench, name) == Writes::PostedLocal));
        assert_eq!(writes_of(&bench, "vga-dac"), Writes::Joined);
        assert_eq!(writes_of(&bench, "vga-dispi"), Writes::Sync);
    }
}

#[test]
fn text_written_directly_is_in_the_planes_after_the_text_mode() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_3);
    poke_all(&mut bench, B8000, b"H\x07i\x1f");
    poke_all(&mut bench, B8000 + 0x7ffe, b"z\x70");
    // Read map 0 and 1 through A0000, sequentially, as a program that saves the screen does.
    bench.outw(0x3c4, 0x0604);
    for value in [0x0005, 0x0406, 0x0004] {
        bench.outw(0x3ce, value);
    }
    assert!(direct(&bench, B8000, true).is_none());
    let plane_0 = [0, 2, 0x7ffe].map(|n| peek(&mut bench, A0000 + n));
    bench.outw(0x3ce, 0x0104);
    let plane_1 = [0, 2, 0x7ffe].map(|n| peek(&mut bench, A0000 + n));
    assert_eq!(plane_0, *b"Hiz");
    assert_eq!(plane_1, [0x07, 0x1f, 0x70]);
}

#[test]
fn planes_written_before_the_text_mode_are_its_text() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_12);
    bench.outw(0x3c4, 0x0102);
    poke(&mut bench, A0000 + 2, b'B');
    bench.outw(0x3c4, 0x0202);
    poke(&mut bench, A0000 + 2, 0x4e);
    set_mode(&mut bench, &MODE_3);
    assert_eq!([peek(&mut bench, B8000 + 2), peek(&mut bench, B8000 + 3)], [b'B', 0x4e]);
    assert_eq!(screen(&mut bench).text.unwrap().cells[1], 0x4e42);
}

#[test]
fn loading_a_font_keeps_the_text() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_3);
    let text: Vec<u8> = (0..4000).map(|n| (n % 253) as u8).collect();
    poke_all(&mut bench, B8000, &text);
    load_font(&mut bench, 0, &[(1, [0xaa; 16])]);
    assert!(direct(&bench, B8000, true).is_some());
    let after: Vec<u8> = (0..4000).map(|n| peek(&mut bench, B8000 + n)).collect();
    assert_eq!(after, text);
}

#[test]
fn a_crash_in_the_middle_of_a_hand_over_loses_nothing() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_3);
    let text: Vec<u8> = (0..0x8000).map(|n| (n % 251) as u8).collect();
    poke_all(&mut bench, B8000, &text);
    let mut committed = Vec::new();
    bench.device.save(&mut committed);
    // The old process copies, and dies before the write that made it leave the text mode is committed.
    bench.outw(0x3c4, 0x0604);
    let mut again = Vga::new(None);
    again.load(1, &committed).unwrap();
    again.attach(&mut bench.host);
    bench.device = again;
    assert!(direct(&bench, B8000, true).is_some(), "the new process is where the old one was");
    // The write is run again; then the way back dies, too.
    bench.outw(0x3c4, 0x0604);
    committed.clear();
    bench.device.save(&mut committed);
    bench.outw(0x3c4, 0x0204);
    let mut again = Vga::new(None);
    again.load(1, &committed).unwrap();
    again.attach(&mut bench.host);
    bench.device = again;
    bench.outw(0x3c4, 0x0204);
    let after: Vec<u8> = (0..0x8000).map(|n| peek(&mut bench, B8000 + n)).collect();
    assert!(after == text);
}

#[test]
fn a_window_that_does_not_decode_reads_all_ones() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_12);
    assert_eq!(bench.mem_read(B8000, Width::Word), 0xffff);
    bench.outb(0x3c2, 0xe1); // RAM off
    assert_eq!(bench.mem_read(A0000, Width::Dword), 0xffff_ffff);
}

#[test]
fn writes_that_arrive_late_land_where_direct_ones_do() {
    let mut bench = bench();
    for (mode, base) in [(&MODE_3, B8000), (&MODE_13, A0000)] {
        set_mode(&mut bench, mode);
        // Posted while the window was still trapped on the CPU's side.
        bench.mem_write(base + 6, Width::Dword, 0x4433_2211);
        let seen = [6, 7, 8, 9].map(|n| peek(&mut bench, base + n));
        assert_eq!(seen, [0x11, 0x22, 0x33, 0x44]);
    }
}

#[test]
fn bursts_do_what_single_accesses_do() {
    for (mode, base) in [(&MODE_12, A0000), (&MODE_13, A0000), (&MODE_3, B8000)] {
        let mut bench = bench();
        set_mode(&mut bench, mode);
        let data: Vec<u8> = (1..=64).collect();
        let region = bench.host.regions.iter().find(|r| r.base == base).copied().unwrap();
        let at = crate::device::Access { region: region.id, address: base, offset: 0, width: Width::Word };
        bench.device.write_burst(at, &data, &mut bench.host).unwrap();
        let single: Vec<u8> = (0..64).map(|n| peek(&mut bench, base + n)).collect();
        let mut burst = vec![0; 64];
        bench.device.read_burst(at, &mut burst, &mut bench.host).unwrap();
        assert_eq!(single, data);
        assert_eq!(burst, data);
    }
}

#[test]
fn a_string_of_palette_bytes_stays_at_its_port() {
    let mut bench = bench();
    bench.outb(0x3c8, 10);
    let dac = RegionId(11);
    let at = crate::device::Access { region: dac, address: 0x3c9, offset: 3, width: Width::Byte };
    bench.device.write_burst(at, &[1, 2, 3, 4, 5, 6], &mut bench.host).unwrap();
    bench.outb(0x3c7, 10);
    let mut back = [0; 6];
    bench.device.read_burst(at, &mut back, &mut bench.host).unwrap();
    assert_eq!(back, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn planar_writes_are_no_change_of_state() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_12);
    bench.take_changed();
    bench.mem_write(A0000, Width::Dword, 0x1234_5678);
    assert!(!bench.take_changed());
    bench.mem_read(A0000, Width::Byte);
    assert!(bench.take_changed(), "the latches were loaded");
    bench.mem_read(A0000, Width::Byte);
    assert!(!bench.take_changed(), "with what they held");
    bench.inb(0x3da);
    bench.take_changed();
    bench.inb(0x3da);
    assert!(!bench.take_changed());
}

/// A step of a program that mixes text and planar accesses.
#[derive(Clone, Copy, Debug)]
enum Step {
    Text,
    Planar,
    Poke(u16, u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Text),
        2 => Just(Step::Planar),
        8 => (0..0x8000_u16, any::<u8>()).prop_map(|(n, v)| Step::Poke(n, v)),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn text_memory_is_the_same_whichever_way_it_is_written(steps in prop::collection::vec(step(), 1..60)) {
        let mut bench = bench();
        set_mode(&mut bench, &MODE_3);
        let mut reference = vec![0_u8; 0x8000];
        let mut planar = false;
        for step in steps {
            match step {
                Step::Text => {
                    set_mode(&mut bench, &MODE_3);
                    planar = false;
                }
                Step::Planar => {
                    set_mode(&mut bench, &MODE_12);
                    planar = true;
                }
                Step::Poke(n, value) => {
                    reference[usize::from(n)] = value;
                    if planar {
                        bench.outw(0x3c4, 0x0002 | 0x100 << (n & 1));
                        poke(&mut bench, A0000 + u64::from(n & !1), value);
                    } else {
                        poke(&mut bench, B8000 + u64::from(n), value);
                    }
                }
                Step::Restart => restart(&mut bench),
            }
        }
        set_mode(&mut bench, &MODE_3);
        let seen: Vec<u8> = (0..0x8000).map(|n| peek(&mut bench, B8000 + n)).collect();
        prop_assert!(seen == reference);
    }
}
