//! The controller with its keyboard, driven as firmware and operating systems drive it.

use super::*;
use crate::device::load_state;
use crate::device::save_state;
use crate::keyboard::ps2_keyboard::spec as kbd;
use crate::testing::Bench;
use ipc::input::Key;
use std::collections::VecDeque;

const MILLISECOND: u64 = 1_000_000;

fn bench() -> Bench<I8042> {
    Bench::new(I8042::new())
}

/// A controller as SeaBIOS leaves it: translating, keyboard interrupt on.
fn booted() -> Bench<I8042> {
    let mut bench = bench();
    bench.advance(20 * MILLISECOND);
    write_command_byte(&mut bench, CommandByte::new().with_keyboard_interrupt(true).with_translate(true));
    bench.advance(20 * MILLISECOND);
    // The power-on self-test's message.
    assert_eq!(bench.inb(DATA_PORT), kbd::BAT_PASSED);
    bench
}

fn status(bench: &mut Bench<I8042>) -> Status {
    Status::from_bits(bench.inb(COMMAND_PORT))
}

fn write_command_byte(bench: &mut Bench<I8042>, byte: CommandByte) {
    bench.outb(COMMAND_PORT, WRITE_RAM);
    bench.outb(DATA_PORT, byte.into_bits());
}

fn command_byte(bench: &mut Bench<I8042>) -> CommandByte {
    bench.outb(COMMAND_PORT, READ_RAM);
    CommandByte::from_bits(wait_read(bench).expect("an answer").0)
}

/// Polls the status register every 50 microseconds, as SeaBIOS does, for at most 500 ms.
/// Returns the byte and whether it was the auxiliary device's.
fn wait_read(bench: &mut Bench<I8042>) -> Option<(u8, bool)> {
    for _ in 0..10_000 {
        let now = status(bench);
        if now.output_buffer_full() {
            return Some((bench.inb(DATA_PORT), now.auxiliary_output_buffer_full()));
        }
        bench.advance(50_000);
    }
    None
}

fn keyboard_command(bench: &mut Bench<I8042>, byte: u8) -> Option<u8> {
    bench.outb(DATA_PORT, byte);
    wait_read(bench).map(|(value, _)| value)
}

fn key(bench: &mut Bench<I8042>, key: Key, pressed: bool) {
    bench.device.host_event(&HostEvent::Key { key, pressed }, &mut bench.host);
}

fn read_all(bench: &mut Bench<I8042>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..10 {
        bench.advance(MILLISECOND);
        while status(bench).output_buffer_full() {
            bytes.push(bench.inb(DATA_PORT));
            bench.advance(MILLISECOND);
        }
    }
    bytes
}

#[test]
fn after_reset_both_devices_are_held_and_a20_is_open() {
    let mut bench = bench();
    let expected = Status::new().with_keyboard_unlocked(true);
    assert_eq!(status(&mut bench), expected);
    assert_eq!(command_byte(&mut bench), COMMAND_BYTE_RESET);
    assert!(bench.host.a20[A20Source::Keyboard as usize]);
}

#[test]
fn seabios_initialization() {
    let mut bench = bench();
    // i8042_flush
    while status(&mut bench).output_buffer_full() {
        bench.inb(DATA_PORT);
    }
    bench.outb(COMMAND_PORT, SELF_TEST);
    assert_eq!(wait_read(&mut bench), Some((SELF_TEST_PASSED, false)));
    assert!(status(&mut bench).system_flag());
    bench.outb(COMMAND_PORT, TEST_KEYBOARD);
    assert_eq!(wait_read(&mut bench), Some((TEST_PASSED, false)));
    // ps2_command: both ports off, interrupts off; then the keyboard's port on.
    let off = CommandByte::new().with_disable_keyboard(true).with_disable_auxiliary(true);
    let on = CommandByte::new().with_disable_auxiliary(true);
    write_command_byte(&mut bench, off);
    write_command_byte(&mut bench, on);
    assert_eq!(keyboard_command(&mut bench, kbd::RESET), Some(kbd::ACK));
    assert_eq!(wait_read(&mut bench), Some((kbd::BAT_PASSED, false)));
    write_command_byte(&mut bench, off);
    write_command_byte(&mut bench, on);
    assert_eq!(keyboard_command(&mut bench, kbd::DEFAULT_DISABLE), Some(kbd::ACK));
    assert_eq!(keyboard_command(&mut bench, kbd::SELECT_SCAN_CODES), Some(kbd::ACK));
    assert_eq!(keyboard_command(&mut bench, 2), Some(kbd::ACK));
    assert_eq!(keyboard_command(&mut bench, kbd::ENABLE), Some(kbd::ACK));
    let running =
        CommandByte::new().with_disable_auxiliary(true).with_translate(true).with_keyboard_interrupt(true);
    write_command_byte(&mut bench, running);

    key(&mut bench, Key::A, true);
    assert!(!bench.host.irq(KEYBOARD_IRQ), "the frame takes its time");
    bench.advance(MILLISECOND);
    assert!(bench.host.irq(KEYBOARD_IRQ));
    assert_eq!(bench.inb(DATA_PORT), 0x1e);
    assert!(!bench.host.irq(KEYBOARD_IRQ));
}

