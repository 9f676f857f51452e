use super::*;
use crate::device::save_state;
use crate::testing::Bench;

const PM_BASE: u16 = 0xb000;
const SMBUS_BASE: u16 = 0xb100;
/// A little more than one change of the timer's bit 23: 2^23 / 3.579545 MHz.
const HALF_PERIOD_NANOS: u64 = 2_343_485_000;

/// What SeaBIOS does with the function.
fn seabios() -> Bench<Piix4Pm> {
    let mut bench = Bench::new(Piix4Pm::new());
    bench.config_write(0x3c, Width::Byte, 9);
    bench.config_write(0x40, Width::Dword, u32::from(PM_BASE) | 1);
    bench.config_write(0x80, Width::Byte, 1);
    bench.config_write(0x90, Width::Dword, u32::from(SMBUS_BASE) | 1);
    bench.config_write(0xd2, Width::Byte, 9);
    bench.config_write(0x04, Width::Word, 0x0103);
    bench
}

/// SeaBIOS, and then ACPI switched on as Linux does through SMI_CMD.
fn acpi() -> Bench<Piix4Pm> {
    let mut bench = seabios();
    bench.outb(0xb2, 0xf1);
    assert_eq!(bench.inw(PM_BASE + 4) & 1, 1);
    bench
}

#[test]
fn identity_and_defaults() {
    let mut bench = Bench::new(Piix4Pm::new());
    assert_eq!(bench.config_read(0x00, Width::Dword), 0x7113_8086);
    assert_eq!(bench.config_read(0x08, Width::Dword), 0x0680_0003);
    assert_eq!(bench.config_read(0x3c, Width::Word), 0x0100);
    assert_eq!(bench.config_read(0x40, Width::Dword), 1);
    assert_eq!(bench.config_read(0x90, Width::Dword), 1);
    assert_eq!(bench.inl(PM_BASE), 0xffff_ffff);
}

/// `value & PIIX_DEVACTB_APMC_EN` makes SeaBIOS skip its SMM setup.
#[test]
fn seabios_is_told_that_smm_is_set_up() {
    let mut bench = Bench::new(Piix4Pm::new());
    assert_ne!(bench.config_read(0x58, Width::Dword) & 1 << 25, 0);
}

#[test]
fn blocks_decode_where_and_when_they_are_told() {
    let mut bench = seabios();
    assert_eq!(bench.config_read(0x40, Width::Dword), 0xb001);
    assert_eq!(bench.inw(PM_BASE + 4), 0);
    assert_eq!(bench.inb(SMBUS_BASE), 0);
    bench.config_write(0x40, Width::Dword, 0x0601);
    assert_eq!(bench.inw(PM_BASE + 4), 0xffff);
    assert_eq!(bench.inw(0x604), 0);
    bench.config_write(0x80, Width::Byte, 0);
    assert_eq!(bench.inw(0x604), 0xffff);
    bench.config_write(0xd2, Width::Byte, 8);
    assert_eq!(bench.inb(SMBUS_BASE), 0xff);
}

#[test]
fn a_block_without_a_base_does_not_decode() {
    let mut bench = Bench::new(Piix4Pm::new());
    bench.config_write(0x80, Width::Byte, 1);
    assert_eq!(bench.inb(0), 0xff);
}

#[test]
fn the_timer_counts_3579545_hz_in_24_bits() {
    let mut bench = seabios();
    assert_eq!(bench.inl(PM_BASE + 8), 0);
    bench.advance(1_000_000_000);
    assert_eq!(bench.inl(PM_BASE + 8), 3_579_545);
    bench.advance(4_000_000_000);
    assert_eq!(bench.inl(PM_BASE + 8), (5 * 3_579_545) & 0xff_ffff);
    assert_eq!(bench.inb(PM_BASE + 0xb), 0);
}

#[test]
fn overflow_is_an_sci_when_enabled_and_cleared_by_writing_one() {
    let mut bench = acpi();
    bench.outw(PM_BASE + 2, 1);
    bench.advance(HALF_PERIOD_NANOS);
    assert!(bench.host.irq(9));
    assert_eq!(bench.inw(PM_BASE), 1);
    bench.outw(PM_BASE, 1);
    assert_eq!(bench.inw(PM_BASE), 0);
    assert!(!bench.host.irq(9));
    bench.advance(HALF_PERIOD_NANOS);
    assert!(bench.host.irq(9));
    assert_eq!(bench.host.lines.isa_edges[9], 2);
}

