//! Cases as the files in `cases/` write them, and the tables that the runtime reads.

use super::layout::*;
use super::{cases, output, runtime};
use crate::demo::asm::{Asm, AsmResult};
use crate::demo::floppies::SECTOR;
use iced_x86::code_asm::*;

/// Writes code of a case: `code! { mov(eax, 1); }`.
macro_rules! code {
    ($($op:ident($($arg:expr),* $(,)?);)*) => {
        |a: &mut crate::demo::asm::Asm| -> crate::demo::asm::AsmResult {
            crate::demo::asm::asm! { a; $($op($($arg),*);)* }
            Ok(())
        }
    };
}
pub(crate) use code;

/// Code of a case that is one of several.
pub type Write = fn(&mut Asm) -> AsmResult;

/// Where a case begins to run. Kept in the case table as a number.
#[derive(Clone, Copy)]
pub enum Context {
    Ring0 = 0,
    Ring3 = 1,
    V86 = 2,
}

/// A number that a check expects.
pub enum Value {
    Number(u32),
    Label(String),
}

struct Check {
    what: String,
    address: i32,
    mask: u32,
    value: Value,
}

/// One case. Methods that return `&mut Self` say what it starts with and what must come out.
pub struct Case {
    name: String,
    context: Context,
    cr0: i32,
    cr3: i32,
    cr4: i32,
    flags: i32,
    pokes: Vec<(i32, u32)>,
    setup: Option<String>,
    entry: String,
    blob: Vec<u8>,
    checks: Vec<Check>,
}

impl Case {
    /// Control bits added while it runs.
    pub fn cr0(&mut self, bits: i32) -> &mut Self {
        self.cr0 |= bits;
        self
    }

    pub fn cr4(&mut self, bits: i32) -> &mut Self {
        self.cr4 |= bits;
        self
    }

    /// Runs with paging: the first 4 MiB mapped one to one for everybody, [`TEST`] to [`PAGE_A`].
    pub fn paging(&mut self) -> &mut Self {
        self.cr0(ctl::PG)
    }

    /// The same with PAE paging, but of the first 2 MiB.
    pub fn pae(&mut self) -> &mut Self {
        self.cr3 = PAE_POINTERS;
        self.cr4(ctl::PAE).paging()
    }

    /// EFLAGS at the start, at level 3 and in V86 mode.
    pub fn flags(&mut self, bits: i32) -> &mut Self {
        self.flags |= bits;
        self
    }

    /// A dword in memory, set before it starts.
    pub fn poke(&mut self, address: i32, value: i32) -> &mut Self {
        self.pokes.push((address, value as u32));
        self
    }

    /// A descriptor, set before it starts.
    pub fn descriptor(&mut self, selector: u16, value: u64) -> &mut Self {
        self.poke(entry(selector), value as i32).poke(entry(selector) + 4, (value >> 32) as i32)
    }

    /// 16-bit code, at [`BLOB`].
    pub fn blob(&mut self, bytes: Vec<u8>) -> &mut Self {
        self.blob = bytes;
        self
    }

    /// A dword in memory afterwards.
    pub fn memory(&mut self, what: &str, address: i32, mask: u32, value: i32) -> &mut Self {
        let value = Value::Number(value as u32 & mask);
        self.checks.push(Check { what: what.into(), address, mask, value });
        self
    }

    /// A dword in memory that must hold the address of a label of this case.
    pub fn memory_label(&mut self, what: &str, address: i32, label: &str) -> &mut Self {
        let value = Value::Label(self.label(label));
        self.checks.push(Check { what: what.into(), address, mask: u32::MAX, value });
        self
    }

    fn label(&self, label: &str) -> String {
        if label.starts_with('.') { format!("{}{label}", self.entry) } else { label.into() }
    }

    /// The vector that ends it.
    pub fn vector(&mut self, vector: i32) -> &mut Self {
        self.memory("vector", record::VECTOR, u32::MAX, vector)
    }

    /// It ends by itself, without a fault.
    pub fn done(&mut self) -> &mut Self {
        self.vector(exception::DONE)
    }

    /// A fault with an error code.
    pub fn fault(&mut self, vector: i32, error: i32) -> &mut Self {
        self.vector(vector).memory("error code", record::ERROR, u32::MAX, error)
    }

    /// A fault without one.
    pub fn plain_fault(&mut self, vector: i32) -> &mut Self {
        self.fault(vector, record::NO_ERROR)
    }

    /// Where the event found it.
    pub fn at(&mut self, label: &str) -> &mut Self {
        self.memory_label("EIP", record::EIP, label)
    }

    pub fn eip(&mut self, value: i32) -> &mut Self {
        self.memory("EIP", record::EIP, u32::MAX, value)
    }

    pub fn cs(&mut self, selector: u16) -> &mut Self {
        self.memory("CS", record::CS, 0xFFFF, selector.into())
    }

    pub fn cr2(&mut self, address: i32) -> &mut Self {
        self.memory("CR2", record::CR2, u32::MAX, address)
    }

