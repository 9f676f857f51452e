use super::Pic;
use crate::device::{Device, ResetKind};
use crate::host::Host;
use crate::testing::Bench;

const PIC1: u16 = 0x20;
const PIC1_DATA: u16 = 0x21;
const PIC2: u16 = 0xa0;
const PIC2_DATA: u16 = 0xa1;
const ELCR1: u16 = 0x4d0;
const ELCR2: u16 = 0x4d1;

const MASTER_VECTORS: u8 = 0x08;
const SLAVE_VECTORS: u8 = 0x70;

const EOI: u8 = 0x20;
const READ_IRR: u8 = 0x0a;
const READ_ISR: u8 = 0x0b;
const POLL: u8 = 0x0c;
const SET_SPECIAL_MASK: u8 = 0x68;

fn write_all(bench: &mut Bench<Pic>, writes: &[(u16, u8)]) {
    for (port, value) in writes {
        bench.outb(*port, *value);
    }
}

/// Both controllers as a PC BIOS leaves them, all lines unmasked, with `icw4` for the master.
fn initialized_with(icw4: u8) -> Bench<Pic> {
    let mut bench = Bench::new(Pic::new());
    write_all(
        &mut bench,
        &[
            (PIC1, 0x11),
            (PIC1_DATA, MASTER_VECTORS),
            (PIC1_DATA, 0x04),
            (PIC1_DATA, icw4),
            (PIC2, 0x11),
            (PIC2_DATA, SLAVE_VECTORS),
            (PIC2_DATA, 0x02),
            (PIC2_DATA, 0x01),
        ],
    );
    bench
}

fn initialized() -> Bench<Pic> {
    initialized_with(0x01)
}

fn set_line(bench: &mut Bench<Pic>, irq: u8, level: bool) {
    bench.host.set_irq(irq, level);
    bench.lines_changed();
}

fn acknowledge(bench: &mut Bench<Pic>) -> Option<u8> {
    let vector = bench.host.intr.take()?;
    bench.device.interrupt_acknowledged(vector, &mut bench.host);
    Some(vector)
}

fn isr(bench: &mut Bench<Pic>) -> (u8, u8) {
    write_all(bench, &[(PIC1, READ_ISR), (PIC2, READ_ISR)]);
    (bench.inb(PIC1), bench.inb(PIC2))
}

fn irr(bench: &mut Bench<Pic>) -> (u8, u8) {
    write_all(bench, &[(PIC1, READ_IRR), (PIC2, READ_IRR)]);
    (bench.inb(PIC1), bench.inb(PIC2))
}

#[test]
fn nothing_is_requested_before_initialization_is_complete() {
    let mut bench = Bench::new(Pic::new());
    set_line(&mut bench, 1, true);
    assert_eq!(bench.host.intr, None);
    write_all(&mut bench, &[(PIC1, 0x11), (PIC1_DATA, 0x08), (PIC1_DATA, 0x04)]);
    set_line(&mut bench, 3, true);
    assert_eq!(bench.host.intr, None);
    bench.outb(PIC1_DATA, 0x01);
    // The edge of IRQ 1 came before ICW1, which reset the edge sense circuit.
    assert_eq!(bench.host.intr, Some(MASTER_VECTORS + 3));
}

#[test]
fn without_icw4_and_icw3_the_sequence_is_shorter() {
    let mut bench = Bench::new(Pic::new());
    write_all(&mut bench, &[(PIC1, 0x12), (PIC1_DATA, 0x40), (PIC1_DATA, 0xfe)]);
    assert_eq!(bench.inb(PIC1_DATA), 0xfe);
    set_line(&mut bench, 0, true);
    assert_eq!(bench.host.intr, Some(0x40));
}

#[test]
fn an_edge_is_delivered_once_however_long_the_line_stays_high() {
    let mut bench = initialized();
    set_line(&mut bench, 4, true);
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS + 4));
    assert_eq!(isr(&mut bench), (0x10, 0));
    bench.outb(PIC1, EOI);
    assert_eq!((bench.host.intr, isr(&mut bench)), (None, (0, 0)));
    set_line(&mut bench, 4, false);
    set_line(&mut bench, 4, true);
    assert_eq!(bench.host.intr, Some(MASTER_VECTORS + 4));
}

