//! Questions about the guest that only the VMM can answer: registers, memory, code, trace, debugger.
//!
//! They travel from a tool over the control socket to the supervisor, which passes them on without looking
//! ([`crate::setup::Command::Inspect`]); the VMM answers between two runs of guest code.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Longest range of memory in one question, bytes.
pub const MAX_MEMORY: u32 = 16 << 10;
/// Most instructions in one question.
pub const MAX_INSTRUCTIONS: u32 = 1024;
/// Most records in one [`TraceBatch`].
pub const MAX_TRACE_BATCH: usize = 4096;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inspect {
    /// All registers. Answer: [`Inspected::Text`].
    Registers,
    /// Disassembled instructions. Answer: [`Inspected::Text`].
    Code {
        /// The first one; `None`: the one to be executed next.
        at: Option<Address>,
        /// How many, at most [`MAX_INSTRUCTIONS`].
        count: u32,
    },
    /// A dump of memory. Answer: [`Inspected::Text`].
    Memory {
        /// First byte.
        at: Address,
        /// Bytes, at most [`MAX_MEMORY`].
        len: u32,
    },
    /// What the engine has done. Answer: [`Inspected::Text`].
    Statistics,
    /// The shadow code of a page, beside the guest's. Answer: [`Inspected::Text`].
    Shadow {
        /// Any byte of the page.
        at: Address,
    },
    /// Let a debugger connect. Answer: [`Inspected::Listening`].
    Listen {
        /// Where.
        at: Listen,
        /// Stop the guest until one has.
        wait: bool,
    },
    /// Record events from now on, those of the filter instead of those before. Answer: [`Inspected::Trace`], empty.
    TraceStart(TraceFilter),
    /// Recorded events, from a number on. Answer: [`Inspected::Trace`].
    TraceRead {
        /// [`TraceBatch::next`] of the batch before.
        from: u64,
    },
    /// Record nothing any more. Answer: [`Inspected::Done`].
    TraceStop,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inspected {
    /// Lines for people.
    Text(String),
    /// A debugger can connect here, in the form that GDB's `target remote` takes.
    Listening(String),
    /// Recorded events.
    Trace(TraceBatch),
    /// Done.
    Done,
    /// Not done; one line that says why and what to do.
    Refused(String),
}

/// An address as people give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// What the CPU's segments and page tables start from.
    Linear(u32),
    /// What is on the bus.
    Physical(u64),
    /// A selector as it would be loaded now, and an offset.
    Segmented {
        /// The selector, or the segment in real mode.
        selector: u16,
        /// Offset into it.
        offset: u32,
    },
}

impl std::str::FromStr for Address {
    type Err = String;

    /// `7c00`, `0x7c00`, `7c00h`; `f000:fff0`; `phys:fee00000`. All numbers are hexadecimal.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
            let digits = digits.strip_suffix(['h', 'H']).unwrap_or(digits);
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        let parsed = match text.split_once(':') {
            Some(("phys", address)) => number(address).map(Self::Physical),
            Some((selector, offset)) => {
                number(selector).zip(number(offset)).and_then(|(selector, offset)| {
                    let selector = selector.try_into().ok()?;
                    Some(Self::Segmented { selector, offset: offset.try_into().ok()? })
                })
            }
            None => number(text).and_then(|address| Some(Self::Linear(address.try_into().ok()?))),
        };
        parsed.ok_or_else(|| {
            format!(
                "'{text}' is not an address: write 7c00 (linear), f000:fff0 or phys:fee00000, in hexadecimal"
            )
        })
    }
}

/// Where a debugger can connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listen {
    /// The socket `gdb` in the VM's directory.
    Default,
    /// A Unix socket of that name.
    Unix(PathBuf),
    /// A TCP port of 127.0.0.1; 0: any that is free.
    Tcp(u16),
}

impl std::str::FromStr for Listen {
    type Err = String;

    /// `tcp:PORT` or `unix:PATH`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("tcp", port)) => {
                port.parse().map(Self::Tcp).map_err(|_| format!("'{port}' is not a TCP port: use 0 to 65535"))
            }
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => Err(format!("'{text}' is no place to listen: write tcp:PORT or unix:PATH")),
        }
    }
}

/// Which events are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceFilter {
    /// Exceptions.
    pub exceptions: bool,
    /// Interrupts of devices and INT instructions.
    pub interrupts: bool,
    /// Accesses that touch these ports, first and last.
    pub ports: Option<(u16, u16)>,
}

/// One recorded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRecord {
    /// Virtual time, ns.
    pub nanos: u64,
    /// CS selector.
    pub cs: u16,
    /// EIP: for a fault the instruction that raised it, otherwise the one after.
    pub eip: u32,
    /// What happened.
    pub event: TraceEvent,
}

/// What is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TraceEvent {
    /// An exception.
    Exception {
        /// Its number.
        vector: u8,
        /// Its error code.
        error_code: Option<u32>,
        /// CR2 of a page fault, DR6 bits of a debug exception.
        detail: u32,
    },
    /// An interrupt from the interrupt controller, or an NMI.
    Interrupt {
        /// Its number.
        vector: u8,
    },
    /// INT n, INT3, INTO or INT1.
    Software {
        /// Its number.
        vector: u8,
        /// EAX, which tells firmware and DOS calls apart.
        eax: u32,
    },
    /// IN, OUT or one burst of INS or OUTS.
    Port {
        /// The port.
        port: u16,
        /// Bytes of one access.
        width: u8,
        /// OUT.
        write: bool,
        /// What was read or written; of a burst the first one.
        value: u32,
        /// Accesses of a burst; 1 for IN and OUT.
        count: u32,
    },
}

/// A run of records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceBatch {
    /// Records that were overwritten before they could be read.
    pub lost: u64,
    /// The records, oldest first, at most [`MAX_TRACE_BATCH`].
    pub records: Vec<TraceRecord>,
    /// Number of the record after these.
    pub next: u64,
    /// Events are still being recorded.
    pub recording: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hexadecimal_and_of_three_kinds() {
        let parse = |text: &str| text.parse::<Address>();
        for text in ["7c00", "0x7c00", "7C00h"] {
            assert_eq!(parse(text), Ok(Address::Linear(0x7c00)), "{text}");
        }
        assert_eq!(parse("f000:fff0"), Ok(Address::Segmented { selector: 0xf000, offset: 0xfff0 }));
        assert_eq!(parse("phys:fee00000"), Ok(Address::Physical(0xfee0_0000)));
        for bad in ["", "x", "+1", "1_0", "100000000", "10000:0", "phys:", ":", "cs:ip"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn places_to_listen_are_ports_and_paths() {
        assert_eq!("tcp:1234".parse(), Ok(Listen::Tcp(1234)));
        assert_eq!("unix:/tmp/s".parse(), Ok(Listen::Unix("/tmp/s".into())));
        for bad in ["tcp:", "tcp:70000", "1234", "unix:"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }
}
