//! The remote protocol, packet by packet, against a guest in RAM.

use super::guest::{Guest, Resume};
use super::session::{After, Session, Stream};
use crate::cpu::testing::{RamBus, protected};
use crate::engine::{Engine, EngineKind};
use crate::interp::Exit;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// Where the test's code is.
const CODE: u32 = 0x1_0000;

#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Vec<u8>>>);

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Wire {
    fn close(&self) {
        self.0.lock().unwrap().extend(b"<closed>");
    }
}

/// A debugger with its guest: inc eax; mov [20000h], eax; jmp short to the start.
struct Debugger {
    guest: Guest<RamBus>,
    session: Session<RamBus>,
    wire: Wire,
}

fn engine() -> Engine<RamBus> {
    Engine::new(EngineKind::Interp).unwrap()
}

impl Debugger {
    fn new() -> Self {
        let mut guest = Guest::new(RamBus::new(4 << 20), crate::cpu::CpuModel::default(), engine());
        guest.vcpu = protected();
        guest.vcpu.bus.load(CODE.into(), &[0x40, 0xa3, 0x00, 0x00, 0x02, 0x00, 0xeb, 0xf8]);
        guest.vcpu.state.gpr[0] = 0;
        let wire = Wire::default();
        let session = Session::new(1, Box::new(wire.clone()), &mut guest).unwrap();
        Self { guest, session, wire }
    }

    /// Sends a packet; returns what became of the session, and the answer without framing.
    fn send(&mut self, body: &str) -> (After, String) {
        let sum = body.bytes().fold(0u8, u8::wrapping_add);
        let after = self.session.receive(&mut self.guest, format!("+${body}#{sum:02x}").as_bytes());
        (after, self.answer())
    }

    fn answer(&mut self) -> String {
        let text = String::from_utf8(std::mem::take(&mut *self.wire.0.lock().unwrap())).unwrap();
        text.trim_start_matches('+').trim_start_matches('$').split('#').next().unwrap_or_default().to_owned()
    }

    /// Lets the guest run until it stops for the debugger; returns the stop reply.
    fn run(&mut self) -> String {
        let reason = self.guest.depart().or_else(|| match self.guest.resume_mode() {
            Some(Resume::Continue) => {
                let exit = self.guest.engine.run(&mut self.guest.vcpu, 10_000);
                self.guest.stop_reason(exit)
            }
            Some(mode) => self.guest.step(mode),
            None => None,
        });
        let Some(reason) = reason else { return "still running".into() };
        assert_eq!(self.session.report(&mut self.guest, reason), After::Stopped);
        self.answer()
    }
}

#[test]
fn registers_are_in_the_order_of_the_description() {
    let mut debugger = Debugger::new();
    debugger.guest.vcpu.state.gpr[0] = 0x1122_3344;
    let (_, all) = debugger.send("g");
    assert!(all.starts_with("44332211"), "{all}");
    // EIP is register 8, CS register 10.
    assert_eq!(&all[8 * 8..8 * 9], "00000100");
    assert_eq!(&all[8 * 10..8 * 11], "08000000");
    // 16 integers, 8 of 80 bits, 8 more integers, 8 of 128 bits, MXCSR.
    assert_eq!(all.len(), 2 * (16 * 4 + 80 + 8 * 4 + 128 + 4));

    let changed = format!("efbeadde{}", &all[8..]);
    assert_eq!(debugger.send(&format!("G{changed}")).1, "OK");
    assert_eq!(debugger.guest.vcpu.state.gpr[0], 0xdead_beef);
    let with_another_cs = format!("{}10{}", &all[..8 * 10], &all[8 * 10 + 2..]);
    assert!(debugger.send(&format!("G{with_another_cs}")).1.starts_with('E'));
}

#[test]
fn floating_point_registers_go_out_by_stack_position_and_come_back_the_same() {
    let mut debugger = Debugger::new();
    let one = crate::softfloat::F80 { significand: 1 << 63, sign_exponent: 0x3fff };
    let fpu = &mut debugger.guest.vcpu.state.fpu;
    fpu.set_top(7);
    fpu.registers[7] = one;
    fpu.valid = 1 << 7;
    fpu.xmm[2] = 0x11;
    let before = fpu.clone();

    let (_, all) = debugger.send("g");

    let st0 = 2 * 16 * 4;
    assert_eq!(&all[st0..st0 + 20], "0000000000000080ff3f");
    // FTAG is the third of the eight: R7 valid, all others empty.
    let ftag = st0 + 2 * (80 + 8);
    assert_eq!(&all[ftag..ftag + 8], "ff3f0000");
    assert_eq!(debugger.send(&format!("G{all}")).1, "OK");
    assert_eq!(debugger.guest.vcpu.state.fpu, before);
}

#[test]
fn the_description_is_sent_in_parts() {
    let mut debugger = Debugger::new();
    let (_, first) = debugger.send("qXfer:features:read:target.xml:0,40");
    assert!(first.starts_with("m<?xml"), "{first}");
    assert!(debugger.send("qXfer:features:read:target.xml:10000,40").1.starts_with('l'));
}

