//! The engines that can run a guest, behind one interface. They run the same processor state and agree on every bit.

use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::interp::{Exit, Interp};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::shadow::{CacheError, Shadow, WindowPolicy};
use std::collections::BTreeSet;
use std::str::FromStr;

/// Which engine runs guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// The reference: instruction by instruction, on every host.
    Interp,
    /// Guest code made into host code; user code that runs long has its memory translated by the host's page tables. x86-64 Linux hosts
    /// only.
    Shadow,
    /// The same with the direct map for all code.
    ShadowDirect,
    /// The shadow engine, compared with the reference at every step; stops at the first difference. Slow.
    Lockstep,
    /// The same, where all user code is translated by the host's page tables.
    LockstepWindows,
}

impl EngineKind {
    /// The names that `--engine` takes.
    pub const NAMES: [&'static str; 5] =
        ["shadow", "interp", "lockstep", "shadow-direct", "lockstep-windows"];

    /// What `--engine` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interp => "interp",
            Self::Shadow => "shadow",
            Self::ShadowDirect => "shadow-direct",
            Self::Lockstep => "lockstep",
            Self::LockstepWindows => "lockstep-windows",
        }
    }
}

impl Default for EngineKind {
    /// The fastest that this host has.
    fn default() -> Self {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if is_x86_feature_detected!("bmi2") {
            return Self::Shadow;
        }
        Self::Interp
    }
}

/// A name that is none of [`EngineKind::NAMES`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("There is no engine \"{0}\": choose one of {names}", names = EngineKind::NAMES.join(", "))]
pub struct UnknownEngine(String);

impl FromStr for EngineKind {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        match name {
            "interp" => Ok(Self::Interp),
            "shadow" => Ok(Self::Shadow),
            "shadow-direct" => Ok(Self::ShadowDirect),
            "lockstep" => Ok(Self::Lockstep),
            "lockstep-windows" => Ok(Self::LockstepWindows),
            _ => Err(UnknownEngine(name.into())),
        }
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Not enough memory.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// This host cannot run it.
    #[error("The shadow engine needs {0}: use --engine interp")]
    Host(&'static str),
}

/// An engine.
pub enum Engine<B: Bus> {
    /// See [`EngineKind::Interp`].
    Interp(Box<Interp<B>>),
    /// See [`EngineKind::Shadow`].
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Shadow(Box<Shadow<B>>),
}

impl<B: Bus> Engine<B> {
    /// An engine that has seen no code yet.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn new(kind: EngineKind) -> Result<Self, EngineError> {
        match kind {
            EngineKind::Interp => Ok(Self::Interp(Box::default())),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            EngineKind::Shadow
            | EngineKind::ShadowDirect
            | EngineKind::Lockstep
            | EngineKind::LockstepWindows
                if !is_x86_feature_detected!("bmi2") =>
            {
                Err(EngineError::Host("a processor with BMI2 (Intel since 2013, AMD since 2015)"))
            }
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            EngineKind::ShadowDirect => Ok(Self::Shadow(Box::new(Shadow::new()?))),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            EngineKind::Shadow => {
                let mut shadow = Shadow::new()?;
                shadow.use_windows(WindowPolicy::Hot);
                Ok(Self::Shadow(Box::new(shadow)))
            }
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            EngineKind::Lockstep => Ok(Self::Shadow(Box::new(Shadow::in_lockstep()?))),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            EngineKind::LockstepWindows => {
                let mut shadow = Shadow::in_lockstep()?;
                shadow.use_windows(WindowPolicy::Always);
                Ok(Self::Shadow(Box::new(shadow)))
            }
            #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
            EngineKind::Shadow
            | EngineKind::ShadowDirect
            | EngineKind::Lockstep
            | EngineKind::LockstepWindows => Err(EngineError::Host("an x86-64 Linux host")),
        }
    }

    /// Runs about `budget` instructions, or until something wants the monitor. See [`Interp::run`].
    #[inline]
    pub fn run(&mut self, cpu: &mut Vcpu<B>, budget: u64) -> Exit {
        match self {
            Self::Interp(interp) => interp.run(cpu, budget),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Shadow(shadow) => shadow.run(cpu, budget),
        }
    }

    /// Executes one instruction. See [`Interp::step`].
    pub fn step(&mut self, cpu: &mut Vcpu<B>) -> Exit {
        match self {
            Self::Interp(interp) => interp.step(cpu),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Shadow(shadow) => shadow.step(cpu),
        }
    }

    /// Forgets everything that was made of guest code.
    pub fn forget_code(&mut self, cpu: &mut Vcpu<B>) {
        match self {
            Self::Interp(interp) => interp.forget_code(cpu),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Shadow(shadow) => shadow.forget_code(cpu),
        }
    }

    /// A debugger's breakpoints from now on.
    pub fn set_breakpoints(&mut self, cpu: &mut Vcpu<B>, addresses: &BTreeSet<u32>) {
        match self {
            Self::Interp(interp) => interp.set_breakpoints(cpu, addresses),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Shadow(shadow) => shadow.set_breakpoints(cpu, addresses),
        }
    }

    /// After [`Exit::Difference`]: what differs between the engines that are compared.
    pub fn difference(&self) -> Option<&str> {
        match self {
            Self::Interp(_) => None,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Shadow(shadow) => shadow.difference(),
        }
    }

    /// What it has done, in lines for people.
    pub fn report(&self) -> String {
        match self {
            Self::Interp(interp) => interp.statistics().to_string(),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Shadow(shadow) => {
                format!("{}Interpreter\n{}", shadow.report(), shadow.interpreter().statistics())
            }
        }
    }

    /// What was made of the guest's page at a physical address, in lines for people.
    pub fn list(&self, cpu: &mut Vcpu<B>, physical: u64) -> String {
        match self {
            Self::Interp(_) => "The interpreter makes no code\n".into(),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Shadow(shadow) => shadow.list(cpu, physical),
        }
    }

    /// Instructions that were interpreted. What shadow code executes is not counted, unless it is compared.
    pub fn interpreted(&self) -> u64 {
        match self {
            Self::Interp(interp) => interp.statistics().instructions,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Shadow(shadow) => shadow.interpreted() + shadow.compared(),
        }
    }
}
