use super::Pit;
use super::counter::Counter;
use super::spec::{CLOCK_HZ, ControlWord};
use crate::device::{Device, ResetKind};
use crate::testing::Bench;
use ipc::counter::Latch;
use ipc::time::VirtualTime;
use proptest::prelude::*;

const COUNTER_0: u16 = 0x40;
const COUNTER_2: u16 = 0x42;
const CONTROL: u16 = 0x43;
const PORT_61: u16 = 0x61;

const OUT_2: u8 = 0x20;
const REFRESH: u8 = 0x10;
const READ_STATUS_AND_COUNT_0: u8 = 0xc2;
const READ_STATUS_0: u8 = 0xe2;
const READ_STATUS_2: u8 = 0xe8;
const STATUS_OUT: u8 = 0x80;
const STATUS_NULL: u8 = 0x40;

fn bench() -> Bench<Pit> {
    Bench::new(Pit::new())
}

/// Moves time to clock `clock` exactly.
fn to_clock(bench: &mut Bench<Pit>, clock: u64) {
    let to = VirtualTime::of_ticks(clock, CLOCK_HZ);
    bench.advance(to.since(bench.host.now));
}

/// Clocks later; the bench must be at a moment where a clock just passed.
fn clocks(bench: &mut Bench<Pit>, clocks: u64) {
    let now = bench.host.now.ticks(CLOCK_HZ);
    to_clock(bench, now + clocks);
}

fn program(bench: &mut Bench<Pit>, control: u8, count: u16) {
    bench.outb(CONTROL, control);
    let port = COUNTER_0 + u16::from(control >> 6);
    bench.outb(port, count as u8);
    bench.outb(port, (count >> 8) as u8);
}

/// Latches and reads a counter that is accessed low byte first.
fn latched(bench: &mut Bench<Pit>, counter: u8) -> u16 {
    bench.outb(CONTROL, counter << 6);
    let port = COUNTER_0 + u16::from(counter);
    u16::from_le_bytes([bench.inb(port), bench.inb(port)])
}

fn status(bench: &mut Bench<Pit>, counter: u8) -> u8 {
    bench.outb(CONTROL, 0xe0 | 2 << counter);
    bench.inb(COUNTER_0 + u16::from(counter))
}

fn out(bench: &mut Bench<Pit>, counter: u8) -> bool {
    status(bench, counter) & STATUS_OUT != 0
}

fn edges(bench: &Bench<Pit>) -> u32 {
    bench.host.lines.isa_edges[0]
}

/// Counts and OUT of counter 2 at successive clocks, starting `from` clocks from now.
fn trace(bench: &mut Bench<Pit>, length: usize) -> Vec<(u16, bool)> {
    (0..length)
        .map(|_| {
            clocks(bench, 1);
            (latched(bench, 2), out(bench, 2))
        })
        .collect()
}

#[test]
fn mode_0_goes_high_n_plus_1_clocks_after_the_count_and_counts_on() {
    let mut bench = bench();
    program(&mut bench, 0x30, 4);
    assert!(!bench.host.irq(0));
    clocks(&mut bench, 4);
    assert_eq!((bench.host.irq(0), latched(&mut bench, 0)), (false, 1));
    clocks(&mut bench, 1);
    assert_eq!((bench.host.irq(0), latched(&mut bench, 0)), (true, 0));
    clocks(&mut bench, 1);
    assert_eq!((edges(&bench), latched(&mut bench, 0)), (1, 0xffff));
    clocks(&mut bench, 1_000_000);
    assert_eq!(edges(&bench), 1);
    assert!(bench.host.timers.is_empty(), "nothing more can happen");
}

