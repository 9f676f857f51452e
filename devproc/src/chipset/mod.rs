//! The models of the chipset process: host bridge, south bridge and the motherboard's devices.

pub mod debug_ports;
pub mod dma_8237;
pub mod fw_cfg;
pub mod i440fx;
pub mod pic_8259;
pub mod piix4_isa;
pub mod piix4_pm;
pub mod pit_8254;
pub mod rtc_cmos;
pub mod uart_16550;
