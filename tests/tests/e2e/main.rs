//! What VMSim must do, seen from outside: real guests in real processes.
//!
//! One program, so that tests of all topics run side by side. Measurements, which must not be
//! disturbed, are in a program of their own (`measurements.rs`).

mod attach;
mod bad_input;
mod boots;
mod busy;
mod control;
mod cpu;
mod crash;
mod debug;
mod demo;
mod display;
mod faults;
mod floppy;
mod gdb;
mod health;
mod hostile;
mod linux;
mod lockstep;
mod privacy;
mod recordings;
mod recovery;
mod save;
mod serial;
mod storage;
mod storm;
mod swap;
