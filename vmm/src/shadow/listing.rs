//! Listings: shadow code beside the guest code that it was made of, for `vmsim shadow` and for the golden listings of the tests.
//!
//! It only reads what the translator made. Addresses in units are relative to their start; what is known has names.

use super::bridge::{Bridge, Context, WITHOUT_INTERRUPTS};
use super::cache::{CodeCache, TABLE_ENTRIES};
use super::mode::Mode;
use super::pages::ShadowPage;
use super::scanner::{self, CodeBytes, PAGE};
use super::translate::{Counts, Fills, Neighbours, Places, Returns, Target, Translator};
use crate::cpu::bus::Bus;
use crate::cpu::direct::ARRAY_BYTES;
use crate::cpu::fpu::FpuState;
use crate::cpu::{CpuState, Segment};
use crate::shadow::bridge::SLOT_SHIFT;
use iced_x86::{
    Decoder, DecoderOptions, Formatter, Instruction, NasmFormatter, Register, SymbolResolver, SymbolResult,
};
use std::fmt::Write;
use std::mem::offset_of;
use std::ops::Range;

/// Guest code for [`listing`].
#[derive(Clone, Copy, Debug)]
pub struct Snippet<'a> {
    /// The code; behind it is HLT.
    pub bytes: &'a [u8],
    /// EIP of its first byte. The page has room for it.
    pub eip: u32,
    /// Operands and addresses are 32-bit by default.
    pub code32: bool,
    /// The stack pointer is ESP.
    pub stack32: bool,
    /// At CPL 3.
    pub user: bool,
    /// DS, ES and SS are flat.
    pub flat: bool,
    /// Memory is accessed through a window: of a user, 32-bit and flat.
    pub window: bool,
    /// SSE and SSE2 are there.
    pub sse: bool,
    /// In real mode, with segments as it loads them.
    pub segmented: bool,
    /// Base of CS.
    pub cs_base: u32,
    /// CALL is of code that only loads its return address into this register, by number.
    pub reads_eip: Option<u8>,
}

/// Code that is to be listed.
pub(super) struct Code<'a> {
    pub(super) mode: Mode,
    /// EIP of the page's first byte.
    pub(super) page_eip: u32,
    /// The guest's bytes.
    pub(super) guest: &'a CodeBytes,
    /// Offset of each guest instruction, and where its code starts.
    pub(super) map: &'a [(u16, u32)],
    /// Where the code starts that is needed rarely.
    pub(super) stubs: u32,
    /// The host's bytes, and where they are.
    pub(super) host: &'a [u8],
    pub(super) base: u64,
    pub(super) places: Places,
    /// Address of the page's entry table.
    pub(super) table: u64,
    /// Where links' cells are.
    pub(super) cells: Range<u64>,
}

/// What the host's registers point at.
struct Names {
    base: u64,
    len: u64,
    places: Places,
    table: u64,
    cells: Range<u64>,
}

const fn segment(number: usize, field: usize) -> usize {
    offset_of!(CpuState, segments) + number * size_of::<Segment>() + field
}

/// Fields that R13 leads to.
const CONTEXT: [(usize, &str); 14] = [
    (offset_of!(Context, maps) + size_of::<u64>(), "empty_map"),
    (offset_of!(Context, maps) - WITHOUT_INTERRUPTS as usize * size_of::<u64>(), "maps-by-wanted"),
    (offset_of!(Context, exec), "exec"),
    (offset_of!(Context, leave), "leave"),
    (offset_of!(Context, terminal), "terminal"),
    (offset_of!(Context, flags), "flags"),
    (offset_of!(Context, target), "target"),
    (offset_of!(Context, budget), "budget"),
    (offset_of!(Context, wanted), "wanted"),
    (offset_of!(Context, direction), "direction"),
    (offset_of!(Context, fpu_loaded), "fpu_loaded"),
    (offset_of!(Context, control_word), "control_word"),
    (offset_of!(Context, maps), "maps"),
    (offset_of!(Context, far), "far"),
];

/// Fields of the processor's state, which R14 leads to, but for segments.
const STATE: [(usize, &str); 7] = [
    (offset_of!(CpuState, eip), "eip"),
    (offset_of!(CpuState, eflags), "eflags"),
    (offset_of!(CpuState, fpu) + offset_of!(FpuState, opcode), "fpu.opcode"),
    (offset_of!(CpuState, fpu) + offset_of!(FpuState, instruction_selector), "fpu.instruction_selector"),
    (offset_of!(CpuState, fpu) + offset_of!(FpuState, instruction_offset), "fpu.instruction_offset"),
    (offset_of!(CpuState, fpu) + offset_of!(FpuState, operand_selector), "fpu.operand_selector"),
    (offset_of!(CpuState, fpu) + offset_of!(FpuState, operand_offset), "fpu.operand_offset"),
];

