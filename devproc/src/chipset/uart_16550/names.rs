//! Names of the registers of the UART, for traces.

use super::{PORTS, spec};
use crate::device::Register;

/// All of them.
pub(super) const REGISTERS: [Register; 8] = [
    Register::new(PORTS, spec::DATA, "RBR/THR/DLL"),
    Register::new(PORTS, spec::IER, "IER/DLM").fields(&[
        ("ERBFI", spec::IER_ERBFI as u32),
        ("ETBEI", spec::IER_ETBEI as u32),
        ("ELSI", spec::IER_ELSI as u32),
        ("EDSSI", spec::IER_EDSSI as u32),
    ]),
    Register::new(PORTS, spec::IIR_FCR, "IIR/FCR"),
    Register::new(PORTS, spec::LCR, "LCR").fields(&[
        ("WLS", spec::LCR_WLS as u32),
        ("STB", spec::LCR_STB as u32),
        ("PEN", spec::LCR_PEN as u32),
        ("BREAK", spec::LCR_BREAK as u32),
        ("DLAB", spec::LCR_DLAB as u32),
    ]),
    Register::new(PORTS, spec::MCR, "MCR").fields(&[
        ("DTR", spec::MCR_DTR as u32),
        ("RTS", spec::MCR_RTS as u32),
        ("OUT1", spec::MCR_OUT1 as u32),
        ("OUT2", spec::MCR_OUT2 as u32),
        ("LOOP", spec::MCR_LOOP as u32),
    ]),
    Register::new(PORTS, spec::LSR, "LSR").fields(&[
        ("DR", spec::LSR_DR as u32),
        ("OE", spec::LSR_OE as u32),
        ("FE", spec::LSR_FE as u32),
        ("BI", spec::LSR_BI as u32),
        ("THRE", spec::LSR_THRE as u32),
        ("TEMT", spec::LSR_TEMT as u32),
    ]),
    Register::new(PORTS, spec::MSR, "MSR").fields(&[
        ("CTS", spec::MSR_CTS as u32),
        ("DSR", spec::MSR_DSR as u32),
        ("RI", spec::MSR_RI as u32),
        ("DCD", spec::MSR_DCD as u32),
    ]),
    Register::new(PORTS, spec::SCR, "SCR"),
];