fn tick(bench: &mut Bench<Pic>, irq: u8) {
    bench.host.set_irq(irq, false);
    set_line(bench, irq, true);
}

#[test]
fn ticks_that_come_before_the_cpu_takes_the_first_follow_it_and_edges_of_others_become_one() {
    let mut bench = initialized();
    for _ in 0..3 {
        tick(&mut bench, 0);
        tick(&mut bench, 4);
    }
    let mut taken = Vec::new();
    while let Some(vector) = acknowledge(&mut bench) {
        taken.push(vector - MASTER_VECTORS);
        bench.outb(PIC1, EOI);
    }
    assert_eq!(taken, [0, 0, 0, 4]);
}

#[test]
fn ticks_of_a_masked_timer_become_one_and_there_is_an_end_to_those_that_wait() {
    let mut bench = initialized();
    bench.outb(PIC1_DATA, 0x01);
    (0..3).for_each(|_| tick(&mut bench, 0));
    bench.outb(PIC1_DATA, 0x00);
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS));
    bench.outb(PIC1, EOI);
    assert_eq!(acknowledge(&mut bench), None);

    (0..2 * super::MOST_TICKS).for_each(|_| tick(&mut bench, 0));
    let mut taken = 0;
    while acknowledge(&mut bench).is_some() {
        taken += 1;
        bench.outb(PIC1, EOI);
    }
    assert_eq!(taken, 1 + super::MOST_TICKS);
}

#[test]
fn an_edge_request_is_withdrawn_when_the_line_falls_before_the_acknowledge() {
    let mut bench = initialized();
    set_line(&mut bench, 5, true);
    assert_eq!(irr(&mut bench).0, 0x20);
    set_line(&mut bench, 5, false);
    assert_eq!((irr(&mut bench).0, bench.host.intr), (0, None));
}

#[test]
fn a_pulse_too_short_to_be_seen_as_a_level_is_one_interrupt() {
    let mut bench = initialized();
    bench.host.set_irq(5, true);
    bench.host.set_irq(5, false);
    bench.lines_changed();
    bench.lines_changed();
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS + 5));
    bench.outb(PIC1, EOI);
    bench.lines_changed();
    assert_eq!(bench.host.intr, None);
}

#[test]
fn a_level_triggered_line_requests_again_after_eoi_until_it_falls() {
    let mut bench = initialized();
    write_all(&mut bench, &[(ELCR1, 0x00), (ELCR2, 0x0c)]); // IRQ 10 and 11, as SeaBIOS does
    set_line(&mut bench, 11, true);
    assert_eq!(acknowledge(&mut bench), Some(SLAVE_VECTORS + 3));
    assert_eq!(bench.host.intr, None);
    write_all(&mut bench, &[(PIC2, EOI), (PIC1, EOI)]);
    assert_eq!(acknowledge(&mut bench), Some(SLAVE_VECTORS + 3));
    set_line(&mut bench, 11, false);
    write_all(&mut bench, &[(PIC2, EOI), (PIC1, EOI)]);
    assert_eq!(bench.host.intr, None);
}

#[test]
fn elcr_reserves_the_lines_that_are_always_edge_triggered() {
    let mut bench = initialized();
    bench.outw(ELCR1, 0xffff);
    assert_eq!(bench.inw(ELCR1), 0xdef8);
}

#[test]
fn a_higher_level_interrupts_a_lower_one_and_not_the_other_way_round() {
    let mut bench = initialized();
    set_line(&mut bench, 6, true);
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS + 6));
    set_line(&mut bench, 7, true);
    assert_eq!(bench.host.intr, None);
    set_line(&mut bench, 1, true);
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS + 1));
    assert_eq!(isr(&mut bench).0, 0x42);
    bench.outb(PIC1, EOI); // ends IRQ 1, the higher one
    assert_eq!(isr(&mut bench).0, 0x40);
    bench.outb(PIC1, EOI);
    assert_eq!(bench.host.intr, Some(MASTER_VECTORS + 7));
}