    /// Bits of DR6 that are defined.
    pub fn dr6(&mut self, value: i32) -> &mut Self {
        self.memory("DR6", record::DR6, 0xE00F, value)
    }

    pub fn eax(&mut self, value: i32) -> &mut Self {
        self.memory("EAX", record::EAX, u32::MAX, value)
    }

    pub fn ebx(&mut self, value: i32) -> &mut Self {
        self.memory("EBX", record::EBX, u32::MAX, value)
    }

    pub fn ecx(&mut self, value: i32) -> &mut Self {
        self.memory("ECX", record::ECX, u32::MAX, value)
    }

    /// Flags that were pushed.
    pub fn eflags(&mut self, mask: i32, value: i32) -> &mut Self {
        self.memory("EFLAGS", record::EFLAGS, mask as u32, value)
    }

    /// How many events were logged and returned from.
    pub fn logged(&mut self, count: i32) -> &mut Self {
        self.memory("events", LOG_COUNT, u32::MAX, count)
    }

    /// Where a logged event was.
    pub fn log_at(&mut self, index: i32, label: &str) -> &mut Self {
        self.memory_label(&format!("EIP of event {index}"), LOG + index * LOG_ENTRY, label)
    }

    /// DR6 at a logged event.
    pub fn log_dr6(&mut self, index: i32, value: i32) -> &mut Self {
        self.memory(&format!("DR6 of event {index}"), LOG + index * LOG_ENTRY + 4, 0xE00F, value)
    }
}

/// The program with all cases.
pub struct Suite {
    pub a: Asm,
    cases: Vec<Case>,
}

impl Suite {
    /// A case at level 0. `int DONE` follows its code.
    pub fn ring0(&mut self, name: &str, code: impl FnOnce(&mut Asm) -> AsmResult) -> AsmResult<&mut Case> {
        self.emit(name, Context::Ring0, code)
    }

    /// A case at level 3.
    pub fn ring3(&mut self, name: &str, code: impl FnOnce(&mut Asm) -> AsmResult) -> AsmResult<&mut Case> {
        self.emit(name, Context::Ring3, code)
    }

    fn emit(
        &mut self,
        name: &str,
        context: Context,
        code: impl FnOnce(&mut Asm) -> AsmResult,
    ) -> AsmResult<&mut Case> {
        self.a.at(name)?;
        // So that a label of the case can follow: an instruction has one.
        self.a.nop()?;
        code(&mut self.a)?;
        self.a.int(exception::DONE)?;
        Ok(self.push(name, context, name.into()))
    }

    /// A case whose code is elsewhere.
    pub fn shared(&mut self, name: &str, context: Context, entry: &str) -> &mut Case {
        self.push(name, context, entry.into())
    }

    /// A case in V86 mode: 16-bit code that runs at [`BLOB_SEGMENT`]:0. Returns the offsets of its labels too.
    pub fn v86(
        &mut self,
        name: &str,
        code: impl FnOnce(&mut Asm) -> AsmResult,
    ) -> AsmResult<(&mut Case, Offsets)> {
        let (bytes, offsets) = blob(code)?;
        let case = self.push(name, Context::V86, name.into());
        case.blob(bytes);
        Ok((case, offsets))
    }

    fn push(&mut self, name: &str, context: Context, entry: String) -> &mut Case {
        self.cases.push(Case {
            name: name.into(),
            context,
            cr0: 0,
            cr3: DIRECTORY,
            cr4: 0,
            flags: 0,
            pokes: Vec::new(),
            setup: None,
            entry,
            blob: Vec::new(),
            checks: Vec::new(),
        });
        let last = self.cases.len() - 1;
        &mut self.cases[last]
    }

    /// Gives the latest case code that runs at level 0 before it, and returns.
    pub fn setup(&mut self, code: impl FnOnce(&mut Asm) -> AsmResult) -> AsmResult {
        let last = self.cases.len() - 1;
        let label = format!("{}/setup", self.cases[last].name);
        self.a.at(&label)?;
        code(&mut self.a)?;
        self.a.ret()?;
        self.cases[last].setup = Some(label);
        Ok(())
    }

