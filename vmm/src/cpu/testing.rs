//! A machine for tests: RAM, one page of device memory, ports that remember, a settable clock.

use super::Vcpu;
use super::bus::{Bus, PAGE_SIZE, PageGrant};
use ipc::time::VirtualTime;
use ipc::width::Width;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ptr::NonNull;

/// Where the page of device memory is.
pub(crate) const DEVICE_PAGE: u64 = 0xfee0_0000;

/// Flat RAM from address zero (also seen at the top of 4 GiB, like a BIOS), no device but [`DEVICE_PAGE`].
pub(crate) struct RamBus {
    /// RAM in words, so that it is never reallocated or referenced while granted.
    ram: Box<[u8]>,
    base: NonNull<u8>,
    /// Contents of the device page.
    pub device: HashMap<u64, u32>,
    /// Every access to the device page: (address, width, value written).
    pub device_log: Vec<(u64, Width, Option<u32>)>,
    /// What ports read as; others: all ones.
    pub ports: HashMap<u16, u32>,
    /// Port writes.
    pub port_log: Vec<(u16, Width, u32)>,
    /// A20 gate.
    pub a20: bool,
    /// See [`Bus::map_generation`].
    pub generation: u64,
    /// Vectors that INTA returns.
    pub interrupts: VecDeque<u8>,
    /// Pages reported by `mark_code`.
    pub code_pages: HashSet<u64>,
    /// What `take_written_code` returns.
    pub written_code: VecDeque<(u64, u64)>,
    /// Virtual time.
    pub time: VirtualTime,
    /// How often a page was asked for.
    pub page_requests: u64,
    /// FERR#.
    pub ferr: bool,
    /// IGNNE#.
    pub ignne: bool,
}

impl RamBus {
    /// RAM of `bytes`, a multiple of the page size.
    pub(crate) fn new(bytes: usize) -> Self {
        let mut ram = vec![0; bytes].into_boxed_slice();
        let base = NonNull::new(ram.as_mut_ptr()).unwrap();
        Self {
            ram,
            base,
            device: HashMap::new(),
            device_log: Vec::new(),
            ports: HashMap::new(),
            port_log: Vec::new(),
            a20: true,
            generation: 0,
            interrupts: VecDeque::new(),
            code_pages: HashSet::new(),
            written_code: VecDeque::new(),
            time: VirtualTime(0),
            page_requests: 0,
            ferr: false,
            ignne: false,
        }
    }

    /// Bytes of RAM.
    pub(crate) fn len(&self) -> usize {
        self.ram.len()
    }

    /// Copies bytes into RAM.
    pub(crate) fn load(&mut self, address: u64, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            self.write_memory(address + i as u64, Width::Byte, u32::from(*byte));
        }
    }

    /// A dword of RAM.
    pub(crate) fn peek32(&mut self, address: u64) -> u32 {
        self.read_memory(address, Width::Dword)
    }

    /// A word of RAM.
    pub(crate) fn peek16(&mut self, address: u64) -> u16 {
        self.read_memory(address, Width::Word) as u16
    }

    /// Sets a dword of RAM.
    pub(crate) fn poke32(&mut self, address: u64, value: u32) {
        self.write_memory(address, Width::Dword, value);
    }

    /// Sets a word of RAM.
    pub(crate) fn poke16(&mut self, address: u64, value: u16) {
        self.write_memory(address, Width::Word, u32::from(value));
    }

    fn index(&self, address: u64) -> Option<usize> {
        let index = if address >= (1 << 32) - (1 << 16) { address & 0xf_ffff } else { address };
        usize::try_from(index).ok().filter(|&index| index < self.len())
    }
}

#[expect(unsafe_code, reason = "RAM is only reached through the pointer that is granted, as in the real bus")]
impl Bus for RamBus {
    fn page(&mut self, address: u64) -> PageGrant {
        self.page_requests += 1;
        assert_eq!(address % PAGE_SIZE, 0, "page {address:#x}");
        let Some(index) = self.index(address) else { return PageGrant::default() };
        // SAFETY: `index` is below the length of the allocation that `base` points to.
        let host = Some(unsafe { self.base.add(index) });
        PageGrant { read: host, write: host, cacheable_code: true }
    }