#[test]
fn linux_i8042_and_atkbd_initialization() {
    let mut bench = booted();
    // i8042_controller_init: read the command byte twice, keyboard off.
    let before = command_byte(&mut bench);
    assert_eq!(command_byte(&mut bench), before);
    let mut control = before.with_disable_keyboard(true).with_keyboard_interrupt(false);
    write_command_byte(&mut bench, control);
    // i8042_set_mux_mode: no multiplexer, the loop gives the same bytes back.
    for probe in [0xf0, 0x56, 0xa4] {
        bench.outb(COMMAND_PORT, WRITE_AUX_OUTPUT_BUFFER);
        bench.outb(DATA_PORT, probe);
        assert_eq!(wait_read(&mut bench), Some((probe, true)));
    }
    // i8042_check_aux: the command byte follows A7h and A8h.
    bench.outb(COMMAND_PORT, DISABLE_AUX);
    assert!(command_byte(&mut bench).disable_auxiliary());
    bench.outb(COMMAND_PORT, ENABLE_AUX);
    assert!(!command_byte(&mut bench).disable_auxiliary());
    // It then wants one interrupt for a looped byte.
    control = control.with_disable_auxiliary(false).with_auxiliary_interrupt(true);
    write_command_byte(&mut bench, control);
    bench.outb(COMMAND_PORT, WRITE_AUX_OUTPUT_BUFFER);
    bench.outb(DATA_PORT, 0xa5);
    assert!(bench.host.irq(AUX_IRQ));
    assert!(!bench.host.irq(KEYBOARD_IRQ));
    assert_eq!(wait_read(&mut bench), Some((0xa5, true)));
    assert!(!bench.host.irq(AUX_IRQ));
    // psmouse finds nobody: "resend" with the timeout flag, after a while.
    bench.outb(COMMAND_PORT, WRITE_AUX);
    bench.outb(DATA_PORT, 0xf2);
    bench.advance(DEVICE_TIMEOUT_NANOS);
    assert!(bench.host.irq(AUX_IRQ));
    let timeout = status(&mut bench);
    assert!(timeout.general_timeout() && timeout.auxiliary_output_buffer_full());
    assert_eq!(wait_read(&mut bench), Some((NO_ANSWER, true)));
    // atkbd, by interrupt: identify, lights, enable.
    control = control.with_disable_keyboard(false).with_keyboard_interrupt(true);
    write_command_byte(&mut bench, control);
    for (bytes, answers) in [
        (&[kbd::READ_ID][..], &[kbd::ACK, 0xab, 0x41][..]),
        (&[kbd::SET_LEDS, 0], &[kbd::ACK, kbd::ACK]),
        (&[kbd::SET_TYPEMATIC, 0], &[kbd::ACK, kbd::ACK]),
        (&[kbd::ENABLE], &[kbd::ACK]),
    ] {
        for byte in bytes {
            bench.outb(DATA_PORT, *byte);
        }
        for answer in answers {
            let edges = bench.host.lines.isa_edges[usize::from(KEYBOARD_IRQ)];
            bench.advance(MILLISECOND);
            assert_eq!(bench.host.lines.isa_edges[usize::from(KEYBOARD_IRQ)], edges + 1);
            assert!(!status(&mut bench).general_timeout());
            assert_eq!(bench.inb(DATA_PORT), *answer);
        }
    }
}

