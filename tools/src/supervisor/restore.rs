//! `vmsim restore`: puts what was saved into the shared memory of a VM whose processes have not started yet. They then go on
//! from it like successors after a crash.

use super::memory::VmMemory;
use super::save::VMM_NAME;
use anyhow::{Context, Result, ensure};
use ipc::board::ALL_LINES;
use ipc::link::{LinkLayout, ModelInfo, encode_event};
use ipc::panel::VMM_SLOT;
use ipc::segment::Segment;
use ipc::sync::Ordering;
use ipc::time::VirtualTime;
use std::io;
use vmm::saved::{Device, SavedVm};

impl VmMemory {
    /// Puts everything where it belongs. Device processes have the slots that are theirs in `vm`.
    pub fn restore(&self, vm: &mut SavedVm) -> Result<()> {
        let (board, panel) = (self.board(), self.panel());
        panel.clock.set(VirtualTime(vm.clock.nanos));
        panel.start_unix_seconds.store(vm.clock.start_unix_seconds, Ordering::Relaxed);
        board.restore_wiring(&vm.board.wiring);
        let slot = |name: &String| {
            let device = vm.devices.iter().position(|device| device.name == *name);
            device.or((name == VMM_NAME).then_some(VMM_SLOT))
        };
        let held = vm.board.held.iter().filter_map(|(name, lines)| Some((slot(name)?, *lines)));
        let edges =
            std::array::from_fn::<_, ALL_LINES, _>(|line| vm.board.edges.get(line).copied().unwrap_or(0));
        board.lines.restore(&edges, &held.collect::<Vec<_>>());
        let under_way = vm.serial.iter().map(|port| port.under_way.clone());
        self.serial().restore(&under_way.collect::<Vec<_>>());
        for (slot, device) in vm.devices.iter().enumerate() {
            let link = self.link(slot).with_context(|| format!("There is no link for {}", device.name))?;
            restore_device(link, device)?;
        }
        for slot in 0..vm.devices.len() {
            if let Some(len) = vm.device_memory_len(slot).filter(|len| *len > 0) {
                let mut memory = Segment::create_sparse(&self.names().device_memory(slot), len)?;
                // It belongs to the VM, and is removed with it.
                memory.keep_name();
                vm.read_device_memory(slot, |at, block| put(&memory, at, block))?;
            }
        }
        vm.read_ram(|at, block| put(self.ram(), at, block))?;
        Ok(())
    }
}

fn put(memory: &Segment, at: u64, block: &[u8]) -> io::Result<()> {
    memory.write(at, block).then_some(()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn restore_device(link: &LinkLayout, device: &Device) -> Result<()> {
    let name = |name: &String| ModelInfo { name: name.clone(), pci: None };
    link.set_models(&device.models.iter().map(|model| name(&model.name)).collect::<Vec<_>>());
    for (model, page) in device.models.iter().zip(&link.states) {
        let Some(state) = &model.state else { continue };
        // Nothing but the state: what it was sent before is done with, and its rings are new.
        let fits = page.commit(0, state.version, &[], &state.data);
        ensure!(fits, "The state of {} in {} is too long", model.name, device.name);
        page.set_applied();
    }
    for (cell, count) in link.faults.iter().zip(&device.fault_counts) {
        cell.store(*count, Ordering::Relaxed);
    }
    for (line, fault) in device.line_faults.iter().enumerate() {
        link.set_line_fault(line, fault);
    }
    for event in &device.events {
        ensure!(link.events.push(encode_event(event)).is_ok(), "{} has more events than fit", device.name);
    }
    Ok(())
}
