//! The loop: finds shadow code for where the processor is, runs it over the bridge, and deals with why it was left.
#![expect(unsafe_code, reason = "enters shadow code, which uses the processor through pointers")]

mod in_place;
mod look;
mod make;

use super::asm::{Asm, R8, R13, W, at};
use super::bridge::{Bridge, Context, KNOWN, Known, Leave, SLOT_SHIFT};
use super::cache::{CacheError, CodeCache, Table, Tables};
use super::classify::Terminal;
use super::fpu;
use super::home::Home;
use super::links::Links;
use super::mode::{self, Mode};
use super::pages::{PageId, Pages};
use super::patched::Patched;
use super::perf::PerfMap;
use super::scanner::PAGE;
use super::space::{ExecMap, FarTable};
use super::statistics::{Sites, Statistics};
use super::translate::{Borrow, Counts, Fills, Places, Returns, Translator};
use super::trap::{self, Trap, Verdict};
use super::windowed::{self, WindowPolicy, Windowed};
use crate::cpu::bus::Bus;
use crate::cpu::direct::DirectMap;
use crate::cpu::registers::{cr0, eflags};
use crate::cpu::state::{Activity, InterruptShadow};
use crate::cpu::{Seg, Vcpu};
use crate::interp::{Exit, Interp};
use crate::lockstep::Witness;
use crate::shadow::devices::DeviceSites;
use in_place::{fill, give_flags, interpret, take_flags};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ffi::c_void;
use std::mem::offset_of;

/// How many exec maps are found without a look-up.
const RECENT: usize = KNOWN;
/// Most exec maps of one kind before all are forgotten: real-mode programs use many code segments.
const MOST_MAPS: usize = 256;
/// The same for those of all linear pages, 8 MiB each.
const MOST_WHOLE_MAPS: usize = 12;

/// The shadow engine. Like the interpreter it holds nothing architectural.
pub struct Shadow<B: Bus> {
    interp: Interp<B>,
    context: Home,
    cache: CodeCache,
    tables: Tables,
    translator: Translator,
    places: Places,
    miss_table: Table,
    miss_map: ExecMap,
    maps: Vec<ExecMap>,
    /// Exec maps by selector, by what all their modes have in common.
    far: HashMap<Mode, FarTable>,
    map_of: HashMap<Mode, usize>,
    /// The exec maps that were used last.
    recent: [Option<(Mode, usize)>; RECENT],
    links: Links,
    pages: Pages<B>,
    patched: Patched,
    generation: Option<u64>,
    counts: Counts,
    breakpoints: bool,
    /// Who compares it with the interpreter.
    witness: Option<Box<Witness>>,
    statistics: Statistics,
    sites: Sites,
    /// Instructions across page boundaries that were interpreted though both pages are known, and how often.
    crossings: HashMap<make::Crossing, u8>,
    /// Where one was left to the interpreter just now.
    crossing: Option<(Mode, u32)>,
    /// Instructions whose accesses meet devices.
    devices: DeviceSites,
    /// Where shadow code was left because an access was not plain.
    not_plain: Option<u32>,
    /// Windows, and who gets one.
    pub(super) windowed: Windowed,
    /// Where code of shadow pages starts, in ascending order.
    code_index: Vec<(u64, PageId)>,
    perf: PerfMap,
}

/// Called when shadow code in a window faulted.
unsafe fn decide<B: Bus>(engine: *mut c_void, access: &mut trap::Access<'_>) -> Verdict {
    // SAFETY: `enter` gave its own engine, which it does not use while shadow code runs.
    let engine = unsafe { &mut *engine.cast::<Shadow<B>>() };
    // SAFETY: as in `fill`.
    let cpu = unsafe { &mut *engine.context.vcpu.cast::<Vcpu<B>>() };
    engine.fault(cpu, access)
}