#[test]
fn mode_0_first_byte_of_a_new_count_stops_and_lowers_out() {
    let mut bench = bench();
    program(&mut bench, 0x30, 2);
    clocks(&mut bench, 10);
    assert!(bench.host.irq(0));
    bench.outb(COUNTER_0, 5);
    assert!(!bench.host.irq(0));
    clocks(&mut bench, 100);
    assert!(!bench.host.irq(0), "waits for the second byte");
    bench.outb(COUNTER_0, 0);
    clocks(&mut bench, 6);
    assert!(bench.host.irq(0));
}

#[test]
fn mode_0_gate_low_suspends_the_count() {
    let mut bench = bench();
    bench.outb(PORT_61, 1);
    program(&mut bench, 0xb0, 10);
    clocks(&mut bench, 4);
    assert_eq!(latched(&mut bench, 2), 7);
    bench.outb(PORT_61, 0);
    clocks(&mut bench, 50);
    assert_eq!(latched(&mut bench, 2), 7);
    bench.outb(PORT_61, 1);
    clocks(&mut bench, 7);
    assert_eq!(bench.inb(PORT_61) & OUT_2, OUT_2);
}

#[test]
fn mode_1_is_triggered_by_the_gate_and_can_be_retriggered() {
    let mut bench = bench();
    program(&mut bench, 0xb2, 3);
    clocks(&mut bench, 5);
    assert!(out(&mut bench, 2), "no trigger yet");
    bench.outb(PORT_61, 1);
    assert_eq!(trace(&mut bench, 4), [(3, false), (2, false), (1, false), (0, true)]);
    bench.outb(PORT_61, 0);
    bench.outb(PORT_61, 1);
    assert_eq!(trace(&mut bench, 2), [(3, false), (2, false)]);
    bench.outb(PORT_61, 0);
    bench.outb(PORT_61, 1);
    assert_eq!(trace(&mut bench, 4), [(3, false), (2, false), (1, false), (0, true)]);
}

#[test]
fn mode_2_is_low_for_one_clock_in_n_and_takes_a_new_count_at_the_reload() {
    let mut bench = bench();
    bench.outb(PORT_61, 1);
    program(&mut bench, 0xb4, 3);
    assert_eq!(trace(&mut bench, 4), [(3, true), (2, true), (1, false), (3, true)]);
    bench.outb(COUNTER_2, 5);
    bench.outb(COUNTER_2, 0);
    assert_eq!(status(&mut bench, 2) & STATUS_NULL, STATUS_NULL);
    assert_eq!(trace(&mut bench, 4), [(2, true), (1, false), (5, true), (4, true)]);
    assert_eq!(status(&mut bench, 2) & STATUS_NULL, 0);
}

#[test]
fn mode_2_gate_low_raises_out_and_gate_high_reloads() {
    let mut bench = bench();
    bench.outb(PORT_61, 1);
    program(&mut bench, 0xb4, 3);
    clocks(&mut bench, 3);
    assert!(!out(&mut bench, 2));
    bench.outb(PORT_61, 0);
    assert!(out(&mut bench, 2));
    clocks(&mut bench, 9);
    bench.outb(PORT_61, 1);
    assert_eq!(trace(&mut bench, 2), [(3, true), (2, true)]);
}

#[test]
fn mode_3_even_count_is_half_high_and_half_low_by_twos() {
    let mut bench = bench();
    bench.outb(PORT_61, 1);
    program(&mut bench, 0xb6, 4);
    assert_eq!(trace(&mut bench, 5), [(4, true), (2, true), (4, false), (2, false), (4, true)]);
}

#[test]
fn mode_3_odd_count_is_high_one_clock_longer() {
    let mut bench = bench();
    bench.outb(PORT_61, 1);
    program(&mut bench, 0xb6, 5);
    assert_eq!(
        trace(&mut bench, 7),
        [(4, true), (2, true), (0, true), (4, false), (2, false), (4, true), (2, true)]
    );
}