    fn map_generation(&self) -> u64 {
        self.generation
    }

    fn set_ferr(&mut self, asserted: bool) {
        self.ferr = asserted;
    }

    fn ignne(&self) -> bool {
        self.ignne
    }

    fn read_memory(&mut self, address: u64, width: Width) -> u32 {
        if address & !(PAGE_SIZE - 1) == DEVICE_PAGE {
            self.device_log.push((address, width, None));
            return self.device.get(&address).copied().unwrap_or(u32::MAX) & width.mask();
        }
        let mut value = 0;
        for i in 0..width.bytes() {
            let byte = self.index(address + u64::from(i)).map_or(0xff, |index| {
                // SAFETY: as in `page`.
                unsafe { self.base.add(index).read() }
            });
            value |= u32::from(byte) << (8 * i);
        }
        value
    }

    fn write_memory(&mut self, address: u64, width: Width, value: u32) {
        if address & !(PAGE_SIZE - 1) == DEVICE_PAGE {
            self.device_log.push((address, width, Some(value)));
            self.device.insert(address, value);
            return;
        }
        for i in 0..width.bytes() {
            if let Some(index) = self.index(address + u64::from(i)) {
                // SAFETY: as in `page`.
                unsafe { self.base.add(index).write((value >> (8 * i)) as u8) };
            }
        }
    }

    fn read_port(&mut self, port: u16, width: Width) -> u32 {
        self.ports.get(&port).copied().unwrap_or(u32::MAX) & width.mask()
    }

    fn write_port(&mut self, port: u16, width: Width, value: u32) {
        self.port_log.push((port, width, value));
    }

    fn a20_enabled(&self) -> bool {
        self.a20
    }

    fn attention(&self, _: bool) -> bool {
        !self.interrupts.is_empty() || !self.written_code.is_empty()
    }

    fn interrupt_pending(&self) -> bool {
        !self.interrupts.is_empty()
    }

    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        self.interrupts.pop_front()
    }

    fn mark_code(&mut self, address: u64) {
        self.code_pages.insert(address);
    }

    fn unmark_code(&mut self, address: u64) {
        self.code_pages.remove(&address);
    }

    fn take_written_code(&mut self) -> Option<(u64, u64)> {
        self.written_code.pop_front()
    }

    fn now(&mut self) -> VirtualTime {
        self.time
    }
}

/// A processor after reset with 4 MiB of RAM.
pub(crate) fn vcpu() -> Vcpu<RamBus> {
    Vcpu::new(RamBus::new(4 << 20))
}

/// Selectors of the tables that [`protected`] builds.
pub(crate) mod sel {
    /// Flat 32-bit code, level 0.
    pub(crate) const CODE0: u16 = 0x08;
    /// Flat data, level 0.
    pub(crate) const DATA0: u16 = 0x10;
    /// Flat 32-bit code, level 3 (with RPL).
    pub(crate) const CODE3: u16 = 0x1b;
    /// Flat data, level 3 (with RPL).
    pub(crate) const DATA3: u16 = 0x23;
    /// 32-bit TSS of the running task.
    pub(crate) const TSS: u16 = 0x28;
    /// 16-bit code, level 0, 64 KiB.
    pub(crate) const CODE16: u16 = 0x30;
    /// 16-bit data, level 0, 64 KiB.
    pub(crate) const DATA16: u16 = 0x38;
    /// A second 32-bit TSS.
    pub(crate) const TSS_B: u16 = 0x40;
    /// 16-bit TSS.
    pub(crate) const TSS16: u16 = 0x48;
    /// Data, expand-down, 32-bit, limit 0xfff.
    pub(crate) const EXPAND_DOWN: u16 = 0x50;
    /// Conforming 32-bit code, level 0.
    pub(crate) const CONFORMING: u16 = 0x58;
    /// Data, level 0, not present.
    pub(crate) const ABSENT: u16 = 0x60;
    /// Data, level 0, read-only, limit 0xffff.
    pub(crate) const READ_ONLY: u16 = 0x68;
    /// Free for a test.
    pub(crate) const SPARE: u16 = 0x70;
    /// Free for a test.
    pub(crate) const SPARE_2: u16 = 0x78;
}

