//! Names of the adapter's registers, for traces.

use super::spec::{attribute, crtc, graphics, misc, port, sequencer, status_0, status_1};
use super::{Vga, region};
use crate::device::{Access, RegionId, Register, Width};
use crate::gpu::vbe::spec as vbe;
use crate::register::Field;

const CRTC_NAMES: [&str; crtc::COUNT] = [
    "CRTC_HORIZONTAL_TOTAL",
    "CRTC_HORIZONTAL_DISPLAY_END",
    "CRTC_HORIZONTAL_BLANK_START",
    "CRTC_HORIZONTAL_BLANK_END",
    "CRTC_HORIZONTAL_RETRACE_START",
    "CRTC_HORIZONTAL_RETRACE_END",
    "CRTC_VERTICAL_TOTAL",
    "CRTC_OVERFLOW",
    "CRTC_PRESET_ROW_SCAN",
    "CRTC_MAXIMUM_SCAN_LINE",
    "CRTC_CURSOR_START",
    "CRTC_CURSOR_END",
    "CRTC_START_ADDRESS_HIGH",
    "CRTC_START_ADDRESS_LOW",
    "CRTC_CURSOR_LOCATION_HIGH",
    "CRTC_CURSOR_LOCATION_LOW",
    "CRTC_VERTICAL_RETRACE_START",
    "CRTC_VERTICAL_RETRACE_END",
    "CRTC_VERTICAL_DISPLAY_END",
    "CRTC_OFFSET",
    "CRTC_UNDERLINE_LOCATION",
    "CRTC_VERTICAL_BLANK_START",
    "CRTC_VERTICAL_BLANK_END",
    "CRTC_MODE_CONTROL",
    "CRTC_LINE_COMPARE",
];
const SEQUENCER_NAMES: [&str; sequencer::COUNT] =
    ["SEQ_RESET", "SEQ_CLOCKING_MODE", "SEQ_MAP_MASK", "SEQ_CHARACTER_MAP_SELECT", "SEQ_MEMORY_MODE"];
const GRAPHICS_NAMES: [&str; graphics::COUNT] = [
    "GC_SET_RESET",
    "GC_ENABLE_SET_RESET",
    "GC_COLOR_COMPARE",
    "GC_DATA_ROTATE",
    "GC_READ_MAP_SELECT",
    "GC_MODE",
    "GC_MISCELLANEOUS",
    "GC_COLOR_DONT_CARE",
    "GC_BIT_MASK",
];
const ATTRIBUTE_NAMES: [&str; attribute::COUNT] = [
    "ATC_PALETTE_0",
    "ATC_PALETTE_1",
    "ATC_PALETTE_2",
    "ATC_PALETTE_3",
    "ATC_PALETTE_4",
    "ATC_PALETTE_5",
    "ATC_PALETTE_6",
    "ATC_PALETTE_7",
    "ATC_PALETTE_8",
    "ATC_PALETTE_9",
    "ATC_PALETTE_A",
    "ATC_PALETTE_B",
    "ATC_PALETTE_C",
    "ATC_PALETTE_D",
    "ATC_PALETTE_E",
    "ATC_PALETTE_F",
    "ATC_MODE_CONTROL",
    "ATC_OVERSCAN_COLOR",
    "ATC_COLOR_PLANE_ENABLE",
    "ATC_PEL_PANNING",
    "ATC_COLOR_SELECT",
];
const DISPI_NAMES: [&str; vbe::COUNT as usize] = [
    "VBE_DISPI_ID",
    "VBE_DISPI_XRES",
    "VBE_DISPI_YRES",
    "VBE_DISPI_BPP",
    "VBE_DISPI_ENABLE",
    "VBE_DISPI_BANK",
    "VBE_DISPI_VIRT_WIDTH",
    "VBE_DISPI_VIRT_HEIGHT",
    "VBE_DISPI_X_OFFSET",
    "VBE_DISPI_Y_OFFSET",
    "VBE_DISPI_VIDEO_MEMORY_64K",
];

/// Named bits of the CRTC registers that have any.
fn crtc_fields(number: usize) -> &'static [Field] {
    match number {
        crtc::OVERFLOW => &[
            ("VT8", crtc::OVERFLOW_VERTICAL_TOTAL_8 as u32),
            ("VDE8", crtc::OVERFLOW_DISPLAY_END_8 as u32),
            ("VRS8", crtc::OVERFLOW_RETRACE_START_8 as u32),
            ("LC8", crtc::OVERFLOW_LINE_COMPARE_8 as u32),
            ("VT9", crtc::OVERFLOW_VERTICAL_TOTAL_9 as u32),
            ("VDE9", crtc::OVERFLOW_DISPLAY_END_9 as u32),
            ("VRS9", crtc::OVERFLOW_RETRACE_START_9 as u32),
        ],
        crtc::MAXIMUM_SCAN_LINE => &[
            ("MSL", crtc::MAXIMUM_SCAN_LINE_MASK as u32),
            ("LC9", crtc::LINE_COMPARE_9 as u32),
            ("200-400", crtc::DOUBLE_SCAN as u32),
        ],
        crtc::CURSOR_START => &[("CO", crtc::CURSOR_OFF as u32), ("RSC", crtc::CURSOR_ROW_MASK as u32)],
        crtc::VERTICAL_RETRACE_END => &[
            ("VRE", crtc::RETRACE_END_MASK as u32),
            ("CVI", crtc::CLEAR_INTERRUPT_N as u32),
            ("PR", crtc::PROTECT as u32),
        ],
        crtc::MODE_CONTROL => &[
            ("CMS0", crtc::ROW_SCAN_0_OFF as u32),
            ("SRC", crtc::ROW_SCAN_1_OFF as u32),
            ("HRS", crtc::VERTICAL_HALF as u32),
            ("CB2", crtc::COUNT_BY_2 as u32),
            ("ADW", crtc::ADDRESS_WRAP as u32),
            ("W/B", crtc::BYTE_MODE as u32),
            ("HWR", crtc::RETRACE_ENABLE as u32),
        ],
        _ => &[],
    }
}

