//! A model around another one: builds of a device process that differ from the built-in one in a few methods.

/// Methods of `Device` that a wrapper with the wrapped model in field 0 passes on. It has to write itself: `read`, `state_version`, `save`,
/// `load`, and whatever else it needs.
#[macro_export]
macro_rules! pass_on_to_model {
    () => {
        fn name(&self) -> &'static str {
            self.0.name()
        }
        fn regions(&self) -> Vec<devproc::device::Region> {
            self.0.regions()
        }
        fn pci_address(&self) -> Option<devproc::pci::PciAddress> {
            self.0.pci_address()
        }
        fn registers(&self) -> Vec<devproc::device::Register> {
            self.0.registers()
        }
        fn selected(&self, at: devproc::device::Access, written: Option<u32>) -> Option<u32> {
            self.0.selected(at, written)
        }
        fn device_memory_len(&self) -> u64 {
            self.0.device_memory_len()
        }
        fn attach(&mut self, host: &mut dyn devproc::host::Host) {
            self.0.attach(host);
        }
        fn write(
            &mut self,
            at: devproc::device::Access,
            value: u32,
            host: &mut dyn devproc::host::Host,
        ) -> devproc::device::WriteResult {
            self.0.write(at, value, host)
        }
        fn read_burst(
            &mut self,
            at: devproc::device::Access,
            data: &mut [u8],
            host: &mut dyn devproc::host::Host,
        ) -> Result<(), devproc::device::IoError> {
            self.0.read_burst(at, data, host)
        }
        fn write_burst(
            &mut self,
            at: devproc::device::Access,
            data: &[u8],
            host: &mut dyn devproc::host::Host,
        ) -> devproc::device::WriteResult {
            self.0.write_burst(at, data, host)
        }
        fn burst_advances(&self, at: devproc::device::Access) -> bool {
            self.0.burst_advances(at)
        }
        fn config_read(
            &mut self,
            register: u8,
            width: devproc::device::Width,
            host: &mut dyn devproc::host::Host,
        ) -> u32 {
            self.0.config_read(register, width, host)
        }
        fn config_write(
            &mut self,
            register: u8,
            width: devproc::device::Width,
            value: u32,
            host: &mut dyn devproc::host::Host,
        ) {
            self.0.config_write(register, width, value, host);
        }
        fn timer(
            &mut self,
            timer: devproc::device::TimerId,
            deadline: ipc::time::VirtualTime,
            host: &mut dyn devproc::host::Host,
        ) {
            self.0.timer(timer, deadline, host);
        }
        fn reset(&mut self, kind: devproc::device::ResetKind, host: &mut dyn devproc::host::Host) {
            self.0.reset(kind, host);
        }
        fn has_picture(&self) -> bool {
            self.0.has_picture()
        }
        fn render(
            &mut self,
            frame: &mut devproc::device::Frame,
            force: bool,
            host: &mut dyn devproc::host::Host,
        ) -> bool {
            self.0.render(frame, force, host)
        }
        fn take_changed(&mut self) -> bool {
            self.0.take_changed()
        }
    };
}