#[test]
fn slave_lines_rank_between_irq_1_and_irq_3() {
    let mut bench = initialized();
    for irq in [3, 9, 8] {
        set_line(&mut bench, irq, true);
    }
    assert_eq!(irr(&mut bench), (0x0c, 0x03));
    assert_eq!(acknowledge(&mut bench), Some(SLAVE_VECTORS));
    assert_eq!(isr(&mut bench), (0x04, 0x01));
    write_all(&mut bench, &[(PIC2, EOI), (PIC1, EOI)]);
    assert_eq!(acknowledge(&mut bench), Some(SLAVE_VECTORS + 1));
    write_all(&mut bench, &[(PIC2, EOI), (PIC1, EOI)]);
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS + 3));
}

#[test]
fn the_vector_that_the_cpu_took_is_acknowledged_even_if_a_higher_one_came_meanwhile() {
    let mut bench = initialized();
    set_line(&mut bench, 4, true);
    let taken = bench.host.intr.expect("IRQ 4 is pending");
    set_line(&mut bench, 0, true);
    bench.device.interrupt_acknowledged(taken, &mut bench.host);
    assert_eq!(isr(&mut bench).0, 0x10);
    assert_eq!(bench.host.intr, Some(MASTER_VECTORS));
}

#[test]
fn a_request_withdrawn_during_the_acknowledge_is_taken_as_that_vector() {
    let mut bench = initialized();
    set_line(&mut bench, 4, true);
    set_line(&mut bench, 4, false);
    bench.device.interrupt_acknowledged(MASTER_VECTORS + 4, &mut bench.host);
    assert_eq!(isr(&mut bench).0, 0x10);
}

#[test]
fn a_withdrawn_level_7_is_spurious_and_leaves_no_in_service_bit() {
    let mut bench = initialized();
    set_line(&mut bench, 7, true);
    set_line(&mut bench, 7, false);
    bench.device.interrupt_acknowledged(MASTER_VECTORS + 7, &mut bench.host);
    assert_eq!(isr(&mut bench), (0, 0));
    set_line(&mut bench, 15, true);
    set_line(&mut bench, 15, false);
    bench.device.interrupt_acknowledged(SLAVE_VECTORS + 7, &mut bench.host);
    // The master cannot know: its IR2 needs an EOI, as Linux does for a spurious IRQ 15.
    assert_eq!(isr(&mut bench), (0x04, 0));
}

#[test]
fn a_vector_of_neither_controller_changes_nothing() {
    let mut bench = initialized();
    bench.device.interrupt_acknowledged(0xee, &mut bench.host);
    assert_eq!(isr(&mut bench), (0, 0));
}

#[test]
fn specific_eoi_ends_the_named_level_only() {
    let mut bench = initialized();
    set_line(&mut bench, 6, true);
    acknowledge(&mut bench);
    set_line(&mut bench, 1, true);
    acknowledge(&mut bench);
    bench.outb(PIC1, 0x66);
    assert_eq!(isr(&mut bench).0, 0x02);
}

#[test]
fn rotation_on_eoi_gives_the_ended_level_the_lowest_priority() {
    let mut bench = initialized();
    set_line(&mut bench, 4, true);
    acknowledge(&mut bench);
    bench.outb(PIC1, 0xa0); // rotate on non-specific EOI
    for irq in [3, 4, 5] {
        set_line(&mut bench, irq, false);
        set_line(&mut bench, irq, true);
    }
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS + 5));
    bench.outb(PIC1, 0xe5); // rotate on specific EOI of 5: now 6 is highest
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS + 3));
    bench.outb(PIC1, EOI);
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS + 4));
}

#[test]
fn set_priority_makes_the_next_level_the_highest() {
    let mut bench = initialized();
    bench.outb(PIC1, 0xc5); // lowest is 5, so 6 is highest
    set_line(&mut bench, 0, true);
    set_line(&mut bench, 6, true);
    assert_eq!(bench.host.intr, Some(MASTER_VECTORS + 6));
}

