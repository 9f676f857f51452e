//! Which address spaces get a window, and what is mapped there.
//!
//! Mapping a page costs microseconds, so only user code that has run for a while in one address space gets a window; one whose
//! accesses are often not plain (device memory, code that is written, page faults of the guest's) does not use it for some time; one
//! that needs more mappings than there may be loses it. Everybody else uses the direct map.

use super::mode::Mode;
use super::trap::{self, Access, Verdict};
use super::window::{Mapped, WindowStatistics, Windows};
use crate::cpu::Vcpu;
use crate::cpu::bus::{Bus, PAGE_SIZE};
use crate::cpu::direct::Flush;
use crate::cpu::registers::cr0;
use std::num::NonZero;
use std::ptr::NonNull;

/// Who gets a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WindowPolicy {
    /// Nobody.
    #[default]
    Off,
    /// Address spaces whose user code has run for some milliseconds.
    Hot,
    /// Every address space with user code, at once and whatever it does. For tests.
    Always,
}

/// Time-stamp counter ticks that user code runs in one address space before it gets a window: about 2 ms.
const HOT: u64 = 5_000_000;
/// Accesses that are not plain between two looks at how fast they come.
const LOOK: u64 = 64;
/// Page faults of the guest's between two looks at how fast they come.
const LOOK_AT_FAULTS: u64 = 256;
/// Ticks per such access below which there are too many: about 25 µs, of which each costs some 3.
const TOO_OFTEN: u64 = 60_000;
/// Ticks for which an address space that lost its window gets none, and longest pause: about 2 s.
const BAN: u64 = 5_000_000_000;
/// Ticks for which a window is not used then: about 15 ms, and twice as long each time when accesses that are not plain soon come as fast
/// again. (Page faults are over when a program has its memory.)
const PAUSE: u64 = 40_000_000;
/// Address spaces that are banned at a time.
const MOST_BANNED: usize = 32;
/// An address of memory that is only remembered.
const PLACE: NonZero<usize> = NonZero::new(PAGE_SIZE as usize).unwrap();
/// Most pages that one fault maps.
const AROUND: u32 = 16;

/// The host's time-stamp counter.
pub fn ticks() -> u64 {
    // No side effects.
    #[expect(unsafe_code, reason = "an intrinsic")]
    // SAFETY: every x86-64 processor has it, and Linux lets processes read it.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
}

/// An address space does not use its window for so many ticks, until then.
#[derive(Default)]
struct Pause {
    cr3: u32,
    until: u64,
    length: u64,
}

/// See the module's description.
#[derive(Default)]
pub struct Windowed {
    pub(super) windows: Windows,
    /// What a covered processor uses instead, from nothing in each run.
    covered: Option<Windows>,
    policy: WindowPolicy,
    /// The address space whose user code ran last in the direct map, and for how long.
    heat: (u32, u64),
    /// Address spaces without a window until then.
    banned: Vec<(u32, u64)>,
    /// When the accesses that are not plain were looked at.
    looked: u64,
    /// Page faults of the guest's in windows, and when they were looked at.
    faults: (u64, u64),
    /// The address space and page of the guest's last page fault in a window: the page is there when the program goes on, most likely.
    awaited: Option<(u32, u32)>,
    /// Some page that was mapped ever is part of a large one.
    has_large: bool,
    /// The last pause of a window, and whether it may still last.
    pause: Pause,
    is_paused: bool,
    /// The current address space is to lose its window.
    give_up: Option<u32>,
}

impl Windowed {
    /// Nobody has one yet.
    pub fn new(policy: WindowPolicy) -> Self {
        let policy = if trap::can_set_gs() { policy } else { WindowPolicy::Off };
        Self { policy, ..Self::default() }
    }

    /// Nobody has one yet, and code only ever runs on a processor that is covered ([`Vcpu::cover`]): other windows are only
    /// remembered.
    pub fn for_covered(policy: WindowPolicy) -> Self {
        let covered = Some(Windows::default());
        Self { windows: Windows::pretended(), covered, ..Self::new(policy) }
    }