#[test]
fn data_port_keeps_its_byte_for_a_second_reader() {
    let mut bench = booted();
    key(&mut bench, Key::HOME, true);
    bench.advance(MILLISECOND);
    // A resident program reads, then passes on to the BIOS handler, which reads again.
    assert_eq!(bench.inb(DATA_PORT), 0xe0);
    bench.advance(100_000);
    assert!(!status(&mut bench).output_buffer_full());
    assert_eq!(bench.inb(DATA_PORT), 0xe0);
    bench.advance(MILLISECOND);
    assert_eq!(bench.inb(DATA_PORT), 0x47);
}

#[test]
fn typed_keys_arrive_translated_one_interrupt_each() {
    let mut bench = booted();
    for (which, pressed) in
        [(Key::LEFT_SHIFT, true), (Key::A, true), (Key::A, false), (Key::LEFT_SHIFT, false)]
    {
        key(&mut bench, which, pressed);
    }
    let edges = bench.host.lines.isa_edges[usize::from(KEYBOARD_IRQ)];
    assert_eq!(read_all(&mut bench), [0x2a, 0x1e, 0x9e, 0xaa]);
    assert_eq!(bench.host.lines.isa_edges[usize::from(KEYBOARD_IRQ)] - edges, 4);
}

#[test]
fn untranslated_bytes_pass_as_they_are() {
    let mut bench = booted();
    write_command_byte(&mut bench, CommandByte::new());
    key(&mut bench, Key::A, true);
    key(&mut bench, Key::A, false);
    assert_eq!(read_all(&mut bench), [0x1c, 0xf0, 0x1c]);
    assert!(!bench.host.irq(KEYBOARD_IRQ));
}

#[test]
fn keyboard_waits_while_its_clock_is_held() {
    let mut bench = booted();
    bench.outb(COMMAND_PORT, DISABLE_KEYBOARD);
    key(&mut bench, Key::A, true);
    bench.advance(100 * MILLISECOND);
    assert!(!status(&mut bench).output_buffer_full());
    bench.outb(COMMAND_PORT, ENABLE_KEYBOARD);
    bench.advance(MILLISECOND);
    assert_eq!(bench.inb(DATA_PORT), 0x1e);
}

#[test]
fn byte_to_the_keyboard_releases_its_clock() {
    let mut bench = booted();
    bench.outb(COMMAND_PORT, DISABLE_KEYBOARD);
    assert_eq!(keyboard_command(&mut bench, kbd::ECHO), Some(kbd::ECHO));
    assert!(!command_byte(&mut bench).disable_keyboard());
}

#[test]
fn held_key_repeats_through_the_controller() {
    let mut bench = booted();
    key(&mut bench, Key::X, true);
    let mut makes = 0;
    for _ in 0..1000 {
        bench.advance(MILLISECOND);
        if status(&mut bench).output_buffer_full() {
            assert_eq!(bench.inb(DATA_PORT), 0x2d);
            makes += 1;
        }
    }
    // The press, and 500 ms at 10.9 per second.
    assert_eq!(makes, 1 + 6);
}

#[test]
fn controller_answer_does_not_displace_an_unread_key() {
    let mut bench = booted();
    key(&mut bench, Key::A, true);
    bench.advance(MILLISECOND);
    bench.outb(COMMAND_PORT, READ_RAM);
    assert_eq!(bench.inb(DATA_PORT), 0x1e);
    assert!(status(&mut bench).output_buffer_full());
    assert_eq!(bench.inb(DATA_PORT), bench.device.state.ram[COMMAND_BYTE]);
}

#[test]
fn ram_keeps_what_is_written() {
    let mut bench = bench();
    for address in 1..RAM_BYTES as u8 {
        bench.outb(COMMAND_PORT, WRITE_RAM + address);
        assert!(status(&mut bench).command());
        bench.outb(DATA_PORT, address ^ 0x5a);
        assert!(!status(&mut bench).command());
    }
    for address in 1..RAM_BYTES as u8 {
        bench.outb(COMMAND_PORT, READ_RAM + address);
        assert_eq!(bench.inb(DATA_PORT), address ^ 0x5a);
    }
}

