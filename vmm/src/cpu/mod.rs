//! The virtual processor: its architectural state and everything that the Intel manual says
//! about it. Engines (`interp`, later `shadow`) run instructions on it; the [`bus::Bus`] is all
//! it sees of the machine.
//!
//! # How an engine uses it
//! - While an instruction executes, `state.eip` is that of the *next* instruction: it is what CALL,
//!   INT and task switches save. The engine sets it before the instruction's effects, and puts EIP and
//!   ESP back when the instruction returns a [`Fault`], unless [`Fault::in_new_task`] is set. Then it
//!   calls [`Vcpu::deliver_fault`], which finds in `state` the instruction to restart.
//! - Every method that can fault checks before it commits; what it has committed on a fault is at most
//!   memory below the stack pointer and A/D bits.
//! - Arithmetic flags are in `lazy`. This module reads and writes whole flags only through
//!   [`Vcpu::flags`] and [`Vcpu::set_flags`]; the other bits in `state.eflags` are always true.
//! - RF, TF and the interrupt shadow: the engine clears `state.interrupt_shadow` and EFLAGS.RF when it starts an
//!   instruction, samples TF before it, and asks [`Vcpu::take_debug_trap`] after it. STI, MOV SS (by
//!   [`Vcpu::load_ss_with_shadow`]) set the shadow; IRET sets RF from memory.
//! - After each instruction: if `code.has_written()`, see the description of `tlb.rs`.
//! - Decoded code depends on the map generation, CS.D, and (through its keys) physical addresses only.
//!
//! # Methods by file
//! - `memory.rs`: `read_u8(seg, offset)`.. `write_u8`.. `modify_u8`.. (read with the write's checks made first),
//!   `read_linear_u8(linear)`.. (supervisor), `read_linear_user`, `probe_write`, `probe_read`, `push16`, `pop32`, `mark_code`..
//! - `bulk.rs`: `copy_direct`, `fill_direct`, `store_direct`, `load_direct` for repeated string instructions.
//! - `paging.rs`: `translate_code(eip)`, `sync_map()`, `debug_translate(linear)`.
//! - `segment.rs`: `load_segment(seg, selector)`, `load_ss_with_shadow(selector)`, `lar(selector) -> Option<u32>`, `lsl`,
//!   `verr(selector) -> bool`, `verw`, `arpl(destination, source) -> Option<u16>`.
//! - `control.rs`: `jump_near(eip)`, `far_jump(selector, offset)`, `far_call(selector, offset, wide)`.
//! - `returns.rs`: `far_return(wide, extra_bytes)`, `iret(wide)`.
//! - `interrupt.rs`: `software_interrupt(SoftInterrupt)`, `deliver_fault(Fault)`, `deliver_external(vector)`, `deliver_nmi()`.
//! - `system.rs`: `mov_from_cr(n)`, `mov_to_cr(n, value)`, `mov_from_dr`, `mov_to_dr`, `lgdt(seg, offset, wide)`, `lidt`, `sgdt`, `sidt`,
//!   `lldt(selector)`, `ltr(selector)`, `sldt() -> u16`, `str()`, `lmsw(u16)`, `smsw() -> u32`, `clts()`, `invlpg(seg, offset)`, `invd()`,
//!   `wbinvd()`, `hlt()`, `cli()`, `sti()`, `pushf(wide)`, `popf(wide)`, `rdtsc()`, `rdpmc()`, `sysenter()`, `sysexit()`,
//!   `check_fpu()`, `check_wait()`; `fpu.rs`: `check_fpu_error()`, `update_fpu_summary()`; `msr.rs`: `rdmsr()`, `wrmsr()`; `cpuid.rs`: `cpuid()` (operands in registers).
//! - `ports.rs`: `check_io(port, width)`, `port_read(port, width)`, `port_write(port, width, value)` (with the checks).
//! - `hooks.rs`: `set_watchpoints(..)`, `hooks` for a debugger and for traces, which the guest does not see.
//! - `debug.rs`: `instruction_breakpoint(linear)`, `take_debug_trap(stepped)`.

mod bulk;
pub mod bus;
mod control;
mod cpuid;
mod debug;
pub mod descriptor;
pub mod direct;
pub mod fault;
pub mod fpu;
pub mod hooks;
mod interrupt;
pub mod known;
mod memory;
pub mod model;
mod msr;
pub mod overlay;
mod paging;
mod ports;
pub mod registers;
mod returns;
mod segment;
mod stack;
pub mod state;
pub mod system;
mod task;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tlb;
pub mod trace;
pub(crate) mod word;

pub use fault::{Exec, Fault};
pub use interrupt::SoftInterrupt;
pub use model::CpuModel;
pub use paging::UserPage;
pub use registers::Seg;
pub use state::{Activity, CpuState, InterruptShadow, InvalidState, Segment, TableRegister};
pub use tlb::Mode;
pub use word::Word;

use crate::interp::code_map::CodeMap;
use crate::interp::flags::LazyFlags;
use bus::{Bus, PageGrant};
use hooks::Hooks;
use registers::{cr0, eflags};
use tlb::Tlb;

/// Where an instruction is, as [`Vcpu::translate_code`] finds it.
#[derive(Clone, Copy, Debug)]
pub struct CodeLocation {
    /// Physical address of its first byte, A20 applied.
    pub physical: u64,
    /// Linear address of its first byte.
    pub linear: u32,
    /// How its page can be read, and whether decoded code of it may be kept.
    pub grant: PageGrant,
}

