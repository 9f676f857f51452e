use super::*;
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

fn bench() -> (Bench<Uart>, Recorder) {
    let recorder = Recorder::default();
    (Bench::new(recorder.uart()), recorder)
}

/// 115200 8N1, FIFOs with trigger 8, DTR, RTS and OUT2: Linux 8250 startup.
fn linux() -> (Bench<Uart>, Recorder) {
    let (mut bench, recorder) = bench();
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
    (bench, recorder)
}

fn receive(bench: &mut Bench<Uart>, data: &[u8]) -> usize {
    bench.device.receive(data, &mut bench.host)
}

/// Linux `autoconfig`: scratch, interrupt enable bits, loopback, FIFO.
#[test]
fn linux_detects_a_16550a() {
    let (mut bench, _) = bench();
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
fn polled_output_reaches_the_sink() {
    let (mut bench, recorder) = linux();
    for byte in b"hello\n" {
        assert_eq!(bench.inb(COM1 + 5) & 0x60, 0x60);
        bench.outb(COM1, *byte);
    }
    assert_eq!(recorder.text(), b"hello\n");
}

#[test]
fn the_divisor_latch_hides_data_and_interrupt_enable() {
    let (mut bench, recorder) = bench();
    bench.outb(COM1 + 3, 0x80);
    bench.outb(COM1, 0x34);
    bench.outb(COM1 + 1, 0x12);
    assert_eq!((bench.inb(COM1), bench.inb(COM1 + 1)), (0x34, 0x12));
    bench.outb(COM1 + 3, 0x03);
    assert_eq!(bench.inb(COM1 + 1), 0);
    assert!(recorder.text().is_empty());
}

#[test]
fn enabling_the_transmit_interrupt_interrupts_until_iir_is_read() {
    let (mut bench, _) = linux();
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
    let (mut bench, _) = linux();
    bench.outb(COM1 + 1, 0x02);
    bench.outb(COM1, b'a');
    bench.outb(COM1, b'b');
    assert!(bench.host.irq(4));
    assert_eq!(bench.host.lines.isa_edges[4], 3);
}

#[test]
fn out2_connects_the_interrupt() {
    let (mut bench, _) = linux();
    bench.outb(COM1 + 4, 0x03);
    bench.outb(COM1 + 1, 0x02);
    assert!(!bench.host.irq(4));
    bench.outb(COM1 + 4, 0x0b);
    assert!(bench.host.irq(4));
}

#[test]
fn received_data_interrupts_at_the_trigger_level() {
    let (mut bench, _) = linux();
    bench.outb(COM1 + 1, 0x01);
    receive(&mut bench, &[1; 7]);
    assert!(!bench.host.irq(4));
    assert_eq!(bench.inb(COM1 + 5) & 1, 1);
    receive(&mut bench, &[2]);
    assert_eq!(bench.inb(COM1 + 2), 0xc4);
    assert!(bench.host.irq(4));
    assert_eq!(bench.inb(COM1), 1);
    assert_eq!(bench.inb(COM1 + 2), 0xc1);
    assert!(!bench.host.irq(4));
}

#[test]
fn data_below_the_trigger_level_times_out_after_four_characters() {
    let (mut bench, _) = linux();
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
    let (mut bench, _) = linux();
    let data: Vec<u8> = (0..100).collect();
    assert_eq!(receive(&mut bench, &data), 100);
    let mut got = Vec::new();
    while bench.inb(COM1 + 5) & 1 != 0 {
        got.push(bench.inb(COM1));
    }
    assert_eq!(got, data);
    assert_eq!(bench.inb(COM1 + 5), 0x60);
}

#[test]
fn what_does_not_fit_outside_is_not_taken() {
    let (mut bench, _) = linux();
    assert_eq!(receive(&mut bench, &[0; 10_000]), LINE_MAX);
    assert_eq!(receive(&mut bench, &[0; 100]), 16);
}

#[test]
fn without_fifos_one_character_is_held() {
    let (mut bench, _) = linux();
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
    let (mut bench, recorder) = linux();
    bench.outb(COM1 + 4, 0x1b);
    bench.outb(COM1, 0x5a);
    assert_eq!(bench.inb(COM1), 0x5a);
    assert!(recorder.text().is_empty());
}

#[test]
fn loopback_overrun_keeps_the_fifo_and_is_a_line_status_interrupt() {
    let (mut bench, _) = linux();
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
    let (mut bench, _) = bench();
    bench.outb(COM1 + 3, 0x03);
    bench.outb(COM1 + 4, 0x10);
    bench.outb(COM1, 1);
    bench.outb(COM1, 2);
    assert_eq!(bench.inb(COM1 + 5) & 0x03, 0x03);
    assert_eq!(bench.inb(COM1), 2);
}

#[test]
fn a_break_is_reported_with_its_character() {
    let (mut bench, recorder) = linux();
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
    assert!(recorder.text().is_empty());
}

#[test]
fn short_words_lose_their_high_bits_in_loopback_only() {
    let (mut bench, recorder) = linux();
    bench.outb(COM1 + 3, 0x02);
    bench.outb(COM1, 0xff);
    bench.outb(COM1 + 4, 0x10);
    bench.outb(COM1, 0xff);
    bench.outb(COM1 + 3, 0x00);
    bench.outb(COM1, 0xff);
    assert_eq!(recorder.text(), [0xff]);
    assert_eq!((bench.inb(COM1), bench.inb(COM1)), (0x7f, 0x1f));
}

#[test]
fn modem_line_changes_are_deltas_and_an_interrupt() {
    let (mut bench, _) = linux();
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
    let (mut bench, recorder) = linux();
    bench.outb(COM1 + 1, 0x01);
    receive(&mut bench, &[7; 20]);
    assert!(bench.host.irq(4));
    bench.restart(recorder.uart());
    assert!(bench.host.irq(4));
    assert_eq!(bench.host.lines.isa_edges[4], 1);
    for _ in 0..19 {
        assert_eq!(bench.inb(COM1), 7);
    }
    bench.host.timers.clear();
    bench.restart(recorder.uart());
    bench.advance(4 * CHARACTER_NANOS);
    assert_eq!(bench.inb(COM1 + 2), 0xcc);
    bench.outb(COM1, b'!');
    assert_eq!(recorder.text(), b"!");
}

#[test]
fn polling_the_line_status_does_not_change_the_state() {
    let (mut bench, _) = linux();
    bench.device.take_changed();
    bench.inb(COM1 + 5);
    assert!(!bench.device.take_changed());
    receive(&mut bench, b"x");
    assert!(bench.device.take_changed());
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
        Recorder::default().uart().load(1, &data).is_err()
    };
    assert!(!refused(|_| ()));
    assert!(refused(|s| s.ier = 0x10));
    assert!(refused(|s| s.errors = 1));
    assert!(refused(|s| s.fcr = 2));
    assert!(refused(|s| s.receiver = [Received { byte: 0, errors: 0 }; 2].into()));
    assert!(refused(|s| s.line = vec![0; LINE_MAX + 1].into()));
    assert!(refused(|s| s.receiver = [Received { byte: 0, errors: 1 }].into()));
    assert!(Recorder::default().uart().load(2, &[]).is_err());
}