#[test]
fn mode_3_takes_a_new_count_at_the_end_of_the_half() {
    let mut bench = bench();
    bench.outb(PORT_61, 1);
    program(&mut bench, 0xb6, 4);
    clocks(&mut bench, 1);
    bench.outb(COUNTER_2, 6);
    bench.outb(COUNTER_2, 0);
    assert_eq!(trace(&mut bench, 4), [(2, true), (6, false), (4, false), (2, false)]);
}

#[test]
fn mode_4_strobes_once_for_one_clock() {
    let mut bench = bench();
    bench.outb(PORT_61, 1);
    program(&mut bench, 0xb8, 2);
    assert_eq!(trace(&mut bench, 4), [(2, true), (1, true), (0, false), (0xffff, true)]);
    clocks(&mut bench, 70_000);
    assert!(out(&mut bench, 2));
}

#[test]
fn mode_4_on_counter_0_interrupts_at_the_end_of_the_strobe() {
    let mut bench = bench();
    program(&mut bench, 0x38, 10);
    let before = edges(&bench);
    clocks(&mut bench, 11);
    assert_eq!(edges(&bench), before);
    clocks(&mut bench, 1);
    assert_eq!(edges(&bench), before + 1);
}

#[test]
fn mode_5_strobes_after_a_trigger() {
    let mut bench = bench();
    program(&mut bench, 0xba, 2);
    clocks(&mut bench, 20);
    assert!(out(&mut bench, 2));
    bench.outb(PORT_61, 1);
    assert_eq!(trace(&mut bench, 4), [(2, true), (1, true), (0, false), (0xffff, true)]);
}

#[test]
fn bcd_counts_in_decades_and_zero_is_ten_thousand() {
    let mut bench = bench();
    program(&mut bench, 0x35, 0x1000);
    clocks(&mut bench, 2);
    assert_eq!(latched(&mut bench, 0), 0x0999);
    program(&mut bench, 0x35, 0);
    clocks(&mut bench, 1);
    assert_eq!(latched(&mut bench, 0), 0);
    clocks(&mut bench, 1);
    assert_eq!(latched(&mut bench, 0), 0x9999);
}

/// A counter in `mode` with `count`, triggered, and with a new count after some clocks.
fn prepared(mode: u8, bcd: bool, count: u16, new_count: u16) -> Counter {
    let mut counter = Counter::new(false);
    counter.write_control(ControlWord::new().with_access(3).with_mode(mode).with_bcd(bcd));
    for byte in count.to_le_bytes() {
        counter.write_count(byte);
    }
    counter.advance(1);
    counter.set_gate(true);
    counter.advance(2 + u64::from(count % 5));
    for byte in new_count.to_le_bytes() {
        counter.write_count(byte);
    }
    counter
}

#[test]
fn a_jump_of_many_clocks_equals_as_many_single_clocks_in_every_mode() {
    for mode in 0..6 {
        for (count, new_count, bcd) in
            [(1, 2, false), (2, 3, false), (5, 5, false), (6, 9, false), (7, 0x10, true), (0x23, 4, true)]
        {
            let start = prepared(mode, bcd, count, new_count);
            let mut stepped = start.clone();
            let mut rises = Vec::new();
            let first = 3 + u64::from(count % 5);
            for clock in first..70 {
                if stepped.advance(clock) {
                    rises.push(clock);
                }
                let mut jumped = start.clone();
                let rose = jumped.advance(clock);
                let what = format!("mode {mode}, {count:#x} then {new_count:#x}, clock {clock}");
                assert_eq!(jumped, stepped, "{what}");
                assert_eq!(rose, !rises.is_empty(), "{what}");
            }
            // And the forecast of the next rise is what then happens.
            let mut forecast = Vec::new();
            let mut counter = start;
            while let Some(clock) = counter.next_rise().filter(|clock| *clock < 70) {
                forecast.push(clock);
                counter.advance(clock);
            }
            assert_eq!(forecast, rises, "mode {mode}, {count:#x} then {new_count:#x}");
        }
    }
}

