use super::spec::{CMOS_LEN, REGISTER_D_VALID};
use super::{FloppyType, RtcCmos};
use crate::device::{Device, ResetKind};
use crate::testing::Bench;
use ipc::machine::{BootDevice, Geometry};
use ipc::time::VirtualTime;

/// 1999-12-31 23:59:50, a Friday.
const START: i64 = 946_684_790;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

const UIP: u8 = 0x80;
const IRQF: u8 = 0x80;
const PF: u8 = 0x40;
const AF: u8 = 0x20;
const UF: u8 = 0x10;
const PIE: u8 = 0x40;
const AIE: u8 = 0x20;
const UIE: u8 = 0x10;
const SET: u8 = 0x80;
const FORMAT: u8 = 0x02;

fn bench() -> Bench<RtcCmos> {
    Bench::new(RtcCmos::new(START, None))
}

fn cmos(bench: &mut Bench<RtcCmos>, register: u8) -> u8 {
    bench.outb(0x70, register);
    bench.inb(0x71)
}

fn set_cmos(bench: &mut Bench<RtcCmos>, register: u8, value: u8) {
    bench.outb(0x70, register);
    bench.outb(0x71, value);
}

/// Century, year, month, day, day of week, hours, minutes, seconds as they read.
fn time(bench: &mut Bench<RtcCmos>) -> [u8; 8] {
    [0x32, 0x09, 0x08, 0x07, 0x06, 0x04, 0x02, 0x00].map(|register| cmos(bench, register))
}

fn irq_edges(bench: &Bench<RtcCmos>) -> u32 {
    bench.host.lines.isa_edges[8]
}

#[test]
fn the_time_is_bcd_and_24_hours_and_rolls_over_the_century() {
    let mut bench = bench();
    assert_eq!(time(&mut bench), [0x19, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x50]);
    bench.advance(10 * SECOND - 1);
    assert_eq!(cmos(&mut bench, 0x00), 0x59);
    bench.advance(1);
    assert_eq!(time(&mut bench), [0x20, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00]);
    bench.advance(86_400 * 59 * SECOND);
    assert_eq!(time(&mut bench), [0x20, 0x00, 0x02, 0x29, 0x03, 0x00, 0x00, 0x00]);
}

#[test]
fn binary_and_12_hour_formats_apply_to_the_bytes_that_follow() {
    let mut bench = Bench::new(RtcCmos::new(START, Some([0; CMOS_LEN])));
    assert_eq!(cmos(&mut bench, 0x04), 0x91, "11 PM in BCD");
    set_cmos(&mut bench, 0x0b, SET | 0x04);
    for (register, value) in [(0x00, 58), (0x02, 59), (0x04, 11)] {
        set_cmos(&mut bench, register, value);
    }
    set_cmos(&mut bench, 0x0b, 0x04);
    bench.advance(2 * SECOND);
    assert_eq!([4, 2, 0].map(|register| cmos(&mut bench, register)), [0x8c, 0, 0], "12 PM");
    bench.advance(12 * 3600 * SECOND);
    assert_eq!(time(&mut bench)[..6], [0x20, 0, 1, 1, 7, 12], "12 AM of the next day");
    bench.advance(3600 * SECOND);
    assert_eq!(cmos(&mut bench, 0x04), 1);
}

#[test]
fn set_stops_updates_and_clears_uie_while_linux_sets_the_time() {
    let mut bench = bench();
    set_cmos(&mut bench, 0x0b, FORMAT | UIE);
    // mc146818_set_time: SET, divider reset, the bytes, then both back.
    set_cmos(&mut bench, 0x0b, FORMAT | UIE | SET);
    assert_eq!(cmos(&mut bench, 0x0b), FORMAT | SET);
    set_cmos(&mut bench, 0x0a, 0x76);
    for (register, value) in
        [(0x09, 0x24), (0x08, 0x02), (0x07, 0x28), (0x04, 0x23), (0x02, 0x59), (0x00, 0x59)]
    {
        set_cmos(&mut bench, register, value);
    }
    set_cmos(&mut bench, 0x32, 0x20);
    bench.advance(3 * SECOND + 123 * MS);
    assert_eq!(cmos(&mut bench, 0x00), 0x59);
    set_cmos(&mut bench, 0x0b, FORMAT);
    set_cmos(&mut bench, 0x0a, 0x26);
    // The first update comes half a second after the divider is released.
    bench.advance(499 * MS);
    assert_eq!(cmos(&mut bench, 0x00), 0x59);
    bench.advance(MS);
    assert_eq!(time(&mut bench)[..4], [0x20, 0x24, 0x02, 0x29]);
    bench.advance(SECOND - 1);
    assert_eq!(cmos(&mut bench, 0x00), 0x00);
    bench.advance(1);
    assert_eq!(cmos(&mut bench, 0x00), 0x01);
}