#[test]
fn output_port_drives_a20_and_reset() {
    let mut bench = booted();
    let open = |bench: &Bench<I8042>| bench.host.a20[A20Source::Keyboard as usize];

    bench.outb(COMMAND_PORT, WRITE_OUTPUT_PORT);
    bench.outb(DATA_PORT, 0xdd);
    assert!(!open(&bench));
    bench.outb(COMMAND_PORT, READ_OUTPUT_PORT);
    // The answer is read before its own interrupt pin rises.
    assert_eq!(bench.inb(DATA_PORT), 0xdd & !OUTPUT_PORT_INTERRUPTS);
    // Linux's a20.c.
    bench.outb(COMMAND_PORT, WRITE_OUTPUT_PORT);
    bench.outb(DATA_PORT, 0xdf);
    bench.outb(COMMAND_PORT, 0xff);
    assert!(open(&bench));
    assert_eq!(bench.host.resets, []);
    bench.outb(COMMAND_PORT, CLOSE_GATE_A20);
    assert!(!open(&bench));
    bench.outb(COMMAND_PORT, OPEN_GATE_A20);
    assert!(open(&bench));

    bench.outb(COMMAND_PORT, 0xfe);
    assert_eq!(bench.host.resets, [ResetRequest::Cpu]);
    bench.outb(COMMAND_PORT, WRITE_OUTPUT_PORT);
    bench.outb(DATA_PORT, 0xde);
    assert_eq!(bench.host.resets, [ResetRequest::Cpu; 2]);
}

#[test]
fn ports_can_be_read_and_polled() {
    let mut bench = booted();
    bench.outb(COMMAND_PORT, READ_INPUT_PORT);
    assert_eq!(bench.inb(DATA_PORT), INPUT_PORT);
    bench.outb(COMMAND_PORT, POLL_INPUT_PORT_HIGH);
    assert_eq!(bench.inb(COMMAND_PORT) & 0xf0, INPUT_PORT & 0xf0);
    bench.outb(COMMAND_PORT, POLL_INPUT_PORT_LOW);
    assert_eq!(bench.inb(COMMAND_PORT) & 0xf0, INPUT_PORT << 4);
    bench.outb(COMMAND_PORT, DISABLE_AUX);
    assert!(status(&mut bench).keyboard_unlocked());
    bench.outb(COMMAND_PORT, READ_TEST_INPUTS);
    assert_eq!(bench.inb(DATA_PORT), TEST_INPUT_KEYBOARD_CLOCK);
    bench.outb(COMMAND_PORT, TEST_PASSWORD);
    assert_eq!(bench.inb(DATA_PORT), PASSWORD_NOT_INSTALLED);
    bench.outb(COMMAND_PORT, WRITE_KEYBOARD_OUTPUT_BUFFER);
    bench.outb(DATA_PORT, 0x1e);
    assert!(bench.host.irq(KEYBOARD_IRQ));
    assert_eq!(bench.inb(DATA_PORT), 0x1e);
}

#[test]
fn unknown_command_is_ignored() {
    let mut bench = booted();
    let before = bench.device.state.clone();
    bench.outb(COMMAND_PORT, 0xb8);
    assert_eq!(bench.device.state, State { last_write_was_command: true, ..before });
}

#[test]
fn machine_reset_leaves_the_keyboard_as_it_is() {
    let mut bench = booted();
    keyboard_command(&mut bench, kbd::SELECT_SCAN_CODES);
    keyboard_command(&mut bench, 1);
    bench.device.reset(ResetKind::Hard, &mut bench.host);
    assert_eq!(command_byte(&mut bench), COMMAND_BYTE_RESET);
    keyboard_command(&mut bench, kbd::SELECT_SCAN_CODES);
    assert_eq!(keyboard_command(&mut bench, kbd::SCAN_CODES_QUERY), Some(kbd::ACK));
    assert_eq!(wait_read(&mut bench), Some((1, false)));
}

