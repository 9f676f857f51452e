//! The loop: finds blocks, runs them, delivers faults and traps.

use super::breakpoints::Breakpoints;
use super::cache::{Block, BlockCache};
use super::decode::{MAX_LENGTH, Outcome, decode};
use super::liveness::drop_dead_flags;
use super::op::{ESP, Ends, Op};
use super::steps::{self, Steps};
use crate::cpu::bus::{Bus, PAGE_SIZE};
use crate::cpu::fault::{Exec, Fault};
use crate::cpu::registers::{Seg, eflags};
use crate::cpu::state::{Activity, InterruptShadow};
use crate::cpu::{CodeLocation, Vcpu};
use std::collections::BTreeSet;

/// Most instructions in a block.
const BLOCK_OPS: usize = 48;
/// Most bytes that are fetched to decode a block.
const BLOCK_BYTES: usize = 256;

/// Why [`Interp::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As many instructions were executed as were asked for, or some more, to the end of a block.
    Budget,
    /// HLT was executed, and no interrupt has come yet.
    Halted,
    /// [`Bus::attention`] is set.
    Attention,
    /// A triple fault: the processor waits for a reset.
    Shutdown,
    /// The next instruction is at a breakpoint of [`Interp::set_breakpoints`].
    Breakpoint,
    /// The instruction before met a watchpoint: [`crate::cpu::hooks::Hooks::take_hit`] tells which.
    Watchpoint,
    /// Two engines that are compared disagree: [`crate::engine::Engine::difference`] tells where. The guest is before that block.
    Difference,
}

/// What the engine has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Instructions executed, iterations that were resumed included.
    pub instructions: u64,
    /// Blocks executed.
    pub blocks: u64,
    /// Instructions executed one by one, outside blocks.
    pub single_steps: u64,
    /// Blocks decoded.
    pub blocks_decoded: u64,
    /// Instructions decoded.
    pub instructions_decoded: u64,
    /// Blocks dropped because their code was written.
    pub blocks_dropped: u64,
    /// Exceptions delivered.
    pub faults: u64,
    /// Blocks that are kept now.
    pub blocks_kept: u64,
}

impl std::fmt::Display for Statistics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (what, count) in [
            ("instructions executed", self.instructions),
            ("blocks executed", self.blocks),
            ("instructions executed outside blocks", self.single_steps),
            ("blocks decoded", self.blocks_decoded),
            ("blocks dropped, written over", self.blocks_dropped),
            ("blocks kept", self.blocks_kept),
            ("exceptions", self.faults),
        ] {
            writeln!(f, "{count:>16}  {what}")?;
        }
        Ok(())
    }
}

/// A range of kept code that was written over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropped {
    /// Physical address.
    pub(crate) physical: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// The processor wrote it, not a device.
    pub(crate) own: bool,
}

/// The interpreter. It holds nothing architectural: it can be dropped and made anew at any time.
pub struct Interp<B: Bus> {
    cache: BlockCache<B>,
    statistics: Statistics,
    map_generation: Option<u64>,
    breakpoints: Breakpoints,
    at_breakpoint: bool,
    /// Most instructions in a block.
    block_ops: usize,
    /// What was written over, for the shadow engine, if this interpreter serves one.
    dropped: Option<Vec<Dropped>>,
    /// What single steps have decoded, if that is to be remembered.
    steps: Option<Steps<B>>,
}

impl<B: Bus> Default for Interp<B> {
    fn default() -> Self {
        Self::new()
    }
}

/// What to do when blocks no longer follow each other.
enum After {
    /// Look at the processor.
    Look,
    /// Drop the blocks whose code was written.
    DropCode,
    /// Deliver a fault.
    Deliver(Fault),
    /// Execute one instruction that no block can hold.
    Step,
}

/// How a block ended.
enum Left {
    /// With its last instruction.
    Done(Ends),
    /// Before that, because code was written.
    CodeWritten,
    /// With a fault; EIP and ESP have been put back.
    Faulted(Fault),
}

impl<B: Bus> Interp<B> {
    /// An interpreter that has decoded nothing yet.
    pub fn new() -> Self {
        Interp {
            cache: BlockCache::default(),
            statistics: Statistics::default(),
            map_generation: None,
            breakpoints: Breakpoints::default(),
            at_breakpoint: false,
            block_ops: BLOCK_OPS,
            dropped: None,
            steps: None,
        }
    }