/// A processor: architectural state, its view of the machine, and caches that can be dropped at any time.
pub struct Vcpu<B: Bus> {
    /// Architectural state. After changing it from outside call [`Vcpu::state_replaced`].
    pub state: CpuState,
    /// The machine. After a use that can change the memory map call [`Vcpu::sync_map`].
    pub bus: B,
    /// The arithmetic flags; those in `state.eflags` are out of date unless [`Vcpu::sync_flags`] was called.
    pub lazy: LazyFlags,
    /// Which physical memory holds kept instructions, and the writes to it.
    pub code: CodeMap,
    /// A debugger's watchpoints, and the trace.
    pub hooks: Hooks,
    /// Accesses within a page that went to the bus.
    pub(crate) device_accesses: u64,
    /// Rights of explicit accesses: follows CPL, CR0.AM and EFLAGS.AC.
    mode: Mode,
    tlb: Tlb,
    a20_mask: u64,
    map_generation: Option<u64>,
    /// Where walks have set accessed and dirty bits, for whoever asked.
    pub(crate) updated_entries: Option<Vec<u64>>,
    /// The copies it works on, while it is covered.
    overlay: Option<Box<overlay::Overlay>>,
}

impl<B: Bus> Vcpu<B> {
    /// A processor of the default model just after reset.
    pub fn new(bus: B) -> Self {
        Self::with_model(bus, CpuModel::default())
    }

    /// A processor just after reset.
    pub fn with_model(bus: B, model: CpuModel) -> Self {
        let mut vcpu = Self {
            state: CpuState::at_reset(model),
            bus,
            lazy: LazyFlags::from_bits(0),
            code: CodeMap::new(),
            hooks: Hooks::default(),
            device_accesses: 0,
            mode: Mode::Supervisor,
            tlb: Tlb::new(),
            a20_mask: !0,
            map_generation: None,
            updated_entries: None,
            overlay: None,
        };
        vcpu.state_replaced();
        vcpu
    }

    /// RESET#: everything but memory and the marks of kept code.
    pub fn reset(&mut self) {
        self.state = CpuState::at_reset(self.state.model);
        self.state_replaced();
    }

    /// INIT#: as RESET#, but the floating-point unit, model-specific registers and CR0.CD and NW stay as they are
    /// (SDM vol. 3, "Processor State After Reset").
    pub fn init(&mut self) {
        let fresh = CpuState::at_reset(self.state.model);
        let old = std::mem::replace(&mut self.state, fresh);
        const KEPT: u32 = cr0::CD | cr0::NW;
        self.state.cr0 = self.state.cr0 & !KEPT | old.cr0 & KEPT;
        self.state.msr = old.msr;
        self.state.fpu = old.fpu;
        self.state_replaced();
    }

    /// Takes over a state that was saved.
    pub fn load_state(&mut self, state: CpuState) -> Result<(), InvalidState> {
        self.state = state.validated()?;
        self.state_replaced();
        Ok(())
    }

    /// Brings everything derived from `state` in order after it was changed from outside.
    pub fn state_replaced(&mut self) {
        self.lazy.set_bits(self.state.eflags);
        self.tlb.flush_all();
        self.update_mode();
        self.sync_map();
    }

    /// All of EFLAGS, arithmetic flags included.
    #[inline]
    pub fn flags(&self) -> u32 {
        self.state.eflags & !eflags::ARITHMETIC | self.lazy.to_bits()
    }

    /// Brings the arithmetic flags in `state.eflags` up to date, for whoever looks at `state` as a whole.
    pub fn sync_flags(&mut self) {
        self.state.eflags = self.flags();
    }

    /// Sets all of EFLAGS, arithmetic flags included.
    #[inline]
    pub fn set_flags(&mut self, flags: u32) {
        self.state.eflags = flags & eflags::DEFINED | eflags::FIXED;
        self.lazy.set_bits(flags);
        self.update_mode();
    }

    /// Whether the monitor should be asked what is to be done before the next instruction.
    #[inline(always)]
    pub fn wants_attention(&self) -> bool {
        self.bus.attention(self.state.eflags & eflags::IF != 0)
    }

    /// Current privilege level.
    #[inline(always)]
    pub fn cpl(&self) -> u8 {
        self.state.cpl
    }

    /// Protected mode, including virtual-8086 mode.
    #[inline(always)]
    pub fn protected_mode(&self) -> bool {
        self.state.protected()
    }

    /// Virtual-8086 mode.
    #[inline(always)]
    pub fn v86(&self) -> bool {
        self.state.v86()
    }

    /// Protected mode proper: selectors name descriptors.
    #[inline(always)]
    pub fn descriptors_used(&self) -> bool {
        self.state.protected() && !self.state.v86()
    }

    /// CS.D: operands and addresses are 32-bit by default.
    #[inline(always)]
    pub fn code_is_32bit(&self) -> bool {
        self.state.segment(Seg::Cs).big()
    }

    /// SS.B: the stack is addressed by ESP.
    #[inline(always)]
    pub fn stack_is_32bit(&self) -> bool {
        self.state.segment(Seg::Ss).big()
    }

    /// The rights of explicit memory accesses.
    #[inline(always)]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    fn set_cpl(&mut self, cpl: u8) {
        self.state.cpl = cpl;
        self.update_mode();
    }

    #[inline]
    fn update_mode(&mut self) {
        self.mode = if self.state.cpl < 3 {
            Mode::Supervisor
        } else if self.state.eflags & eflags::AC != 0 && self.state.cr0 & cr0::AM != 0 {
            Mode::UserAligned
        } else {
            Mode::User
        };
    }
}