/// Linear addresses of the tables that [`protected`] builds.
pub(crate) mod at {
    /// Global descriptor table.
    pub(crate) const GDT: u32 = 0x1000;
    /// Interrupt descriptor table.
    pub(crate) const IDT: u32 = 0x2000;
    /// 32-bit TSS.
    pub(crate) const TSS: u32 = 0x3000;
    /// Second 32-bit TSS.
    pub(crate) const TSS_B: u32 = 0x3200;
    /// 16-bit TSS.
    pub(crate) const TSS16: u32 = 0x3400;
    /// Top of the stack for level 0.
    pub(crate) const STACK0: u32 = 0x9000;
    /// Top of the stack for level 3.
    pub(crate) const STACK3: u32 = 0xa000;
    /// Page directory.
    pub(crate) const DIRECTORY: u32 = 0x10_0000;
    /// Page table for the first 4 MiB.
    pub(crate) const TABLE: u32 = 0x10_1000;
}

/// A descriptor from its parts; `attributes` as in [`super::registers::rights`], the limit in its units.
pub(crate) fn descriptor(base: u32, limit: u32, attributes: u16) -> u64 {
    let low = u64::from(limit & 0xffff) | u64::from(base & 0xffff) << 16;
    let high = u64::from(base >> 16 & 0xff)
        | u64::from(attributes) << 8
        | u64::from(limit & 0xf_0000)
        | u64::from(base & 0xff00_0000);
    low | high << 32
}

/// A gate: `attributes` are P, DPL and type; `parameters` for call gates.
pub(crate) fn gate(selector: u16, offset: u32, attributes: u16, parameters: u32) -> u64 {
    let low = offset & 0xffff | u32::from(selector) << 16;
    let high = offset & 0xffff_0000 | u32::from(attributes) << 8 | parameters;
    u64::from(low) | u64::from(high) << 32
}

impl Vcpu<RamBus> {
    /// Sets a GDT entry.
    pub(crate) fn set_gdt(&mut self, selector: u16, value: u64) {
        let address = u64::from(at::GDT) + u64::from(selector & 0xfff8);
        self.bus.poke32(address, value as u32);
        self.bus.poke32(address + 4, (value >> 32) as u32);
    }

    /// The second dword of a GDT entry.
    pub(crate) fn gdt_high(&mut self, selector: u16) -> u32 {
        self.bus.peek32(u64::from(at::GDT) + u64::from(selector & 0xfff8) + 4)
    }

    /// Sets an IDT entry.
    pub(crate) fn set_idt(&mut self, vector: u8, value: u64) {
        let address = u64::from(at::IDT) + u64::from(vector) * 8;
        self.bus.poke32(address, value as u32);
        self.bus.poke32(address + 4, (value >> 32) as u32);
    }

    /// ESP.
    pub(crate) fn esp(&self) -> u32 {
        self.state.gpr[super::registers::gpr::ESP]
    }

    /// The dword `index` places above the top of the current stack, supervisor rights.
    pub(crate) fn stack_dword(&mut self, index: u32) -> u32 {
        let base = self.state.segment(super::Seg::Ss).base();
        let address = base.wrapping_add(self.esp()).wrapping_add(index * 4);
        self.read_linear_u32(address).unwrap()
    }

    /// The word `index` places above the top of the current 16-bit stack.
    pub(crate) fn stack_word(&mut self, index: u32) -> u16 {
        let base = self.state.segment(super::Seg::Ss).base();
        let address = base.wrapping_add(self.esp() & 0xffff).wrapping_add(index * 2);
        self.read_linear_u16(address).unwrap()
    }

    /// Goes to level 3 as an operating system does: IRET to `eip` with the user stack.
    pub(crate) fn enter_user(&mut self, eip: u32, flags: u32) {
        for value in [u32::from(sel::DATA3), at::STACK3, flags, u32::from(sel::CODE3), eip] {
            self.push32(value).unwrap();
        }
        self.iret(true).unwrap();
        for seg in [super::Seg::Ds, super::Seg::Es] {
            self.load_segment(seg, sel::DATA3).unwrap();
        }
    }

