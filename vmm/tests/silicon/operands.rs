//! Memory operands: all forms of addresses, aimed at something.

use super::generate::{Builder, GPR32, SEGMENTS};
use super::machine::{PAGE, at, selector};
use iced_x86::{Instruction, OpKind, Register};

/// Where a memory operand is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Its linear address, if that is known.
    pub(super) linear: Option<u32>,
}

const SS: usize = 2;
const DS: usize = 3;
const ESP: u32 = 4;
const EBP: u32 = 5;

/// Pairs of registers in 16-bit addresses, by encoding; the second may be missing.
const NARROW: [(Register, Register); 8] = [
    (Register::BX, Register::SI),
    (Register::BX, Register::DI),
    (Register::BP, Register::SI),
    (Register::BP, Register::DI),
    (Register::SI, Register::None),
    (Register::DI, Register::None),
    (Register::BP, Register::None),
    (Register::BX, Register::None),
];

impl Builder<'_> {
    /// A linear address to aim an operand of `size` bytes at.
    fn target(&mut self, size: u32) -> u32 {
        let size = size.max(1);
        let random = &mut self.random;
        match random.below(100) {
            0..=73 => {
                let alignment =
                    if size >= 16 || random.percent(50) { size.next_power_of_two().min(16) } else { 1 };
                at::DATA + (random.below(at::DATA_SIZE - size) & !(alignment - 1))
            }
            74..=81 => at::DATA + PAGE * (1 + random.below(2)) - random.below(size),
            82..=86 => at::READ_ONLY - random.below(size + 1),
            87..=90 => at::READ_ONLY + random.below(PAGE - size.min(PAGE)),
            91..=92 => at::READ_ONLY + PAGE - random.below(size + 1),
            93..=94 => at::DATA - random.below(size + 1),
            95..=97 => at::STACK + random.below(PAGE - size.min(PAGE)),
            98 => random.bits(),
            _ => 0u32.wrapping_sub(random.below(size + 1)),
        }
    }

    /// Makes operand `n` a memory operand.
    pub(super) fn memory(&mut self, instruction: &mut Instruction, n: u32, absolute: bool) -> Place {
        instruction.set_op_kind(n, OpKind::Memory);
        let size = instruction.memory_size().size() as u32;
        let target = self.target(size);
        let small = |builder: &Self, seg: usize| {
            matches!(
                builder.known.segments[seg],
                Some(selector::SMALL | selector::SMALL_READ_ONLY | selector::EXPAND_DOWN)
            )
        };
        let mut chosen = None;
        if self.random.percent(15) {
            // FS is null unless it was loaded.
            let seg = self.random.below(6) as usize;
            chosen = Some(seg).filter(|seg| *seg != 4 || self.random.percent(5));
        }
        let narrow = self.random.percent(12);
        if narrow && chosen.is_none_or(|seg| !small(self, seg)) && self.random.percent(85) {
            chosen = [DS, 0, 5].into_iter().find(|seg| small(self, *seg));
        }
        if let Some(seg) = chosen {
            instruction.set_segment_prefix(SEGMENTS[seg]);
        }
        if narrow {
            self.narrow(instruction, target, chosen, absolute)
        } else {
            self.wide(instruction, target, chosen, absolute)
        }
    }

    fn wide(
        &mut self,
        instruction: &mut Instruction,
        target: u32,
        chosen: Option<usize>,
        absolute: bool,
    ) -> Place {
        let form = if absolute { 0 } else { self.random.below(8) };
        let mut base = None;
        let mut index = None;
        match form {
            0 => {}
            1..=4 => base = Some(self.address_register(true)),
            5 => index = Some(self.address_register(false)),
            _ => {
                base = Some(self.address_register(true));
                index = Some(self.address_register(false));
            }
        }
        let scale = if index.is_some() { self.random.below(4) } else { 0 };
        let default = if matches!(base, Some(ESP | EBP)) { SS } else { DS };
        let segment_base = self.base(chosen.unwrap_or(default));
        let value = |register: Option<u32>| match register {
            None => Some(0),
            Some(number) => self.known.gpr[number as usize],
        };
        let sum = value(base).zip(value(index)).map(|(base, index)| base.wrapping_add(index << scale));
        let near_stack = base == Some(ESP) && index.is_none() && self.known.near_stack;
        let mut size = 4;
        let mut displacement = self.random.bits();
        if let (Some(sum), Some(segment_base)) = (sum, segment_base) {
            displacement = target.wrapping_sub(segment_base).wrapping_sub(sum);
            let linear = |displacement: u32| segment_base.wrapping_add(sum).wrapping_add(displacement);
            let near = self.random.value() as i8 as u32;
            let mapped = |address: u32| {
                (at::DATA..at::READ_ONLY + PAGE).contains(&address)
                    || (at::STACK..at::STACK + PAGE).contains(&address)
            };
            if base.is_some() && mapped(linear(0)) && self.random.percent(25) {
                (size, displacement) = (0, 0);
            } else if base.is_some() && mapped(linear(near)) && self.random.percent(50) {
                (size, displacement) = (1, near);
            }
        } else if near_stack {
            (size, displacement) = (1, self.random.below(100));
        } else if self.random.percent(90) {
            // The registers could be anything: leave them out.
            (base, index) = (None, None);
            displacement = target.wrapping_sub(segment_base.unwrap_or(0));
        }
        // [EBP] has no form without displacement.
        if base == Some(EBP) && size == 0 {
            size = 1;
        }
        if base.is_none() {
            size = 4;
        }
        let register = |number: Option<u32>| number.map_or(Register::None, |number| GPR32[number as usize]);
        instruction.set_memory_base(register(base));
        instruction.set_memory_index(register(index));
        instruction.set_memory_index_scale(if index.is_some() { 1 << scale } else { 1 });
        instruction.set_memory_displ_size(size);
        instruction.set_memory_displacement64(displacement as i32 as i64 as u64);
        let sum = value(base).zip(value(index)).map(|(base, index)| base.wrapping_add(index << scale));
        // The default segment may have become another one.
        let default = if matches!(base, Some(ESP | EBP)) { SS } else { DS };
        let segment_base = self.base(chosen.unwrap_or(default));
        let linear =
            sum.zip(segment_base).map(|(sum, base)| base.wrapping_add(sum).wrapping_add(displacement));
        Place { linear }
    }

    fn narrow(
        &mut self,
        instruction: &mut Instruction,
        target: u32,
        chosen: Option<usize>,
        absolute: bool,
    ) -> Place {
        let form = self.random.below(9) as usize;
        let (base, index) = match NARROW.get(form) {
            Some(pair) if !absolute => *pair,
            _ => (Register::None, Register::None),
        };
        let default = if base == Register::BP { SS } else { DS };
        let segment_base = self.base(chosen.unwrap_or(default));
        let value = |register: Register| match register {
            Register::None => Some(0),
            register => self.known.gpr[register.number()],
        };
        let sum = value(base).zip(value(index)).map(|(base, index)| base.wrapping_add(index));
        let displacement = match (sum, segment_base) {
            (Some(sum), Some(base)) => target.wrapping_sub(base).wrapping_sub(sum) as u16,
            _ => self.random.value() as u16,
        };
        instruction.set_memory_base(base);
        instruction.set_memory_index(index);
        instruction.set_memory_displ_size(2);
        instruction.set_memory_displacement64(u64::from(displacement));
        let linear = sum.zip(segment_base).map(|(sum, base)| {
            let offset = sum.wrapping_add(u32::from(displacement)) & 0xffff;
            base.wrapping_add(offset)
        });
        Place { linear }
    }

    /// A register for an address: mostly one whose value is known.
    fn address_register(&mut self, base: bool) -> u32 {
        for _ in 0..4 {
            let number = self.random.below(8);
            if (base || number != ESP) && (self.known.gpr[number as usize].is_some() || number == ESP) {
                return number;
            }
        }
        loop {
            let number = self.random.below(8);
            if base || number != ESP {
                return number;
            }
        }
    }
}