    /// What has been done.
    pub fn statistics(&self) -> WindowStatistics {
        let own = self.windows.statistics();
        match self.covered.as_ref().map(Windows::statistics) {
            Some(covered) => WindowStatistics {
                fills: covered.fills,
                pages_mapped: covered.pages_mapped,
                not_plain: covered.not_plain,
                ..own
            },
            None => own,
        }
    }

    /// The windows that code runs in.
    fn active(&mut self) -> &mut Windows {
        self.covered.as_mut().unwrap_or(&mut self.windows)
    }

    /// Takes over what a covered processor has mapped. Returns a linear page that was remembered in another way, which should have
    /// been forgotten.
    pub fn uncover(&mut self) -> Option<u32> {
        let mut stale = None;
        for (page, mapped) in self.covered.iter().flat_map(Windows::pages) {
            match self.windows.mapped(page) {
                Some(known) if known == mapped => continue,
                // Written for the first time.
                Some(known) if known.physical == mapped.physical && mapped.write => {}
                Some(_) => stale = Some(page),
                None => {}
            }
            // Where it is does not matter: it is not mapped.
            let host = NonNull::without_provenance(PLACE);
            self.windows.map(page, mapped, host, 1);
        }
        stale
    }

    /// What must not be written any more is not.
    pub fn follow_protection<B: Bus>(&mut self, cpu: &mut Vcpu<B>) {
        if let Some(direct) = cpu.direct()
            && direct.has_protected()
        {
            for physical in direct.take_protected() {
                self.windows.protect(physical);
            }
        }
    }