/// Named bits of the other registers behind an index.
fn sequencer_fields(number: usize) -> &'static [Field] {
    match number {
        sequencer::CLOCKING_MODE => &[
            ("8/9", sequencer::EIGHT_DOTS as u32),
            ("DC", sequencer::DOT_CLOCK_HALF as u32),
            ("SO", sequencer::SCREEN_OFF as u32),
        ],
        sequencer::MEMORY_MODE => &[("OE", sequencer::SEQUENTIAL as u32), ("CH4", sequencer::CHAIN_4 as u32)],
        _ => &[],
    }
}

fn graphics_fields(number: usize) -> &'static [Field] {
    match number {
        graphics::MODE => &[
            ("WM", graphics::WRITE_MODE_MASK as u32),
            ("RM", graphics::READ_MODE_1 as u32),
            ("OE", graphics::ODD_EVEN as u32),
            ("SR", graphics::SHIFT_INTERLEAVE as u32),
            ("C256", graphics::SHIFT_256 as u32),
        ],
        graphics::MISCELLANEOUS => &[
            ("GM", graphics::GRAPHICS_MODE as u32),
            ("OE", graphics::CHAIN_ODD_EVEN as u32),
            ("MM", 0b11 << graphics::MEMORY_MAP_SHIFT),
        ],
        _ => &[],
    }
}

fn attribute_fields(number: usize) -> &'static [Field] {
    match number {
        attribute::MODE_CONTROL => &[
            ("ELG", attribute::LINE_GRAPHICS as u32),
            ("EB/I", attribute::BLINK as u32),
            ("PP", attribute::PANNING_COMPATIBILITY as u32),
            ("PS", attribute::PALETTE_SIZE_SELECT as u32),
        ],
        _ => &[],
    }
}

const DISPI_ENABLE_FIELDS: &[Field] = &[
    ("ENABLED", vbe::ENABLE_ENABLED as u32),
    ("GETCAPS", vbe::ENABLE_GETCAPS as u32),
    ("8BIT_DAC", vbe::ENABLE_8BIT_DAC as u32),
    ("LFB_ENABLED", vbe::ENABLE_LFB as u32),
    ("NOCLEARMEM", vbe::ENABLE_NO_CLEAR as u32),
];
const STATUS_0_FIELDS: &[Field] =
    &[("SS", status_0::SWITCH_SENSE as u32), ("CI", status_0::CRT_INTERRUPT as u32)];
const STATUS_1_FIELDS: &[Field] =
    &[("DE", status_1::DISPLAY_DISABLED as u32), ("VR", status_1::VERTICAL_RETRACE as u32)];
const MISC_FIELDS: &[Field] =
    &[("IOS", misc::IO_SELECT as u32), ("ERAM", misc::ENABLE_RAM as u32), ("CS", misc::CLOCK_SELECT as u32)];

