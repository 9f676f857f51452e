//! A small assembler front end over [`CodeAssembler`]: named labels, a data area, and tables of
//! code addresses, so that the modules beside this one read like an assembler listing.

use iced_x86::code_asm::{AsmMemoryOperand, AsmRegister32, CodeAssembler, CodeLabel, al, dx};
use iced_x86::{BlockEncoderOptions, IcedError};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

/// What assembling a program can fail with.
pub type AsmResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Emits one instruction per line: `asm! { a; mov(ax, 1); int(interrupt::VIDEO); }`.
macro_rules! asm {
    ($a:expr; $($op:ident($($arg:expr),* $(,)?);)*) => { $(
        $a.$op($($arg),*).map_err(|error| format!("{}: {}: {error}", file!(), stringify!($op($($arg),*))))?;
    )* };
}
pub(crate) use asm;

/// A program under construction: code from one fixed offset, data from another.
///
/// Data comes at offsets known at once; addresses of code are filled into data tables at the end.
pub struct Asm {
    code: CodeAssembler,
    code_at: u32,
    data_at: u32,
    data: Vec<u8>,
    labels: HashMap<String, CodeLabel>,
    bound: Vec<String>,
    scope: String,
    fixups: Vec<(usize, String)>,
}

impl Deref for Asm {
    type Target = CodeAssembler;

    fn deref(&self) -> &CodeAssembler {
        &self.code
    }
}

impl DerefMut for Asm {
    fn deref_mut(&mut self) -> &mut CodeAssembler {
        &mut self.code
    }
}

macro_rules! branches {
    ($($name:ident),*) => { $(
        /// The branch instruction of this name, to a label.
        #[allow(dead_code)]
        pub fn $name(&mut self, label: &str) -> Result<(), IcedError> {
            let label = self.label(label);
            self.code.$name(label)
        }
    )* };
}

impl Asm {
    /// A 16-bit program whose code is assembled for offset `code_at` and whose data lies at `data_at`.
    pub fn new(code_at: u16, data_at: u16) -> AsmResult<Self> {
        Self::with_bits(16, code_at.into(), data_at.into())
    }

    /// The same of 32-bit code.
    pub fn wide(code_at: u32, data_at: u32) -> AsmResult<Self> {
        Self::with_bits(32, code_at, data_at)
    }

    fn with_bits(bits: u32, code_at: u32, data_at: u32) -> AsmResult<Self> {
        Ok(Self {
            code: CodeAssembler::new(bits)?,
            code_at,
            data_at,
            data: Vec::new(),
            labels: HashMap::new(),
            bound: Vec::new(),
            scope: String::new(),
            fixups: Vec::new(),
        })
    }

    branches! { call, jmp, jz, jnz, je, jne, jc, jnc, jb, jbe, ja, jae, js, jns, loop_ }

    /// Full name of a label; one that starts with a dot belongs to the routine around it.
    fn full_name(&self, name: &str) -> String {
        if name.starts_with('.') { format!("{}{name}", self.scope) } else { name.to_owned() }
    }

    fn label(&mut self, name: &str) -> CodeLabel {
        let name = self.full_name(name);
        let code = &mut self.code;
        *self.labels.entry(name).or_insert_with(|| code.create_label())
    }

    /// Puts label `name` at the next instruction.
    pub fn at(&mut self, name: &str) -> AsmResult {
        if !name.starts_with('.') {
            name.clone_into(&mut self.scope);
        }
        self.label(name);
        let name = self.full_name(name);
        if let Some(label) = self.labels.get_mut(&name) {
            self.code.set_label(label)?;
        }
        self.bound.push(name);
        Ok(())
    }

    /// Places `bytes` in the data area; returns their offset.
    pub fn bytes(&mut self, bytes: &[u8]) -> i32 {
        let offset = self.data_at as usize + self.data.len();
        self.data.extend_from_slice(bytes);
        offset as i32
    }

    /// Places a zero-ended text in the data area.
    pub fn text(&mut self, text: &str) -> i32 {
        let mut bytes = super::font::encode(text);
        bytes.push(0);
        self.bytes(&bytes)
    }

    /// Bytes of an address.
    fn word(&self) -> usize {
        self.code.bitness() as usize / 8
    }

    /// Places a table of the addresses of `labels` in the data area.
    pub fn table(&mut self, labels: &[&str]) -> i32 {
        let word = self.word();
        for (index, label) in labels.iter().enumerate() {
            let name = self.full_name(label);
            self.fixups.push((self.data.len() + word * index, name));
        }
        self.bytes(&vec![0; word * labels.len()])
    }

