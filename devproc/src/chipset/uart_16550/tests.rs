use super::*;
use crate::device::save_state;
use crate::testing::Bench;
use std::sync::{Arc, Mutex};

const COM1: u16 = 0x3f8;
/// One 8N1 character at 115200 baud.
const CHARACTER_NANOS: u64 = 86_806;

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<u8>>>);

impl SerialSink for Recorder {
    fn write(&mut self, byte: u8) {
        self.0.lock().unwrap().push(byte);
    }
}

impl Recorder {
    fn uart(&self) -> Uart {
        Uart::new(SerialPort::Com1, Box::new(self.clone()))
    }

    fn text(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

fn cable() -> Uart {
    Uart::with_cable(SerialPort::Com1)
}

fn bench() -> Bench<Uart> {
    let mut bench = Bench::new(cable());
    connect(&mut bench, true);
    bench.inb(COM1 + 6);
    bench
}

/// Somebody takes up the other end, or leaves it.
fn connect(bench: &mut Bench<Uart>, connected: bool) {
    bench.host.serial[0].cable.connected = connected;
    bench.device.host_event(&HostEvent::Serial, &mut bench.host);
}

/// What was sent over the cable.
fn text(bench: &Bench<Uart>) -> &[u8] {
    let cable = &bench.host.serial[0];
    &cable.output[..cable.cable.sent as usize]
}

/// The other end sends `data` at once.
fn send(bench: &mut Bench<Uart>, data: &[u8]) {
    bench.host.serial[0].input.extend(data);
    bench.device.host_event(&HostEvent::Serial, &mut bench.host);
}

/// As `send`; ends when the last character has arrived, if there was room.
fn receive(bench: &mut Bench<Uart>, data: &[u8]) {
    send(bench, data);
    bench.advance((data.len() as u64 - 1) * CHARACTER_NANOS);
}

/// 115200 8N1, FIFOs with trigger 8, DTR, RTS and OUT2: Linux 8250 startup.
fn linux() -> Bench<Uart> {
    let mut bench = bench();
    bench.outb(COM1 + 2, 0x01);
    bench.outb(COM1 + 2, 0x07);
    bench.outb(COM1 + 2, 0x00);
    for port in [5, 0, 2, 6] {
        bench.inb(COM1 + port);
    }
    bench.outb(COM1 + 3, 0x83);
    bench.outb(COM1, 1);
    bench.outb(COM1 + 1, 0);
    bench.outb(COM1 + 3, 0x03);
    bench.outb(COM1 + 2, 0x81);
    bench.outb(COM1 + 4, 0x0b);
    bench
}

/// Linux `autoconfig`: scratch, interrupt enable bits, loopback, FIFO.
#[test]
fn linux_detects_a_16550a() {
    let mut bench = bench();
    bench.outb(COM1 + 1, 0);
    assert_eq!(bench.inb(COM1 + 1) & 0x0f, 0);
    bench.outb(COM1 + 1, 0x0f);
    assert_eq!(bench.inb(COM1 + 1), 0x0f);
    bench.outb(COM1 + 1, 0);
    bench.outb(COM1 + 4, 0x10 | 0x0a);
    assert_eq!(bench.inb(COM1 + 6) & 0xf0, 0x90);
    bench.outb(COM1 + 4, 0);
    bench.outb(COM1 + 2, 0x01);
    assert_eq!(bench.inb(COM1 + 2) >> 6, 3);
    bench.outb(COM1 + 2, 0x00);
    assert_eq!(bench.inb(COM1 + 2) >> 6, 0);
    bench.outb(COM1 + 7, 0xa5);
    assert_eq!(bench.inb(COM1 + 7), 0xa5);
}

#[test]
fn polled_output_reaches_the_other_end() {
    let mut bench = linux();
    for byte in b"hello\n" {
        assert_eq!(bench.inb(COM1 + 5) & 0x60, 0x60);
        bench.outb(COM1, *byte);
    }
    assert_eq!(text(&bench), b"hello\n");
}

#[test]
fn the_divisor_latch_hides_data_and_interrupt_enable() {
    let mut bench = bench();
    bench.outb(COM1 + 3, 0x80);
    bench.outb(COM1, 0x34);
    bench.outb(COM1 + 1, 0x12);
    assert_eq!((bench.inb(COM1), bench.inb(COM1 + 1)), (0x34, 0x12));
    bench.outb(COM1 + 3, 0x03);
    assert_eq!(bench.inb(COM1 + 1), 0);
    assert!(text(&bench).is_empty());
}

#[test]
fn enabling_the_transmit_interrupt_interrupts_until_iir_is_read() {
    let mut bench = linux();
    bench.outb(COM1 + 1, 0x02);
    assert!(bench.host.irq(4));
    assert_eq!(bench.inb(COM1 + 2), 0xc2);
    assert!(!bench.host.irq(4));
    assert_eq!(bench.inb(COM1 + 2), 0xc1);
    bench.outb(COM1, b'x');
    assert!(bench.host.irq(4));
    assert_eq!(bench.host.lines.isa_edges[4], 2);
}

/// A driver that answers the interrupt by writing, without reading IIR, needs a new edge.
#[test]
fn each_character_written_is_a_new_edge() {
    let mut bench = linux();
    bench.outb(COM1 + 1, 0x02);
    bench.outb(COM1, b'a');
    bench.outb(COM1, b'b');
    assert!(bench.host.irq(4));
    assert_eq!(bench.host.lines.isa_edges[4], 3);
}

#[test]
fn out2_connects_the_interrupt() {
    let mut bench = linux();
    bench.outb(COM1 + 4, 0x03);
    bench.outb(COM1 + 1, 0x02);
    assert!(!bench.host.irq(4));
    bench.outb(COM1 + 4, 0x0b);
    assert!(bench.host.irq(4));
}

#[test]
fn received_data_interrupts_at_the_trigger_level() {
    let mut bench = linux();
    bench.outb(COM1 + 1, 0x01);
    receive(&mut bench, &[1; 7]);
    assert!(!bench.host.irq(4));
    assert_eq!(bench.inb(COM1 + 5) & 1, 1);
    bench.advance(CHARACTER_NANOS);
    receive(&mut bench, &[2]);
    assert_eq!(bench.inb(COM1 + 2), 0xc4);
    assert!(bench.host.irq(4));
    assert_eq!(bench.inb(COM1), 1);
    assert_eq!(bench.inb(COM1 + 2), 0xc1);
    assert!(!bench.host.irq(4));
}

#[test]
fn data_below_the_trigger_level_times_out_after_four_characters() {
    let mut bench = linux();
    bench.outb(COM1 + 1, 0x01);
    receive(&mut bench, b"ab");
    bench.advance(3 * CHARACTER_NANOS);
    assert!(!bench.host.irq(4));
    bench.advance(CHARACTER_NANOS);
    assert_eq!(bench.inb(COM1 + 2), 0xcc);
    assert_eq!(bench.inb(COM1), b'a');
    assert!(!bench.host.irq(4));
    bench.advance(4 * CHARACTER_NANOS);
    assert_eq!(bench.inb(COM1 + 2), 0xcc);
    assert_eq!(bench.inb(COM1), b'b');
    bench.advance(10 * CHARACTER_NANOS);
    assert_eq!(bench.inb(COM1 + 2), 0xc1);
}

#[test]
fn more_than_a_fifo_of_input_waits_outside_and_arrives_in_order() {
    let mut bench = linux();
    let data: Vec<u8> = (0..100).collect();
    receive(&mut bench, &data);
    assert_eq!(bench.host.serial[0].cable.taken, 16);
    let mut got = Vec::new();
    while got.len() < 100 {
        while bench.inb(COM1 + 5) & 1 != 0 {
            got.push(bench.inb(COM1));
        }
        bench.advance(CHARACTER_NANOS);
    }
    assert_eq!(got, data);
    assert_eq!(bench.inb(COM1 + 5), 0x60);
    assert!(bench.host.timers.is_empty(), "{:?}", bench.host.timers);
}

#[test]
fn pasted_text_arrives_at_the_baud_rate() {
    let mut bench = linux();
    send(&mut bench, b"abc");
    assert_eq!(bench.host.serial[0].cable.taken, 1);
    bench.advance(CHARACTER_NANOS - 2);
    assert_eq!(bench.host.serial[0].cable.taken, 1);
    bench.advance(2);
    assert_eq!(bench.host.serial[0].cable.taken, 2);
    // 9600 baud from the next character on.
    bench.outb(COM1 + 3, 0x83);
    bench.outb(COM1, 12);
    bench.outb(COM1 + 3, 0x03);
    bench.advance(CHARACTER_NANOS);
    assert_eq!(bench.host.serial[0].cable.taken, 3);
    send(&mut bench, b"d");
    bench.advance(11 * CHARACTER_NANOS);
    assert_eq!(bench.host.serial[0].cable.taken, 3);
    bench.advance(2 * CHARACTER_NANOS);
    assert_eq!(bench.host.serial[0].cable.taken, 4);
}

/// A timer that comes late, as on a busy host, must not slow the line down.
#[test]
fn characters_that_are_overdue_arrive_together() {
    let mut bench = linux();
    send(&mut bench, &[7; 40]);
    bench.host.now = bench.host.now.after(10 * CHARACTER_NANOS);
    bench.advance(0);
    assert_eq!(bench.host.serial[0].cable.taken, 11);
    bench.host.now = bench.host.now.after(100 * CHARACTER_NANOS);
    bench.advance(0);
    assert_eq!(bench.host.serial[0].cable.taken, 16);
}

#[test]
fn a_line_that_was_idle_has_no_characters_overdue() {
    let mut bench = linux();
    receive(&mut bench, b"a");
    bench.advance(1_000_000_000);
    send(&mut bench, b"bcd");
    assert_eq!(bench.host.serial[0].cable.taken, 2);
}

#[test]
fn whoever_connects_or_leaves_shows_in_the_modem_status_and_interrupts() {
    let mut bench = linux();
    bench.outb(COM1 + 1, 0x08);
    connect(&mut bench, false);
    assert!(bench.host.irq(4));
    assert_eq!(bench.inb(COM1 + 2), 0xc0);
    assert_eq!(bench.inb(COM1 + 6), 0x0b);
    assert!(!bench.host.irq(4));
    connect(&mut bench, true);
    assert_eq!(bench.inb(COM1 + 6), 0xbb);
}

#[test]
fn loopback_holds_the_line_off_and_reset_loses_nothing_that_waits() {
    let mut bench = linux();
    bench.outb(COM1 + 4, 0x1b);
    receive(&mut bench, b"xy");
    assert_eq!(bench.inb(COM1 + 5) & 1, 0);
    bench.outb(COM1, b'o');
    assert_eq!(bench.inb(COM1), b'o');
    bench.outb(COM1 + 4, 0x0b);
    assert_eq!(bench.inb(COM1), b'x');
    bench.outb(COM1, b'1');
    bench.device.reset(ResetKind::Hard, &mut bench.host);
    bench.outb(COM1 + 3, 0x03);
    bench.advance(100 * CHARACTER_NANOS);
    assert_eq!(bench.inb(COM1), b'y');
    bench.outb(COM1, b'2');
    assert_eq!(text(&bench), b"12");
}

/// The successor of a process that died before it committed takes and sends the same again; one that died after,
/// without having said so, does not.
#[test]
fn a_restart_takes_and_sends_every_character_once() {
    let mut bench = linux();
    send(&mut bench, b"ab");
    bench.outb(COM1, b'1');
    let mut committed = Vec::new();
    bench.device.save(&mut committed);
    let published = bench.host.serial[0].cable;

    // Died before the commit.
    bench.advance(CHARACTER_NANOS);
    bench.outb(COM1, b'2');
    bench.host.serial[0].cable = published;
    let mut successor = cable();
    successor.load(2, &committed).unwrap();
    successor.attach(&mut bench.host);
    bench.device = successor;
    assert_eq!(bench.host.serial[0].cable.taken, 1);
    bench.advance(CHARACTER_NANOS);
    bench.outb(COM1, b'2');
    assert_eq!(text(&bench), b"12");

    // Died after it, before what was taken and sent was published.
    bench.host.serial[0].cable = published;
    bench.restart(cable());
    assert_eq!((bench.inb(COM1), bench.inb(COM1), bench.inb(COM1 + 5)), (b'a', b'b', 0x60));
    assert_eq!(text(&bench), b"12");
}

#[test]
fn a_model_that_starts_cold_goes_on_where_the_cable_is() {
    let mut bench = linux();
    receive(&mut bench, b"ab");
    bench.host.serial[0].cable.taken = 100_000;
    bench.host.serial[0].input.resize(100_000, 0);
    bench.host.serial[0].input.push(b'z');
    let mut fresh = cable();
    fresh.attach(&mut bench.host);
    fresh.host_event(&HostEvent::Serial, &mut bench.host);
    bench.device = fresh;
    assert_eq!(bench.inb(COM1), b'z');
}

#[test]
fn without_fifos_one_character_is_held() {
    let mut bench = linux();
    bench.outb(COM1 + 2, 0);
    bench.outb(COM1 + 1, 0x01);
    receive(&mut bench, b"xy");
    assert_eq!(bench.inb(COM1 + 2), 0x04);
    assert_eq!(bench.inb(COM1), b'x');
    assert_eq!(bench.inb(COM1), b'y');
    assert_eq!(bench.inb(COM1 + 2), 0x01);
}

#[test]
fn loopback_returns_characters_and_keeps_them_from_the_line() {
    let mut bench = linux();
    bench.outb(COM1 + 4, 0x1b);
    bench.outb(COM1, 0x5a);
    assert_eq!(bench.inb(COM1), 0x5a);
    assert!(text(&bench).is_empty());
}

#[test]
fn loopback_overrun_keeps_the_fifo_and_is_a_line_status_interrupt() {
    let mut bench = linux();
    bench.outb(COM1 + 4, 0x1b);
    bench.outb(COM1 + 1, 0x05);
    for byte in 0..17 {
        bench.outb(COM1, byte);
    }
    assert_eq!(bench.inb(COM1 + 2), 0xc6);
    assert_eq!(bench.inb(COM1 + 5) & 0x03, 0x03);
    assert_eq!(bench.inb(COM1 + 5) & 0x02, 0);
    assert_eq!(bench.inb(COM1 + 2), 0xc4);
    assert_eq!((0..16).map(|_| bench.inb(COM1)).collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
}

#[test]
fn loopback_overrun_without_fifos_keeps_the_newest() {
    let mut bench = bench();
    bench.outb(COM1 + 3, 0x03);
    bench.outb(COM1 + 4, 0x10);
    bench.outb(COM1, 1);
    bench.outb(COM1, 2);
    assert_eq!(bench.inb(COM1 + 5) & 0x03, 0x03);
    assert_eq!(bench.inb(COM1), 2);
}

#[test]
fn a_break_is_reported_with_its_character() {
    let mut bench = linux();
    bench.outb(COM1 + 4, 0x13);
    bench.outb(COM1, b'a');
    bench.outb(COM1 + 3, 0x43);
    assert_eq!(bench.inb(COM1 + 5), 0xe1);
    assert_eq!(bench.inb(COM1), b'a');
    assert_eq!(bench.inb(COM1 + 5), 0xf9);
    assert_eq!(bench.inb(COM1 + 5), 0x61);
    assert_eq!(bench.inb(COM1), 0);
    bench.outb(COM1 + 4, 0x03);
    bench.outb(COM1, b'z');
    assert!(text(&bench).is_empty());
}

#[test]
fn short_words_lose_their_high_bits_in_loopback_only() {
    let mut bench = linux();
    bench.outb(COM1 + 3, 0x02);
    bench.outb(COM1, 0xff);
    bench.outb(COM1 + 4, 0x10);
    bench.outb(COM1, 0xff);
    bench.outb(COM1 + 3, 0x00);
    bench.outb(COM1, 0xff);
    assert_eq!(text(&bench), [0xff]);
    assert_eq!((bench.inb(COM1), bench.inb(COM1)), (0x7f, 0x1f));
}

#[test]
fn modem_line_changes_are_deltas_and_an_interrupt() {
    let mut bench = linux();
    assert_eq!(bench.inb(COM1 + 6), 0xb0);
    bench.outb(COM1 + 4, 0x10);
    assert_eq!(bench.inb(COM1 + 6), 0x0b);
    bench.outb(COM1 + 4, 0x14);
    assert_eq!(bench.inb(COM1 + 6), 0x40);
    bench.outb(COM1 + 4, 0x10);
    assert_eq!(bench.inb(COM1 + 6), 0x04);
    bench.outb(COM1 + 1, 0x08);
    bench.outb(COM1 + 4, 0x08);
    assert_eq!(bench.inb(COM1 + 2), 0xc0);
    assert!(bench.host.irq(4));
    bench.inb(COM1 + 6);
    assert!(!bench.host.irq(4));
}

#[test]
fn an_unconnected_port_has_no_modem_lines() {
    let mut bench = Bench::new(Uart::new(SerialPort::Com2, Box::new(NullSink)));
    assert_eq!(bench.inb(0x2f8 + 6), 0);
    assert_eq!(bench.inb(0x2f8 + 5), 0x60);
    assert_eq!(bench.device.name(), "com2");
}

#[test]
fn com2_interrupts_on_irq_3() {
    let mut bench = Bench::new(Uart::new(SerialPort::Com2, Box::new(NullSink)));
    bench.outb(0x2f8 + 4, 8);
    bench.outb(0x2f8 + 1, 2);
    assert!(bench.host.irq(3) && !bench.host.irq(4));
}

#[test]
fn a_restart_keeps_received_data_interrupt_and_timeout() {
    let mut bench = linux();
    bench.outb(COM1 + 1, 0x01);
    receive(&mut bench, &[7; 20]);
    assert!(bench.host.irq(4));
    bench.restart(cable());
    assert!(bench.host.irq(4));
    assert_eq!(bench.host.lines.isa_edges[4], 1);
    for _ in 0..19 {
        assert_eq!(bench.inb(COM1), 7);
        bench.advance(CHARACTER_NANOS);
    }
    bench.host.timers.clear();
    bench.restart(cable());
    bench.advance(4 * CHARACTER_NANOS);
    assert_eq!(bench.inb(COM1 + 2), 0xcc);
    bench.outb(COM1, b'!');
    assert_eq!(text(&bench), b"!");
}

#[test]
fn polling_the_line_status_does_not_change_the_state() {
    let mut bench = linux();
    bench.take_changed();
    bench.inb(COM1 + 5);
    assert!(!bench.take_changed());
    receive(&mut bench, b"x");
    assert!(bench.take_changed());
}

#[test]
fn a_sink_is_given_every_character_and_is_always_there() {
    let recorder = Recorder::default();
    let mut bench = Bench::new(recorder.uart());
    assert_eq!(bench.inb(COM1 + 6), 0xb0);
    bench.outb(COM1, b'a');
    bench.restart(recorder.uart());
    bench.outb(COM1, b'b');
    assert_eq!(recorder.text(), b"ab");
}

#[test]
fn file_output_is_appended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("com1.log");
    std::fs::write(&path, b"before ").unwrap();
    let mut bench = Bench::new(Uart::new(SerialPort::Com1, Box::new(FileSink::open(&path).unwrap())));
    bench.outb(COM1 + 3, 3);
    for byte in b"after" {
        bench.outb(COM1, *byte);
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"before after");
    assert!(FileSink::open(dir.path()).is_err());
}

#[test]
fn hostile_states_are_refused() {
    let refused = |change: fn(&mut State)| {
        let mut state = State::new();
        change(&mut state);
        let mut data = Vec::new();
        save_state(&state, &mut data);
        Recorder::default().uart().load(2, &data).is_err()
    };
    assert!(!refused(|_| ()));
    assert!(refused(|s| s.ier = 0x10));
    assert!(refused(|s| s.errors = 1));
    assert!(refused(|s| s.fcr = 2));
    assert!(refused(|s| s.receiver = [Received { byte: 0, errors: 0 }; 2].into()));
    assert!(refused(|s| s.receiver = [Received { byte: 0, errors: 1 }].into()));
    assert!(Recorder::default().uart().load(1, &[]).is_err());
}