    /// Makes [`Interp::step`] remember what it decodes.
    pub(crate) fn remember_steps(&mut self) {
        self.steps = Some(Steps::default());
    }

    /// Becomes the part of the shadow engine that executes single instructions: blocks of one, and what was
    /// written over is remembered for [`Interp::take_dropped`].
    pub(crate) fn serve_shadow(&mut self) {
        self.block_ops = 1;
        self.dropped = Some(Vec::new());
    }

    /// The next range of kept code that was written over.
    pub(crate) fn take_dropped(&mut self) -> Option<Dropped> {
        self.dropped.as_mut()?.pop()
    }

    /// Drops what was written over, by the processor and by devices.
    pub(crate) fn drop_written(&mut self, cpu: &mut Vcpu<B>) {
        self.take_foreign_writes(cpu);
    }

    /// Decodes the instruction that starts `bytes`, to be executed on its own with EIP behind it. `None`: it goes on behind them.
    pub(crate) fn decode_one(&self, bytes: &[u8], wide: bool) -> Option<Box<Op<B>>> {
        let bytes = bytes.get(..MAX_LENGTH.min(bytes.len()))?;
        let Outcome::Op(mut op, _) = decode(bytes, wide) else { return None };
        op.comes_last();
        Some(Box::new(op))
    }

    /// Delivers a fault that an instruction raised which [`Interp::decode_one`] decoded.
    pub(crate) fn deliver_fault(&mut self, cpu: &mut Vcpu<B>, fault: Fault) {
        self.deliver(cpu, fault);
    }

    /// Marks what is kept of a page.
    pub(crate) fn mark_page(&self, cpu: &mut Vcpu<B>, page: u64) {
        self.cache.mark_page(cpu, page);
    }

    /// Whether anything of a page is kept.
    pub(crate) fn keeps_page(&self, page: u64) -> bool {
        self.cache.keeps_page(page)
    }

    fn drop_range(&mut self, cpu: &mut Vcpu<B>, physical: u64, len: u64, own: bool) {
        self.statistics.blocks_dropped += self.cache.drop_range(cpu, physical, len) as u64;
        if let Some(dropped) = &mut self.dropped {
            dropped.push(Dropped { physical, len, own });
        }
    }

    /// What has been done so far.
    pub fn statistics(&self) -> Statistics {
        Statistics { blocks_kept: self.cache.count() as u64, ..self.statistics }
    }

    /// Forgets all decoded code (after guest memory was changed behind the bus, as by a restored snapshot).
    pub fn forget_code(&mut self, cpu: &mut Vcpu<B>) {
        self.cache.clear(cpu);
    }

    /// A debugger's breakpoints from now on: linear addresses before whose instructions [`Interp::run`] stops.
    /// [`Interp::step`] does not.
    pub fn set_breakpoints(&mut self, cpu: &mut Vcpu<B>, addresses: &BTreeSet<u32>) {
        if !self.breakpoints.is(addresses) {
            self.breakpoints = Breakpoints::new(addresses);
            self.forget_code(cpu);
        }
    }

    /// Executes at least one block, unless the processor is halted, and about `budget` instructions.
    pub fn run(&mut self, cpu: &mut Vcpu<B>, budget: u64) -> Exit {
        self.take_foreign_writes(cpu);
        let mut left = budget.max(1);
        let exit = loop {
            if cpu.hooks.hit().is_some() {
                break Exit::Watchpoint;
            }
            match cpu.state.activity {
                Activity::Running => {}
                Activity::Halted => break Exit::Halted,
                Activity::Shutdown => break Exit::Shutdown,
            }
            // What a task switch in a block, or in the delivery of an interrupt, left to report.
            if cpu.state.pending_debug != 0
                && cpu.state.interrupt_shadow != InterruptShadow::MovSs
                && let Some(trap) = cpu.take_debug_trap(false)
            {
                // Counted: where task switches keep leaving traps, this goes on for ever.
                self.deliver(cpu, trap);
                left = left.saturating_sub(1);
            } else if self.needs_single_step(cpu) {
                self.step_unless_breakpoint(cpu);
                left = left.saturating_sub(1);
            } else {
                left = self.run_blocks(cpu, left);
            }
            if std::mem::take(&mut self.at_breakpoint) {
                break Exit::Breakpoint;
            }
            if cpu.state.activity != Activity::Running {
                continue;
            }
            // The boundary after STI or MOV SS is none where the monitor could do anything.
            if cpu.wants_attention() && cpu.state.interrupt_shadow == InterruptShadow::None {
                self.take_foreign_writes(cpu);
                break Exit::Attention;
            }
            if left == 0 {
                break Exit::Budget;
            }
        };
        cpu.sync_flags();
        exit
    }