#[test]
fn overflow_sets_its_status_without_an_interrupt_when_polled() {
    let mut bench = seabios();
    assert!(bench.host.timers.is_empty());
    bench.advance(HALF_PERIOD_NANOS);
    assert_eq!(bench.inw(PM_BASE), 1);
    assert!(!bench.host.irq(9));
    bench.outw(PM_BASE, 1);
    assert_eq!(bench.inw(PM_BASE), 0);
}

#[test]
fn enabling_an_event_that_already_happened_interrupts_at_once() {
    let mut bench = acpi();
    bench.advance(HALF_PERIOD_NANOS);
    bench.outw(PM_BASE + 2, 1);
    assert!(bench.host.irq(9));
    bench.outb(0xb2, 0xf0);
    assert!(!bench.host.irq(9));
}

/// Linux: PM1a_CNT with SLP_TYP of \_S5, then again with SLP_EN.
#[test]
fn soft_off_switches_the_machine_off() {
    let mut bench = acpi();
    let control = bench.inw(PM_BASE + 4) & !0x3c00;
    bench.outw(PM_BASE + 4, control);
    assert!(!bench.host.powered_off);
    bench.outw(PM_BASE + 4, control | 0x2000);
    assert!(bench.host.powered_off);
    assert_eq!(bench.inw(PM_BASE + 4), control);
}

#[test]
fn other_sleep_types_leave_the_machine_running() {
    let mut bench = acpi();
    bench.outw(PM_BASE + 4, 0x2000 | 1 << 10);
    assert!(!bench.host.powered_off);
    assert_eq!(bench.inw(PM_BASE + 4), 1 << 10);
}

#[test]
fn apm_ports_keep_their_values_and_acpi_needs_apmc_en() {
    let mut bench = seabios();
    bench.outb(0xb3, 0x5a);
    bench.outb(0xb2, 0x01);
    assert_eq!((bench.inb(0xb2), bench.inb(0xb3)), (0x01, 0x5a));
    assert_eq!(bench.inw(PM_BASE + 0x18) & 1 << 5, 1 << 5);
    bench.config_write(0x58, Width::Dword, 0);
    bench.outb(0xb2, 0xf1);
    assert_eq!(bench.inw(PM_BASE + 4) & 1, 0);
}

#[test]
fn the_global_lock_signals_reach_the_other_side() {
    let mut bench = acpi();
    bench.outw(PM_BASE + 2, 1 << 5);
    bench.outl(PM_BASE + 0x28, 2);
    assert!(bench.host.irq(9));
    assert_eq!(bench.inw(PM_BASE), 1 << 5);
    assert_eq!(bench.inl(PM_BASE + 0x28), 0);
    bench.outw(PM_BASE + 4, 1 | 1 << 2);
    assert_eq!(bench.inw(PM_BASE + 4), 1);
    assert_eq!(bench.inw(PM_BASE + 0x18) & 1, 1);
}

/// Linux i2c-piix4: quick command to an address nobody has.
#[test]
fn smbus_commands_end_with_no_acknowledge() {
    let mut bench = seabios();
    bench.outb(SMBUS_BASE + 4, 0x50 << 1);
    bench.outb(SMBUS_BASE + 3, 0);
    bench.outb(SMBUS_BASE + 2, 0x08);
    assert_eq!(bench.inb(SMBUS_BASE), 0);
    let control = bench.inb(SMBUS_BASE + 2);
    bench.outb(SMBUS_BASE + 2, control | 0x40);
    assert_eq!(bench.inb(SMBUS_BASE), 0x04);
    assert_eq!(bench.inb(SMBUS_BASE + 2), 0x08);
    bench.outb(SMBUS_BASE, 0x04);
    assert_eq!(bench.inb(SMBUS_BASE), 0);
    assert!(!bench.host.irq(9));
}

#[test]
fn smbus_interrupts_on_irq9_when_selected() {
    let mut bench = seabios();
    bench.outb(SMBUS_BASE + 2, 0x41);
    assert!(bench.host.irq(9));
    bench.config_write(0xd2, Width::Byte, 1);
    assert!(!bench.host.irq(9));
}

