//! The same with a UART at a cable: no character is lost or comes twice, in either direction.

use super::{LEFT, Machine, PASSED};
use crate::chipset::uart_16550::{SerialPort, Uart};
use crate::device::{Device, Width};
use crate::process::BuildContext;
use ipc::clock::Freeze;
use ipc::input::HostEvent;
use ipc::link::encode_event;
use ipc::machine::SerialBackend;
use ipc::message::{FLAG_POSTED, Kind, Message, Status};
use ipc::serial::SerialCables;

const COM1: u64 = 0x3f8;
const DATA: u64 = 0;
const FIFO_CONTROL: u64 = 2;
const MODEM_CONTROL: u64 = 4;
const LINE_STATUS: u64 = 5;
const MODEM_STATUS: u64 = 6;
/// One character at the reset baud rate of 9600, five data bits.
const CHARACTER_NANOS: u64 = 729_167;

fn build(_: &BuildContext<'_>) -> Result<Vec<Box<dyn Device>>, String> {
    Ok(vec![Box::new(Uart::with_cable(SerialPort::Com1))])
}

/// What guest and peer saw.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    answers: Vec<(Status, u64)>,
    sent: Vec<u8>,
}

struct Line {
    machine: Machine,
    cables: SerialCables,
    sent: Vec<u8>,
}

impl Line {
    fn write(&mut self, register: u64, values: &[u8]) {
        for value in values {
            self.machine.push(Message {
                address: COM1 + register,
                value: (*value).into(),
                width: Width::Byte,
                flags: FLAG_POSTED,
                ..Message::new(Kind::Write)
            });
        }
        self.machine.settle();
        self.cables.collect(0, &mut self.sent);
    }

    fn read(&mut self, register: u64) -> u8 {
        self.machine.call(Message {
            address: COM1 + register,
            width: Width::Byte,
            ..Message::new(Kind::Read)
        });
        self.machine.seen.answers.last().expect("an answer").1 as u8
    }

    fn tell(&mut self) {
        self.machine.link.layout().events.push(encode_event(&HostEvent::Serial)).unwrap();
        self.machine.settle();
    }

    /// The guest sends back what arrives within so many characters' time.
    fn echo(&mut self, characters: usize) {
        for _ in 0..characters {
            while self.read(LINE_STATUS) & 1 != 0 {
                let byte = self.read(DATA);
                self.write(DATA, &[byte]);
            }
            self.machine.advance(CHARACTER_NANOS);
        }
    }
}

/// Runs the script, letting the process die after `first` points and its successor after `again`.
fn run(name: &str, first: Option<u64>, again: Option<u64>) -> (Seen, u32) {
    LEFT.set(None);
    let mut machine = Machine::new(&format!("serial{name}"), again);
    machine.builder = build;
    machine.config.serial[0] = SerialBackend::Socket("none".into());
    let cables = SerialCables::create(&machine.names.serial()).unwrap();
    machine.clock().freeze(Freeze::Paused);
    machine.settle();
    PASSED.set(0);
    LEFT.set(first);
    let mut line = Line { machine, cables, sent: Vec::new() };
    line.write(FIFO_CONTROL, &[1]);
    line.cables.set_connected(0, true);
    line.tell();
    line.read(MODEM_STATUS);
    line.write(DATA, b"hello");
    assert_eq!(line.cables.offer(0, b"abcd"), 4);
    line.tell();
    line.echo(6);
    // More than the FIFO holds, before the guest looks.
    line.cables.offer(0, b"0123456789ABCDEFGHIJ");
    line.tell();
    line.machine.advance(30 * CHARACTER_NANOS);
    line.echo(6);
    line.machine.call(Message { value: 1, ..Message::new(Kind::Reset) });
    line.write(MODEM_CONTROL, &[3]);
    line.cables.offer(0, b"xy");
    line.tell();
    line.echo(4);
    LEFT.set(None);
    line.machine.names.remove_all();
    (Seen { answers: line.machine.seen.answers, sent: line.sent }, line.machine.deaths)
}

#[test]
fn a_uart_that_dies_at_any_point_loses_and_doubles_no_character() {
    let (expected, _) = run("none", None, None);
    let points = PASSED.get();
    assert_eq!(expected.sent, b"helloabcd0123456789ABCDEFGHIJxy");
    assert!(points > 200, "{points} points: are the hooks gone?");
    for point in 0..points {
        let (seen, deaths) = run(&format!("p{point}"), Some(point), None);
        assert_eq!(deaths, 1, "point {point} of {points}");
        assert_eq!(seen, expected, "died at point {point} of {points}");
    }
    for point in (0..points).step_by(7) {
        for again in 0..6 {
            let (seen, _) = run(&format!("p{point}a{again}"), Some(point), Some(again));
            assert_eq!(seen, expected, "died at point {point} of {points}, then after {again}");
        }
    }
}
