use super::*;
use crate::device::save_state;
use crate::testing::Bench;

fn bench() -> Bench<Piix4Isa> {
    Bench::new(Piix4Isa::new())
}

fn pirq(bench: &mut Bench<Piix4Isa>, levels: u8) {
    bench.host.lines.pirq_levels = levels;
    bench.lines_changed();
}

#[test]
fn header_says_multifunction_isa_bridge() {
    let mut bench = bench();
    assert_eq!(bench.config_read(0x00, Width::Dword), 0x7110_8086);
    assert_eq!(bench.config_read(0x0a, Width::Word), 0x0601);
    assert_eq!(bench.config_read(0x0e, Width::Byte), 0x80);
    assert_eq!(bench.config_read(0x04, Width::Dword), 0x0280_0007);
    assert_eq!(bench.config_read(0x60, Width::Dword), 0x8080_8080);
    assert_eq!(bench.config_read(0x4c, Width::Dword), 0x0003_004d);
    assert_eq!(bench.config_read(0xcb, Width::Byte), 0x21);
}

#[test]
fn unrouted_lines_reach_no_irq() {
    let mut bench = bench();
    pirq(&mut bench, 0xf);
    assert_eq!(bench.host.lines.isa_levels, 0);
}

/// SeaBIOS routes A and B to IRQ 10, C and D to IRQ 11.
#[test]
fn lines_sharing_an_irq_are_ored() {
    let mut bench = bench();
    for (register, irq) in [(0x60, 10), (0x61, 10), (0x62, 11), (0x63, 11)] {
        bench.config_write(register, Width::Byte, irq);
    }
    pirq(&mut bench, 0b0001);
    assert!(bench.host.irq(10) && !bench.host.irq(11));
    pirq(&mut bench, 0b0111);
    assert!(bench.host.irq(10) && bench.host.irq(11));
    pirq(&mut bench, 0b0010);
    assert!(bench.host.irq(10) && !bench.host.irq(11));
    pirq(&mut bench, 0);
    assert_eq!(bench.host.lines.isa_levels, 0);
    assert_eq!(bench.host.lines.isa_edges[10], 1);
}

#[test]
fn rerouting_moves_an_asserted_line_and_disabling_drops_it() {
    let mut bench = bench();
    bench.config_write(0x60, Width::Byte, 11);
    pirq(&mut bench, 1);
    bench.config_write(0x60, Width::Byte, 5);
    assert!(!bench.host.irq(11) && bench.host.irq(5));
    bench.config_write(0x60, Width::Byte, 0x85);
    assert_eq!(bench.host.lines.isa_levels, 0);
}

#[test]
fn irqs_of_the_motherboard_cannot_be_routed_to() {
    let mut bench = bench();
    pirq(&mut bench, 1);
    for irq in [0, 1, 2, 8, 13] {
        bench.config_write(0x60, Width::Byte, irq);
        assert_eq!(bench.host.lines.isa_levels, 0, "IRQ {irq}");
    }
    for irq in [3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15] {
        bench.config_write(0x60, Width::Byte, irq);
        assert_eq!(bench.host.lines.isa_levels, 1 << irq, "IRQ {irq}");
    }
}

/// Linux: `outb(cf9 | 2)`, wait, `outb(cf9 | 6)`.
#[test]
fn reset_control_resets_the_machine_on_the_rising_bit() {
    let mut bench = bench();
    let cf9 = bench.inb(0xcf9) & !6;
    bench.outb(0xcf9, cf9 | 2);
    assert!(bench.host.resets.is_empty());
    bench.outb(0xcf9, cf9 | 6);
    assert_eq!(bench.host.resets, [ResetRequest::Machine]);
    bench.outb(0xcf9, 0x06);
    assert_eq!(bench.host.resets.len(), 1);
    assert_eq!(bench.inb(0xcf9), 6);
}

#[test]
fn reset_control_without_srst_resets_the_cpu() {
    let mut bench = bench();
    bench.outb(0xcf9, 0x04);
    assert_eq!(bench.host.resets, [ResetRequest::Cpu]);
}

#[test]
fn port_92_opens_a20_and_pulses_init_once() {
    let mut bench = bench();
    let value = bench.inb(0x92);
    bench.outb(0x92, value | 2);
    assert!(bench.host.a20[A20Source::Port92 as usize]);
    assert_eq!(bench.inb(0x92), 2);
    bench.outb(0x92, 3);
    bench.outb(0x92, 3);
    assert_eq!(bench.host.resets, [ResetRequest::Cpu]);
    bench.outb(0x92, 0xfc);
    assert!(!bench.host.a20[A20Source::Port92 as usize]);
    assert_eq!(bench.inb(0x92), 0);
}

#[test]
fn a_hard_reset_closes_a20_and_forgets_the_routing() {
    let mut bench = bench();
    bench.config_write(0x60, Width::Byte, 10);
    pirq(&mut bench, 1);
    bench.outb(0x92, 2);
    bench.device.reset(ResetKind::Hard, &mut bench.host);
    assert!(!bench.host.a20[A20Source::Port92 as usize] && !bench.host.irq(10));
    assert_eq!(bench.inb(0x92), 0);
    assert_eq!(bench.config_read(0x60, Width::Byte), 0x80);
}

#[test]
fn a_restart_keeps_lines_gate_and_edges() {
    let mut bench = bench();
    bench.config_write(0x61, Width::Byte, 10);
    pirq(&mut bench, 2);
    bench.outb(0x92, 2);
    bench.outb(0xcf9, 2);
    bench.restart(Piix4Isa::new());
    assert!(bench.host.irq(10));
    assert_eq!(bench.host.lines.isa_edges[10], 1);
    assert!(bench.host.a20[A20Source::Port92 as usize]);
    assert_eq!((bench.inb(0x92), bench.inb(0xcf9)), (2, 2));
    pirq(&mut bench, 0);
    assert!(!bench.host.irq(10));
}

#[test]
fn a_line_that_fell_while_the_process_was_down_is_dropped() {
    let mut bench = bench();
    bench.config_write(0x60, Width::Byte, 11);
    pirq(&mut bench, 1);
    bench.host.lines.pirq_levels = 0;
    bench.restart(Piix4Isa::new());
    assert!(!bench.host.irq(11));
}

#[test]
fn a_hostile_state_cannot_set_reserved_bits() {
    let mut device = Piix4Isa::new();
    let state = State { config: device.config.state(), rcr: 0xff, port92: 0xff };
    let mut data = Vec::new();
    save_state(&state, &mut data);
    device.load(1, &data).unwrap();
    assert_eq!((device.rcr, device.port92), (6, 3));
    assert!(device.load(1, &data[1..]).is_err());
    assert!(device.load(0, &data).is_err());
}
