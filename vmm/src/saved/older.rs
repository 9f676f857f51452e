//! Forms that sections had in older versions, and what they are now.

use super::{Device, Model, SerialPort};
use ipc::input::HostEvent;
use ipc::serial::UnderWay;
use serde::Deserialize;

/// Section `device` in version 1. No device was off the bus then, and faults that were under way were lost.
#[derive(Deserialize)]
pub struct Device1 {
    name: String,
    build: String,
    models: Vec<Model>,
    events: Vec<HostEvent>,
    fault_counts: Vec<u64>,
}

impl From<Device1> for Device {
    fn from(Device1 { name, build, models, events, fault_counts }: Device1) -> Self {
        Self { name, build, models, events, fault_counts, line_faults: Vec::new(), off_bus: false }
    }
}

/// Section `serial` had the cables only in version 1.
impl From<UnderWay> for SerialPort {
    fn from(under_way: UnderWay) -> Self {
        Self { under_way, held: Vec::new() }
    }
}