const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];
const SEGMENT: [(usize, &str); 4] = [
    (offset_of!(Segment, selector), "selector"),
    (Segment::BASE_AT, "base"),
    (Segment::READ_END_AT, "read_end"),
    (Segment::WRITE_END_AT, "write_end"),
];

fn named(fields: &[(usize, &str)], offset: usize) -> Option<String> {
    fields.iter().find(|(at, _)| *at == offset).map(|(_, name)| (*name).to_owned())
}

fn state_field(offset: usize) -> Option<String> {
    let in_segment = || {
        let number = offset.checked_sub(offset_of!(CpuState, segments))? / size_of::<Segment>();
        let field = named(&SEGMENT, offset - segment(number, 0))?;
        Some(format!("{}.{field}", SEGMENTS.get(number)?))
    };
    named(&STATE, offset).or_else(in_segment)
}

/// Behind R15, which points [`SLOT_SHIFT`] behind the slots.
fn slots(displacement: i64) -> Option<String> {
    match displacement + i64::from(SLOT_SHIFT) {
        0 => Some("reads".into()),
        offset if offset == ARRAY_BYTES as i64 => Some("writes".into()),
        _ => None,
    }
}

impl Names {
    fn place(&self, address: u64) -> Option<String> {
        let Places { bridge, miss, returns, fills, .. } = self.places;
        let known = [
            (bridge.to_host, "bridge_to_host"),
            (bridge.interpret, "bridge_interpret"),
            (bridge.fill, "bridge_fill"),
            (miss, "miss"),
            (returns.other, "other_return"),
            (fills.link[0], "fill_link"),
            (fills.link[1], "fill_link"),
        ];
        let fills = fills.reads_eip.iter().map(|at| (*at, "fill_reads_eip"));
        let known = known.into_iter().chain(fills).find(|(at, _)| *at == address);
        let known = known.map(|(_, name)| name.to_owned());
        known.or_else(|| {
            let offset = address.wrapping_sub(self.base);
            (offset <= self.len).then(|| format!("+{offset:03x}"))
        })
    }

    fn cell(&self, address: u64) -> Option<String> {
        self.cells
            .contains(&address)
            .then(|| format!("cell_{:x}", (address - self.cells.start) / size_of::<u64>() as u64))
    }

    fn entry(&self, address: u64) -> Option<String> {
        let offset = address.wrapping_sub(self.table);
        let bytes = (TABLE_ENTRIES * size_of::<u32>()) as u64;
        (offset < bytes).then(|| format!("entry_{:03x}", offset / size_of::<u32>() as u64))
    }
}

impl SymbolResolver for Names {
    fn symbol(
        &mut self,
        instruction: &Instruction,
        _operand: u32,
        instruction_operand: Option<u32>,
        address: u64,
        _address_size: u32,
    ) -> Option<SymbolResult<'_>> {
        use iced_x86::OpKind;
        let kind = instruction.op_kind(instruction_operand?);
        let name = match (kind, instruction.memory_base()) {
            (OpKind::NearBranch64, _) => self.place(address),
            (OpKind::Memory, Register::R13) if address as i32 == self.places.attention => {
                Some("attention".to_owned())
            }
            (OpKind::Memory, Register::R13) => named(&CONTEXT, address as usize),
            (OpKind::Memory, Register::R14) => state_field(address as usize),
            (OpKind::Memory, Register::R15) => slots(address as i64),
            (OpKind::Memory, Register::None) => self.entry(address).or_else(|| self.cell(address)),
            _ => None,
        };
        name.map(|name| SymbolResult::with_string(address, name))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

impl Code<'_> {
    /// Appends the listing.
    pub(super) fn write(&self, text: &mut String) {
        let names = Names {
            base: self.base,
            len: self.host.len() as u64,
            places: self.places,
            table: self.table,
            cells: self.cells.clone(),
        };
        let mut formatter = NasmFormatter::with_options(Some(Box::new(names)), None);
        let ends = self.map.iter().skip(1).map(|(_, start)| *start).chain([self.stubs]);
        for (&(offset, start), end) in self.map.iter().zip(ends) {
            self.guest_line(text, offset);
            self.host_lines(text, &mut formatter, start, end);
        }
        if self.stubs < self.host.len() as u32 {
            text.push_str("behind the unit\n");
            self.host_lines(text, &mut formatter, self.stubs, self.host.len() as u32);
        }
    }

