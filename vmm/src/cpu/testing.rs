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