    /// Executes exactly one instruction (of a repeated one: at least one iteration), or delivers the
    /// fault that it raises.
    pub fn step(&mut self, cpu: &mut Vcpu<B>) -> Exit {
        self.take_foreign_writes(cpu);
        if cpu.state.activity == Activity::Running {
            self.step_once(cpu);
        }
        cpu.sync_flags();
        match cpu.state.activity {
            _ if cpu.hooks.hit().is_some() => Exit::Watchpoint,
            Activity::Halted => Exit::Halted,
            Activity::Shutdown => Exit::Shutdown,
            Activity::Running if cpu.wants_attention() => Exit::Attention,
            Activity::Running => Exit::Budget,
        }
    }

    fn needs_single_step(&self, cpu: &Vcpu<B>) -> bool {
        cpu.state.eflags & (eflags::TF | eflags::RF) != 0
            || cpu.state.interrupt_shadow != InterruptShadow::None
            || cpu.breakpoints_enabled()
    }

    /// Drops what devices wrote over, and what interrupts delivered since have pushed over.
    fn take_foreign_writes(&mut self, cpu: &mut Vcpu<B>) {
        if cpu.code.has_written() {
            self.take_own_writes(cpu);
        }
        while let Some((physical, len)) = cpu.bus.take_written_code() {
            self.drop_range(cpu, physical, len, false);
        }
        self.follow_map(cpu);
    }

    /// Drops what the processor itself wrote over.
    #[cold]
    fn take_own_writes(&mut self, cpu: &mut Vcpu<B>) {
        while let Some((physical, len)) = cpu.code.take_written() {
            self.drop_range(cpu, physical, u64::from(len), true);
        }
    }

    fn follow_map(&mut self, cpu: &mut Vcpu<B>) {
        let generation = cpu.bus.map_generation();
        if self.map_generation != Some(generation) {
            self.map_generation = Some(generation);
            cpu.sync_map();
            self.cache.revalidate(cpu);
        }
    }

    /// Runs blocks as long as they follow each other without any change but EIP. Returns what is left
    /// of the budget.
    fn run_blocks(&mut self, cpu: &mut Vcpu<B>, mut left: u64) -> u64 {
        let mut location = match cpu.translate_code(cpu.state.eip) {
            Ok(location) => location,
            Err(fault) => {
                self.deliver(cpu, fault);
                return left.saturating_sub(1);
            }
        };
        // Nothing in the loop below changes CS: what does ends its block with `Ends::Full`.
        let wide = cpu.code_is_32bit();
        let code = cpu.state.segment(Seg::Cs);
        let (base, limit) = (code.base(), code.limit());
        let mut instructions = 0;
        let mut blocks = 0;
        let after = loop {
            if self.map_generation != Some(cpu.bus.map_generation()) {
                self.follow_map(cpu);
                break After::Look;
            }
            let start = cpu.state.eip;
            let Some(block) = self.cache.find(location.physical, wide) else {
                if self.decode_block(cpu, &location, wide) {
                    continue;
                }
                break After::Step;
            };
            if u64::from(start) + u64::from(block.len) > u64::from(limit) + 1 {
                break After::Step;
            }
            blocks += 1;
            let (executed, end) = execute(block, cpu, start);
            instructions += executed;
            match end {
                Left::Done(Ends::Not | Ends::Near) => {}
                Left::Done(Ends::Full | Ends::Interrupt) => break After::Look,
                Left::CodeWritten => break After::DropCode,
                Left::Faulted(fault) => break After::Deliver(fault),
            }
            if instructions >= left || cpu.wants_attention() {
                break After::Look;
            }
            let eip = cpu.state.eip;
            let linear = base.wrapping_add(eip);
            if (linear ^ location.linear) & !(PAGE_SIZE as u32 - 1) == 0 && eip <= limit {
                // The same page, and nothing that could translate it differently has happened.
                let offset = u64::from(linear) % PAGE_SIZE;
                location.physical = location.physical & !(PAGE_SIZE - 1) | offset;
                location.linear = linear;
            } else {
                location = match cpu.translate_code(eip) {
                    Ok(location) => location,
                    Err(fault) => break After::Deliver(fault),
                };
            }
        };
        self.statistics.blocks += blocks;
        self.statistics.instructions += instructions;
        left = left.saturating_sub(instructions);
        match after {
            After::Look => {}
            After::DropCode => self.take_own_writes(cpu),
            After::Deliver(fault) => {
                if cpu.code.has_written() {
                    self.take_own_writes(cpu);
                }
                self.deliver(cpu, fault);
            }
            After::Step => {
                self.step_unless_breakpoint(cpu);
                left = left.saturating_sub(1);
            }
        }
        left
    }