/// The machine's attention byte now, or what it would be.
fn attention<B: Bus>(cpu: &Vcpu<B>) -> u8 {
    match cpu.bus.attention_byte() {
        // SAFETY: the bus says where it is; whoever writes it meanwhile writes a byte.
        Some(byte) => unsafe { byte.read_volatile() },
        None if cpu.bus.attention(false) => u8::MAX,
        None if cpu.bus.attention(true) => ipc::board::attention::INTR as u8,
        None => 0,
    }
}

impl<B: Bus> Shadow<B> {
    /// An engine that has made no code yet.
    ///
    /// # Errors
    /// When the host has no room for its tables and code.
    pub fn new() -> Result<Self, CacheError> {
        Self::that_counts(Counts::Nothing)
    }

    fn that_counts(counts: Counts) -> Result<Self, CacheError> {
        let mut cache = CodeCache::new()?;
        let mut tables = Tables::new()?;
        let bridge = Bridge::install(&mut cache);
        let miss = Self::install_miss(&mut cache, &bridge);
        let returns = Returns::install(&mut cache, (counts == Counts::Loops).then_some(miss));
        let fills = Fills::install(&mut cache, miss);
        let links = Links::new()?;
        cache.seal_head();
        let no_room = || CacheError { what: "entry tables", error: rustix::io::Errno::NOMEM };
        let miss_table = tables.take(miss as u32).ok_or_else(no_room)?;
        let miss_map = ExecMap::whole(tables.address(miss_table))?;
        let mut context = Home::new(Context::new(fill::<B>, interpret::<B>))?;
        context.set_stack_end(returns.unknown);
        context.maps[1] = miss_map.address();
        context.exec.fill(miss_map.address());
        context.link_logs = links.logs();
        let places =
            Places { bridge, miss, returns, fills, attention: offset_of!(Context, own_attention) as i32 };
        let mut interp = Interp::new();
        interp.serve_shadow();
        interp.remember_steps();
        Ok(Self {
            interp,
            context,
            cache,
            tables,
            links,
            translator: Translator::new(places),
            places,
            miss_table,
            miss_map,
            maps: Vec::new(),
            far: HashMap::new(),
            map_of: HashMap::new(),
            recent: [None; RECENT],
            pages: Pages::default(),
            patched: Patched::default(),
            generation: None,
            counts,
            breakpoints: false,
            witness: None,
            statistics: Statistics::default(),
            sites: Sites::default(),
            crossings: HashMap::new(),
            crossing: None,
            devices: DeviceSites::default(),
            not_plain: None,
            windowed: Windowed::default(),
            code_index: Vec::new(),
            perf: PerfMap::from_environment(),
        })
    }

    /// An engine whose code is as in machines, but that it counts loops: [`Shadow::run`] returns after about as many as its budget says. For
    /// comparisons.
    ///
    /// # Errors
    /// As [`Shadow::new`].
    pub fn that_counts_loops() -> Result<Self, CacheError> {
        Self::that_counts(Counts::Loops)
    }

    /// An engine that is compared with the interpreter all the time, see [`crate::lockstep`].
    ///
    /// # Errors
    /// As [`Shadow::new`].
    pub fn in_lockstep() -> Result<Self, CacheError> {
        // So that each run ends.
        let mut shadow = Self::that_counts(Counts::Loops)?;
        let witness =
            Witness::new().map_err(|error| CacheError { what: "comparison with the interpreter", error })?;
        shadow.witness = Some(Box::new(witness));
        shadow.context.in_lockstep = true;
        Ok(shadow)
    }

    /// In lockstep: a report on the first difference.
    pub fn difference(&self) -> Option<&str> {
        self.witness.as_ref()?.difference()
    }

    /// In lockstep: how often shadow code would have used a translation that is no longer in the page tables.
    pub fn outdated(&self) -> u64 {
        self.witness.as_ref().map_or(0, |witness| witness.outdated())
    }

    /// In lockstep: how many differences came when shadow code ran up to many polls, and not when it stopped at each of them.
    pub fn vanished(&self) -> u64 {
        self.witness.as_ref().map_or(0, |witness| witness.vanished())
    }