    fn finish(mut self) -> AsmResult<Vec<u8>> {
        let mut rows = Vec::new();
        for case in &self.cases {
            let mut name = case.name.clone().into_bytes();
            name.push(0);
            let name = self.a.bytes(&name);
            let mut pokes: Vec<u8> = Vec::new();
            for (address, value) in &case.pokes {
                pokes.extend(address.to_le_bytes());
                pokes.extend(value.to_le_bytes());
            }
            let pokes_at = self.a.bytes(&pokes);
            let mut checks = Vec::new();
            for check in &case.checks {
                let mut what = check.what.clone().into_bytes();
                what.push(0);
                checks.push((self.a.bytes(&what), check));
            }
            let mut checks_at = None;
            for (what, check) in checks {
                let mut row = what.to_le_bytes().to_vec();
                row.extend(check.address.to_le_bytes());
                row.extend(check.mask.to_le_bytes());
                let at = self.a.bytes(&row);
                checks_at.get_or_insert(at);
                match &check.value {
                    Value::Number(number) => self.a.bytes(&number.to_le_bytes()),
                    Value::Label(label) => self.a.table(&[label]),
                };
            }
            let blob = self.a.bytes(&case.blob);
            let row = [
                name,
                case.context as i32,
                case.cr0,
                case.cr3,
                case.cr4,
                case.flags,
                pokes_at,
                case.pokes.len() as i32,
                blob,
                case.blob.len() as i32,
                checks_at.unwrap_or(0),
                case.checks.len() as i32,
            ];
            let entry = if matches!(case.context, Context::V86) { None } else { Some(case.entry.clone()) };
            rows.push((row, entry, case.setup.clone()));
        }
        let mut first = None;
        for (row, entry, setup) in rows {
            let bytes: Vec<u8> = row.iter().flat_map(|word| word.to_le_bytes()).collect();
            let at = self.a.bytes(&bytes);
            first.get_or_insert(at);
            for label in [entry, setup] {
                match label {
                    Some(label) => self.a.table(&[&label]),
                    None => self.a.bytes(&[0; 4]),
                };
            }
        }
        let count = self.cases.len() as i32;
        runtime::emit(&mut self.a, first.unwrap_or(0), count)?;
        output::emit(&mut self.a)?;
        let (mut image, addresses) = self.a.finish_all(PROGRAM as u32, PROGRAM_BYTES)?;
        let used = image.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        image.truncate(used.next_multiple_of(SECTOR));
        if addresses.get("program") != Some(&(PROGRAM as u32)) {
            return Err("the program must begin with its entry".into());
        }
        Ok(image)
    }
}

impl Asm {
    /// Points a gate at a label of the program: an IDT or GDT entry at `address`.
    pub fn fill_gate(
        &mut self,
        address: i32,
        label: &str,
        selector: u16,
        attributes: u32,
        parameters: i32,
    ) -> AsmResult {
        let target = self.table(&[label]);
        self.mov(eax, dword_ptr(target))?;
        self.mov(word_ptr(address), ax)?;
        self.mov(word_ptr(address + 2), i32::from(selector))?;
        self.mov(word_ptr(address + 4), (attributes << 8) as i32 | parameters)?;
        self.shr(eax, 16)?;
        self.mov(word_ptr(address + 6), ax)?;
        Ok(())
    }

    /// Points the gate of a vector at a label: level-0 code.
    pub fn set_gate(&mut self, number: i32, label: &str, attributes: u32) -> AsmResult {
        self.fill_gate(vector(number), label, CODE0, attributes, 0)
    }

    /// Stores the address of a label.
    pub fn store_label(&mut self, address: i32, label: &str) -> AsmResult {
        let target = self.table(&[label]);
        self.mov(eax, dword_ptr(target))?;
        Ok(self.mov(dword_ptr(address), eax)?)
    }

    /// JMP through a register.
    pub fn jmp_through(&mut self, pointer: AsmRegister32) -> AsmResult {
        Ok((**self).jmp(pointer)?)
    }
}

/// Offsets of the dwords of a row of the case table.
pub mod row {
    pub const NAME: i32 = 0;
    pub const CONTEXT: i32 = 4;
    pub const CR0: i32 = 8;
    pub const CR3: i32 = 12;
    pub const CR4: i32 = 16;
    pub const FLAGS: i32 = 20;
    pub const POKES: i32 = 24;
    pub const POKE_COUNT: i32 = 28;
    pub const BLOB: i32 = 32;
    pub const BLOB_LEN: i32 = 36;
    pub const CHECKS: i32 = 40;
    pub const CHECK_COUNT: i32 = 44;
    pub const ENTRY: i32 = 48;
    pub const SETUP: i32 = 52;
    pub const BYTES: i32 = 56;
}

/// Offsets of labels in 16-bit code.
pub type Offsets = std::collections::HashMap<String, u32>;

/// Assembles 16-bit code for offset 0.
pub fn blob(code: impl FnOnce(&mut Asm) -> AsmResult) -> AsmResult<(Vec<u8>, Offsets)> {
    let mut a = Asm::new(0, BLOB_BYTES as u16)?;
    code(&mut a)?;
    let (mut bytes, offsets) = a.finish_all(0, BLOB_BYTES as usize)?;
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    // A zero at the end may belong to the last instruction.
    bytes.truncate(used + 8);
    Ok((bytes, offsets))
}

/// The whole program.
pub fn program() -> AsmResult<Vec<u8>> {
    let mut suite = Suite { a: Asm::wide(PROGRAM as u32, PROGRAM_DATA as u32)?, cases: Vec::new() };
    suite.a.at("program")?;
    suite.a.jmp("runtime")?;
    cases::emit(&mut suite)?;
    suite.finish()
}