    /// Decodes what starts at `location` and keeps it. False when it cannot be kept.
    #[cold]
    #[inline(never)]
    fn decode_block(&mut self, cpu: &mut Vcpu<B>, location: &CodeLocation, wide: bool) -> bool {
        let Some(host) = location.grant.read.filter(|_| location.grant.cacheable_code) else { return false };
        if location.physical > u64::from(u32::MAX) {
            return false;
        }
        let in_page = (PAGE_SIZE - location.physical % PAGE_SIZE) as usize;
        let mut buffer = [0; BLOCK_BYTES];
        let Some(bytes) = buffer.get_mut(..in_page.min(BLOCK_BYTES)) else { return false };
        // Marked before it is read: a device that writes it from now on reports that.
        cpu.mark_code(location.physical, 1);
        let mut ops = Vec::with_capacity(8);
        let mut flags = Vec::with_capacity(8);
        let mut at = 0;
        let mut fetched = 0;
        while ops.len() < self.block_ops {
            let wanted = bytes.len().min(at + MAX_LENGTH);
            if fetch(cpu, location.linear, bytes, &mut fetched, wanted).is_err() {
                break;
            }
            if self.breakpoints.may_be_at(location.physical + at as u64) {
                break;
            }
            let Some(rest) = bytes.get(at..wanted) else { break };
            let Outcome::Op(mut op, in_block) = decode(rest, wide) else { break };
            at += usize::from(op.len);
            op.end = at as u16;
            if let Some(side_exit) = in_block.side_exit {
                op.handler = side_exit;
                op.ends = Ends::Not;
            }
            ops.push(op);
            flags.push(in_block.flags);
            if op.ends != Ends::Not {
                break;
            }
        }
        if let Some(last) = ops.last_mut() {
            last.comes_last();
        }
        if ops.is_empty() {
            self.cache.drop_range(cpu, location.physical, 1);
            return false;
        }
        drop_dead_flags(&mut ops, &flags);
        self.statistics.blocks_decoded += 1;
        self.statistics.instructions_decoded += ops.len() as u64;
        self.cache.insert(cpu, ops, location.physical, wide, host.as_ptr() as usize);
        true
    }

    /// Executes one instruction, or notes that there is a breakpoint at it.
    fn step_unless_breakpoint(&mut self, cpu: &mut Vcpu<B>) {
        let linear = cpu.state.segment(Seg::Cs).base().wrapping_add(cpu.state.eip);
        if self.breakpoints.at(linear) {
            self.at_breakpoint = true;
        } else {
            self.step_once(cpu);
        }
    }

    /// Executes one instruction without using or keeping a block.
    fn step_once(&mut self, cpu: &mut Vcpu<B>) {
        self.statistics.single_steps += 1;
        self.statistics.instructions += 1;
        let shadow = std::mem::take(&mut cpu.state.interrupt_shadow);
        let stepped = cpu.state.eflags & eflags::TF != 0;
        let start = cpu.state.eip;
        let esp = cpu.state.gpr[ESP as usize];
        let location = match Self::next_location(cpu, shadow) {
            Ok(location) => location,
            Err(fault) => return self.deliver(cpu, fault),
        };
        let (result, ends) = match self.known_step(cpu, &location) {
            Some(op) => execute_one(cpu, op, start),
            None => match self.fetch_one(cpu, &location) {
                Ok(op) => execute_one(cpu, &op, start),
                Err(fault) => return self.deliver(cpu, fault),
            },
        };
        if cpu.code.has_written() {
            self.take_own_writes(cpu);
        }
        match result {
            Ok(()) => {
                if cpu.state.interrupt_shadow == InterruptShadow::MovSs {
                    return;
                }
                if let Some(trap) = cpu.take_debug_trap(stepped && ends != Ends::Interrupt) {
                    self.deliver(cpu, trap);
                }
            }
            Err(fault) => {
                restore(cpu, &fault, start, esp);
                self.deliver(cpu, fault);
            }
        }
    }