    /// CALL through a near pointer in memory.
    pub fn call_through(&mut self, pointer: AsmMemoryOperand) -> AsmResult {
        Ok(self.code.call(pointer)?)
    }

    /// CALL through a register.
    pub fn call_through_register(&mut self, pointer: AsmRegister32) -> AsmResult {
        Ok(self.code.call(pointer)?)
    }

    /// OUT of a constant byte; changes AL, and DX for a port above FFh.
    pub fn out_byte(&mut self, port: i32, value: i32) -> AsmResult {
        self.code.mov(al, value)?;
        self.out_al(port)
    }

    /// OUT of AL; changes DX for a port above FFh.
    pub fn out_al(&mut self, port: i32) -> AsmResult {
        if port <= 0xFF {
            self.code.out(port, al)?;
        } else {
            self.code.mov(dx, port)?;
            self.code.out(dx, al)?;
        }
        Ok(())
    }

    /// IN to AL; changes DX for a port above FFh.
    pub fn in_al(&mut self, port: i32) -> AsmResult {
        if port <= 0xFF {
            self.code.in_(al, port)?;
        } else {
            self.code.mov(dx, port)?;
            self.code.in_(al, dx)?;
        }
        Ok(())
    }

    /// REP STOSB.
    pub fn rep_stosb(&mut self) -> AsmResult {
        Ok(self.code.rep().stosb()?)
    }

    /// REP STOSW.
    pub fn rep_stosw(&mut self) -> AsmResult {
        Ok(self.code.rep().stosw()?)
    }

    /// REP STOSD.
    pub fn rep_stosd(&mut self) -> AsmResult {
        Ok(self.code.rep().stosd()?)
    }

    /// REP MOVSB.
    pub fn rep_movsb(&mut self) -> AsmResult {
        Ok(self.code.rep().movsb()?)
    }

    /// REP MOVSW.
    pub fn rep_movsw(&mut self) -> AsmResult {
        Ok(self.code.rep().movsw()?)
    }

    /// REP MOVSD.
    pub fn rep_movsd(&mut self) -> AsmResult {
        Ok(self.code.rep().movsd()?)
    }

    /// REP OUTSB.
    pub fn rep_outsb(&mut self) -> AsmResult {
        Ok(self.code.rep().outsb()?)
    }

    /// Assembles everything into an image of `size` bytes that starts at offset `origin`.
    ///
    /// Returns the image and where `entry` ended up.
    pub fn finish(self, origin: u16, size: usize, entry: &str) -> AsmResult<(Vec<u8>, u16)> {
        let (image, addresses) = self.finish_all(origin.into(), size)?;
        let entry = addresses.get(entry).ok_or_else(|| format!("no label {entry}"))?;
        Ok((image, u16::try_from(*entry)?))
    }

    /// The same with the addresses of all labels.
    pub fn finish_all(mut self, origin: u32, size: usize) -> AsmResult<(Vec<u8>, HashMap<String, u32>)> {
        let mut missing: Vec<_> = self.labels.keys().filter(|name| !self.bound.contains(name)).collect();
        missing.sort();
        if !missing.is_empty() {
            return Err(format!("labels used but not placed: {missing:?}").into());
        }
        let result = self
            .code
            .assemble_options(self.code_at.into(), BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
        let word = self.word();
        let mut addresses = HashMap::new();
        for (name, label) in &self.labels {
            addresses.insert(name.clone(), u32::try_from(result.label_ip(label)?)?);
        }
        for (offset, name) in &self.fixups {
            let address = addresses.get(name).ok_or_else(|| format!("no label {name}"))?;
            if word == 2 && u16::try_from(*address).is_err() {
                return Err(format!("{name} is beyond 64 KiB").into());
            }
            self.data[*offset..offset + word].copy_from_slice(&address.to_le_bytes()[..word]);
        }
        let code = &result.inner.code_buffer;
        let place = |at: u32, len: usize| (at - origin) as usize..(at - origin) as usize + len;
        let code_range = place(self.code_at, code.len());
        let data_range = place(self.data_at, self.data.len());
        if code_range.end > size || data_range.end > size {
            return Err(
                format!("does not fit {size} bytes: code {code_range:x?}, data {data_range:x?}").into()
            );
        }
        if code_range.start < data_range.end && data_range.start < code_range.end {
            return Err(format!("code {code_range:x?} overlaps data {data_range:x?}").into());
        }
        let mut image = vec![0; size];
        image[code_range].copy_from_slice(code);
        image[data_range].copy_from_slice(&self.data);
        Ok((image, addresses))
    }
}
