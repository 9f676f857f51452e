//! Records a small device in one process and replays it with builds that differ in one thing each.

use super::format::{
    self, AccessKind, Answer, Call, Entry, Header, ModelStart, RegionInfo, Shown, Start, What,
};
use super::machine::Machine;
use super::replay::{Difference, ReplayError, Report, replay};
use super::{Recorder, Sink, export};
use crate::device::{
    Access, Device, Dma, IoError, ReadResult, Region, RegionId, Register, ResetKind, StateError, TimerId,
    Width, WriteResult, load_state, save_state,
};
use crate::host::Host;
use crate::outside::{Found, Outside};
use crate::process::{BuildContext, Builder, model_info};
use crate::testing::TestHost;
use ipc::time::VirtualTime;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::io::{Read, Seek};

const PORTS: RegionId = RegionId(0);
const DATA: u64 = 0;
const STATUS: u64 = 1;
const START: u64 = 2;
const DONE: u32 = 1 << 7;
const IRQ: u8 = 5;
const SOURCE: u64 = 0x1000;
const TARGET: u64 = 0x2000;
const LEN: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Bit,
    Refuses,
    NoInterrupt,
    Dma,
    Deadline,
    Elsewhere,
    Panics,
    OldState,
}

/// Copies guest memory when it is told to, a while later, and interrupts.
struct Copier {
    fault: Fault,
    state: State,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct State {
    data: u8,
    done: bool,
}

impl Device for Copier {
    fn dma(&self) -> Dma {
        Dma::Anywhere
    }
    fn name(&self) -> &'static str {
        "copier"
    }
    fn regions(&self) -> Vec<Region> {
        vec![Region::ports(PORTS, "copier", 0x300, 4)]
    }
    fn registers(&self) -> Vec<Register> {
        vec![
            Register::new(PORTS, DATA, "DATA"),
            Register::new(PORTS, STATUS, "STATUS").fields(&[("DONE", DONE)]),
            Register::new(PORTS, START, "START"),
        ]
    }
    fn attach(&mut self, host: &mut dyn Host) {
        host.set_irq(IRQ, self.state.done);
    }
    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        match at.offset {
            DATA if self.fault == Fault::Refuses => Err(IoError::InvalidRegister),
            DATA => Ok(self.state.data.into()),
            STATUS => {
                let done = std::mem::take(&mut self.state.done);
                host.set_irq(IRQ, false);
                Ok(if done && self.fault != Fault::Bit { DONE } else { 0 })
            }
            _ => Err(IoError::InvalidRegister),
        }
    }
    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        match at.offset {
            DATA => self.state.data = value as u8,
            START => {
                let wait = if self.fault == Fault::Deadline { 200 } else { 100 };
                host.arm_timer(TimerId(3), host.now().after(wait));
            }
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }
    fn timer(&mut self, _: TimerId, _: VirtualTime, host: &mut dyn Host) {
        assert!(self.fault != Fault::Panics, "the copier is broken");
        let mut bytes = [0; LEN];
        let source = if self.fault == Fault::Elsewhere { SOURCE + 0x100 } else { SOURCE };
        if host.dma_read(source, &mut bytes).is_ok() {
            if self.fault == Fault::Dma {
                bytes[5] ^= 1;
            }
            let _ = host.dma_write(TARGET, &bytes);
        }
        self.state.done = true;
        host.set_irq(IRQ, self.fault != Fault::NoInterrupt);
    }
    fn reset(&mut self, _: ResetKind, host: &mut dyn Host) {
        self.state = State::default();
        self.attach(host);
    }
    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.state, out);
    }
    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if self.fault == Fault::OldState {
            return Err(StateError::Version { found: version, newest: 9 });
        }
        self.state = load_state(data)?;
        Ok(())
    }
}

fn build<const FAULT: u8>(_: &BuildContext<'_>) -> Result<Vec<Box<dyn Device>>, String> {
    const FAULTS: [Fault; 9] = [
        Fault::None,
        Fault::Bit,
        Fault::Refuses,
        Fault::NoInterrupt,
        Fault::Dma,
        Fault::Deadline,
        Fault::Elsewhere,
        Fault::Panics,
        Fault::OldState,
    ];
    Ok(vec![Box::new(Copier { fault: FAULTS[usize::from(FAULT)], state: State::default() })])
}

fn builder(fault: Fault) -> Builder {
    match fault {
        Fault::None => build::<0>,
        Fault::Bit => build::<1>,
        Fault::Refuses => build::<2>,
        Fault::NoInterrupt => build::<3>,
        Fault::Dma => build::<4>,
        Fault::Deadline => build::<5>,
        Fault::Elsewhere => build::<6>,
        Fault::Panics => build::<7>,
        Fault::OldState => build::<8>,
    }
}