    /// Where the next instruction is, if it may be executed.
    fn next_location(cpu: &mut Vcpu<B>, shadow: InterruptShadow) -> Exec<CodeLocation> {
        let location = cpu.translate_code(cpu.state.eip)?;
        if shadow != InterruptShadow::MovSs
            && let Some(fault) = cpu.instruction_breakpoint(location.linear)
        {
            return Err(fault);
        }
        Ok(location)
    }

    /// The bytes at a location if all that an instruction can have are on the page and in the segment. Of memory only: a device would
    /// notice.
    fn all_bytes(cpu: &mut Vcpu<B>, location: &CodeLocation) -> Option<u128> {
        if location.grant.read.is_none() || !location.grant.cacheable_code {
            return None;
        }
        let in_page = (PAGE_SIZE - location.physical % PAGE_SIZE) as usize;
        let in_segment = u64::from(cpu.state.segment(Seg::Cs).limit() - cpu.state.eip) + 1;
        if in_page < steps::BYTES || in_segment < steps::BYTES as u64 {
            return None;
        }
        fetch_all(cpu, location.linear).ok()
    }

    /// The instruction at a location, if it has been decoded before.
    fn known_step(&self, cpu: &mut Vcpu<B>, location: &CodeLocation) -> Option<&Op<B>> {
        let steps = self.steps.as_ref()?;
        let bytes = Self::all_bytes(cpu, location)?;
        steps.find(location.linear, bytes, cpu.code_is_32bit())
    }

    /// Fetches and decodes the instruction at EIP.
    fn fetch_one(&mut self, cpu: &mut Vcpu<B>, location: &CodeLocation) -> Exec<Op<B>> {
        let start = cpu.state.eip;
        let wide = cpu.code_is_32bit();
        let in_page = (PAGE_SIZE - location.physical % PAGE_SIZE) as usize;
        let limit = cpu.state.segment(Seg::Cs).limit();
        let in_segment = u64::from(limit - start) + 1;
        let available = (MAX_LENGTH as u64).min(in_segment) as usize;
        let mut bytes = [0; MAX_LENGTH];
        let mut fetched = 0;
        // First the bytes of this page: the next one may be missing, and need not exist.
        for wanted in [available.min(in_page), available] {
            fetch(cpu, location.linear, &mut bytes, &mut fetched, wanted)?;
            if let Outcome::Op(mut op, _) = decode(bytes.get(..wanted).unwrap_or(&bytes), wide) {
                op.comes_last();
                if let Some(steps) = &mut self.steps
                    && let Some(bytes) = Self::all_bytes(cpu, location)
                {
                    steps.put(location.linear, bytes, wide, op);
                }
                return Ok(op);
            }
        }
        Err(Fault::gp(0))
    }

    fn deliver(&mut self, cpu: &mut Vcpu<B>, fault: Fault) {
        if fault.is_retry() {
            return;
        }
        self.statistics.faults += 1;
        cpu.deliver_fault(fault);
        if cpu.code.has_written() {
            self.take_own_writes(cpu);
        }
    }
}

/// Fills `bytes` up to `wanted` from linear memory. Fetching meets no data breakpoint or watchpoint.
fn fetch<B: Bus>(
    cpu: &mut Vcpu<B>,
    linear: u32,
    bytes: &mut [u8],
    fetched: &mut usize,
    wanted: usize,
) -> Exec {
    let watched = (cpu.state.pending_debug, cpu.hooks.hit());
    let mut result = Ok(());
    while let Some(byte) = bytes.get_mut(*fetched).filter(|_| *fetched < wanted) {
        match cpu.read_linear_user(linear.wrapping_add(*fetched as u32)) {
            Ok(value) => *byte = value,
            Err(fault) => {
                result = Err(fault);
                break;
            }
        }
        *fetched += 1;
    }
    cpu.state.pending_debug = watched.0;
    cpu.hooks.set_hit(watched.1);
    result
}