#[test]
fn a_latched_count_stays_until_both_bytes_are_read() {
    let mut bench = bench();
    program(&mut bench, 0x34, 0x2000);
    clocks(&mut bench, 1);
    bench.outb(CONTROL, 0x00);
    clocks(&mut bench, 0x155);
    bench.outb(CONTROL, 0x00); // ignored: a count is latched
    assert_eq!((bench.inb(COUNTER_0), bench.inb(COUNTER_0)), (0x00, 0x20));
    assert_eq!(bench.inb(COUNTER_0), 0xab);
    assert_eq!(bench.inb(COUNTER_0), 0x1e);
}

#[test]
fn read_back_gives_status_first_and_then_the_count() {
    let mut bench = bench();
    program(&mut bench, 0x34, 0x0100);
    bench.outb(CONTROL, READ_STATUS_0);
    assert_eq!(bench.inb(COUNTER_0), 0xf4, "OUT, NULL COUNT, both bytes, mode 2");
    clocks(&mut bench, 0x11);
    bench.outb(CONTROL, READ_STATUS_AND_COUNT_0);
    clocks(&mut bench, 3);
    assert_eq!((bench.inb(COUNTER_0), bench.inb(COUNTER_0), bench.inb(COUNTER_0)), (0xb4, 0xf0, 0x00));
}

#[test]
fn read_back_latches_only_the_counters_it_names() {
    let mut bench = bench();
    program(&mut bench, 0xb6, 100);
    bench.outb(CONTROL, READ_STATUS_2);
    assert_eq!(latched(&mut bench, 0), 0);
    assert_eq!(bench.inb(COUNTER_2) & 0x3f, 0x36);
}

#[test]
fn single_byte_access_sets_the_other_byte_to_zero() {
    let mut bench = bench();
    bench.outb(CONTROL, 0x14);
    bench.outb(COUNTER_0, 0x20);
    clocks(&mut bench, 2);
    assert_eq!(bench.inb(COUNTER_0), 0x1f);
    bench.outb(CONTROL, 0x24);
    bench.outb(COUNTER_0, 0x20);
    clocks(&mut bench, 2);
    assert_eq!(bench.inb(COUNTER_0), 0x1f, "0x1fff read by its high byte");
}

#[test]
fn modes_6_and_7_are_modes_2_and_3() {
    let mut bench = bench();
    program(&mut bench, 0x3c, 10);
    assert_eq!(status(&mut bench, 0) & 0x0e, 0x04);
    program(&mut bench, 0x3e, 10);
    assert_eq!(status(&mut bench, 0) & 0x0e, 0x06);
}

#[test]
fn the_control_register_does_not_read() {
    assert_eq!(bench().inb(CONTROL), 0xff);
}

#[test]
fn dos_tick_rate_has_no_drift_over_a_day() {
    let mut bench = bench();
    program(&mut bench, 0x36, 0);
    let before = edges(&bench);
    for _ in 0..24 {
        bench.advance(3_600 * 1_000_000_000);
    }
    // 86400 s * 1193182 Hz / 65536 = 1573042.7
    assert_eq!(edges(&bench) - before, 1_573_042);
}

#[test]
fn late_timers_lose_no_tick_and_keep_the_phase() {
    let mut bench = bench();
    program(&mut bench, 0x34, 1000);
    let before = edges(&bench);
    bench.host.now = VirtualTime::of_ticks(10_501, CLOCK_HZ); // the host slept for 10.5 periods
    bench.advance(0);
    assert_eq!(edges(&bench) - before, 10);
    to_clock(&mut bench, 11_000);
    assert_eq!(edges(&bench) - before, 10);
    to_clock(&mut bench, 11_001);
    assert_eq!(edges(&bench) - before, 11);
}