#[test]
fn uip_rises_ahead_of_the_update_and_falls_with_it() {
    let mut bench = bench();
    assert_eq!(cmos(&mut bench, 0x0a), 0x26);
    // SeaBIOS and Linux poll for the end of an update.
    let mut rose_at = None;
    let fell_at = loop {
        bench.advance(10_000);
        let uip = cmos(&mut bench, 0x0a) & UIP != 0;
        if uip && rose_at.is_none() {
            rose_at = Some(bench.host.now.0);
            assert_eq!(cmos(&mut bench, 0x00), 0x50);
        } else if !uip && rose_at.is_some() {
            break bench.host.now.0;
        }
    };
    assert_eq!(cmos(&mut bench, 0x00), 0x51);
    assert_eq!((rose_at, fell_at), (Some(997_780_000), SECOND));
}

#[test]
fn uip_stays_clear_while_updates_are_inhibited() {
    let mut bench = bench();
    set_cmos(&mut bench, 0x0b, FORMAT | SET);
    bench.advance(SECOND - MS);
    assert_eq!(cmos(&mut bench, 0x0a) & UIP, 0);
}

#[test]
fn update_interrupt_comes_every_second_once_register_c_is_read() {
    let mut bench = bench();
    set_cmos(&mut bench, 0x0b, FORMAT | UIE);
    bench.advance(3 * SECOND);
    assert!(bench.host.irq(8));
    assert_eq!(irq_edges(&bench), 1, "asserted until register C is read");
    assert_eq!(cmos(&mut bench, 0x0c), IRQF | UF | PF);
    assert!(!bench.host.irq(8));
    assert_eq!(cmos(&mut bench, 0x0c), 0);
    bench.advance(SECOND);
    assert_eq!(irq_edges(&bench), 2);
}

#[test]
fn periodic_interrupts_come_at_the_selected_rate_without_drift() {
    let mut bench = bench();
    set_cmos(&mut bench, 0x0b, FORMAT | PIE); // rate 6: 1024 Hz
    let mut interrupts = 0;
    while bench.host.now < VirtualTime(SECOND) {
        let next = *bench.host.timers.values().next().expect("armed");
        bench.advance(next.since(bench.host.now));
        assert_eq!(cmos(&mut bench, 0x0c) & (IRQF | PF), IRQF | PF);
        interrupts += 1;
    }
    assert_eq!((interrupts, bench.host.now), (1024, VirtualTime(SECOND)));
    set_cmos(&mut bench, 0x0a, 0x2f); // 2 Hz
    bench.advance(499 * MS);
    assert!(!bench.host.irq(8));
    bench.advance(MS);
    assert!(bench.host.irq(8));
    cmos(&mut bench, 0x0c);
    set_cmos(&mut bench, 0x0a, 0x21); // 256 Hz
    bench.advance(3_906_250);
    assert_eq!(cmos(&mut bench, 0x0c) & PF, PF);
    set_cmos(&mut bench, 0x0a, 0x20); // none
    bench.advance(SECOND);
    assert_eq!(cmos(&mut bench, 0x0c) & PF, 0);
}

#[test]
fn the_alarm_matches_all_three_bytes() {
    let mut bench = bench();
    for (register, value) in [(0x05, 0x00), (0x03, 0x01), (0x01, 0x30)] {
        set_cmos(&mut bench, register, value);
    }
    set_cmos(&mut bench, 0x0b, FORMAT | AIE);
    bench.advance(100 * SECOND - 1);
    assert!(!bench.host.irq(8));
    bench.advance(1);
    assert!(bench.host.irq(8));
    assert_eq!(cmos(&mut bench, 0x0c) & (IRQF | AF), IRQF | AF);
    bench.advance(86_399 * SECOND);
    assert_eq!(irq_edges(&bench), 1);
    bench.advance(SECOND);
    assert_eq!(irq_edges(&bench), 2, "again the next day");
}

#[test]
fn alarm_bytes_from_c0_match_anything() {
    let mut bench = bench();
    for (register, value) in [(0x05, 0xff), (0x03, 0xc0), (0x01, 0x05)] {
        set_cmos(&mut bench, register, value);
    }
    set_cmos(&mut bench, 0x0b, FORMAT | AIE);
    bench.advance(15 * SECOND);
    assert_eq!(irq_edges(&bench), 1);
    cmos(&mut bench, 0x0c);
    bench.advance(60 * SECOND);
    assert_eq!(irq_edges(&bench), 2, "every minute");
}

