//! The loop: finds shadow code for where the processor is, runs it over the bridge, and deals with why it was left.
#![expect(unsafe_code, reason = "enters shadow code, which uses the processor through pointers")]

use super::asm::{Asm, R8, R13, W, at};
use super::bridge::{Bridge, Context, Leave, SLOT_SHIFT};
use super::cache::{CacheError, CodeCache, Table, Tables};
use super::classify::Terminal;
use super::fpu;
use super::listing;
use super::mode::{self, Mode};
use super::pages::{PageId, Pages, ShadowPage, ShadowUnit};
use super::scanner::{self, CodeBytes, PAGE};
use super::space::{self, ExecMap};
use super::statistics::{Sites, Statistics};
use super::translate::{Places, Target, Translator, access};
use super::trap::{self, Trap, Verdict};
use super::windowed::{self, WindowPolicy, Windowed};
use crate::cpu::bus::{Bus, PAGE_SIZE};
use crate::cpu::direct::{DirectMap, Flush};
use crate::cpu::registers::{cr0, eflags, gpr};
use crate::cpu::state::{Activity, InterruptShadow};
use crate::cpu::{CodeLocation, Seg, Vcpu};
use crate::interp::op::Op;
use crate::interp::{Exit, Interp};
use crate::lockstep::{HostCode, Witness};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::c_void;
use std::mem::offset_of;
use std::pin::Pin;

/// What shadow code polls where a machine has nobody who could want attention.
static NO_ATTENTION: u8 = 0;
/// What shadow code polls that is to stop at every poll.
static ALL_ATTENTION: u8 = u8::MAX;

/// Most instructions across page boundaries that are remembered.
const MOST_CROSSINGS: usize = 4096;
/// The same for those of all linear pages, 8 MiB each.
const MOST_WHOLE_MAPS: usize = 12;
/// How many exec maps are found without a look-up: kernel and user with and without something.
const RECENT: usize = 4;
/// Most exec maps of one kind before all are forgotten: real-mode programs use many code segments.
const MOST_MAPS: usize = 256;
/// The attention bit of an interrupt, which counts only while EFLAGS.IF is set.
const INTR: u8 = ipc::board::attention::INTR as u8;

/// The page behind one that is being made into code.
struct NextPage {
    host: *mut u8,
    physical: u64,
    /// What the exec map says of it.
    entry: u64,
}

/// The shadow engine. Like the interpreter it holds nothing architectural.
pub struct Shadow<B: Bus> {
    interp: Interp<B>,
    context: Pin<Box<Context>>,
    cache: CodeCache,
    tables: Tables,
    translator: Translator,
    places: Places,
    miss_table: Table,
    #[expect(dead_code, reason = "shadow code has its address")]
    miss_map: ExecMap,
    maps: Vec<ExecMap>,
    map_of: HashMap<Mode, usize>,
    /// The exec maps that were used last.
    recent: [Option<(Mode, usize)>; RECENT],
    pages: Pages<B>,
    generation: Option<u64>,
    counts: bool,
    breakpoints: bool,
    /// Who compares it with the interpreter.
    witness: Option<Box<Witness>>,
    statistics: Statistics,
    sites: Sites,
    /// Instructions across page boundaries whose units have been made anew: where, and both pages.
    crossings: HashSet<(u32, u64, u64)>,
    /// Where one was left to the interpreter just now.
    crossing: Option<(Mode, u32)>,
    /// Windows, and who gets one.
    pub(super) windowed: Windowed,
    /// Where code of shadow pages starts, in ascending order.
    code_index: Vec<(u64, PageId)>,
}

/// Called by shadow code whose access met an empty slot: R8D and R9D.
unsafe extern "sysv64" fn fill<B: Bus>(cpu: *mut c_void, linear: u32, bits: u32) -> u32 {
    // SAFETY: `Context::vcpu` is set from the `&mut Vcpu<B>` of `enter`, which is not used while shadow code runs.
    let cpu = unsafe { &mut *cpu.cast::<Vcpu<B>>() };
    u32::from(cpu.make_direct(linear, bits & access::SIZE, bits & access::WRITE != 0))
}