#[test]
fn reprogramming_from_a_low_mode_0_to_mode_2_is_an_edge() {
    let mut bench = bench();
    program(&mut bench, 0x30, 1000);
    let before = edges(&bench);
    bench.outb(CONTROL, 0x34);
    assert_eq!(edges(&bench), before + 1);
    clocks(&mut bench, 5_000);
    assert_eq!(edges(&bench), before + 1, "no count, no interrupts");
}

#[test]
fn linux_calibrates_against_counter_2_through_port_61() {
    let mut bench = bench();
    // pit_calibrate_tsc: gate on, speaker off, mode 0, 10 ms, poll OUT2.
    let latch = (CLOCK_HZ / 100) as u16;
    let port_61 = bench.inb(PORT_61);
    bench.outb(PORT_61, port_61 & !0x02 | 0x01);
    program(&mut bench, 0xb0, latch);
    let start = bench.host.now;
    while bench.inb(PORT_61) & OUT_2 == 0 {
        bench.advance(1_000);
    }
    let took = bench.host.now.since(start);
    assert!((9_999_000..10_003_000).contains(&took), "{took} ns");
}

#[test]
fn linux_quick_calibration_sees_the_high_byte_count_down() {
    let mut bench = bench();
    bench.outb(PORT_61, 1);
    program(&mut bench, 0xb0, 0xffff);
    clocks(&mut bench, 2);
    let read = |bench: &mut Bench<Pit>| {
        let _low = bench.inb(COUNTER_2);
        bench.inb(COUNTER_2)
    };
    assert_eq!(read(&mut bench), 0xff);
    clocks(&mut bench, 256);
    assert_eq!(read(&mut bench), 0xfe);
    clocks(&mut bench, 512);
    assert_eq!(read(&mut bench), 0xfc);
}

#[test]
fn the_refresh_bit_toggles_every_18_clocks() {
    let mut bench = bench();
    let mut toggles = 0;
    let mut last = bench.inb(PORT_61) & REFRESH;
    for _ in 0..1_000 {
        bench.advance(1_000);
        let now = bench.inb(PORT_61) & REFRESH;
        toggles += u32::from(now != last);
        last = now;
    }
    assert_eq!(toggles, 66, "1 ms / 15.085 us");
}

#[test]
fn port_61_keeps_only_its_writable_bits() {
    let mut bench = bench();
    bench.outb(PORT_61, 0xff);
    assert_eq!(bench.inb(PORT_61) & 0xcf, 0x0f);
}

#[test]
fn an_unused_timer_costs_nothing() {
    let mut bench = bench();
    bench.outb(PORT_61, 3);
    program(&mut bench, 0xb6, 1000);
    assert!(bench.host.timers.is_empty());
}

#[test]
fn a_restart_in_mid_period_keeps_count_phase_and_timer() {
    let mut bench = bench();
    program(&mut bench, 0x34, 1000);
    clocks(&mut bench, 2_500);
    bench.outb(CONTROL, 0x00);
    let low = bench.inb(COUNTER_0);
    let before = edges(&bench);
    bench.host.timers.clear();
    bench.restart(Pit::new());
    assert_eq!(edges(&bench), before);
    assert_eq!(u16::from_le_bytes([low, bench.inb(COUNTER_0)]), 501);
    to_clock(&mut bench, 3_000);
    assert_eq!(edges(&bench), before);
    to_clock(&mut bench, 3_001);
    assert_eq!(edges(&bench), before + 1);
}

#[test]
fn hard_reset_closes_the_gate_but_the_system_timer_goes_on() {
    let mut bench = bench();
    bench.outb(PORT_61, 3);
    program(&mut bench, 0x34, 1000);
    let before = edges(&bench);
    bench.device.reset(ResetKind::Hard, &mut bench.host);
    clocks(&mut bench, 1_001);
    assert_eq!((bench.inb(PORT_61) & 0x0f, edges(&bench)), (0, before + 1));
}

