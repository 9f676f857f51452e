//! Random accesses against a model that knows nothing of TLBs: bytes in a flat array and a page table
//! that is looked up each time.

use crate::cpu::Fault;
use crate::cpu::registers::Seg;
use crate::cpu::testing::protected;
use proptest::prelude::*;

/// The linear pages that the actions touch, and the physical pages they map to.
const PAGES: u32 = 4;
const LINEAR: u32 = 0x20_0000;
const PHYSICAL: u32 = 0x30_0000;

#[derive(Clone, Debug)]
enum Action {
    /// Map a linear page: physical page, writable, user, present.
    Map(u32, u32, bool, bool, bool),
    Write(u32, u32, u64),
    Read(u32, u32),
    Modify(u32, u32, u64),
    Mark(u32, u32),
    Unmark(u32),
    Reload,
}

fn action() -> impl Strategy<Value = Action> {
    // Mostly near page boundaries.
    let offset = || {
        (0..PAGES, prop_oneof![0u32..16, 0xff0u32..0x1000, 0u32..0x1000]).prop_map(|(p, o)| p * 0x1000 + o)
    };
    prop_oneof![
        2 => (0..PAGES, 0..PAGES, any::<bool>(), any::<bool>(), prop::bool::weighted(0.8))
            .prop_map(|(l, p, w, u, present)| Action::Map(l, p, w, u, present)),
        8 => (offset(), 0u32..4, any::<u64>()).prop_map(|(o, s, v)| Action::Write(o, s, v)),
        8 => (offset(), 0u32..4).prop_map(|(o, s)| Action::Read(o, s)),
        4 => (offset(), 0u32..4, any::<u64>()).prop_map(|(o, s, v)| Action::Modify(o, s, v)),
        1 => (offset(), 1u32..16).prop_map(|(o, n)| Action::Mark(o, n)),
        1 => (0..PAGES).prop_map(Action::Unmark),
        1 => Just(Action::Reload),
    ]
}

struct Model {
    bytes: Vec<u8>,
    entries: [(u32, bool, bool, bool); PAGES as usize],
    code: Vec<bool>,
}

impl Model {
    /// Index of a byte in `bytes`, or the error code of the page fault.
    fn find(&self, at: u32, write: bool) -> Result<usize, u32> {
        let code = if write { 6 } else { 4 };
        match self.entries.get((at / 0x1000) as usize) {
            Some(&(page, writable, user, true)) if user && (writable || !write) => {
                Ok((page * 0x1000 + at % 0x1000) as usize)
            }
            Some((_, _, _, true)) => Err(code | 1),
            _ => Err(code),
        }
    }

    /// Bytes of an access, or the fault: it tells the first byte that lies in the faulting page.
    fn access(&self, at: u32, size: u32, write: bool) -> Result<Vec<usize>, Fault> {
        let last = at + size - 1;
        for probe in [at, at.max(last & !0xfff)] {
            self.find(probe, write).map_err(|code| Fault::pf(LINEAR + probe, code))?;
        }
        Ok((at..at + size).filter_map(|byte| self.find(byte, write).ok()).collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_behaves_like_bytes_behind_a_page_table(actions in prop::collection::vec(action(), 1..200)) {
        let mut cpu = protected();
        cpu.enable_paging();
        cpu.enter_user(0x4000, 2);
        let bytes = (PAGES * 0x1000) as usize;
        let mut model = Model { bytes: vec![0; bytes], entries: [(0, true, true, false); PAGES as usize], code: vec![false; bytes] };
        for page in 0..=PAGES {
            cpu.set_pte(LINEAR + page * 0x1000, 0);
        }
        for action in actions {
            match action {
                Action::Map(linear, physical, writable, user, present) => {
                    let bits = u32::from(present) | u32::from(writable) << 1 | u32::from(user) << 2;
                    cpu.set_pte(LINEAR + linear * 0x1000, (PHYSICAL + physical * 0x1000) | bits);
                    model.entries[linear as usize] = (physical, writable, user, present);
                }
                Action::Write(at, size, value) | Action::Modify(at, size, value) => {
                    let modify = matches!(action, Action::Modify(..));
                    let bytes = 1 << size;
                    let expected = model.access(at, bytes, true);
                    let address = LINEAR + at;
                    let mut result = Ok(());
                    if modify {
                        result = match size {
                            0 => cpu.modify_u8(Seg::Ds, address).map(|_| ()),
                            1 => cpu.modify_u16(Seg::Ds, address).map(|_| ()),
                            2 => cpu.modify_u32(Seg::Ds, address).map(|_| ()),
                            _ => cpu.modify_u64(Seg::Ds, address).map(|_| ()),
                        };
                    }
                    if result.is_ok() {
                        result = match size {
                            0 => cpu.write_u8(Seg::Ds, address, value as u8),
                            1 => cpu.write_u16(Seg::Ds, address, value as u16),
                            2 => cpu.write_u32(Seg::Ds, address, value as u32),
                            _ => cpu.write_u64(Seg::Ds, address, value),
                        };
                    }
                    prop_assert_eq!(result, expected.clone().map(|_| ()));
                    let places = expected.unwrap_or_default();
                    for (i, &place) in places.iter().enumerate() {
                        model.bytes[place] = (value >> (8 * i)) as u8;
                    }
                    let hits_code = places.iter().any(|&place| model.code[place]);
                    prop_assert_eq!(cpu.code.has_written(), hits_code);
                    while cpu.code.take_written().is_some() {}
                }
                Action::Read(at, size) => {
                    let address = LINEAR + at;
                    let result = match size {
                        0 => cpu.read_u8(Seg::Ds, address).map(u64::from),
                        1 => cpu.read_u16(Seg::Ds, address).map(u64::from),
                        2 => cpu.read_u32(Seg::Ds, address).map(u64::from),
                        _ => cpu.read_u64(Seg::Ds, address),
                    };
                    let expected = model.access(at, 1 << size, false).map(|places| {
                        places.iter().rev().fold(0, |value, &place| value << 8 | u64::from(model.bytes[place]))
                    });
                    prop_assert_eq!(result, expected);
                }
                Action::Mark(at, len) => {
                    let len = len.min(0x1000 - at % 0x1000);
                    cpu.mark_code(u64::from(PHYSICAL + at), len);
                    model.code[at as usize..(at + len) as usize].fill(true);
                }
                Action::Unmark(page) => {
                    cpu.unmark_code_page(u64::from(PHYSICAL + page * 0x1000));
                    model.code[(page * 0x1000) as usize..((page + 1) * 0x1000) as usize].fill(false);
                }
                Action::Reload => {
                    cpu.state_replaced();
                }
            }
        }
        for (i, &byte) in model.bytes.iter().enumerate() {
            prop_assert_eq!(cpu.bus.peek16(u64::from(PHYSICAL) + i as u64) as u8, byte);
        }
    }
}