#[test]
fn an_alarm_that_can_never_match_arms_no_timer() {
    let mut bench = bench();
    set_cmos(&mut bench, 0x05, 0x24);
    set_cmos(&mut bench, 0x0b, FORMAT | AIE);
    assert!(bench.host.timers.is_empty());
}

#[test]
fn flags_are_set_without_interrupts_and_enabling_one_asserts_the_line() {
    let mut bench = bench();
    bench.advance(1_500 * MS);
    assert_eq!(cmos(&mut bench, 0x0c), PF | UF);
    bench.advance(10 * MS);
    assert_eq!(irq_edges(&bench), 0);
    set_cmos(&mut bench, 0x0b, FORMAT | PIE);
    assert!(bench.host.irq(8));
}

#[test]
fn an_idle_clock_arms_no_timer() {
    let mut bench = bench();
    bench.advance(1000 * SECOND);
    time(&mut bench);
    assert!(bench.host.timers.is_empty());
    cmos(&mut bench, 0x0c);
    set_cmos(&mut bench, 0x0b, FORMAT | UIE);
    assert_eq!(bench.host.timers.len(), 1);
    set_cmos(&mut bench, 0x0b, FORMAT);
    assert!(bench.host.timers.is_empty());
}

#[test]
fn both_banks_keep_128_bytes_each() {
    let mut bench = bench();
    for register in 0x0e..0x80u8 {
        if register != 0x32 {
            set_cmos(&mut bench, register, register);
        }
        bench.outb(0x72, register);
        bench.outb(0x73, !register);
    }
    for register in 0x0e..0x80u8 {
        bench.outb(0x72, register | 0x80);
        assert_eq!(bench.inb(0x73), !register);
        if register != 0x32 {
            assert_eq!(cmos(&mut bench, register | 0x80), register);
        }
    }
    assert_eq!((bench.inb(0x70), bench.inb(0x72)), (0xff, 0xff), "index ports are write only");
}

#[test]
fn bit_7_of_the_index_masks_nmi() {
    let mut bench = bench();
    bench.outb(0x70, 0x8f);
    assert!(bench.device.nmi_masked());
    bench.outb(0x70, 0x0f);
    assert!(!bench.device.nmi_masked());
}

#[test]
fn registers_c_and_d_do_not_take_writes() {
    let mut bench = bench();
    set_cmos(&mut bench, 0x0c, 0xff);
    set_cmos(&mut bench, 0x0d, 0x00);
    assert_eq!((cmos(&mut bench, 0x0c), cmos(&mut bench, 0x0d)), (0, REGISTER_D_VALID));
    set_cmos(&mut bench, 0x0a, 0xa6);
    assert_eq!(cmos(&mut bench, 0x0a), 0x26, "UIP is read only");
}

#[test]
fn the_change_count_moves_for_contents_and_not_for_time() {
    let mut bench = bench();
    let before = bench.device.change_count();
    bench.advance(5 * SECOND);
    time(&mut bench);
    set_cmos(&mut bench, 0x00, 0x30);
    set_cmos(&mut bench, 0x40, 0);
    assert_eq!(bench.device.change_count(), before);
    set_cmos(&mut bench, 0x40, 1);
    bench.outb(0x72, 5);
    bench.outb(0x73, 9);
    assert_eq!(bench.device.change_count(), before + 2);
    let image = bench.device.image();
    assert_eq!((image[0x40], image[0x85]), (1, 9));
}

#[test]
fn a_new_machine_takes_over_the_image_with_its_formats_and_the_right_time() {
    let mut bench = bench();
    set_cmos(&mut bench, 0x0b, 0x07 | SET | PIE);
    set_cmos(&mut bench, 0x0a, 0x70);
    set_cmos(&mut bench, 0x55, 0xaa);
    let mut next = Bench::new(RtcCmos::new(START + 3600, Some(bench.device.image())));
    assert_eq!((cmos(&mut next, 0x0a), cmos(&mut next, 0x0b)), (0x26, 0x07));
    assert_eq!(cmos(&mut next, 0x55), 0xaa);
    assert_eq!(time(&mut next)[..6], [0x20, 0, 1, 1, 7, 0]);
}