#[test]
fn hostile_states_never_panic() {
    let mut bench = bench();
    program(&mut bench, 0x36, 5);
    program(&mut bench, 0xb4, 7);
    clocks(&mut bench, 100);
    let mut state = Vec::new();
    bench.device.save(&mut state);
    for i in 0..state.len() {
        for value in [0, 1, 2, 3, 4, 5, 0x7f, 0xff] {
            let mut bad = state.clone();
            bad[i] = value;
            let mut device = Pit::new();
            if device.load(1, &bad).is_ok() {
                bench.device = device;
                bench.device.attach(&mut bench.host);
                bench.advance(1_000);
                bench.inb(COUNTER_0);
                bench.inb(COUNTER_2);
                bench.outb(PORT_61, i as u8);
            }
        }
    }
    assert!(bench.device.load(1, &state[..3]).is_err());
    assert!(bench.device.load(9, &state).is_err());
}

/// A counter in mode 2 that has been read once since it was programmed.
fn stated() -> Bench<Pit> {
    let mut bench = bench();
    program(&mut bench, 0x34, 1000);
    clocks(&mut bench, 11);
    assert_eq!(latched(&mut bench, 0), 990);
    bench.counts_alone = true;
    bench
}

#[test]
fn a_counter_that_only_counts_is_latched_and_read_without_the_model() {
    let mut bench = stated();
    bench.take_changed();
    clocks(&mut bench, 10);
    assert_eq!(latched(&mut bench, 0), 980);
    clocks(&mut bench, 985);
    bench.outb(CONTROL, 0x00);
    clocks(&mut bench, 1);
    bench.outb(CONTROL, 0x00); // ignored: a count is latched
    // The timer that fell due at the reload told the model of a latch as it was then.
    assert_eq!(u16::from_le_bytes([bench.inb(COUNTER_0), bench.inb(COUNTER_0)]), 995);
    assert_eq!((bench.inb(COUNTER_0), bench.inb(COUNTER_0)), (0xe2, 0x03), "994, without a command");
    assert_eq!(bench.host.counters[&0].1, Latch::default());
}

#[test]
fn what_the_bus_latched_is_in_the_state_that_a_successor_loads() {
    let mut bench = stated();
    bench.outb(CONTROL, 0x00);
    let low = bench.inb(COUNTER_0);
    bench.restart(Pit::new());
    assert_eq!(bench.host.counters[&0].1, Latch { count: Some(990), high: true });
    // A control word ends it, in the model too.
    let mut other = stated();
    other.outb(CONTROL, 0x00);
    other.outb(CONTROL, 0x34);
    assert_eq!(bench.device.state.counters[0].output_latch(), Latch { count: Some(990), high: true });
    assert_eq!(other.device.state.counters[0].output_latch(), Latch::default());
    assert_eq!(u16::from_le_bytes([low, bench.inb(COUNTER_0)]), 990);
}

#[test]
fn only_what_a_statement_describes_is_stated() {
    // Another access mode, BCD, no count, half a count in mode 0, a gate that stops it.
    for (control, bytes) in [(0x14, 1), (0x24, 1), (0x35, 2), (0x34, 0), (0x30, 1), (0xb4, 2)] {
        let mut bench = stated();
        bench.outb(CONTROL, control);
        let index = control >> 6;
        (0..bytes).for_each(|_| bench.outb(COUNTER_0 + u16::from(index), 7));
        clocks(&mut bench, 3);
        bench.inb(COUNTER_0 + u16::from(index));
        assert!(!bench.host.counters.contains_key(&index), "{control:#x}");
    }
    // A latched status, until it is read.
    let mut bench = stated();
    bench.outb(CONTROL, READ_STATUS_0);
    assert!(!bench.host.counters.contains_key(&0));
    bench.inb(COUNTER_0);
    assert!(bench.host.counters.contains_key(&0));
    // A new count, from its reload on.
    bench.outb(COUNTER_0, 5);
    bench.outb(COUNTER_0, 0);
    assert_eq!(bench.host.counters[&0].0.period, 990);
    clocks(&mut bench, 1000);
    assert_eq!(bench.host.counters[&0].0.period, 5);
}

