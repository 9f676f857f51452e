//! The virtual processor: its architectural state and everything that the Intel manual says
//! about it. Engines (`interp`, later `shadow`) run instructions on it; the [`bus::Bus`] is all
//! it sees of the machine.

pub mod bus;