/// Every point of a conversation may be the last of a process.
#[test]
fn restart_at_every_step_changes_nothing() {
    let run = |restarting: bool| {
        let mut bench = booted();
        let mut seen = Vec::new();
        let mut step = |bench: &mut Bench<I8042>| {
            if restarting {
                bench.restart(I8042::new());
            }
            seen.push((bench.inb(COMMAND_PORT), bench.host.lines.isa_edges[1]));
        };
        key(&mut bench, Key::LEFT_SHIFT, true);
        key(&mut bench, Key::HOME, true);
        for _ in 0..8 {
            bench.advance(500_000);
            step(&mut bench);
            let byte = bench.inb(DATA_PORT);
            step(&mut bench);
            bench.outb(DATA_PORT, kbd::SET_LEDS);
            step(&mut bench);
            bench.outb(DATA_PORT, byte & 7);
            step(&mut bench);
            bench.outb(COMMAND_PORT, WRITE_RAM + 5);
            step(&mut bench);
            bench.outb(DATA_PORT, byte);
            step(&mut bench);
        }
        bench.advance(700 * MILLISECOND);
        step(&mut bench);
        (seen, bench.host.timers.clone())
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn restart_in_the_middle_of_a_sequence_loses_no_byte() {
    let mut bench = booted();
    key(&mut bench, Key::PAUSE, true);
    let mut bytes = Vec::new();
    for _ in 0..6 {
        bench.advance(300_000);
        bench.restart(I8042::new());
        // A break code is two frames on the cable.
        bench.advance(2 * MILLISECOND);
        bench.restart(I8042::new());
        assert!(bench.host.irq(KEYBOARD_IRQ));
        bytes.push(bench.inb(DATA_PORT));
        bench.restart(I8042::new());
    }
    assert_eq!(bytes, [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]);
}

#[test]
fn bad_state_is_refused_and_changes_nothing() {
    let mut bench = booted();
    let mut before = Vec::new();
    bench.device.save(&mut before);
    let mut saved: Saved = load_state(&before).expect("own state");
    saved.auxiliary = Some(vec![1]);
    saved.controller.ram[1] = 0x77;
    let mut other = Vec::new();
    save_state(&saved, &mut other);

    assert!(matches!(bench.device.load(1, &other), Err(StateError::OutOfRange(_))));
    assert!(matches!(bench.device.load(1, &before[..9]), Err(StateError::Malformed(_))));
    assert_eq!(bench.device.load(2, &before), Err(StateError::Version { found: 2, newest: 1 }));

    let mut after = Vec::new();
    bench.device.save(&mut after);
    assert_eq!(before, after);
}

/// A device for the auxiliary port that sends back what it gets.
#[derive(Default)]
struct Parrot(VecDeque<u8>);

impl Ps2Device for Parrot {
    fn power_on(&mut self, _now: VirtualTime) {
        self.0.clear();
    }
    fn receive(&mut self, byte: u8, _now: VirtualTime) {
        self.0.push_back(byte);
    }
    fn wants_to_send(&self) -> bool {
        !self.0.is_empty()
    }
    fn send(&mut self, _now: VirtualTime) -> Option<u8> {
        self.0.pop_front()
    }
    fn deadline(&self) -> Option<VirtualTime> {
        None
    }
    fn deadline_reached(&mut self, _now: VirtualTime) {}
    fn host_event(&mut self, event: &HostEvent, _now: VirtualTime) {
        if let HostEvent::Mouse { buttons, .. } = event {
            self.0.push_back(*buttons);
        }
    }
    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.0, out);
    }
    fn load(&mut self, data: &[u8]) -> Result<(), StateError> {
        self.0 = load_state(data)?;
        Ok(())
    }
}

#[test]
fn auxiliary_device_talks_through_its_port() {
    let with_parrot = || I8042::with_devices(Box::new(Ps2Keyboard::new()), Some(Box::<Parrot>::default()));
    let mut bench = Bench::new(with_parrot());
    write_command_byte(
        &mut bench,
        CommandByte::new().with_auxiliary_interrupt(true).with_disable_keyboard(true),
    );
    bench.outb(COMMAND_PORT, WRITE_AUX);
    bench.outb(DATA_PORT, 0xf0);
    bench.restart(with_parrot());
    bench.advance(MILLISECOND);
    assert!(bench.host.irq(AUX_IRQ));
    assert_eq!(wait_read(&mut bench), Some((0xf0, true)), "never translated");

    let event = HostEvent::Mouse { dx: 0, dy: 0, dz: 0, buttons: 5 };
    bench.device.host_event(&event, &mut bench.host);
    assert_eq!(wait_read(&mut bench), Some((5, true)));
    bench.outb(COMMAND_PORT, DISABLE_AUX);
    bench.device.host_event(&event, &mut bench.host);
    assert_eq!(wait_read(&mut bench), None);
}