#[test]
fn no_count_from_behind_a_tick_is_seen_before_the_tick() {
    let mut bench = stated();
    let before = edges(&bench);
    // The host slept: the timer has not come.
    bench.host.now = VirtualTime::of_ticks(1500, CLOCK_HZ);
    assert_eq!((latched(&mut bench, 0), edges(&bench)), (501, before + 1));
    // Before that, and of a counter without ticks, nobody is asked.
    bench.host.now = VirtualTime::of_ticks(1501, CLOCK_HZ);
    assert_eq!((latched(&mut bench, 0), bench.host.counters[&0].1), (500, Latch::default()));
    assert_eq!(bench.host.counters[&0].0.until, VirtualTime::of_ticks(2001, CLOCK_HZ));
}

#[test]
fn a_statement_is_renewed_before_it_is_too_old_to_tell() {
    // One that no timer looks after.
    let mut bench = bench();
    bench.outb(PORT_61, 1);
    program(&mut bench, 0xb0, 0);
    clocks(&mut bench, 1);
    latched(&mut bench, 2);
    let origin = bench.host.counters[&2].0.origin;
    bench.advance(24 * 3600 * 1_000_000_000);
    assert_eq!(bench.host.counters[&2].0.count(bench.host.now), None);
    latched(&mut bench, 2);
    assert!(bench.host.counters[&2].0.origin > origin);
    assert!(bench.host.counters[&2].0.count(bench.host.now).is_some());
}

/// What a guest does with the timer.
#[derive(Clone, Debug)]
enum Step {
    Out(u16, u8),
    In(u16),
    Latch(u8),
    /// Control word, count.
    Program(u8, u16),
    Wait(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let count = prop_oneof![Just(0), 1u16..8, 8u16..2000, any::<u16>()];
    prop_oneof![
        8 => (0u8..3).prop_map(Step::Latch),
        12 => (0u16..3).prop_map(|index| Step::In(COUNTER_0 + index)),
        // Low and high byte, binary, of any mode.
        3 => (0u8..3, 0u8..8, count).prop_map(|(index, mode, count)| Step::Program(index << 6 | 0x30 | mode << 1, count)),
        1 => (0u16..4, any::<u8>()).prop_map(|(port, byte)| Step::Out(COUNTER_0 + port, byte)),
        2 => (0u16..3, 0u8..9).prop_map(|(port, byte)| Step::Out(COUNTER_0 + port, byte)),
        1 => (0u8..4).prop_map(|byte| Step::Out(PORT_61, byte)),
        1 => Just(Step::In(PORT_61)),
        6 => (0u64..20_000).prop_map(Step::Wait),
        2 => (0u64..200_000_000).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Beside one that is asked for everything; that one's bench compares each answer with what is stated, too.
    #[test]
    fn a_guest_sees_no_difference_between_model_and_statement(steps in prop::collection::vec(step(), 1..120)) {
        let mut benches = [bench(), bench()];
        benches[1].counts_alone = true;
        let mut seen = [Vec::new(), Vec::new()];
        for (bench, seen) in benches.iter_mut().zip(&mut seen) {
            // Else counter 2 stands still most of the time.
            bench.outb(PORT_61, 1);
            for step in &steps {
                match *step {
                    Step::Out(port, byte) => bench.outb(port, byte),
                    Step::In(port) => seen.push(u16::from(bench.inb(port))),
                    Step::Latch(index) => seen.push(latched(bench, index)),
                    Step::Program(control, count) => program(bench, control, count),
                    Step::Wait(nanos) => bench.advance(nanos),
                    Step::Restart => bench.restart(Pit::new()),
                }
                seen.push(edges(bench) as u16);
            }
        }
        let [asked, alone] = seen;
        prop_assert_eq!(asked, alone);
    }
}