/// Called by shadow code that came to a terminal instruction: it is interpreted in place. Shadow code goes on (zero) when nothing
/// changed but what it could not tell from any other instruction.
unsafe extern "sysv64" fn interpret<B: Bus>(context: *mut Context, op: *const c_void) -> u32 {
    // SAFETY: R13, which is the context that `task_switch` got; nobody uses it while shadow code runs.
    let context = unsafe { &mut *context };
    // SAFETY: as in `fill`.
    let cpu = unsafe { &mut *context.vcpu.cast::<Vcpu<B>>() };
    // SAFETY: shadow code has the addresses of its own unit's operations, which live as long as the unit is entered.
    let op = unsafe { &*op.cast::<Op<B>>() };
    if context.in_lockstep && !stays_covered(context.terminal) {
        cpu.state.eip = cpu.state.eip.wrapping_sub(u32::from(op.len));
        context.leave = Leave::InterpretFloat as u32;
        return 1;
    }
    if let Some(count) = context.in_place.get_mut((context.terminal as usize).wrapping_sub(1)) {
        *count += 1;
    }
    context.terminal = 0;
    take_flags(context, cpu);
    let next = cpu.state.eip;
    let esp = cpu.state.gpr[gpr::ESP];
    if let Err(fault) = (op.handler)(cpu, op) {
        if !fault.in_new_task() {
            cpu.state.eip = next.wrapping_sub(u32::from(op.len));
            cpu.state.gpr[gpr::ESP] = esp;
        }
        context.fault = Some(fault);
        context.leave = Leave::Fault as u32;
        return 1;
    }
    let goes_on = cpu.state.eip == next
        && !cpu.code.has_written()
        && cpu.hooks.hit().is_none()
        && cpu.state.activity == Activity::Running
        && cpu.state.pending_debug == 0
        && cpu.state.interrupt_shadow == InterruptShadow::None
        && cpu.state.eflags & (eflags::TF | eflags::RF) == 0
        && !cpu.wants_attention()
        && cpu.bus.map_generation() == context.generation
        && !cpu.direct().is_some_and(|map| map.has_flushes())
        && !cpu.breakpoints_enabled()
        && (context.fpu_loaded == 0 || cpu.state.cr0 & (cr0::EM | cr0::TS) == 0)
        && Mode::of(cpu).ok() == context.mode;
    if !goes_on {
        context.leave = Leave::Done as u32;
        return 1;
    }
    give_flags(context, cpu);
    0
}

/// Whether a terminal instruction does nothing that the copies of lockstep could not take back, and stores no flags, of which some
/// may be undefined.
fn stays_covered(terminal: u32) -> bool {
    let kinds = [Terminal::Segment, Terminal::Float, Terminal::Rare];
    kinds.into_iter().any(|kind| kind as u32 + 1 == terminal)
}

/// What shadow code does with arithmetic flags, DF and IF is the processor's from now on.
fn take_flags<B: Bus>(context: &Context, cpu: &mut Vcpu<B>) {
    cpu.lazy.set_bits(from_host_flags(context.flags));
    let df = if context.direction < 0 { eflags::DF } else { 0 };
    cpu.state.eflags = cpu.state.eflags & !eflags::DF | df;
}

/// The reverse of [`take_flags`].
fn give_flags<B: Bus>(context: &mut Context, cpu: &Vcpu<B>) {
    let interrupts = cpu.state.eflags & eflags::IF != 0;
    context.flags = to_host_flags(cpu.lazy.to_bits());
    context.direction = mode::direction(cpu.state.eflags);
    context.exec[usize::from(INTR)] = context.maps[usize::from(interrupts)];
    context.wanted = if interrupts { u8::MAX } else { !INTR };
}

/// Called when shadow code in a window faulted.
unsafe fn decide<B: Bus>(engine: *mut c_void, access: &mut trap::Access<'_>) -> Verdict {
    // SAFETY: `enter` gave its own engine, which it does not use while shadow code runs.
    let engine = unsafe { &mut *engine.cast::<Shadow<B>>() };
    // SAFETY: as in `fill`.
    let cpu = unsafe { &mut *engine.context.vcpu.cast::<Vcpu<B>>() };
    engine.fault(cpu, access)
}