#[test]
fn automatic_eoi_leaves_nothing_in_service_and_can_rotate() {
    let mut bench = initialized_with(0x03);
    bench.outb(PIC1, 0x80); // rotate in automatic EOI mode
    set_line(&mut bench, 0, true);
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS));
    assert_eq!(isr(&mut bench).0, 0);
    for irq in [0, 1] {
        set_line(&mut bench, irq, false);
        set_line(&mut bench, irq, true);
    }
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS + 1));
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS));
    bench.outb(PIC1, 0x00); // and stop rotating
    set_line(&mut bench, 0, false);
    set_line(&mut bench, 0, true);
    acknowledge(&mut bench);
    for irq in [0, 1] {
        set_line(&mut bench, irq, false);
        set_line(&mut bench, irq, true);
    }
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS + 1));
}

#[test]
fn automatic_eoi_of_a_level_triggered_line_publishes_the_same_vector_again() {
    let mut bench = initialized_with(0x03);
    bench.outb(ELCR1, 0x20);
    set_line(&mut bench, 5, true);
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS + 5));
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS + 5));
    set_line(&mut bench, 5, false);
    assert_eq!(bench.host.intr, None);
}

#[test]
fn special_mask_mode_lets_lower_levels_through_a_masked_one_in_service() {
    let mut bench = initialized();
    set_line(&mut bench, 4, true);
    acknowledge(&mut bench);
    set_line(&mut bench, 6, true);
    assert_eq!(bench.host.intr, None);
    write_all(&mut bench, &[(PIC1_DATA, 0x10), (PIC1, SET_SPECIAL_MASK)]);
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS + 6));
    // A non-specific EOI passes over the masked level 4.
    bench.outb(PIC1, EOI);
    assert_eq!(isr(&mut bench).0, 0x10);
    bench.outb(PIC1, 0x64);
    assert_eq!(isr(&mut bench).0, 0);
}

#[test]
fn special_fully_nested_mode_lets_the_slave_interrupt_itself() {
    let mut bench = initialized_with(0x11);
    set_line(&mut bench, 12, true);
    assert_eq!(acknowledge(&mut bench), Some(SLAVE_VECTORS + 4));
    set_line(&mut bench, 14, true);
    assert_eq!(bench.host.intr, None);
    set_line(&mut bench, 8, true);
    assert_eq!(acknowledge(&mut bench), Some(SLAVE_VECTORS));
    assert_eq!(isr(&mut bench), (0x04, 0x11));
}

#[test]
fn fully_nested_mode_holds_the_slave_until_the_master_eoi() {
    let mut bench = initialized();
    set_line(&mut bench, 12, true);
    acknowledge(&mut bench);
    set_line(&mut bench, 8, true);
    assert_eq!(bench.host.intr, None);
    bench.outb(PIC1, EOI);
    assert_eq!(bench.host.intr, Some(SLAVE_VECTORS));
}

#[test]
fn a_poll_acknowledges_and_names_the_highest_request_at_either_address() {
    let mut bench = initialized();
    set_line(&mut bench, 3, true);
    bench.outb(PIC1, POLL);
    assert_eq!(bench.inb(PIC1), 0x83);
    assert_eq!((isr(&mut bench).0, bench.host.intr), (0x08, None));
    bench.outb(PIC1, EOI);
    bench.outb(PIC1, POLL);
    assert_eq!(bench.inb(PIC1), 0);
    set_line(&mut bench, 9, true);
    write_all(&mut bench, &[(PIC2, POLL)]);
    assert_eq!(bench.inb(PIC2_DATA), 0x81);
    assert_eq!(bench.inb(PIC2_DATA), 0x00, "the next read is the mask again");
}

