//! Gives instructions something to do: pointers, counts, selectors, targets of jumps. With random operands
//! alone most of them would raise exceptions.

use super::generate::Builder;
use super::isa::{self, Class};
use super::machine::{at, selector};
use super::values;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use vmm::cpu::registers::{eflags, gpr};

use gpr::{EAX, EBP, EBX, ECX, EDI, EDX, ESI, ESP};

/// Selectors to load; several of them cannot be.
const SELECTORS: [u16; 14] = [
    selector::DATA,
    selector::DATA,
    selector::SMALL,
    selector::SMALL,
    selector::SMALL_READ_ONLY,
    selector::EXPAND_DOWN,
    // Null with another RPL would be made zero by the host's kernel whenever it interrupts.
    0,
    0,
    selector::DATA & !3,
    selector::CODE,
    selector::KERNEL_DATA,
    0xfff8,
    0x8f,
    0x1f,
];

/// What is to be done once an instruction has its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing.
    Nothing,
    /// Its length was taken for granted.
    Unprefixed,
    /// Its far target has to be filled in.
    FarTarget,
    /// Its target is in memory: near or far.
    StoredTarget(bool),
    /// It does not come back.
    Last,
}

impl Builder<'_> {
    /// Pointers and counts for instructions with implied memory operands.
    pub(super) fn prepare_string(&mut self, instruction: &mut Instruction) {
        let info = instruction.code().op_code();
        if info.can_use_rep_prefix() && self.random.percent(60) {
            if info.can_use_repne_prefix() && self.random.percent(50) {
                instruction.set_has_repne_prefix(true);
            } else {
                instruction.set_has_rep_prefix(true);
            }
            // Processors differ in whether REP INS of nothing is allowed to those who may not use ports.
            let port = isa::classify(instruction.code()) == Some(Class::Faults);
            if port || self.random.percent(90) {
                let most = if self.random.percent(90) { 40 } else { 3000 };
                let count = u32::from(port) + self.random.below(most);
                self.ensure(ECX, count);
            }
        }
        let mut narrow = false;
        let mut used = [false; 8];
        for n in 0..instruction.op_count() {
            match instruction.op_kind(n) {
                OpKind::MemoryESEDI | OpKind::MemorySegEDI => used[EDI] = true,
                OpKind::MemorySegESI => used[ESI] = true,
                OpKind::MemoryESDI | OpKind::MemorySegDI => {
                    used[EDI] = true;
                    narrow = true;
                }
                OpKind::MemorySegSI => {
                    used[ESI] = true;
                    narrow = true;
                }
                OpKind::Memory => used[EBX] = true,
                _ => {}
            }
        }
        const ES: usize = 0;
        const DS: usize = 3;
        const GS: usize = 5;
        let mut source = DS;
        if (used[ESI] || used[EBX]) && (self.random.percent(10) || narrow && self.random.percent(70)) {
            source = GS;
            instruction.set_segment_prefix(Register::GS);
        }
        for number in [EBX, ESI, EDI] {
            if used[number] && self.random.percent(95) {
                let seg = if number == EDI { ES } else { source };
                let base = self.base(seg).unwrap_or(0);
                let value = values::pointer(&mut self.random).wrapping_sub(base);
                self.ensure(number, value);
            }
        }
    }

    /// Prepares instructions that hardly do anything with random operands. `None`: do not use this one.
    pub(super) fn prepare(&mut self, instruction: &mut Instruction) -> Option<After> {
        use Mnemonic as M;
        let code = instruction.code();
        let memory = (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory);
        match instruction.mnemonic() {
            M::Div | M::Idiv if self.random.percent(70) => {
                let small = self.random.below(4);
                let small = if self.random.percent(20) { small.wrapping_neg() } else { small };
                self.ensure(EDX, small);
                if matches!(code, Code::Div_rm8 | Code::Idiv_rm8) {
                    let value = self.random.below(0x400);
                    self.ensure(EAX, value);
                }
            }
            M::Bt | M::Bts | M::Btr | M::Btc
                if memory && instruction.op1_kind() == OpKind::Register && self.random.percent(85) =>
            {
                let number = instruction.op1_register().number();
                let uses = |register: Register| register != Register::None && register.number() == number;
                if !uses(instruction.memory_base()) && !uses(instruction.memory_index()) {
                    let value = self.random.below(200).wrapping_sub(64);
                    self.ensure(number, value);
                }
            }
            M::Shld | M::Shrd => {
                let last = instruction.op_count() - 1;
                if instruction.op_kind(last) == OpKind::Immediate8 {
                    if instruction.op1_register().size() == 2 {
                        instruction.set_immediate8(instruction.immediate8() % 17);
                    }
                } else if self.known.gpr[ECX].is_none() || instruction.op1_register().size() == 2 {
                    let base = instruction.memory_base();
                    let index = instruction.memory_index();
                    let uses = |register: Register| register != Register::None && register.number() == ECX;
                    if memory && (uses(base) || uses(index)) {
                        return None;
                    }
                    let value = self.random.below(17);
                    self.ensure(ECX, value);
                }
            }
            M::Enter => {
                if self.random.percent(85) {
                    instruction.set_immediate16(self.random.below(0x100) as u16);
                    let level = self.random.below(4) as u8;
                    instruction.set_immediate8_2nd(level);
                }
                if self.random.percent(70) {
                    let value = at::STACK + 0x800;
                    self.ensure(EBP, value);
                }
            }
            M::Leave if self.random.percent(85) => {
                let value = at::STACK + 0x100 + (self.random.below(0xe00) & !3);
                self.ensure(EBP, value);
            }
            M::Cmpxchg if memory && instruction.op1_register().size() == 4 && self.random.percent(40) => {
                let value = self.random.value();
                self.ensure(EAX, value);
                if instruction.memory_base() != Register::EAX && instruction.memory_index() != Register::EAX {
                    self.store(instruction, 0, Code::Mov_rm32_imm32, value);
                }
            }
            M::Cmpxchg8b if self.random.percent(50) => {
                let (low, high) = (self.random.value(), self.random.value());
                let fixed = [Register::EAX, Register::EDX];
                if !fixed.contains(&instruction.memory_base()) && !fixed.contains(&instruction.memory_index())
                {
                    self.store(instruction, 0, Code::Mov_rm32_imm32, low);
                    self.store(instruction, 4, Code::Mov_rm32_imm32, high);
                    self.ensure(EAX, low);
                    self.ensure(EDX, high);
                }
            }
            M::Bound if self.random.percent(60) => {
                let small = code == Code::Bound_r16_m1616;
                let (code, second) =
                    if small { (Code::Mov_rm16_imm16, 2) } else { (Code::Mov_rm32_imm32, 4) };
                let low = self.random.value() | 0x8000_8000;
                let high = self.random.value() & !0x8000_8000;
                self.store(instruction, 0, code, low);
                self.store(instruction, second, code, high);
            }
            M::Lds | M::Les | M::Lfs | M::Lgs | M::Lss => {
                let selector = self.random.pick(&SELECTORS);
                let offset = if instruction.op0_register().size() == 2 { 2 } else { 4 };
                self.store(instruction, offset, Code::Mov_rm16_imm16, u32::from(selector));
            }
            M::Lar | M::Lsl | M::Verr | M::Verw | M::Mov if self.takes_selector(instruction) => {
                let selector = u32::from(self.random.pick(&SELECTORS));
                let n = instruction.op_count() - 1;
                if instruction.op_kind(n) == OpKind::Memory {
                    self.store(instruction, 0, Code::Mov_rm16_imm16, selector);
                } else {
                    let number = instruction.op_register(n).number();
                    let noise = self.random.bits() << 16;
                    self.ensure(number, selector | noise);
                }
            }
            M::Pop if instruction.op0_register().is_segment_register() => {
                let selector = u32::from(self.random.pick(&SELECTORS));
                if instruction.stack_pointer_increment() == 2 {
                    let push = Instruction::with1(Code::Push_imm16, selector).expect("a constant");
                    self.push(&push, None);
                } else {
                    self.push_constant(selector);
                }
            }
            M::Popf | M::Popfd => {
                let flags = self.random.bits() & (eflags::DEFINED & !eflags::TF);
                let rare = self.random.percent(5);
                let flags = if rare { flags | eflags::TF } else { flags & !(eflags::AC | eflags::NT) };
                self.nested |= flags & eflags::NT != 0;
                self.push_constant(flags);
            }
            M::Int if !matches!(instruction.immediate8(), 0..=0x1f | 0x81..) => {
                // 80h is the host's system call.
                instruction.set_immediate8(instruction.immediate8() & 0x1f);
            }
            // Bit 17 exists on AMD.
            M::Ldmxcsr => {
                let reserved = if self.random.percent(20) { 0xfffd_ffff } else { 0xffff };
                let value = self.random.bits() & reserved;
                self.store(instruction, 0, Code::Mov_rm32_imm32, value);
            }
            M::Fxrstor => {
                let reserved = if self.random.percent(20) { 0xfffd_ffff } else { 0xffff };
                let value = self.random.bits() & reserved;
                self.store(instruction, 24, Code::Mov_rm32_imm32, value);
            }
            // AMD's UD0 and UD1 have no operands: they end earlier.
            M::Ud0 | M::Ud1 if self.ip() % 0x1000 > 0xff0 => return None,
            // With NT set it would leave a task, if the host's mode had tasks.
            M::Iret | M::Iretd if self.nested => return None,
            M::Ret | M::Retf | M::Iret | M::Iretd | M::Jmp | M::Call => {
                return self.prepare_transfer(instruction);
            }
            _ => {}
        }
        Some(After::Nothing)
    }

    fn takes_selector(&self, instruction: &Instruction) -> bool {
        instruction.mnemonic() != Mnemonic::Mov || instruction.op0_register().is_segment_register()
    }

    /// Control transfers with computed targets: always to the instruction that follows.
    fn prepare_transfer(&mut self, instruction: &mut Instruction) -> Option<After> {
        use Mnemonic as M;
        let code = instruction.code();
        let branch = (0..instruction.op_count())
            .any(|n| matches!(instruction.op_kind(n), OpKind::NearBranch16 | OpKind::NearBranch32));
        if branch {
            return Some(After::Nothing);
        }
        Some(match instruction.mnemonic() {
            M::Jmp | M::Call => match instruction.op0_kind() {
                OpKind::FarBranch16 | OpKind::FarBranch32 => After::FarTarget,
                OpKind::Register if instruction.op0_register().size() == 4 => {
                    let number = instruction.op0_register().number();
                    if number == ESP {
                        return None;
                    }
                    // MOV and the jump: lengths are known.
                    let target = self.ip() + 5 + 2;
                    self.known.gpr[number] = None;
                    self.ensure(number, target);
                    After::Unprefixed
                }
                OpKind::Memory if matches!(code, Code::Jmp_rm32 | Code::Call_rm32) => {
                    After::StoredTarget(false)
                }
                OpKind::Memory if matches!(code, Code::Jmp_m1616 | Code::Call_m1616) => {
                    // The target is cut to 16 bits, where nothing is mapped.
                    let target = self.ip() & 0xffff | u32::from(selector::CODE) << 16;
                    self.store(instruction, 0, Code::Mov_rm32_imm32, target);
                    After::Last
                }
                OpKind::Memory if matches!(code, Code::Jmp_m1632 | Code::Call_m1632) => {
                    After::StoredTarget(true)
                }
                _ => After::Last,
            },
            _ => {
                let far = !matches!(instruction.mnemonic(), M::Ret);
                let wide = matches!(
                    code,
                    Code::Retnd | Code::Retnd_imm16 | Code::Retfd | Code::Retfd_imm16 | Code::Iretd
                );
                if instruction.op_count() == 1 {
                    let release = self.random.below(16) as u16 * 4;
                    instruction.set_immediate16(release);
                }
                let iret = matches!(instruction.mnemonic(), M::Iret | M::Iretd);
                if !wide {
                    // The return address is cut to 16 bits, where nothing is mapped.
                    self.push_constant(self.sequence.before.eflags);
                    self.push_constant(u32::from(selector::CODE) | u32::from(selector::CODE) << 16);
                    self.push_constant(self.sequence.before.eip & 0xffff | u32::from(selector::CODE) << 16);
                    return Some(After::Last);
                }
                let size = if instruction.op_count() == 1 { 3 } else { 1 };
                if iret {
                    let flags =
                        self.random.bits() & (eflags::ARITHMETIC | eflags::DF | eflags::ID | eflags::IOPL);
                    self.push_constant(flags);
                }
                if far {
                    self.push_constant(u32::from(selector::CODE));
                }
                let target = self.ip() + 5 + size;
                self.push_constant(target);
                After::Unprefixed
            }
        })
    }
}