    /// Turns paging on: the first 4 MiB mapped one to one by 4 KiB pages, user and writable.
    pub(crate) fn enable_paging(&mut self) {
        self.bus.poke32(u64::from(at::DIRECTORY), at::TABLE | 7);
        for page in 0..1024 {
            self.bus.poke32(u64::from(at::TABLE) + u64::from(page) * 4, page << 12 | 7);
        }
        self.mov_to_cr(3, at::DIRECTORY).unwrap();
        let cr0 = self.state.cr0 | super::registers::cr0::PG;
        self.mov_to_cr(0, cr0).unwrap();
    }

    /// Sets a page table entry of the first 4 MiB and forgets the old translation.
    pub(crate) fn set_pte(&mut self, linear: u32, value: u32) {
        self.bus.poke32(u64::from(at::TABLE) + u64::from(linear >> 12) * 4, value);
        self.tlb.flush_page(linear);
    }

    /// A page table entry of the first 4 MiB.
    pub(crate) fn pte(&mut self, linear: u32) -> u32 {
        self.bus.peek32(u64::from(at::TABLE) + u64::from(linear >> 12) * 4)
    }
}

/// A processor in flat 32-bit protected mode at level 0, with the tables of [`sel`] and [`at`], an empty
/// IDT for all vectors, and a TSS with stacks for level 0 and 1.
pub(crate) fn protected() -> Vcpu<RamBus> {
    let mut cpu = vcpu();
    let table = [
        (sel::CODE0, descriptor(0, 0xf_ffff, 0xc09a)),
        (sel::DATA0, descriptor(0, 0xf_ffff, 0xc092)),
        (sel::CODE3, descriptor(0, 0xf_ffff, 0xc0fa)),
        (sel::DATA3, descriptor(0, 0xf_ffff, 0xc0f2)),
        (sel::TSS, descriptor(at::TSS, 0x67 + 0x40, 0x0089)),
        (sel::CODE16, descriptor(0, 0xffff, 0x009a)),
        (sel::DATA16, descriptor(0, 0xffff, 0x0092)),
        (sel::TSS_B, descriptor(at::TSS_B, 0x67, 0x0089)),
        (sel::TSS16, descriptor(at::TSS16, 0x2b, 0x0081)),
        (sel::EXPAND_DOWN, descriptor(0, 0xfff, 0x4096)),
        (sel::CONFORMING, descriptor(0, 0xf_ffff, 0xc09e)),
        (sel::ABSENT, descriptor(0, 0xf_ffff, 0xc012)),
        (sel::READ_ONLY, descriptor(0, 0xffff, 0x0090)),
    ];
    for (selector, value) in table {
        cpu.set_gdt(selector, value);
    }
    cpu.bus.poke32(u64::from(at::TSS) + 4, at::STACK0);
    cpu.bus.poke16(u64::from(at::TSS) + 8, sel::DATA0);
    // LGDT and LIDT operands, then the way every protected-mode loader goes.
    cpu.bus.poke16(0x500, 0xff);
    cpu.bus.poke32(0x502, at::GDT);
    cpu.bus.poke16(0x508, 0x7ff);
    cpu.bus.poke32(0x50a, at::IDT);
    cpu.lgdt(super::Seg::Ds, 0x500, true).unwrap();
    cpu.lidt(super::Seg::Ds, 0x508, true).unwrap();
    cpu.mov_to_cr(0, super::registers::cr0::PE).unwrap();
    cpu.far_jump(sel::CODE0, 0x1_0000).unwrap();
    for seg in [super::Seg::Ss, super::Seg::Ds, super::Seg::Es] {
        cpu.load_segment(seg, sel::DATA0).unwrap();
    }
    cpu.load_segment(super::Seg::Fs, 0).unwrap();
    cpu.load_segment(super::Seg::Gs, 0).unwrap();
    cpu.ltr(sel::TSS).unwrap();
    cpu.state.gpr[super::registers::gpr::ESP] = at::STACK0;
    cpu
}