impl<B: Bus> Shadow<B> {
    /// An engine that has made no code yet.
    ///
    /// # Errors
    /// When the host has no room for its tables and code.
    pub fn new() -> Result<Self, CacheError> {
        let mut cache = CodeCache::new()?;
        let mut tables = Tables::new()?;
        let bridge = Bridge::install(&mut cache);
        let miss = Self::install_miss(&mut cache, &bridge);
        cache.seal_head();
        let no_room = || CacheError { what: "entry tables", error: rustix::io::Errno::NOMEM };
        let miss_table = tables.take(miss as u32).ok_or_else(no_room)?;
        let miss_map = ExecMap::whole(tables.address(miss_table))?;
        let mut context = Context::new(fill::<B>, interpret::<B>);
        context.maps[1] = miss_map.address();
        context.exec.fill(miss_map.address());
        let places = Places { bridge, miss };
        let mut interp = Interp::new();
        interp.serve_shadow();
        Ok(Self {
            interp,
            context: Pin::new(context),
            cache,
            tables,
            translator: Translator::new(places),
            places,
            miss_table,
            miss_map,
            maps: Vec::new(),
            map_of: HashMap::new(),
            recent: [None; RECENT],
            pages: Pages::default(),
            generation: None,
            counts: false,
            breakpoints: false,
            witness: None,
            statistics: Statistics::default(),
            sites: Sites::default(),
            crossings: HashSet::new(),
            crossing: None,
            windowed: Windowed::default(),
            code_index: Vec::new(),
        })
    }

    /// An engine that is compared with the interpreter all the time, see [`crate::lockstep`].
    ///
    /// # Errors
    /// As [`Shadow::new`].
    pub fn in_lockstep() -> Result<Self, CacheError> {
        let mut shadow = Self::new()?;
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
        self.counts = true;
    }

    /// Which address spaces get a window from now on. Where the host has none for us, none do.
    pub fn use_windows(&mut self, policy: WindowPolicy) {
        self.windowed = Windowed::new(policy);
    }