    fn guest_line(&self, text: &mut String, offset: u16) {
        let bytes = self.guest.from(usize::from(offset));
        let eip = self.page_eip.wrapping_add(u32::from(offset)) & self.mode.eip_mask();
        let bits = if self.mode.code32() { 32 } else { 16 };
        let instruction = Decoder::with_ip(bits, bytes, u64::from(eip), scanner::OPTIONS).decode();
        let mut line = String::new();
        NasmFormatter::new().format(&instruction, &mut line);
        let encoded = hex(bytes.get(..instruction.len()).unwrap_or(bytes));
        let _ = writeln!(text, "{eip:08x}  {encoded:24} {line}");
    }

    fn host_lines(&self, text: &mut String, formatter: &mut NasmFormatter, start: u32, end: u32) {
        let Some(bytes) = self.host.get(start as usize..end as usize) else { return };
        let ip = self.base + u64::from(start);
        for instruction in &mut Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE) {
            let mut line = String::new();
            formatter.format(&instruction, &mut line);
            let _ = writeln!(text, "    +{:03x}  {line}", instruction.ip().wrapping_sub(self.base));
        }
    }
}

/// Most bytes of a listing, which travels in one message.
const MOST_BYTES: usize = 256 << 10;

/// Appends all units of a shadow page, with the bytes of the guest's page that each consists of.
pub(super) fn page<B: Bus>(
    text: &mut String,
    page: &ShadowPage<B>,
    guest: &CodeBytes,
    cache: &CodeCache,
    places: Places,
    table: u64,
    cells: &Range<u64>,
) {
    let ShadowPage { physical, linear, mode, .. } = page;
    let _ =
        writeln!(text, "Physical page {physical:x} at linear {linear:x}, {mode}: {} units", page.units.len());
    for unit in &page.units {
        if text.len() > MOST_BYTES {
            text.push_str("and more\n");
            return;
        }
        let ranges: Vec<String> =
            unit.ranges.iter().map(|(start, end)| format!("{start:03x}-{:03x}", end - 1)).collect();
        let entries: Vec<String> = unit.entries.iter().map(|(entry, _)| format!("{entry:03x}")).collect();
        let _ = writeln!(
            text,
            "\nUnit of bytes {}, entered at {}: {} bytes at {:x}",
            ranges.join(" "),
            entries.join(" "),
            unit.len,
            unit.code
        );
        let Some(host) = cache.code(unit.code, unit.len as usize) else { continue };
        let (map, stubs) = (&unit.map[..], unit.stubs);
        let page_eip = linear.wrapping_sub(mode.cs_base);
        Code {
            mode: *mode,
            page_eip,
            guest,
            map,
            stubs,
            host,
            base: unit.code,
            places,
            table,
            cells: cells.clone(),
        }
        .write(text);
    }
}

/// What a snippet becomes when it is entered at its start, with everything at addresses that do not change.
pub fn listing(snippet: &Snippet<'_>) -> String {
    const BASE: u64 = 0x1000_0000;
    const TABLE: u64 = 0x3000_0000;
    const CELLS: [u32; 2] = [0x3800_0000, 0x3800_1000];
    const HLT: u8 = 0xf4;
    let places = Places {
        bridge: Bridge::pretended(0x2000_0000),
        miss: 0x2000_1000,
        returns: Returns { unknown: 0x2000_1100, other: 0x2000_1200 },
        fills: Fills {
            link: [0x2000_1300, 0x2000_1400],
            reads_eip: std::array::from_fn(|n| 0x2000_1500 + 0x100 * n as u64),
        },
        attention: offset_of!(Context, own_attention) as i32,
    };
    let mode = Mode::made_of(snippet);
    let offset = mode.linear(snippet.eip) as usize % PAGE;
    let mut page = [HLT; PAGE];
    page.iter_mut().skip(offset).zip(snippet.bytes).for_each(|(to, from)| *to = *from);
    let guest = CodeBytes::of(&page, None);
    let page_eip = snippet.eip.wrapping_sub(offset as u32);
    let mut unit = scanner::scan(&guest, mode, page_eip, offset as u16, |_| false);
    for item in unit.instructions.values_mut() {
        item.reads_eip = snippet.reads_eip;
    }
    let mut translator = Translator::new(places);
    let counts = Counts::Nothing;
    let target =
        Target { mode, page_eip, table: TABLE, next_page: None, cells: CELLS, counts, lockstep: false };
    let made = translator.translate(&unit, target, &Neighbours::new(), BASE);
    let mut text = format!("{mode}\n");
    let (map, stubs, host) = (&made.map[..], made.stubs, translator.code());
    Code {
        mode,
        page_eip,
        guest: &guest,
        map,
        stubs,
        host,
        base: BASE,
        places,
        table: TABLE,
        cells: CELLS[0].into()..CELLS[1].into(),
    }
    .write(&mut text);
    text
}