/// Registers that stand at a port of their own, with the first port of their region.
const PLAIN: [(RegionId, u16, u16, &str, &[Field]); 18] = [
    (region::CRTC_MONO, port::CRTC_INDEX_MONO, port::CRTC_INDEX_MONO, "CRTC_ADDRESS", &[]),
    (region::CRTC_COLOR, port::CRTC_INDEX_COLOR, port::CRTC_INDEX_COLOR, "CRTC_ADDRESS", &[]),
    (region::STATUS_MONO, port::STATUS_1_MONO, port::STATUS_1_MONO, "INPUT_STATUS_1", STATUS_1_FIELDS),
    (region::STATUS_COLOR, port::STATUS_1_COLOR, port::STATUS_1_COLOR, "INPUT_STATUS_1", STATUS_1_FIELDS),
    (region::ATTRIBUTE, port::ATTRIBUTE, port::ATTRIBUTE, "ATC_ADDRESS", &[]),
    (region::MISC, port::MISC_OUTPUT_WRITE, port::MISC_OUTPUT_WRITE, "INPUT_STATUS_0", STATUS_0_FIELDS),
    (region::MISC, port::MISC_OUTPUT_WRITE, port::VIDEO_ENABLE, "VIDEO_SUBSYSTEM_ENABLE", &[]),
    (region::SEQUENCER, port::SEQUENCER_INDEX, port::SEQUENCER_INDEX, "SEQ_ADDRESS", &[]),
    (region::GRAPHICS, port::GRAPHICS_INDEX, port::GRAPHICS_INDEX, "GC_ADDRESS", &[]),
    (region::DAC, port::PEL_MASK, port::PEL_MASK, "PEL_MASK", &[]),
    (region::DAC, port::PEL_MASK, port::PEL_READ_INDEX, "PEL_ADDRESS_READ", &[]),
    (region::DAC, port::PEL_MASK, port::PEL_WRITE_INDEX, "PEL_ADDRESS_WRITE", &[]),
    (region::DAC, port::PEL_MASK, port::PEL_DATA, "PEL_DATA", &[]),
    (region::READ_BACK, port::FEATURE_CONTROL_READ, port::FEATURE_CONTROL_READ, "FEATURE_CONTROL", &[]),
    (region::READ_BACK, port::FEATURE_CONTROL_READ, port::MISC_OUTPUT_READ, "MISC_OUTPUT", MISC_FIELDS),
    (region::DISPI, vbe::INDEX_PORT, vbe::INDEX_PORT, "VBE_DISPI_INDEX", &[]),
    (region::DISPI, vbe::INDEX_PORT, vbe::DATA_PORT, "VBE_DISPI_DATA", &[]),
    (region::DISPI, vbe::INDEX_PORT, vbe::DATA_PORT_ALIGNED, "VBE_DISPI_DATA", &[]),
];

/// Index by which a write is told from a read of another register at the same port.
const WRITTEN: u32 = u32::MAX;

impl Vga {
    pub(super) fn register_names(&self) -> Vec<Register> {
        let mut all: Vec<Register> = Vec::new();
        for (id, first, port, name, fields) in PLAIN {
            let width = if id == region::DISPI { Width::Word } else { Width::Byte };
            all.push(Register::new(id, (port - first).into(), name).width(width).fields(fields));
        }
        let misc = Register::new(region::MISC, 0, "MISC_OUTPUT").fields(MISC_FIELDS);
        all.push(misc.index(WRITTEN));
        for id in [region::STATUS_MONO, region::STATUS_COLOR] {
            all.push(Register::new(id, 0, "FEATURE_CONTROL").index(WRITTEN));
        }
        let mut indexed = |ids: &[RegionId],
                           offsets: &[u64],
                           names: &[&'static str],
                           fields: fn(usize) -> &'static [Field]| {
            for (id, offset) in ids.iter().flat_map(|id| offsets.iter().map(move |offset| (*id, *offset))) {
                for (number, name) in names.iter().enumerate() {
                    let register = Register::new(id, offset, name).index(number as u32);
                    all.push(register.fields(fields(number)));
                }
            }
        };
        indexed(&[region::CRTC_MONO, region::CRTC_COLOR], &[1], &CRTC_NAMES, crtc_fields);
        indexed(&[region::SEQUENCER], &[1], &SEQUENCER_NAMES, sequencer_fields);
        indexed(&[region::GRAPHICS], &[1], &GRAPHICS_NAMES, graphics_fields);
        indexed(&[region::ATTRIBUTE], &[0, 1], &ATTRIBUTE_NAMES, attribute_fields);
        for (number, name) in (0u16..).zip(DISPI_NAMES) {
            let fields = if number == vbe::ENABLE { DISPI_ENABLE_FIELDS } else { &[] };
            let word = |id, offset| Register::new(id, offset, name).width(Width::Word).fields(fields);
            for port in [vbe::DATA_PORT, vbe::DATA_PORT_ALIGNED] {
                let offset = u64::from(port - vbe::INDEX_PORT);
                all.push(word(region::DISPI, offset).index(number.into()));
            }
            all.push(word(region::MMIO, vbe::MMIO_DISPI + 2 * u64::from(number)));
        }
        all
    }

    /// The index by which an access reaches a register behind an index register.
    pub(super) fn selected_register(&self, at: Access, written: Option<u32>) -> Option<u32> {
        let r = &self.registers;
        // OUT DX, AX to an index port sets the index first.
        let by = |index: u8, mask: u8| match written {
            Some(value) if at.offset == 0 && at.width != Width::Byte => Some(u32::from(value as u8 & mask)),
            _ if at.offset == 0 && at.width == Width::Byte => None,
            _ => Some(index.into()),
        };
        match at.region {
            region::CRTC_MONO | region::CRTC_COLOR => by(r.crtc_index, crtc::INDEX_MASK),
            region::SEQUENCER => by(r.sequencer_index, sequencer::INDEX_MASK),
            region::GRAPHICS => by(r.graphics_index, graphics::INDEX_MASK),
            region::ATTRIBUTE if at.offset == 1 || (written.is_some() && r.attribute_flip_flop) => {
                Some(u32::from(r.attribute_index & attribute::INDEX_MASK))
            }
            region::MISC | region::STATUS_MONO | region::STATUS_COLOR if written.is_some() => Some(WRITTEN),
            region::DISPI if at.offset > 0 => Some(self.dispi.index.into()),
            _ => None,
        }
    }
}