fn header() -> Header {
    Header {
        device: "copier".into(),
        build: "1".into(),
        machine: Machine::default(),
        start_unix_seconds: 0,
        models: vec![model_info(&Copier { fault: Fault::None, state: State::default() })],
        found: Found::default(),
    }
}

fn access(kind: AccessKind, offset: u64, value: u32) -> What {
    What::Access(format::Access {
        model: 0,
        kind,
        region: PORTS.0,
        address: 0x300 + offset,
        offset,
        width: 1,
        posted: kind.is_write(),
        sequence: 1,
        guest: (0xf000, 0x1234),
        value,
        data: ByteBuf::new(),
        len: 0,
        selected: None,
    })
}

/// A recording in which the copier copies once: as a device process would make it.
fn recording(cold: bool) -> Vec<u8> {
    let mut model = Copier { fault: Fault::None, state: State::default() };
    let mut machine = TestHost::new(&model);
    machine.ram[SOURCE as usize..][..LEN].copy_from_slice(b"original");
    model.attach(&mut machine);
    let mut file = tempfile::tempfile().unwrap();
    let mut recorder = Recorder::new(Sink::File(file.try_clone().unwrap()), Some(header()), &Outside::live());
    let mut state = Vec::new();
    model.save(&mut state);
    let regions = model.regions().iter().map(RegionInfo::of).collect();
    recorder.start(Start {
        cold,
        models: vec![ModelStart {
            version: 1,
            state: ByteBuf::from(state),
            shown: Shown { regions, ..Shown::default() },
            memory: Vec::new(),
        }],
        ..Start::default()
    });
    let calls = [
        (10, access(AccessKind::Write, DATA, 0x5a)),
        (20, access(AccessKind::Read, DATA, 0)),
        (30, access(AccessKind::Write, START, 1)),
        (130, What::Timer(3, 130)),
        (150, access(AccessKind::Read, STATUS, 0)),
    ];
    for (now, what) in calls {
        machine.now = VirtualTime(now);
        recorder.begin(Call { model: 0, now, what: what.clone() });
        let mut host = recorder.host(0, &mut machine);
        let result = match what {
            What::Access(a) => {
                let at = Access { region: PORTS, address: a.address, offset: a.offset, width: Width::Byte };
                if a.kind.is_write() {
                    model.write(at, a.value, &mut host).map(|()| 0)
                } else {
                    model.read(at, &mut host)
                }
            }
            _ => {
                model.timer(TimerId(3), VirtualTime(130), &mut host);
                Ok(0)
            }
        };
        recorder.end(0, Answer { value: result.unwrap(), ..Answer::default() }, None);
    }
    drop(recorder);
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn play(recording: &[u8], fault: Fault) -> Result<(Report, Vec<Difference>), ReplayError> {
    let mut told = Vec::new();
    let report = replay(
        recording,
        |_| Some(builder(fault)),
        None,
        |difference| {
            told.push(difference.clone());
            false
        },
    )?;
    Ok((report, told))
}

/// The first difference of a build with this fault: its transaction and all that is said of it.
fn first(fault: Fault) -> (u64, String) {
    let (_, told) = play(&recording(false), fault).unwrap();
    assert_eq!(told.len(), 1, "{fault:?}");
    let Difference { transaction, call, what, recorded, found } = told[0].clone();
    (transaction, format!("{call} | {what} | {recorded} | {found}"))
}

#[test]
fn the_same_build_does_the_same() {
    for cold in [true, false] {
        let (report, told) = play(&recording(cold), Fault::None).unwrap();
        assert_eq!(told, []);
        assert_eq!((report.transactions, report.differences, report.cut, report.died), (5, 0, false, false));
        assert_eq!(report.guest.as_nanos(), 150);
    }
}

#[test]
fn a_wrong_bit_is_named() {
    let expected =
        "0.000000150 f000:00001234 copier read 0301 STATUS | reply, DONE (bit 7) of STATUS | 80 | 00";
    assert_eq!(first(Fault::Bit), (5, expected.into()));
}

#[test]
fn whatever_differs_first_is_told_with_its_transaction() {
    for (fault, transaction, said) in [
        (Fault::Refuses, 2, "reply | 5a | no such register"),
        (Fault::NoInterrupt, 4, "interrupt | IRQ 5 high | nothing"),
        (Fault::Dma, 4, "DMA write | DMA to 2000 at 0x5: 6e 61 6c | DMA to 2000 at 0x5: 6f 61 6c"),
        (Fault::Deadline, 3, "timer | timer 3 at 0.000000130 s | timer 3 at 0.000000230 s"),
        (Fault::Elsewhere, 4, "nothing of it is known | DMA read of 8 bytes at 0x1100"),
        (Fault::Panics, 4, "outcome | none | a panic: the copier is broken"),
    ] {
        let (at, text) = first(fault);
        assert!(at == transaction && text.contains(said), "{fault:?}: {at}: {text}");
    }
}

#[test]
fn a_build_that_refuses_the_state_starts_cold_recordings_only() {
    assert_eq!(play(&recording(true), Fault::OldState).unwrap().1, []);
    let error = play(&recording(false), Fault::OldState).unwrap_err().to_string();
    assert!(error.contains("copier") && error.contains("State version 1"), "{error}");
}

#[test]
fn a_call_that_did_not_come_back_is_made_again() {
    let mut bytes = recording(false);
    format::encode(
        &Entry::Call(Call { model: 0, now: 200, what: access(AccessKind::Read, DATA, 0) }),
        &mut bytes,
    );
    let (report, told) = play(&bytes, Fault::None).unwrap();
    assert_eq!((told.len(), report.transactions, report.died), (0, 6, true));
    let (_, told) = play(&bytes, Fault::Refuses).unwrap();
    assert_eq!(told[0].transaction, 2);
}

#[test]
fn a_recording_is_shown_in_every_form() {
    let bytes = recording(true);
    let show = |form| {
        let mut out = Vec::new();
        export::export(&bytes[..], form, &export::Part::default(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let text = show(export::Form::Text);
    assert!(text.contains("5 0.000000150 f000:00001234 copier read 0301 STATUS -> 80 | IRQ 5 low"), "{text}");
    assert!(text.contains("timer 3 of 0.000000130 s | IRQ 5 high, DMA to 2000: 6f 72 69"), "{text}");
    let json = show(export::Form::Json);
    assert_eq!(json.lines().count(), 7);
    assert!(json.contains("\"register\":\"STATUS\",\"width\":1"), "{json}");
    let vcd = show(export::Form::Vcd);
    let id = |name: &str| {
        let line = vcd.lines().find(|line| line.contains(name)).unwrap();
        line.split_whitespace().nth(3).unwrap().to_owned()
    };
    let after: Vec<_> = vcd.split("#150\n").nth(1).unwrap().lines().collect();
    assert!(after.contains(&format!("b10000000 {}", id(" STATUS ")).as_str()), "{after:?}");
    assert!(after.contains(&format!("0{}", id(" IRQ_5 ")).as_str()), "{after:?}");
    let statistics = export::statistics(&bytes[..]).unwrap();
    assert!(
        statistics.contains("5 transactions") && statistics.contains("interrupts raised"),
        "{statistics}"
    );
}

/// Where entries begin, and their lengths.
fn entries(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut list = Vec::new();
    let mut at = format::preamble().len();
    while at < bytes.len() {
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        list.push((at, len));
        at += 8 + len;
    }
    list
}

/// Whatever is in a recording: nothing panics, and an error is one line.
fn swallow(bytes: &[u8]) {
    for fault in [Fault::None, Fault::Bit] {
        let outcome = replay(bytes, |_| Some(builder(fault)), None, |_| true);
        if let Err(error) = outcome {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
    for form in [export::Form::Text, export::Form::Json, export::Form::Vcd] {
        let part = export::Part { details: true, ..export::Part::default() };
        let _ = export::export(bytes, form, &part, &mut std::io::sink());
    }
    let _ = export::statistics(bytes);
}

proptest! {
    #[test]
    fn hostile_content_never_panics(
        entry in 1usize..20, offset in 0usize..2000, value: u8, more in proptest::collection::vec(any::<u8>(), 0..8)
    ) {
        let mut bytes = recording(offset % 2 == 0);
        let list = entries(&bytes);
        let (at, len) = list[entry % list.len()];
        // The check is made to fit again: the content itself is met.
        let mut body = bytes[at + 8..at + 8 + len].to_vec();
        let place = offset % body.len();
        body[place] = value;
        body.splice(place..place, more);
        let Ok(changed) = postcard::from_bytes::<Entry>(&body) else { return Ok(()) };
        let mut again = Vec::new();
        format::encode(&changed, &mut again);
        bytes.splice(at..at + 8 + len, again);
        swallow(&bytes);
    }

    #[test]
    fn entries_in_any_order_never_panic(order in proptest::collection::vec(0usize..40, 0..20)) {
        let bytes = recording(true);
        let list = entries(&bytes);
        let mut other = format::preamble();
        for at in order {
            let (at, len) = list[at % list.len()];
            other.extend(&bytes[at..at + 8 + len]);
        }
        swallow(&other);
    }
}
