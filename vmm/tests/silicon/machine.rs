//! What the engines that are compared have in common: the state of a user program, its address space, how a
//! run ends, and the trait. Knows neither the host's processor nor the interpreter.

/// Bytes of a page.
pub const PAGE: u32 = 4096;

/// The user program's address space: the same linear addresses on the host and in the guest. What is not
/// named here is not mapped.
pub mod at {
    use super::PAGE;

    /// Readable and writable.
    pub const DATA: u32 = 0x3001_0000;
    /// Bytes there.
    pub const DATA_SIZE: u32 = 3 * PAGE;
    /// One page behind the data that can only be read; behind it nothing.
    pub const READ_ONLY: u32 = DATA + DATA_SIZE;
    /// One page, readable and writable, alone.
    pub const STACK: u32 = 0x3002_0000;
    /// Two pages of code, behind them nothing.
    pub const CODE: u32 = 0x3003_0000;
    /// Bytes there.
    pub const CODE_SIZE: u32 = 2 * PAGE;
    /// One page that belongs to the host side (it must be below 4 GiB), away from what programs come across.
    pub const TRAMPOLINE: u32 = 0x6b2e_d000;
}

/// Selectors, those of 64-bit Linux, and three in the local descriptor table.
pub mod selector {
    /// Flat 32-bit code, level 3.
    pub const CODE: u16 = 0x23;
    /// Flat data, level 3.
    pub const DATA: u16 = 0x2b;
    /// The kernel's flat data, level 0.
    pub const KERNEL_DATA: u16 = 0x18;
    /// 64-bit code, level 3. Absent in the guest: the far jump there ends a run.
    pub const EXIT: u16 = 0x33;
    /// Data with a base and a limit.
    pub const SMALL: u16 = 0x07;
    /// The same place, read-only.
    pub const SMALL_READ_ONLY: u16 = 0x0f;
    /// The same place, expand-down.
    pub const EXPAND_DOWN: u16 = 0x17;
}

/// A segment of the local descriptor table.
pub struct LocalSegment {
    /// Linear address of its offset zero.
    pub base: u32,
    /// Limit in bytes.
    pub limit: u32,
    /// Expand-down.
    pub expand_down: bool,
    /// Not writable.
    pub read_only: bool,
}

/// The local descriptor table, from its first entry on.
pub const LOCAL_SEGMENTS: [LocalSegment; 3] = [
    LocalSegment { base: at::DATA, limit: 0x2ff5, expand_down: false, read_only: false },
    LocalSegment { base: at::DATA, limit: 0x2ff5, expand_down: false, read_only: true },
    LocalSegment { base: at::DATA, limit: 0x0fff, expand_down: true, read_only: false },
];

/// Bytes of an FXSAVE area.
pub const FX_SIZE: usize = 512;

/// An FXSAVE area (SDM vol. 1, "FXSAVE Area").
#[repr(C, align(16))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FxArea(pub [u8; FX_SIZE]);

/// Offsets in an FXSAVE area.
pub mod fx {
    /// Control word.
    pub const FCW: usize = 0;
    /// Status word.
    pub const FSW: usize = 2;
    /// Abridged tag word.
    pub const FTW: usize = 4;
    /// MXCSR.
    pub const MXCSR: usize = 24;
    /// ST0; 16 bytes apart, 10 used.
    pub const ST: usize = 32;
    /// XMM0; 16 bytes apart.
    pub const XMM: usize = 160;
}

impl FxArea {
    /// What FNINIT and a reset MXCSR give.
    pub fn initial() -> Self {
        let mut area = FxArea([0; FX_SIZE]);
        area.set_u16(fx::FCW, 0x037f);
        area.set_u32(fx::MXCSR, 0x1f80);
        area
    }

    /// A word of it.
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    /// Sets a word.
    pub fn set_u16(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// A dword of it.
    pub fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    /// Sets a dword.
    pub fn set_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// ST(i), ten bytes.
    pub fn st(&self, i: usize) -> &[u8] {
        &self.0[fx::ST + 16 * i..][..10]
    }

    /// XMMi, 16 bytes.
    pub fn xmm(&self, i: usize) -> &[u8] {
        &self.0[fx::XMM + 16 * i..][..16]
    }
}

/// Everything a user program can see in registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI.
    pub gpr: [u32; 8],
    /// Instruction pointer.
    pub eip: u32,
    /// EFLAGS.
    pub eflags: u32,
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [u16; 6],
    /// x87, MMX and SSE.
    pub fx: FxArea,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// At the end of the code.
    End,
    /// With an exception.
    Exception {
        /// Which.
        vector: u8,
        /// Its error code; zero if it has none.
        error: u32,
        /// CR2 for a page fault, otherwise zero.
        address: u32,
    },
    /// The engine gave up: the code does not end.
    Endless,
}

/// What a run left.
#[derive(Clone, Copy)]
pub struct Outcome {
    /// The registers; EIP is that of an exception's frame, or that of the end.
    pub machine: Machine,
    /// How it ended.
    pub event: Event,
}

/// Bytes of memory that a program can write.
pub const IMAGE: usize = (at::DATA_SIZE + PAGE) as usize;

/// The writable memory: the data pages, then the stack.
pub type Image = [u8; IMAGE];

/// Where a byte of an image is.
pub fn address_of(index: usize) -> u32 {
    let index = index as u32;
    if index < at::DATA_SIZE { at::DATA + index } else { at::STACK + (index - at::DATA_SIZE) }
}

/// Code to run: bytes from `start` on, all within the code pages. It ends in [`exit_jump`] or with an exception.
pub struct Program {
    /// Linear address of the first byte.
    pub start: u32,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where the far jump is that ends the run.
    pub end: u32,
    /// Whether FS may be loaded (the host needs it for itself).
    pub loads_fs: bool,
}

/// The far jump that ends a program.
pub fn exit_jump() -> [u8; 7] {
    const JMP_FAR: u8 = 0xea;
    let [a, b, c, d] = at::TRAMPOLINE.to_le_bytes();
    let [e, f] = selector::EXIT.to_le_bytes();
    [JMP_FAR, a, b, c, d, e, f]
}

/// Something that executes user programs: load a state, run to the end or to an exception, read the state.
pub trait Engine {
    /// For messages.
    fn name(&self) -> &str;
    /// Whether the frame of a fault may hold any value of flags that the program writes before it reads them.
    fn leaves_dead_flags(&self) -> bool {
        false
    }
    /// Whether a program is to be run twice: what it ran from is kept, and used again.
    fn runs_warm(&self) -> bool {
        false
    }
    /// Takes away, or gives back, what of this engine other engines' programs could come across.
    fn hide(&mut self, _hidden: bool) {}
    /// Fills the writable memory.
    fn set_memory(&mut self, image: &Image);
    /// Reads the writable memory.
    fn memory(&self, image: &mut Image);
    /// Runs a program.
    fn run(&mut self, program: &Program, before: &Machine) -> Outcome;
}

/// What the read-only page holds.
pub fn read_only_page() -> [u8; PAGE as usize] {
    let mut random = super::random::Random::new(0x0123_4567);
    std::array::from_fn(|_| random.next() as u8)
}