#[test]
fn smbus_block_buffer_is_a_ring_that_a_control_read_rewinds() {
    let mut bench = seabios();
    bench.inb(SMBUS_BASE + 2);
    for byte in 0..40 {
        bench.outb(SMBUS_BASE + 7, byte);
    }
    bench.inb(SMBUS_BASE + 2);
    assert_eq!((bench.inb(SMBUS_BASE + 7), bench.inb(SMBUS_BASE + 7)), (32, 33));
}

#[test]
fn the_gpe_block_of_the_firmware_tables_is_silent() {
    let mut bench = acpi();
    bench.outw(0xafe0, 0xffff);
    bench.outw(0xafe2, 0xffff);
    assert_eq!(bench.inl(0xafe0), 0xffff_0000);
    assert!(!bench.host.irq(9));
}

#[test]
fn general_purpose_outputs_have_their_documented_default() {
    let mut bench = seabios();
    assert_eq!(bench.inl(PM_BASE + 0x34), 0x7fff_bfff);
    bench.outb(PM_BASE + 0x37, 0xff);
    assert_eq!(bench.inl(PM_BASE + 0x34), 0x7fff_bfff);
}

#[test]
fn a_restart_between_overflows_keeps_timer_interrupt_and_map() {
    let mut bench = acpi();
    bench.outw(PM_BASE + 2, 1);
    bench.advance(1_000_000_000);
    let before = bench.inl(PM_BASE + 8);
    bench.host.timers.clear();
    bench.restart(Piix4Pm::new());
    assert_eq!(bench.inl(PM_BASE + 8), before);
    bench.advance(HALF_PERIOD_NANOS - 1_000_000_000);
    assert!(bench.host.irq(9));
    bench.restart(Piix4Pm::new());
    assert!(bench.host.irq(9));
    bench.outw(PM_BASE, 1);
    assert!(!bench.host.irq(9));
}

#[test]
fn an_overflow_while_the_process_was_down_is_not_lost() {
    let mut bench = acpi();
    bench.outw(PM_BASE + 2, 1);
    bench.host.timers.clear();
    bench.advance(HALF_PERIOD_NANOS);
    assert!(!bench.host.irq(9));
    let mut state = Vec::new();
    bench.device.save(&mut state);
    let mut fresh = Piix4Pm::new();
    fresh.load(1, &state).unwrap();
    fresh.attach(&mut bench.host);
    assert!(bench.host.irq(9));
}

#[test]
fn a_hard_reset_starts_over() {
    let mut bench = acpi();
    bench.outw(PM_BASE + 2, 1);
    bench.advance(HALF_PERIOD_NANOS);
    bench.device.reset(ResetKind::Hard, &mut bench.host);
    assert!(!bench.host.irq(9) && bench.host.timers.is_empty());
    assert_eq!(bench.inw(PM_BASE), 0xffff);
    bench.config_write(0x40, Width::Dword, 0xb001);
    bench.config_write(0x80, Width::Byte, 1);
    assert_eq!(bench.inl(PM_BASE + 8), 0);
}

#[test]
fn hostile_states_are_refused_or_made_harmless() {
    let mut device = Piix4Pm::new();
    let good = |pm: PmIoState, smbus| State {
        config: configuration().state(),
        pm,
        smbus,
        apm: [0; 2],
        gpe0_enable: [0; 2],
    };
    let mut load = |state: State| {
        let mut data = Vec::new();
        save_state(&state, &mut data);
        device.load(1, &data)
    };
    let block = PmIo::new(VirtualTime(0));
    assert!(load(good(block.state(), Smbus::default())).is_ok());
    let far = pm_io::tests_support::state(vec![0xff; 64], u64::MAX, u64::MAX << 23);
    assert!(load(good(far, Smbus::default())).is_ok());
    let short = pm_io::tests_support::state(vec![0; 63], 0, 1 << 23);
    assert!(load(good(short, Smbus::default())).is_err());
    let odd = pm_io::tests_support::state(vec![0; 64], 0, 5);
    assert!(load(good(odd, Smbus::default())).is_err());
    assert!(device.load(1, &[]).is_err());
    assert!(device.load(7, &[]).is_err());
    // A state from the far future stays usable.
    let mut state = Vec::new();
    save_state(
        &good(pm_io::tests_support::state(vec![0xff; 64], u64::MAX, 1 << 23), Smbus::default()),
        &mut state,
    );
    device.load(1, &state).unwrap();
    let mut bench = Bench::resumed(device);
    bench.advance(10_000_000_000);
    assert!(!bench.host.powered_off);
}
