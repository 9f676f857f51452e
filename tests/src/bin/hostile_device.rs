//! A device process that does its worst on everything that it shares with the VMM and the supervisor by its link: rings,
//! region table, mirrors, payload, state pages. The file `EXE.seen` says how often.
//!
//! Where its executable's name ends with `board`, it calls the vCPU once for reasons that there are not, and when there is a
//! file `EXE.go`, it writes all over the board.
//!
//! It runs as the fifth device process of a machine, so its link is number 4.

use devproc::device::{
    Access, Device, Dma, ReadResult, Region, RegionId, ResetKind, StateError, WriteResult,
};
use devproc::host::Host;
use ipc::board::{Board, attention};
use ipc::link::{Link, LinkLayout};
use ipc::message::{Kind, MESSAGE_WORDS, Message};
use ipc::mirror::Mirrored;
use ipc::segment::{Segment, SegmentNames};
use std::mem::offset_of;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Slot of this process: its name comes after those of the built-in ones.
const SLOT: usize = 4;
/// Guest RAM that it asks for: one page.
const REACH: u64 = 4096;
/// Attacks between two looks at the clock, and the pause after them: others need the CPU too.
const ROUND: u64 = 200;
const PAUSE: Duration = Duration::from_millis(1);

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 8) % limit
    }
}

/// One attack. The request ring, whose corruption ends this process, only now and then.
fn attack(layout: &LinkLayout, bytes: &Segment, random: &mut Random) {
    let (a, b, c) = (random.next(), random.next(), random.next());
    let overwrite = |at: u64| assert!(bytes.write(at & !7, &a.to_le_bytes()), "inside the link");
    match random.below(12) {
        // A ring that is full takes nothing more.
        0 => _ = layout.replies.push([a, b, c, a, b, c, a, b]),
        1 => {
            let sequence = layout.requests.consumed().wrapping_add(b % 3);
            let reply = Message { sequence, value: a, ..Message::new(Kind::Reply) };
            _ = layout.replies.push(reply.encode());
        }
        2 => {
            let written =
                Message { address: a >> (b & 63), value: c >> (a & 63), ..Message::new(Kind::CodeWritten) };
            let mut words = written.encode();
            words[(b % MESSAGE_WORDS as u64) as usize] ^= c;
            _ = layout.replies.push(words);
        }
        3 => overwrite(std::mem::offset_of!(LinkLayout, replies) as u64 + 128 * (b & 1)),
        4 => overwrite(std::mem::offset_of!(LinkLayout, models) as u64 + b % 1024),
        5 => overwrite(std::mem::offset_of!(LinkLayout, states) as u64 + b % 4096),
        6 => overwrite(std::mem::offset_of!(LinkLayout, device_memory_bytes) as u64),
        7 => layout.set_regions(&[
            [a, b, c, a, b, c, a, b],
            [1 << 40 | 1 << 24, b & 0xffff, c & 0xff, 0, 0, 0, 0, 0],
        ]),
        8 => _ = layout.set_mirror((a & 0x3ff) as usize, Mirrored::from_word(b)),
        9 => _ = layout.states[(a & 15) as usize].commit(b, c as u16, &[a; 64], &[b as u8; 1000]),
        10 if random.below(5000) == 0 => {
            overwrite(std::mem::offset_of!(LinkLayout, requests) as u64 + 128 * (b & 1))
        }
        // Between the rings and the states is what else there is.
        _ => overwrite(std::mem::offset_of!(LinkLayout, replies) as u64 + b % (Link::BYTES / 16)),
    }
}

/// One attack on the board.
fn attack_board(board: &Board, bytes: &Segment, random: &mut Random) {
    let (a, b, c) = (random.next(), random.next(), random.next());
    let value = [a, a & 0xff, 1 << (a & 63), 0][(b & 3) as usize];
    match (a >> 32) & 31 {
        0 => board.call_vcpu(b as u32),
        1 => _ = board.intr.publish(Some(b as u8), c as u8, a as u8),
        2 => board.set_shadow(b as u32, c as u32, a & 1 != 0, a & 2 != 0),
        3 => board.set_a20(b as u32, c & 1 != 0),
        _ => {
            let at = (c % size_of::<Board>() as u64) & !7;
            // A machine that is switched off has nothing more to attack.
            if at != offset_of!(Board, power_off_request) as u64 & !7 {
                assert!(bytes.write(at, &value.to_le_bytes()), "inside the board");
            }
        }
    }
}