/// The bytes at `linear`, lowest first; as many as [`steps::BYTES`], all on one page.
fn fetch_all<B: Bus>(cpu: &mut Vcpu<B>, linear: u32) -> Exec<u128> {
    const HALF: u32 = size_of::<u64>() as u32;
    let watched = (cpu.state.pending_debug, cpu.hooks.hit());
    let mut half = |at| cpu.read_linear_user::<u64>(linear.wrapping_add(at)).map(u128::from);
    let bytes = half(0).and_then(|low| Ok(low | half(HALF)? << u64::BITS));
    cpu.state.pending_debug = watched.0;
    cpu.hooks.set_hit(watched.1);
    bytes
}

/// Puts EIP and ESP back to where the faulting instruction found them.
#[inline(always)]
fn restore<B: Bus>(cpu: &mut Vcpu<B>, fault: &Fault, start: u32, esp: u32) {
    if !fault.in_new_task() {
        cpu.state.eip = start;
        cpu.state.gpr[ESP as usize] = esp;
    }
}

/// Runs an instruction on its own.
fn execute_one<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>, start: u32) -> (Exec, Ends) {
    cpu.state.eflags &= !eflags::RF;
    cpu.state.eip = start.wrapping_add(u32::from(op.len));
    ((op.handler)(cpu, op), op.ends)
}

/// Runs a block. Returns the number of instructions completed (or tried).
#[inline(always)]
fn execute<B: Bus>(block: &Block<B>, cpu: &mut Vcpu<B>, start: u32) -> (u64, Left) {
    let Some((last, body)) = block.ops.split_last() else { return (1, Left::CodeWritten) };
    let mut rest = body.iter();
    while let Some(op) = rest.next() {
        let esp = cpu.state.gpr[ESP as usize];
        let result = (op.handler)(cpu, op);
        if result.is_err() || cpu.code.has_written() {
            let index = body.len() - rest.len() - 1;
            if result == Err(Fault::BRANCH) {
                return branch(cpu, start, op, index);
            }
            return stop(block, cpu, start, index, esp, result);
        }
    }
    let esp = cpu.state.gpr[ESP as usize];
    cpu.state.eip = start.wrapping_add(u32::from(last.end));
    match (last.handler)(cpu, last) {
        Err(Fault::BRANCH) => branch(cpu, start, last, body.len()),
        Err(fault) => stop(block, cpu, start, body.len(), esp, Err(fault)),
        Ok(()) if cpu.code.has_written() => (block.ops.len() as u64, Left::CodeWritten),
        Ok(()) => (block.ops.len() as u64, Left::Done(last.ends)),
    }
}

/// Leaves a block by the taken conditional jump `op`, its instruction `index`.
#[inline(always)]
fn branch<B: Bus>(cpu: &mut Vcpu<B>, start: u32, op: &Op<B>, index: usize) -> (u64, Left) {
    let next = start.wrapping_add(u32::from(op.end));
    let target = next.wrapping_add(op.imm) & op.address_mask;
    let executed = index as u64 + 1;
    cpu.state.eip = next;
    match cpu.jump_near(target) {
        Ok(()) => (executed, Left::Done(Ends::Near)),
        Err(fault) => {
            cpu.state.eip = next.wrapping_sub(u32::from(op.len));
            (executed, Left::Faulted(fault))
        }
    }
}

/// Leaves a block before its end (or at its end with a fault): after instruction `index`, or, when that
/// faulted, before it.
#[cold]
#[inline(never)]
fn stop<B: Bus>(
    block: &Block<B>,
    cpu: &mut Vcpu<B>,
    start: u32,
    index: usize,
    esp: u32,
    result: Exec,
) -> (u64, Left) {
    let end_of = |index: usize| block.ops.get(index).map_or(0, |op| u32::from(op.end));
    let executed = index as u64 + 1;
    match result {
        Ok(()) => {
            cpu.state.eip = start.wrapping_add(end_of(index));
            (executed, Left::CodeWritten)
        }
        Err(fault) => {
            let before = index.checked_sub(1).map_or(0, end_of);
            restore(cpu, &fault, start.wrapping_add(before), esp);
            (executed, Left::Faulted(fault))
        }
    }
}