    /// Whether anybody gets one.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.policy != WindowPolicy::Off
    }

    /// Whether time is to be noted of code of this mode.
    #[inline]
    pub fn measures(&self, mode: Mode) -> bool {
        self.policy == WindowPolicy::Hot && mode.fits_window() && !mode.window()
    }

    /// Before code runs.
    pub fn prepare<B: Bus>(&self, cpu: &mut Vcpu<B>) {
        if let Some(direct) = cpu.direct() {
            direct.follow_protection();
        }
    }

    /// User code ran without a window.
    #[inline]
    pub fn note_time(&mut self, cr3: u32, ticks: u64) {
        if self.heat.0 != cr3 {
            self.heat = (cr3, 0);
        }
        self.heat.1 = self.heat.1.saturating_add(ticks);
    }

    /// The mode with the back end that is to be used now.
    #[inline]
    pub fn back_end<B: Bus>(&mut self, cpu: &mut Vcpu<B>, mode: Mode) -> Mode {
        if !self.is_on() || !mode.fits_window() || cpu.state.cr0 & cr0::PG == 0 {
            return mode;
        }
        if self.is_paused(cpu.state.cr3) {
            return mode;
        }
        if self.windows.ready(cpu.state.cr3).is_some() || self.choose(cpu) {
            return mode.in_window();
        }
        mode
    }

    #[cold]
    fn choose<B: Bus>(&mut self, cpu: &mut Vcpu<B>) -> bool {
        let cr3 = cpu.state.cr3;
        let has_one = self.windows.switch(cr3) || self.deserves(cr3) && self.windows.open(cr3);
        if !has_one {
            return false;
        }
        self.windows.compare(|page, mapped| {
            cpu.user_page(page)
                .is_some_and(|now| now.physical == mapped.physical && (now.write || !mapped.write))
        });
        self.windows.ready(cr3).is_some()
    }

    fn deserves(&mut self, cr3: u32) -> bool {
        match self.policy {
            WindowPolicy::Off => false,
            WindowPolicy::Always => true,
            WindowPolicy::Hot => {
                if self.heat.0 != cr3 || self.heat.1 < HOT {
                    return false;
                }
                let now = ticks();
                self.banned.retain(|(_, until)| *until > now);
                self.banned.iter().all(|(banned, _)| *banned != cr3)
            }
        }
    }

    /// The TLB was flushed.
    pub fn flush(&mut self, flush: Flush) {
        match flush {
            Flush::All => self.windows.outdate(),
            Flush::Local => self.windows.outdate_current(),
            // Which pages belong to a large one is not known here.
            Flush::Page(_) if self.has_large => self.windows.outdate_current(),
            Flush::Page(linear) => self.windows.unmap(linear & !(PAGE_SIZE as u32 - 1)),
        }
    }

    /// The window of user code with the present CR3, if nothing needs to be done before code runs in it.
    #[inline]
    pub fn settled<B: Bus>(&mut self, cpu: &mut Vcpu<B>) -> Option<u64> {
        if !self.is_on() || self.covered.is_some() || self.is_paused(cpu.state.cr3) {
            return None;
        }
        self.follow_protection(cpu);
        let window = self.windows.ready(cpu.state.cr3)?;
        self.map_awaited(cpu).then_some(window)
    }

    /// The window that code is to be entered with.
    #[inline]
    pub fn address<B: Bus>(&mut self, cpu: &mut Vcpu<B>) -> Option<u64> {
        self.follow_protection(cpu);
        let cr3 = cpu.state.cr3;
        if let Some(covered) = &mut self.covered {
            covered.restart(cr3);
        }
        let window = self.active().ready(cr3)?;
        if !self.map_awaited(cpu) {
            return None;
        }
        #[expect(unsafe_code, reason = "the segment that code in windows uses")]
        // SAFETY: windows are only on where that is possible (`new`).
        unsafe {
            trap::set_gs(window);
        }
        Some(window)
    }

    /// Code in a window was left.
    #[inline]
    pub fn left(&mut self) {
        if let Some(cr3) = self.give_up.take() {
            self.ban(cr3);
        }
    }

    #[cold]
    fn ban(&mut self, cr3: u32) {
        self.windows.close(cr3);
        self.heat = (cr3, 0);
        if self.banned.len() >= MOST_BANNED {
            self.banned.remove(0);
        }
        self.banned.push((cr3, ticks().saturating_add(BAN)));
    }

    /// An access of code in a window faulted. [`Verdict::Continue`]: it is not plain (the address means nothing).
    pub fn access<B: Bus>(&mut self, cpu: &mut Vcpu<B>, access: &Access<'_>) -> Verdict {
        if let Some(address) = access.address {
            match self.active().linear(address) {
                Some(linear) if self.fill(cpu, linear, access.write) => return Verdict::Retry,
                // A page fault of the guest's.
                Some(linear) if !Self::is_permitted(cpu, linear, access.write) => {
                    self.awaited = Some((cpu.state.cr3, linear & !(PAGE_SIZE as u32 - 1)));
                    self.count_fault(cpu.state.cr3);
                    return Verdict::Continue(0);
                }
                None if !self.active().guards(address) => return Verdict::Crash,
                _ => {}
            }
        }
        let count = self.active().count_not_plain();
        if count.is_multiple_of(LOOK) {
            let now = ticks();
            let since = now.wrapping_sub(std::mem::replace(&mut self.looked, now));
            self.pause_if(since < LOOK * TOO_OFTEN, cpu.state.cr3, now, true);
        }
        Verdict::Continue(0)
    }

    /// The window of an address space is not used for a while, if accesses that are slow there come fast. `lasts`: they may come for
    /// as long as the program runs.
    fn pause_if(&mut self, come_fast: bool, cr3: u32, now: u64, lasts: bool) {
        if self.policy != WindowPolicy::Hot || !come_fast {
            return;
        }
        let last = &self.pause;
        let again = lasts && last.cr3 == cr3 && now < last.until.saturating_add(last.length);
        let length = if again { (2 * last.length).min(BAN) } else { PAUSE };
        self.pause = Pause { cr3, until: now.saturating_add(length), length };
        self.is_paused = true;
    }

    #[inline]
    fn is_paused(&mut self, cr3: u32) -> bool {
        // The clock is only read while there is a pause.
        self.is_paused = self.is_paused && ticks() < self.pause.until;
        self.is_paused && self.pause.cr3 == cr3
    }

    /// Each costs a signal more than in the direct map, and another when the page is there.
    fn count_fault(&mut self, cr3: u32) {
        let (count, before) = &mut self.faults;
        *count += 1;
        if count.is_multiple_of(LOOK_AT_FAULTS) {
            let now = ticks();
            let since = now.wrapping_sub(std::mem::replace(before, now));
            self.pause_if(since < LOOK_AT_FAULTS * TOO_OFTEN, cr3, now, false);
        }
    }

    /// Whether it is not the guest's page tables that forbid the access.
    fn is_permitted<B: Bus>(cpu: &mut Vcpu<B>, linear: u32, write: bool) -> bool {
        let page = cpu.user_page(linear & !(PAGE_SIZE as u32 - 1));
        page.is_some_and(|page| !write || page.write || cpu.code.is_code_page(page.physical))
    }

    /// Maps the page of `linear`, and those behind it that lie behind it in memory too.
    fn fill<B: Bus>(&mut self, cpu: &mut Vcpu<B>, linear: u32, write: bool) -> bool {
        const PAGE: u32 = PAGE_SIZE as u32;
        let Some(found) = cpu.make_window(linear, write) else { return false };
        let Some((host, writable)) = cpu.host_page(found.physical) else { return false };
        let first = Mapped { physical: found.physical, write: found.write && writable };
        if write && !first.write {
            return false;
        }
        let page = linear & !(PAGE - 1);
        self.has_large |= found.large;
        let mut count = 1;
        let around = if cpu.is_covered() { 1 } else { AROUND };
        while count < around {
            let Some(next) = page.checked_add(count * PAGE) else { break };
            if self.active().mapped(next).is_some() {
                break;
            }
            let Some(user) = cpu.user_page(next) else { break };
            let distance = u64::from(count) * PAGE_SIZE;
            if user.physical != found.physical + distance
                || user.write != first.write
                || user.large != found.large
            {
                break;
            }
            let behind = cpu.host_page(user.physical);
            if behind != Some((host.map_addr(|at| at.saturating_add(distance as usize)), writable)) {
                break;
            }
            count += 1;
        }
        if !self.active().map(page, first, host, count) {
            self.give_up = Some(cpu.state.cr3);
            return false;
        }
        // In ascending order, as it seems: a signal costs more than a page.
        let before = page.checked_sub(PAGE).is_some_and(|before| self.active().mapped(before).is_some());
        if count == 1 && around > 1 && before {
            self.fill_behind(cpu, page, around);
            if self.active().ready(cpu.state.cr3).is_none() {
                self.give_up = Some(cpu.state.cr3);
                return false;
            }
        }
        true
    }

    /// Maps the page that the guest has just brought in, which saves the signal that would ask for it. False: that cost the
    /// current window.
    #[inline]
    fn map_awaited<B: Bus>(&mut self, cpu: &mut Vcpu<B>) -> bool {
        if let Some((cr3, page)) = self.awaited
            && cr3 == cpu.state.cr3
        {
            self.awaited = None;
            if !cpu.is_covered() {
                self.map_known(cpu, page);
                return self.active().ready(cr3).is_some();
            }
        }
        true
    }

    /// Maps pages behind `page`, wherever in memory they are, up to the first that is mapped or cannot be.
    fn fill_behind<B: Bus>(&mut self, cpu: &mut Vcpu<B>, page: u32, count: u32) {
        for n in 1..count {
            let Some(next) = page.checked_add(n * PAGE_SIZE as u32) else { return };
            if !self.map_known(cpu, next) {
                return;
            }
        }
    }

    /// Maps a page that users can read without anything to be noted in the page tables. False: it is mapped, or cannot be.
    fn map_known<B: Bus>(&mut self, cpu: &mut Vcpu<B>, page: u32) -> bool {
        let Some(user) = cpu.user_page(page).filter(|_| self.active().mapped(page).is_none()) else {
            return false;
        };
        let Some((host, writable)) = cpu.host_page(user.physical) else { return false };
        self.has_large |= user.large;
        let mapped = Mapped { physical: user.physical, write: user.write && writable };
        self.active().map(page, mapped, host, 1)
    }
}