    /// In lockstep: how many instructions of shadow code were compared.
    pub fn compared(&self) -> u64 {
        self.witness.as_ref().map_or(0, |witness| witness.instructions())
    }

    fn install_miss(cache: &mut CodeCache, bridge: &Bridge) -> u64 {
        let mut asm = Asm::new(cache.next());
        asm.store(W::Q, at(R13, offset_of!(Context, target) as i32), R8);
        asm.store_imm(W::D, at(R13, offset_of!(Context, leave) as i32), Leave::Miss as i32);
        asm.jmp_to(bridge.to_host);
        cache.append(&asm.code).unwrap_or_else(|| unreachable!("an empty cache has room"))
    }

    /// Makes shadow code count its polls, so that [`Shadow::run`] returns after about as many as its budget says even when
    /// nobody asks for attention. For machines without anybody who would.
    pub fn set_counting(&mut self) {
        self.counts = Counts::All;
    }

    /// Which address spaces get a window from now on. Where the host has none for us, none do.
    pub fn use_windows(&mut self, policy: WindowPolicy) {
        self.windowed =
            if self.context.in_lockstep { Windowed::for_covered(policy) } else { Windowed::new(policy) };
    }

    /// What has been done so far.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            pages: self.pages.count() as u64,
            code_used: self.cache.used() as u64,
            in_place: self.context.in_place,
            windows: self.windowed.statistics(),
            ..self.statistics
        }
    }

    /// The interpreter that does what is not plain.
    pub fn interpreter(&self) -> &Interp<B> {
        &self.interp
    }

    /// Instructions that were interpreted, in place or not.
    pub fn interpreted(&self) -> u64 {
        self.interp.statistics().instructions + self.context.in_place.iter().sum::<u64>()
    }

    /// Forgets all code (after guest memory was changed behind the bus, as by a restored snapshot).
    pub fn forget_code(&mut self, cpu: &mut Vcpu<B>) {
        self.interp.forget_code(cpu);
        self.drop_everything(cpu);
        self.windowed.windows.clear();
    }

    /// A debugger's breakpoints from now on. While there are any, everything is interpreted.
    pub fn set_breakpoints(&mut self, cpu: &mut Vcpu<B>, addresses: &BTreeSet<u32>) {
        self.breakpoints = !addresses.is_empty();
        self.interp.set_breakpoints(cpu, addresses);
    }

    /// Executes exactly one instruction, see [`Interp::step`].
    pub fn step(&mut self, cpu: &mut Vcpu<B>) -> Exit {
        let exit = self.interp.step(cpu);
        self.follow_writes(cpu);
        exit
    }

    /// Runs the guest until something wants the monitor.
    pub fn run(&mut self, cpu: &mut Vcpu<B>, budget: u64) -> Exit {
        if cpu.direct().is_none() {
            match DirectMap::new() {
                Ok(map) => cpu.set_direct(map),
                // Without it everything is interpreted.
                Err(_) => return self.interp.run(cpu, budget),
            }
        }
        if !trap::prepare_thread() || !self.watch_attention(cpu) {
            return self.interp.run(cpu, budget);
        }
        if self.windowed.is_on() {
            self.windowed.prepare(cpu);
        }
        self.follow_device_writes(cpu);
        self.context.budget = budget.max(1) as i64;
        let mut left = budget.max(1);
        let exit = loop {
            if self.must_interpret(cpu) {
                self.unload_fpu(cpu);
                let exit = self.interp.run(cpu, 1);
                self.statistics.declined += 1;
                self.follow_writes(cpu);
                left = left.saturating_sub(1);
                match exit {
                    Exit::Budget if left > 0 => continue,
                    exit => break exit,
                }
            }
            self.follow(cpu);
            let interpret = match Mode::of(cpu) {
                Ok(mode) => {
                    let mode = self.windowed.back_end(cpu, mode);
                    self.run_shadow(cpu, mode)
                }
                Err(_) => {
                    self.unload_fpu(cpu);
                    self.statistics.declined += 1;
                    true
                }
            };
            if self.context.in_lockstep && self.difference().is_some() {
                break Exit::Difference;
            }
            // Where each instruction faults, this is all that counts.
            self.context.budget -= 1;
            if interpret {
                let accesses = cpu.device_accesses;
                let exit = self.interp.run(cpu, 1);
                self.follow_writes(cpu);
                if let Some((mode, linear)) = self.crossing.take() {
                    self.crossed(cpu, mode, linear);
                }
                if let Some(linear) = self.not_plain.take()
                    && cpu.device_accesses != accesses
                {
                    self.met_device(cpu, linear);
                }
                left = left.saturating_sub(1);
                if exit != Exit::Budget {
                    break exit;
                }
            }
            // The boundary after STI or MOV SS is none where the monitor could do anything.
            if cpu.wants_attention() && cpu.state.interrupt_shadow == InterruptShadow::None {
                self.follow_device_writes(cpu);
                break Exit::Attention;
            }
            if left == 0 || self.context.budget <= 0 {
                break Exit::Budget;
            }
        };
        self.unload_fpu(cpu);
        cpu.sync_flags();
        exit
    }

    /// Makes sure that shadow code polls this machine's attention byte. False: the host cannot map it.
    #[inline]
    fn watch_attention(&mut self, cpu: &mut Vcpu<B>) -> bool {
        let byte = cpu.bus.attention_byte().filter(|_| !self.context.in_lockstep);
        if byte == self.context.watched() {
            return true;
        }
        self.change_attention(cpu, byte)
    }

    #[cold]
    fn change_attention(&mut self, cpu: &mut Vcpu<B>, byte: Option<*const u8>) -> bool {
        let distance = match byte {
            None => offset_of!(Context, own_attention) as i32,
            Some(byte) => match self.context.watch(byte) {
                Some(distance) => distance,
                None => return false,
            },
        };
        if self.places.attention != distance {
            self.places.attention = distance;
            self.translator = Translator::new(self.places);
            self.drop_everything(cpu);
        }
        true
    }

    /// Whether the state is one that only the interpreter handles, boundaries between instructions included.
    #[inline]
    fn must_interpret(&self, cpu: &Vcpu<B>) -> bool {
        cpu.state.eflags & (eflags::TF | eflags::RF) != 0
            || cpu.state.interrupt_shadow != InterruptShadow::None
            || cpu.state.activity != Activity::Running
            || cpu.state.pending_debug != 0
            || self.breakpoints
            || cpu.breakpoints_enabled()
            || cpu.hooks.watches_data()
    }

    /// Takes over what has changed since shadow code last ran: the map, translations, written code.
    #[inline]
    fn follow(&mut self, cpu: &mut Vcpu<B>) {
        self.follow_writes(cpu);
        let generation = cpu.bus.map_generation();
        if self.generation != Some(generation) {
            self.generation = Some(generation);
            cpu.sync_map();
            self.revalidate(cpu);
            self.windowed.windows.clear();
        }
        if cpu.direct().is_some_and(|map| map.has_flushes()) {
            self.follow_flushes(cpu);
        }
    }

    #[cold]
    fn follow_flushes(&mut self, cpu: &mut Vcpu<B>) {
        let Some(direct) = cpu.direct() else { return };
        for flush in direct.take_flushes() {
            for map in &mut self.maps {
                if map.flush(flush) {
                    self.links.forget(&mut self.context.link_logs, map.user);
                }
            }
            self.windowed.flush(flush);
        }
    }

    /// Runs shadow code from where the processor is. True when the next instruction is to be interpreted.
    #[inline]
    fn run_shadow(&mut self, cpu: &mut Vcpu<B>, mode: Mode) -> bool {
        let map = match self.recent.iter().position(|recent| recent.is_some_and(|(known, _)| known == mode)) {
            Some(n) => self.recent[n].map_or(0, |(_, map)| map),
            None => match self.map_for(mode) {
                Ok(map) => map,
                Err(_) => {
                    self.unload_fpu(cpu);
                    return true;
                }
            },
        };
        let Some(code) = self.find_code(cpu, mode, map) else {
            self.unload_fpu(cpu);
            return true;
        };
        if self.context.in_lockstep {
            self.enter_watched(cpu, mode, map, code)
        } else {
            self.enter(cpu, mode, map, code)
        }
    }

    /// [`Shadow::enter`] under the eyes of the witness.
    #[cold]
    fn enter_watched(&mut self, cpu: &mut Vcpu<B>, mode: Mode, map: usize, code: u64) -> bool {
        let Some(mut witness) = self.witness.take() else { return true };
        self.unload_fpu(cpu);
        self.windowed.follow_protection(cpu);
        witness.before(cpu);
        let budget = std::mem::replace(&mut self.context.budget, witness.polls());
        let interpret = self.enter(cpu, mode, map, code);
        self.unload_fpu(cpu);
        if mode.window()
            && let Some(page) = self.windowed.uncover()
        {
            witness.note_outdated(page);
        }
        let instructions = witness.after(cpu, mode, interpret, || self.host_code(code));
        self.context.budget = budget.saturating_sub_unsigned(instructions.unwrap_or(0));
        self.witness = Some(witness);
        interpret && instructions.is_some()
    }

    #[cold]
    fn map_for(&mut self, mode: Mode) -> Result<usize, CacheError> {
        let map = match self.map_of.get(&mode) {
            Some(map) => *map,
            None => {
                let whole = self.maps.iter().filter(|map| map.is_whole()).count();
                if self.maps.len() >= MOST_MAPS || whole >= MOST_WHOLE_MAPS {
                    self.maps.clear();
                    self.forget_links();
                    self.far.clear();
                    self.map_of.clear();
                    self.recent = [None; RECENT];
                    self.context.known = [None; KNOWN];
                }
                let mut map = ExecMap::new(mode, self.tables.address(self.miss_table))?;
                if mode.segmented() {
                    let far = match self.far.entry(mode.with_cs_base(0)) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(new) => new.insert(FarTable::new()?),
                    };
                    far.set(mode.cs_base, &map, &self.miss_map);
                    map.far = far.address();
                }
                self.maps.push(map);
                self.map_of.insert(mode, self.maps.len() - 1);
                self.maps.len() - 1
            }
        };
        self.recent.rotate_right(1);
        self.recent[0] = Some((mode, map));
        let exec = &self.maps[map];
        self.context.known.rotate_right(1);
        self.context.known[0] = Some(Known { mode, exec: exec.address(), far: exec.far });
        Ok(map)
    }

    /// All links are looked up again.
    fn forget_links(&mut self) {
        for user in [false, true] {
            self.links.forget(&mut self.context.link_logs, user);
        }
    }

    /// The shadow code of the instruction at CS:EIP; made, if there is none. `None`: it is to be interpreted.
    #[inline]
    fn find_code(&mut self, cpu: &mut Vcpu<B>, mode: Mode, map: usize) -> Option<u64> {
        let linear = mode.linear(cpu.state.eip);
        let page = linear & !(PAGE as u32 - 1);
        let offset = (linear & (PAGE as u32 - 1)) as usize;
        if self.maps[map].knows(page)
            && let Some(table) = self.maps[map].table(page)
        {
            // SAFETY: what an exec map leads to is one of `tables`, and `offset` is within it.
            let entry = unsafe { (table as *const u32).add(offset).read() };
            if u64::from(entry) != self.places.miss {
                return Some(u64::from(entry));
            }
        }
        self.make_code(cpu, mode, map, offset)
    }

    /// The guest instruction whose code is at `at`: its EIP, what it has borrowed, and where its faults leave.
    fn instruction_at(&self, mode: Mode, at: u64) -> Option<(u32, Option<Borrow>, Option<u64>)> {
        let behind = self.code_index.partition_point(|(start, _)| *start <= at);
        let (_, id) = *self.code_index.get(behind.checked_sub(1)?)?;
        let page = self.pages.get(id);
        let unit = page.units.iter().find(|unit| unit.instruction_at(at).is_some())?;
        let (offset, start) = unit.instruction_at(at)?;
        let borrow = unit.borrows.iter().find(|(borrower, _)| *borrower == offset).map(|(_, what)| *what);
        let way_out = unit.ways_out.iter().find(|(leaver, _)| *leaver == start);
        let way_out = way_out.map(|(_, place)| unit.code + u64::from(*place));
        Some((mode.eip(page.linear.wrapping_add(u32::from(offset))), borrow, way_out))
    }

    /// Shadow code faulted: maps the page if the access is a plain one, or leaves the instruction to the interpreter.
    fn fault(&mut self, cpu: &mut Vcpu<B>, access: &mut trap::Access<'_>) -> Verdict {
        // A call with the return stack full: all predictions are dropped. Calls by links do not poll.
        if access.address.is_some_and(|address| self.context.guard().contains(&address)) {
            if attention(cpu) != 0 {
                self.forget_links();
            }
            access.set_stack(self.context.stack_top());
            return Verdict::Retry;
        }
        let Some(mode) = self.context.mode else { return Verdict::Crash };
        let Some((eip, borrow, way_out)) = self.instruction_at(mode, access.at) else {
            return Verdict::Crash;
        };
        match self.windowed.access(cpu, access) {
            Verdict::Continue(_) => {}
            verdict => return verdict,
        }
        match borrow {
            Some(Borrow::Destination) => access.return_destination(),
            Some(Borrow::Count) => access.return_count(),
            None => {}
        }
        cpu.state.eip = eip;
        let float = self.context.fpu_loaded != 0;
        self.context.leave = if float { Leave::InterpretFloat } else { Leave::Interpret } as u32;
        Verdict::Continue(way_out.unwrap_or(self.context.to_host))
    }

    /// Runs shadow code. True when the next instruction is to be interpreted.
    #[inline]
    fn enter(&mut self, cpu: &mut Vcpu<B>, mode: Mode, map: usize, code: u64) -> bool {
        let map = &self.maps[map];
        self.context.far = map.far;
        self.enter_map(cpu, mode, map.address(), code)
    }

    /// [`Shadow::enter`] with the exec map at `exec`.
    fn enter_map(&mut self, cpu: &mut Vcpu<B>, mode: Mode, exec: u64, code: u64) -> bool {
        self.context.sides = cpu.direct().map_or([0; 2], |direct| {
            [false, true].map(|user| direct.address(user).wrapping_add(SLOT_SHIFT as u64))
        });
        if self.context.fpu_loaded != 0 && cpu.state.cr0 & (cr0::EM | cr0::TS) != 0 {
            self.unload_fpu(cpu);
        }
        let (r15, stack_base) = if mode.window() {
            match self.windowed.address(cpu) {
                Some(window) => (window.wrapping_add(SLOT_SHIFT as u64), window),
                // It has just been lost.
                None => return true,
            }
        } else {
            (self.context.sides[usize::from(mode.user())], 0)
        };
        let window = self.windowed.settled(cpu).unwrap_or(0);
        let trap = Trap { code: self.cache.range(), engine: (&raw mut *self).cast(), decide: decide::<B> };
        let context = &mut *self.context;
        if !cpu.protected_mode() {
            context.descriptors.forget();
        }
        context.stack_base = stack_base;
        context.exec[0] = exec;
        context.maps[0] = exec;
        context.mode = Some(mode.without_window());
        // Code that counts relies on the monitor to see that it goes on.
        context.redirects = self.counts == Counts::Nothing;
        context.windows = self.windowed.is_on();
        context.window = window;
        context.left_user = 0;
        context.generation = cpu.bus.map_generation();
        give_flags(context, cpu);
        if context.in_lockstep {
            // What is pending and not wanted yet ends the run when it is: interrupts may be enabled for one instruction only.
            context.own_attention = if context.budget == 1 { u8::MAX } else { attention(cpu) };
        }
        context.attention =
            (&raw const *context).cast::<u8>().wrapping_byte_offset(self.places.attention as isize);
        context.slots = r15;
        context.state = &raw mut cpu.state;
        context.vcpu = std::ptr::from_mut(cpu).cast();
        self.statistics.entries += 1;
        let bridge = self.places.bridge;
        // SAFETY: `code` comes from an entry table of this mode, or is where such code was left; the pointers are those of
        // `cpu`, which is not used before this returns.
        let run = || unsafe { bridge.task_switch(context, code) };
        if self.windowed.measures(mode) {
            let (start, cr3) = (windowed::ticks(), cpu.state.cr3);
            trap::guard(&trap, run);
            let end = match self.context.left_user {
                0 => windowed::ticks(),
                end => end,
            };
            self.windowed.note_time(cr3, end.wrapping_sub(start));
        } else {
            trap::guard(&trap, run);
        }
        self.windowed.left();
        let context = &mut *self.context;
        if context.fpu_loaded != 0 {
            fpu::resolve(&mut cpu.state, context);
        }
        if context.leave == Leave::Done as u32 {
            return false;
        }
        if context.leave == Leave::Fault as u32 {
            if let Some(fault) = context.fault.take() {
                self.interp.deliver_fault(cpu, fault);
            }
            return false;
        }
        take_flags(context, cpu);
        // Instructions interpreted in place and far transfers may have led elsewhere.
        let in_window = context.stack_base != 0;
        let mode = context.mode.map_or(mode, |now| if in_window { now.in_window() } else { now });
        let mode = mode.with_cs_base(cpu.state.segment(Seg::Cs).base());
        match context.leave {
            leave if leave == Leave::Miss as u32 => {
                cpu.state.eip = mode.eip(context.target as u32);
                self.statistics.misses += 1;
                false
            }
            leave if leave == Leave::Attention as u32 => false,
            leave if leave == Leave::LoadFpu as u32 => {
                let (resume, exec) = (context.target, context.maps[0]);
                if self.load_fpu(cpu) {
                    return self.enter_map(cpu, mode, exec, resume);
                }
                true
            }
            leave => {
                match std::mem::take(&mut context.terminal) {
                    0 => {
                        self.statistics.not_plain += 1;
                        self.not_plain = Some(mode.linear(cpu.state.eip));
                    }
                    kind => {
                        self.count_terminal(cpu, kind as usize - 1);
                        if kind == Terminal::Boundary as u32 + 1 {
                            self.crossing = Some((mode, mode.linear(cpu.state.eip)));
                        }
                    }
                }
                if leave == Leave::InterpretFloat as u32 {
                    self.unload_fpu(cpu);
                }
                true
            }
        }
    }

    fn count_terminal(&mut self, cpu: &Vcpu<B>, kind: usize) {
        if let Some(count) = self.statistics.terminal.get_mut(kind) {
            *count += 1;
        }
        self.sites.note(cpu.state.segment(Seg::Cs).base().wrapping_add(cpu.state.eip));
    }

    /// Makes the guest's floating-point state that of shadow code. False when its instructions are to be interpreted.
    fn load_fpu(&mut self, cpu: &mut Vcpu<B>) -> bool {
        if !mode::fpu_is_plain(cpu) {
            return false;
        }
        fpu::load(&mut cpu.state, &mut self.context);
        true
    }

    /// Takes the floating-point state back, for whoever looks at it.
    pub(crate) fn unload_fpu(&mut self, cpu: &mut Vcpu<B>) {
        if self.context.fpu_loaded != 0 {
            fpu::unload(&mut cpu.state, &mut self.context);
        }
    }
}