#[test]
fn masking_withdraws_a_published_request_and_unmasking_brings_it_back() {
    let mut bench = initialized();
    set_line(&mut bench, 4, true);
    bench.outb(PIC1_DATA, 0x10);
    assert_eq!(bench.host.intr, None);
    bench.outb(PIC1_DATA, 0x00);
    assert_eq!(bench.host.intr, Some(MASTER_VECTORS + 4));
}

#[test]
fn linux_init_8259a_finds_the_controllers_and_remaps_them() {
    let mut bench = initialized();
    // probe_8259A: the slave is masked, a value written to the master's mask must read back.
    write_all(&mut bench, &[(PIC2_DATA, 0xff), (PIC1_DATA, 0xfb)]);
    assert_eq!(bench.inb(PIC1_DATA), 0xfb);
    write_all(
        &mut bench,
        &[
            (PIC1_DATA, 0xff),
            (PIC1, 0x11),
            (PIC1_DATA, 0x30),
            (PIC1_DATA, 0x04),
            (PIC1_DATA, 0x01),
            (PIC2, 0x11),
            (PIC2_DATA, 0x38),
            (PIC2_DATA, 0x02),
            (PIC2_DATA, 0x01),
            (PIC1_DATA, 0xfb),
            (PIC2_DATA, 0xff),
        ],
    );
    // Unmask IRQ 0 and 14; mask_and_ack_8259A: mask, then specific EOIs on both.
    write_all(&mut bench, &[(PIC1_DATA, 0xfa), (PIC2_DATA, 0xbf)]);
    set_line(&mut bench, 14, true);
    assert_eq!(acknowledge(&mut bench), Some(0x3e));
    assert_eq!(bench.inb(PIC2_DATA), 0xbf);
    write_all(&mut bench, &[(PIC2_DATA, 0xff), (PIC2, 0x66), (PIC1, 0x62)]);
    assert_eq!(isr(&mut bench), (0, 0));
    set_line(&mut bench, 0, true);
    assert_eq!(acknowledge(&mut bench), Some(0x30));
}

#[test]
fn a_restart_in_service_keeps_priorities_and_publishes_again() {
    let mut bench = initialized();
    set_line(&mut bench, 6, true);
    acknowledge(&mut bench);
    set_line(&mut bench, 1, true);
    bench.host.intr = None;
    bench.restart(Pic::new());
    assert_eq!(bench.host.intr, Some(MASTER_VECTORS + 1));
    assert_eq!(isr(&mut bench).0, 0x40);
}

#[test]
fn an_edge_that_came_while_the_process_was_dead_is_delivered_once() {
    let mut bench = initialized();
    let mut state = Vec::new();
    bench.device.save(&mut state);
    bench.host.set_irq(4, true);
    let mut fresh = Pic::new();
    fresh.load(1, &state).expect("own state");
    fresh.attach(&mut bench.host);
    bench.device = fresh;
    assert_eq!(acknowledge(&mut bench), Some(MASTER_VECTORS + 4));
    bench.outb(PIC1, EOI);
    bench.restart(Pic::new());
    assert_eq!(bench.host.intr, None);
}

#[test]
fn reset_forgets_requests_and_level_settings() {
    let mut bench = initialized();
    bench.outb(ELCR1, 0x20);
    set_line(&mut bench, 4, true);
    bench.device.reset(ResetKind::Hard, &mut bench.host);
    assert_eq!((bench.host.intr, bench.inb(ELCR1)), (None, 0));
}

#[test]
fn hostile_states_are_refused_and_leave_the_model_unchanged() {
    let mut bench = initialized();
    bench.outb(PIC1_DATA, 0x5a);
    let mut state = Vec::new();
    bench.device.save(&mut state);
    for i in 0..state.len() {
        let mut bad = state.clone();
        bad[i] = 0xff;
        if bench.device.load(1, &bad).is_ok() {
            set_line(&mut bench, 9, i % 2 == 0);
            acknowledge(&mut bench);
        }
    }
    bench.device.load(1, &state).expect("own state");
    assert!(bench.device.load(1, &state[1..]).is_err());
    assert!(bench.device.load(2, &state).is_err());
    assert_eq!(bench.inb(PIC1_DATA), 0x5a);
}