/// The file that says what it has done.
fn seen() -> std::fs::File {
    let exe = std::env::args().next().expect("a program has a name");
    let seen = std::fs::OpenOptions::new().create(true).append(true).open(format!("{exe}.seen"));
    seen.expect("the file")
}

fn attack_for_ever() {
    use std::io::Write;
    let vm = std::env::args().skip_while(|arg| arg != "--attach").nth(1).expect("the VM");
    let names = SegmentNames::new(&vm);
    let mut seen = seen();
    let link = Link::open(&names.link(SLOT)).expect("the link");
    let bytes = Segment::open(&names.link(SLOT)).expect("the link");
    let board = Segment::open(&names.board()).expect("the board");
    let exe = std::env::args().next().expect("a program has a name");
    let mut random = Random(u64::from(std::process::id()) << 20 | 1);
    std::thread::spawn(move || {
        // The process begins as it should.
        std::thread::sleep(Duration::from_millis(300));
        let mut round: Box<dyn FnMut()> = if exe.ends_with("board") {
            board.view::<Board>().expect("a board").call_vcpu(!attention::ALL);
            while !Path::new(&format!("{exe}.go")).exists() {
                std::thread::sleep(PAUSE);
            }
            Box::new(move || {
                let view = board.view().expect("a board");
                (0..ROUND).for_each(|_| attack_board(view, &board, &mut random));
            })
        } else {
            Box::new(move || (0..ROUND).for_each(|_| attack(link.layout(), &bytes, &mut random)))
        };
        loop {
            round();
            writeln!(seen, "{ROUND}").expect("a line is written");
            std::thread::sleep(PAUSE);
        }
    });
}

/// A model that wants to read and write what is none of its business.
struct Hostile {
    random: Random,
    seen: std::fs::File,
}

impl Hostile {
    /// DMA to anywhere but the page that it may reach. What it gets is told.
    fn steal(&mut self, host: &mut dyn Host) {
        use std::io::Write;
        let (a, len) = (self.random.next(), 1 + self.random.below(64) as usize);
        // Across the end of what it may reach, in the rest of RAM, behind that, and where sums overflow.
        let address = match a % 4 {
            0 => REACH - len as u64 + 1 + a / 4 % len as u64,
            1 => REACH + a / 4 % (64 << 20),
            2 => u64::from(u32::MAX) - a / 4 % 64,
            _ => u64::MAX - a / 4 % 64,
        };
        let mut data = vec![0xcc; len];
        if host.dma_read(address, &mut data).is_ok() || data != vec![0xcc; len] {
            writeln!(self.seen, "read {address:x}").expect("a line is written");
        }
        if host.dma_write(address, &data).is_ok() {
            writeln!(self.seen, "wrote {address:x}").expect("a line is written");
        }
    }
}

impl Device for Hostile {
    fn name(&self) -> &'static str {
        "hostile"
    }
    fn regions(&self) -> Vec<Region> {
        vec![Region::ports(RegionId(0), "hostile", 0x300, 4)]
    }
    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        self.steal(host);
        Ok(at.offset as u32)
    }
    fn write(&mut self, _: Access, _: u32, host: &mut dyn Host) -> WriteResult {
        self.steal(host);
        Ok(())
    }
    fn dma(&self) -> Dma {
        Dma::Below(REACH)
    }
    fn reset(&mut self, _: ResetKind, _: &mut dyn Host) {}
    fn save(&self, out: &mut Vec<u8>) {
        out.push(0);
    }
    fn load(&mut self, _: u16, _: &[u8]) -> Result<(), StateError> {
        Ok(())
    }
}

fn main() -> ExitCode {
    devproc::standard::main(|_| {
        Some(|_| {
            attack_for_ever();
            Ok(vec![Box::new(Hostile {
                random: Random(u64::from(std::process::id()) << 20 | 3),
                seen: seen(),
            })])
        })
    })
}