#[test]
fn seabios_finds_the_memory_size() {
    for (ram, base, extended, above_16m) in [
        (1 << 20, 640, 0, 0),
        (8 << 20, 640, 7 * 1024, 0),
        (64 << 20, 640, 63 * 1024, 48 * 16),
        (2 << 30, 640, 63 * 1024, 2032 * 16),
    ] {
        let mut device = RtcCmos::new(START, None);
        device.set_memory_size(ram);
        let mut bench = Bench::new(device);
        let mut word = |low: u8| u16::from_le_bytes([cmos(&mut bench, low), cmos(&mut bench, low + 1)]);
        assert_eq!((word(0x15), word(0x17), word(0x30), word(0x34)), (base, extended, extended, above_16m));
        assert_eq!((word(0x5b), cmos(&mut bench, 0x5d)), (0, 0));
    }
}

#[test]
fn seabios_finds_drives_and_boot_order() {
    let mut device = RtcCmos::new(START, None);
    let small = Geometry { cylinders: 615, heads: 4, sectors: 17 };
    let large = Geometry { cylinders: 4063, heads: 16, sectors: 63 };
    device.set_floppies([FloppyType::Inch3Mb144, FloppyType::None]);
    device.set_boot_order(&[BootDevice::Disk, BootDevice::Floppy]);
    device.set_disks([Some(small), None, Some(large), None]);
    device.set_processors(1);
    let image = device.image();
    assert_eq!((image[0x10], image[0x14]), (0x40, 0x07));
    assert_eq!((image[0x3d], image[0x38]), (0x12, 0x01));
    assert_eq!((image[0x12], image[0x19], image[0x1a], image[0x5f]), (0xf0, 47, 0, 0));
    assert_eq!(image[0x1b..0x24], [0x67, 0x02, 4, 0xff, 0xff, 0xc0, 0x67, 0x02, 17]);
    assert_eq!(image[0x39], 0x10, "LBA translation for the large one");
    let sum: u16 = image[0x10..=0x2d].iter().map(|byte| u16::from(*byte)).sum();
    assert_eq!(sum.to_be_bytes(), [image[0x2e], image[0x2f]]);
    device.set_floppies([FloppyType::Inch3Mb144, FloppyType::Inch5Mb12]);
    assert_eq!((device.image()[0x10], device.image()[0x14]), (0x42, 0x47));
    device.set_floppies([FloppyType::None; 2]);
    assert_eq!((device.image()[0x10], device.image()[0x14]), (0x00, 0x06));
}

#[test]
fn reset_clears_interrupts_and_keeps_time_and_contents() {
    let mut bench = bench();
    set_cmos(&mut bench, 0x0f, 0x0a);
    set_cmos(&mut bench, 0x0b, FORMAT | PIE | UIE);
    bench.advance(2 * SECOND);
    bench.device.reset(ResetKind::Hard, &mut bench.host);
    assert!(!bench.host.irq(8) && bench.host.timers.is_empty());
    assert_eq!(
        (cmos(&mut bench, 0x0f), cmos(&mut bench, 0x0b), cmos(&mut bench, 0x00)),
        (0x0a, FORMAT, 0x52)
    );
}

#[test]
fn a_restart_between_index_and_data_keeps_both_and_the_timer() {
    let mut bench = bench();
    set_cmos(&mut bench, 0x0b, FORMAT | UIE);
    bench.advance(400 * MS);
    bench.outb(0x70, 0x44);
    bench.host.timers.clear();
    bench.restart(RtcCmos::new(0, None));
    bench.outb(0x71, 0x99);
    assert_eq!(cmos(&mut bench, 0x44), 0x99);
    bench.advance(600 * MS);
    assert!(bench.host.irq(8));
    bench.restart(RtcCmos::new(0, None));
    assert_eq!((cmos(&mut bench, 0x00), irq_edges(&bench)), (0x51, 1));
}

#[test]
fn hostile_states_and_bytes_never_panic() {
    let mut bench = bench();
    let mut state = Vec::new();
    bench.device.save(&mut state);
    let mut accepted = 0;
    for i in 0..state.len() {
        let mut bad = state.clone();
        bad[i] = 0xff;
        let mut device = RtcCmos::new(0, None);
        if device.load(1, &bad).is_ok() {
            accepted += 1;
            bench.device = device;
            bench.device.attach(&mut bench.host);
            bench.advance(SECOND);
            set_cmos(&mut bench, 0x0b, 0x70);
            bench.advance(SECOND);
            time(&mut bench);
        }
    }
    assert!(accepted >= 200, "bytes of RAM may be anything");
    for register in 0..0x0a {
        set_cmos(&mut bench, register, 0xff);
    }
    bench.advance(100 * 86_400 * SECOND);
    time(&mut bench);
    assert!(bench.device.load(1, &state[..100]).is_err());
    assert!(bench.device.load(2, &state).is_err());
}