#[test]
fn a_breakpoint_is_met_reported_and_left() {
    let mut debugger = Debugger::new();
    assert_eq!(debugger.send("Z0,10006,1").1, "OK");
    for round in 1..=2 {
        assert_eq!(debugger.send("c").0, After::Running);
        let stop = debugger.run();
        assert!(stop.contains("swbreak"), "{stop}");
        assert_eq!(debugger.guest.vcpu.state.eip, CODE + 6);
        assert_eq!(debugger.guest.vcpu.state.gpr[0], round);
    }
    assert_eq!(debugger.send("z0,10006,1").1, "OK");
    debugger.send("c");
    assert_eq!(debugger.run(), "still running");
}

#[test]
fn steps_and_watchpoints_are_reported() {
    let mut debugger = Debugger::new();
    debugger.send("s");
    assert!(debugger.run().starts_with("S05"));
    assert_eq!(debugger.guest.vcpu.state.eip, CODE + 1);
    assert_eq!(debugger.send("Z2,20000,4").1, "OK");
    debugger.send("c");
    let stop = debugger.run();
    assert!(stop.contains(";watch:020000;"), "{stop}");
    assert_eq!(debugger.guest.vcpu.state.eip, CODE + 6);
}

#[test]
fn memory_is_read_and_written_and_decoded_code_follows() {
    let mut debugger = Debugger::new();
    // Decoded once, then INC EAX becomes DEC EAX.
    assert_eq!(debugger.guest.engine.run(&mut debugger.guest.vcpu, 30), Exit::Budget);
    debugger.guest.vcpu.state.eip = CODE;
    debugger.guest.vcpu.state.gpr[0] = 100;
    assert_eq!(debugger.send("M10000,1:48").1, "OK");
    assert_eq!(debugger.send("m10000,2").1, "48a3");
    debugger.guest.engine.run(&mut debugger.guest.vcpu, 3);
    assert!(debugger.guest.vcpu.state.gpr[0] < 100);
    assert!(debugger.send("m80000000,4").1.starts_with('E'));
}

#[test]
fn ctrl_c_stops_a_guest_that_runs() {
    let mut debugger = Debugger::new();
    debugger.send("c");
    assert_eq!(debugger.run(), "still running");
    assert_eq!(debugger.session.receive(&mut debugger.guest, &[3]), After::Stopped);
    let stop = debugger.answer();
    assert!(stop.starts_with("T02") || stop.starts_with("S02"), "{stop}");
}

#[test]
fn detach_lets_go_and_kill_is_told_apart() {
    let mut debugger = Debugger::new();
    debugger.send("Z0,10006,1");
    debugger.send("Z4,20000,4");
    assert_eq!(debugger.send("D").0, After::Detached);
    debugger.guest.let_go();
    assert_eq!(debugger.guest.engine.run(&mut debugger.guest.vcpu, 1000), Exit::Budget);
    assert_eq!(debugger.guest.vcpu.hooks.take_hit(), None);

    let mut debugger = Debugger::new();
    assert_eq!(debugger.send("k").0, After::Killed);
}

#[test]
fn monitor_commands_answer_in_text() {
    let mut debugger = Debugger::new();
    let say = |debugger: &mut Debugger, command: &str| {
        let hex: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        let sum = |body: &str| body.bytes().fold(0u8, u8::wrapping_add);
        let body = format!("qRcmd,{hex}");
        debugger.session.receive(&mut debugger.guest, format!("+${body}#{:02x}", sum(&body)).as_bytes());
        let raw = String::from_utf8(std::mem::take(&mut *debugger.wire.0.lock().unwrap())).unwrap();
        let bodies = raw.split('$').filter_map(|part| part.strip_prefix('O')?.split('#').next());
        let digits: Vec<u8> = bodies.flat_map(str::bytes).collect();
        let pairs = digits.chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
        pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).map(char::from).collect::<String>()
    };
    assert!(say(&mut debugger, "regs").contains("EIP 00010000"));
    assert!(say(&mut debugger, "xp 10000 8").starts_with("phys:00010000  40 a3 00 00"));
    assert!(say(&mut debugger, "x 8:10006 2").starts_with("0008:00010006  eb f8"));
    assert!(say(&mut debugger, "disasm 10000 1").contains("inc eax"));
    assert!(say(&mut debugger, "xp nonsense").contains("is not an address"));
    assert!(say(&mut debugger, "what").contains("xp ADDRESS"));
    assert!(!debugger.guest.take_reset());
    say(&mut debugger, "reset");
    assert!(debugger.guest.take_reset());
}

#[test]
fn nonsense_ends_the_session_or_is_ignored_but_harms_nothing() {
    let mut debugger = Debugger::new();
    for bytes in [&b"$#"[..], b"\xff\xfe$$$", b"$Z9,zz#00", b"$mffffffffffffffff,ffff#00", b"$G#47"] {
        if debugger.session.state() != After::Stopped {
            return;
        }
        debugger.session.receive(&mut debugger.guest, bytes);
    }
    for packet in ["Z0,1,1,1", "vCont;c:99", "m0,100000", "G00", "qRcmd,zz", "X10000,1:}"] {
        debugger.send(packet);
    }
}