    /// What has been done so far.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            pages: self.pages.count() as u64,
            code_used: self.cache.used() as u64,
            in_place: self.context.in_place,
            windows: self.windowed.windows.statistics(),
            ..self.statistics
        }
    }

    /// The interpreter that does what is not plain.
    pub fn interpreter(&self) -> &Interp<B> {
        &self.interp
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
        if self.windowed.is_on() && !self.windowed.prepare(cpu) {
            self.use_windows(WindowPolicy::Off);
        }
        // What devices wrote meanwhile.
        self.interp.drop_written(cpu);
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
                let exit = self.interp.run(cpu, 1);
                self.follow_writes(cpu);
                if let Some((mode, linear)) = self.crossing.take() {
                    self.crossed(cpu, mode, linear);
                }
                left = left.saturating_sub(1);
                if exit != Exit::Budget {
                    break exit;
                }
            }
            // The boundary after STI or MOV SS is none where the monitor could do anything.
            if cpu.wants_attention() && cpu.state.interrupt_shadow == InterruptShadow::None {
                self.interp.drop_written(cpu);
                self.follow_writes(cpu);
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
            self.maps.iter_mut().for_each(|map| map.flush(flush));
            self.windowed.flush(flush);
        }
    }

    /// Drops what was written since, by the processor or by devices.
    fn follow_writes(&mut self, cpu: &mut Vcpu<B>) {
        while cpu.code.has_written() {
            self.interp.drop_written(cpu);
        }
        while let Some((physical, len)) = self.interp.take_dropped() {
            self.drop_range(cpu, physical, len);
        }
    }

    #[cold]
    fn drop_range(&mut self, cpu: &mut Vcpu<B>, physical: u64, len: u64) {
        let end = physical.saturating_add(len.max(1));
        let mut page = physical & !(PAGE_SIZE - 1);
        while page < end {
            if self.pages.is_shadowed(page) {
                let start = physical.max(page) - page;
                let stop = end.min(page + PAGE_SIZE) - page;
                let miss = self.places.miss as u32;
                let dropped = self.pages.drop_units(&mut self.tables, miss, page, start, stop);
                self.statistics.units_dropped += dropped as u64;
                self.mark_again(cpu, page);
            }
            page += PAGE_SIZE;
        }
    }

    /// Marks what is still kept of a physical page, and nothing else.
    fn mark_again(&mut self, cpu: &mut Vcpu<B>, page: u64) {
        cpu.code.set_pinned(page, false);
        cpu.code.clear_marks(page);
        self.interp.mark_page(cpu, page);
        let mut any = false;
        for (start, end) in self.pages.ranges(page) {
            any = true;
            cpu.code.mark(page + u64::from(start), u32::from(end - start));
        }
        if any {
            cpu.code.set_pinned(page, true);
        } else if !self.interp.keeps_page(page) {
            cpu.unmark_code_page(page);
        }
    }

    /// After the memory map changed: drops the pages whose bytes are now elsewhere.
    fn revalidate(&mut self, cpu: &mut Vcpu<B>) {
        for (page, host) in self.pages.physical_pages() {
            let grant = cpu.bus.page(page);
            if !grant.cacheable_code || grant.read.map(|at| at.as_ptr() as usize) != Some(host) {
                // Entry tables remember where the bytes were: all must go, and be made anew.
                return self.drop_everything(cpu);
            }
        }
    }

    fn drop_everything(&mut self, cpu: &mut Vcpu<B>) {
        let physical = self.pages.physical_pages();
        self.pages.clear();
        self.tables.clear();
        let miss = self.places.miss as u32;
        let kept = self.tables.take(miss);
        debug_assert_eq!(kept, Some(self.miss_table));
        self.maps.iter_mut().for_each(|map| map.flush(Flush::All));
        self.cache.clear();
        self.code_index.clear();
        for (page, _) in physical {
            self.mark_again(cpu, page);
        }
        self.statistics.cache_flushes += 1;
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
        witness.before(cpu);
        let interpret = self.enter(cpu, mode, map, code);
        self.unload_fpu(cpu);
        let instructions = witness.after(cpu, mode, interpret, || self.host_code(code));
        self.context.budget = self.context.budget.saturating_sub_unsigned(instructions);
        self.witness = Some(witness);
        interpret
    }

    /// The shadow code of the page that the code at `code` belongs to.
    fn host_code(&self, code: u64) -> HostCode {
        let has = |unit: &&ShadowUnit<B>| (unit.code..unit.code + u64::from(unit.len)).contains(&code);
        let mut all = HostCode::new();
        let Some(page) = self.pages.iter().find(|page| page.units.iter().any(|unit| has(&unit))) else {
            return all;
        };
        for unit in &page.units {
            let mut places = unit.map.clone();
            places.sort_by_key(|(_, place)| *place);
            let ends = places.iter().skip(1).map(|(_, place)| *place).chain([unit.len]);
            for ((offset, place), end) in places.iter().zip(ends) {
                let address = unit.code + u64::from(*place);
                if let Some(code) = self.cache.code(address, (end - place) as usize) {
                    all.insert(*offset, (address, code.to_vec()));
                }
            }
        }
        all
    }

    #[cold]
    fn map_for(&mut self, mode: Mode) -> Result<usize, CacheError> {
        let map = match self.map_of.get(&mode) {
            Some(map) => *map,
            None => {
                let whole = self.maps.iter().filter(|map| map.is_whole()).count();
                if self.maps.len() >= MOST_MAPS || whole >= MOST_WHOLE_MAPS {
                    self.maps.clear();
                    self.map_of.clear();
                    self.recent = [None; RECENT];
                }
                self.maps.push(ExecMap::new(mode, self.tables.address(self.miss_table))?);
                self.map_of.insert(mode, self.maps.len() - 1);
                self.maps.len() - 1
            }
        };
        self.recent.rotate_right(1);
        self.recent[0] = Some((mode, map));
        Ok(map)
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

    #[cold]
    #[inline(never)]
    fn make_code(&mut self, cpu: &mut Vcpu<B>, mode: Mode, map: usize, offset: usize) -> Option<u64> {
        // A fault of it is the interpreter's.
        let location = cpu.translate_code(cpu.state.eip).ok()?;
        let id = self.page_for(cpu, mode, &location)?;
        let table = self.pages.get(id).table;
        let page = location.linear & !(PAGE as u32 - 1);
        let (global, large) = cpu.page_kind(page);
        let entry = self.tables.get(table, offset);
        let code = if u64::from(entry) == self.places.miss {
            self.translate(cpu, mode, id, &location, offset)?
        } else {
            u64::from(entry)
        };
        // A full cache has dropped everything: then the page is made anew at the next miss.
        if self.pages.find(location.physical & !(PAGE_SIZE - 1), page, mode) == Some(id) {
            self.maps[map].set(page, self.tables.address(table), global, large);
        }
        Some(code)
    }

    fn page_for(&mut self, cpu: &mut Vcpu<B>, mode: Mode, location: &CodeLocation) -> Option<PageId> {
        let host = location.grant.read.filter(|_| location.grant.cacheable_code)?;
        let physical = location.physical & !(PAGE_SIZE - 1);
        if physical > u64::from(u32::MAX) {
            return None;
        }
        let linear = location.linear & !(PAGE as u32 - 1);
        if let Some(id) = self.pages.find(physical, linear, mode) {
            return Some(id);
        }
        let miss = self.places.miss as u32;
        let table = match self.tables.take(miss) {
            Some(table) => table,
            None => {
                self.drop_everything(cpu);
                self.tables.take(miss)?
            }
        };
        let host = host.as_ptr() as usize;
        Some(self.pages.insert(ShadowPage { physical, linear, mode, host, table, units: Vec::new() }))
    }

    /// The page behind that of `location`, for instructions that reach into it; made a shadow page too, so that it can be told in the
    /// exec map.
    fn next_page(&mut self, cpu: &mut Vcpu<B>, mode: Mode, location: &CodeLocation) -> Option<NextPage> {
        let linear = (location.linear | (PAGE as u32 - 1)).checked_add(1)?;
        let (host, physical) = cpu.known_code_page(linear)?;
        let id = self.pages.find(physical, linear, mode)?;
        cpu.mark_code(physical, 1);
        cpu.code.set_pinned(physical, true);
        let entry = space::biased(self.tables.address(self.pages.get(id).table), linear);
        Some(NextPage { host: host.as_ptr(), physical, entry })
    }

    /// An instruction across the page's boundary was interpreted: when the next page has become known, its unit is made anew.
    #[cold]
    fn crossed(&mut self, cpu: &mut Vcpu<B>, mode: Mode, linear: u32) {
        if self.crossings.len() >= MOST_CROSSINGS {
            self.crossings.clear();
        }
        let next = (linear | (PAGE as u32 - 1)).wrapping_add(1);
        let known = |page| cpu.known_code_page(page).map(|(_, physical)| physical);
        let (Some(physical), Some(behind)) = (known(linear), known(next)) else { return };
        if self.pages.find(behind, next, mode).is_some() && self.crossings.insert((linear, physical, behind))
        {
            self.drop_range(cpu, physical | u64::from(linear % PAGE as u32), 1);
        }
    }

    /// Scans from `offset` and makes code.
    fn translate(
        &mut self,
        cpu: &mut Vcpu<B>,
        mode: Mode,
        id: PageId,
        location: &CodeLocation,
        offset: usize,
    ) -> Option<u64> {
        let physical = location.physical & !(PAGE_SIZE - 1);
        // Marked before it is read: a device that writes it from now on reports that.
        cpu.mark_code(location.physical, 1);
        cpu.code.set_pinned(physical, true);
        let next = self.next_page(cpu, mode, location);
        let host = location.grant.read?;
        let next_host = next.as_ref().map(|next| next.host.cast_const());
        // SAFETY: the bus granted both pages whole for reading; devices may write meanwhile, which they report.
        let bytes = unsafe { CodeBytes::copy(host.as_ptr(), next_host) };
        let page_eip = cpu.state.eip.wrapping_sub(offset as u32);
        let table = self.pages.get(id).table;
        let (tables, miss) = (&self.tables, self.places.miss as u32);
        let unit = scanner::scan(&bytes, mode, page_eip, offset as u16, |at| {
            tables.get(table, usize::from(at)) != miss
        });
        let target = Target {
            mode,
            page_eip,
            table: self.tables.address(table),
            next_page: next.as_ref().map(|next| next.entry),
            counts: self.counts,
        };
        let base = self.cache.next();
        let made = self.translator.translate(&unit, target, base);
        let mut ops = Vec::with_capacity(made.ops.len());
        for &(at, place) in &made.ops {
            let op = self.interp.decode_one(bytes.from(usize::from(at)), mode.code32())?;
            self.translator.set_address(place, std::ptr::from_ref::<Op<B>>(&op) as u64);
            ops.push(op);
        }
        let len = self.translator.code().len();
        let Some(code) = self.cache.append(self.translator.code()) else {
            self.drop_everything(cpu);
            return None;
        };
        let ranges = ShadowUnit::<B>::ranges_of(&unit);
        for &(start, end) in &ranges {
            cpu.mark_code(physical + u64::from(start), u32::from(end - start));
        }
        let spill = unit.spill().and_then(|bytes| next.map(|next| (next.physical, bytes)));
        if let Some((physical, bytes)) = spill {
            cpu.mark_code(physical, u32::from(bytes));
        }
        let mut found = None;
        for &(entry, place) in &made.entries {
            let at = code + u64::from(place);
            self.tables.set(table, usize::from(entry), at as u32);
            if usize::from(entry) == offset {
                found = Some(at);
            }
        }
        self.statistics.units += 1;
        self.statistics.instructions += unit.instructions.len() as u64;
        self.statistics.code_bytes += len as u64;
        let entries = made.entries.iter().map(|(entry, _)| *entry).collect();
        let unit = ShadowUnit {
            ops,
            spill,
            ranges,
            entries,
            borrows: made.borrows,
            map: made.map,
            stubs: made.stubs,
            code,
            len: len as u32,
        };
        self.pages.add_unit(id, unit);
        self.code_index.push((code, id));
        found
    }

    /// The guest instruction whose code is at `at`: its EIP, and whether it has borrowed a register.
    fn instruction_at(&self, mode: Mode, at: u64) -> Option<(u32, bool)> {
        let behind = self.code_index.partition_point(|(start, _)| *start <= at);
        let (_, id) = *self.code_index.get(behind.checked_sub(1)?)?;
        let page = self.pages.get(id);
        let unit = page.units.iter().find(|unit| unit.instruction_at(at).is_some())?;
        let offset = unit.instruction_at(at)?;
        Some((mode.eip(page.linear.wrapping_add(u32::from(offset))), unit.borrows.contains(&offset)))
    }

    /// Shadow code faulted: maps the page if the access is a plain one, or leaves the instruction to the interpreter.
    fn fault(&mut self, cpu: &mut Vcpu<B>, access: &mut trap::Access<'_>) -> Verdict {
        let Some(mode) = self.context.mode else { return Verdict::Crash };
        let Some((eip, borrows)) = self.instruction_at(mode, access.at) else { return Verdict::Crash };
        match self.windowed.access(cpu, access) {
            Verdict::Continue(_) => {}
            verdict => return verdict,
        }
        if borrows {
            access.return_rdi();
        }
        cpu.state.eip = eip;
        let float = self.context.fpu_loaded != 0;
        self.context.leave = if float { Leave::InterpretFloat } else { Leave::Interpret } as u32;
        Verdict::Continue(self.context.to_host)
    }

    /// Makes the shadow code of the instruction at an offset of its page wrong: the first byte `from` becomes `to`.
    #[cfg(test)]
    pub(crate) fn falsify(&mut self, offset: u16, from: u8, to: u8) {
        let units = self.pages.iter().flat_map(|page| &page.units);
        let place =
            units.flat_map(|unit| unit.map.iter().map(|(at, place)| (*at, unit.code + u64::from(*place))));
        let (_, start) = place.into_iter().find(|(at, _)| *at == offset).expect("there is shadow code of it");
        let at = (start..).find(|at| self.cache.code(*at, 1) == Some(&[from])).expect("it has such a byte");
        self.cache.poke(at, to);
    }

    /// Runs shadow code. True when the next instruction is to be interpreted.
    #[inline]
    fn enter(&mut self, cpu: &mut Vcpu<B>, mode: Mode, map: usize, code: u64) -> bool {
        let exec = self.maps[map].address();
        let slots = cpu.direct().map_or(0, |direct| direct.address(mode.user()));
        if self.context.fpu_loaded != 0 && cpu.state.cr0 & (cr0::EM | cr0::TS) != 0 {
            self.unload_fpu(cpu);
        }
        let (r15, stack_base) = if mode.window() {
            match self.windowed.address(cpu) {
                Some(window) => (window, window),
                // It has just been lost.
                None => return true,
            }
        } else {
            (slots, 0)
        };
        let trap = Trap { code: self.cache.range(), engine: (&raw mut *self).cast(), decide: decide::<B> };
        let context = &mut *self.context;
        context.stack_base = stack_base;
        context.exec[0] = exec;
        context.maps[0] = exec;
        context.mode = Some(mode.without_window());
        context.generation = cpu.bus.map_generation();
        give_flags(context, cpu);
        context.attention = cpu.bus.attention_byte().unwrap_or(&raw const NO_ATTENTION);
        if context.in_lockstep {
            context.attention = &raw const ALL_ATTENTION;
        }
        context.slots = r15.wrapping_add(SLOT_SHIFT as u64);
        context.state = &raw mut cpu.state;
        context.vcpu = std::ptr::from_mut(cpu).cast();
        self.statistics.entries += 1;
        let bridge = self.places.bridge;
        // SAFETY: `code` comes from an entry table of this mode, or is where such code was left; the pointers are those of
        // `cpu`, which is not used before this returns.
        let mut run = || unsafe { bridge.task_switch(context, code) };
        if mode.window() {
            trap::guard(&trap, run);
            self.windowed.left();
        } else if self.windowed.measures(mode) {
            let start = windowed::ticks();
            run();
            self.windowed.note_time(cpu.state.cr3, windowed::ticks().wrapping_sub(start));
        } else {
            run();
        }
        let context = &mut *self.context;
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
        match context.leave {
            leave if leave == Leave::Miss as u32 => {
                cpu.state.eip = mode.eip(context.target as u32);
                self.statistics.misses += 1;
                false
            }
            leave if leave == Leave::Attention as u32 => false,
            leave if leave == Leave::LoadFpu as u32 => {
                let resume = context.target;
                if self.load_fpu(cpu) {
                    return self.enter(cpu, mode, map, resume);
                }
                true
            }
            leave => {
                match std::mem::take(&mut context.terminal) {
                    0 => self.statistics.not_plain += 1,
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

    /// What was made of the guest's page at a physical address, in lines for people.
    pub fn list(&self, cpu: &mut Vcpu<B>, physical: u64) -> String {
        let physical = physical & !(PAGE_SIZE - 1);
        let now = cpu.bus.page(physical).read;
        let mut text = String::new();
        for page in self.pages.iter().filter(|page| page.physical == physical) {
            // A page that is elsewhere now is dropped before shadow code runs again.
            let Some(host) = now.filter(|host| host.as_ptr() as usize == page.host) else { continue };
            // SAFETY: the bus granted the whole page for reading; devices may write meanwhile.
            let guest = unsafe { CodeBytes::copy(host.as_ptr(), None) };
            listing::page(&mut text, page, &guest, &self.cache, self.places, self.tables.address(page.table));
        }
        if text.is_empty() {
            text.push_str("There is no shadow code of this page\n");
        }
        text
    }

    /// What has been done, in lines for people.
    pub fn report(&self) -> String {
        self.statistics().to_string() + &self.sites.to_string()
    }

    /// Makes the guest's floating-point state that of shadow code. False when its instructions are to be interpreted.
    fn load_fpu(&mut self, cpu: &Vcpu<B>) -> bool {
        if !mode::fpu_is_plain(cpu) {
            return false;
        }
        fpu::to_image(&cpu.state.fpu, &mut self.context.fpu);
        self.context.fpu_loaded = 1;
        true
    }

    /// Takes the floating-point state back, for whoever looks at it.
    pub(crate) fn unload_fpu(&mut self, cpu: &mut Vcpu<B>) {
        if self.context.fpu_loaded != 0 {
            self.context.fpu_loaded = 0;
            fpu::from_image(&self.context.fpu, &mut cpu.state.fpu);
        }
    }
}

/// Arithmetic flags as the bridge takes them: OF in bit 0, the others as LAHF has them in bits 8 to 15.
const fn to_host_flags(flags: u32) -> u32 {
    (flags & LAHF_FLAGS) << 8 | (flags & eflags::OF != 0) as u32
}

const fn from_host_flags(flags: u32) -> u32 {
    let overflow = if flags & 1 != 0 { eflags::OF } else { 0 };
    flags >> 8 & LAHF_FLAGS | overflow
}

/// SF, ZF, AF, PF, CF: where they are in EFLAGS and in AH after LAHF.
const LAHF_FLAGS: u32 = 0xd5;
