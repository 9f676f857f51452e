//! How many mappings and how much memory windows take, whatever the guest does.

use super::*;

/// KiB that the tests beside one may take meanwhile.
const MOST_MEMORY_OF_OTHERS: usize = 128 << 10;

/// Mappings of this process, and KiB of memory that belongs to it alone.
fn mappings_and_memory() -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let own = own.and_then(|text| text.split_whitespace().next()).and_then(|text| text.parse().ok());
    (maps.lines().count(), own.expect("it says so"))
}

/// The host's limit.
fn most_mappings() -> usize {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("Linux has it");
    limit.trim().parse().expect("a number")
}

#[test]
fn windows_that_are_filled_page_by_page_stay_within_the_budget() {
    /// More in all than the host maps.
    const SPACES: u32 = 8;
    const PAGES: u32 = 15_000;
    /// Page tables and directories, and the pages, in descending order: each is a mapping.
    const TABLES: u32 = 16 << 20;
    const DIRECTORIES: u32 = 17 << 20;
    const LAST: u32 = 95 << 20;
    const LINEAR: u32 = 0x4000_0000;
    /// KiB that bookkeeping of the pages of one test may take.
    const MOST_MEMORY: usize = MOST_MEMORY_OF_OTHERS + (64 << 10);
    let code = assembled(|a| {
        let mut again = a.create_label();
        let mut end = a.create_label();
        a.mov(ecx, PAGES)?;
        a.mov(ebx, LINEAR)?;
        a.set_label(&mut again)?;
        a.inc(dword_ptr(ebx))?;
        a.add(ebx, PAGE)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.set_label(&mut end)?;
        a.jmp(end)
    });
    let mut cpu = user(&code);
    for n in 0..PAGES {
        cpu.bus.set(TABLES + 4 * n, (LAST - n * PAGE) | PRESENT);
    }
    let mut shadow = engine(WindowPolicy::Always);
    let mut before = 0;
    for round in 0..3 * SPACES {
        let directory = DIRECTORIES + round % SPACES * PAGE;
        cpu.bus.set(directory, TABLE | PRESENT);
        for n in 0..PAGES.div_ceil(1024) {
            cpu.bus.set(directory + (LINEAR >> 22) * 4 + 4 * n, (TABLES + n * PAGE) | PRESENT);
        }
        cpu.state.cr3 = directory;
        cpu.state.eip = CODE;
        cpu.state_replaced();
        shadow.run(&mut cpu, u64::from(PAGES) + 100);
        let (mappings, memory) = mappings_and_memory();
        assert!(mappings < most_mappings() * 3 / 4, "{mappings} mappings in round {round}");
        if round == SPACES {
            before = memory;
        }
        assert!(round <= SPACES || memory < before + MOST_MEMORY, "{before} KiB became {memory} KiB");
    }
    for n in [0, 1, PAGES / 2, PAGES - 1] {
        assert_eq!(cpu.bus.get(LAST - n * PAGE), 3 * SPACES, "page {n}");
    }
    let windows = shadow.statistics().windows;
    assert!(windows.evictions > 0 && windows.pages_mapped > u64::from(2 * SPACES * PAGES), "{windows:?}");
}

#[test]
fn ten_thousand_address_spaces_with_scattered_pages_stay_within_the_mappings() {
    const SPACES: u32 = 10_000;
    const TOUCHED: u32 = 8;
    /// Page directories of the address spaces.
    const DIRECTORIES: u32 = 16 << 20;
    let code = assembled(|a| {
        let mut again = a.create_label();
        let mut end = a.create_label();
        a.mov(ecx, TOUCHED)?;
        a.set_label(&mut again)?;
        a.inc(dword_ptr(ebx))?;
        a.add(ebx, 3 * PAGE)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.set_label(&mut end)?;
        a.jmp(end)
    });
    let mut cpu = user(&code);
    let mut shadow = engine(WindowPolicy::Always);
    cpu.bus.load(START + DATA, &vec![0; 64 * PAGE as usize]);
    /// KiB by which memory may grow after a tenth of them.
    const MOST_GROWTH: usize = 16 << 10;
    let mut before = 0;
    for space in 0..SPACES {
        if space == SPACES / 10 {
            before = mappings_and_memory().1;
        }
        let directory = DIRECTORIES + space % 9999 * PAGE;
        cpu.bus.set(directory, TABLE | PRESENT);
        cpu.state.cr3 = directory;
        cpu.state.eip = CODE;
        cpu.state.gpr[gpr::EBX] = DATA + space % 3 * PAGE;
        cpu.state_replaced();
        shadow.run(&mut cpu, 40);
    }
    let counted: u32 = (0..3 * TOUCHED).map(|n| cpu.bus.get(physical(DATA + n * PAGE))).sum();
    assert_eq!(counted, SPACES * TOUCHED);
    let windows = shadow.statistics().windows;
    assert!(windows.promotions >= u64::from(SPACES - 1), "{windows:?}");
    assert!(windows.pages <= 8 * u64::from(TOUCHED + 2 * 16), "{windows:?}");
    let (mappings, memory) = mappings_and_memory();
    // Tests run beside this one.
    assert!(mappings < most_mappings() * 3 / 4, "{mappings} mappings");
    assert!(memory < before + MOST_GROWTH + MOST_MEMORY_OF_OTHERS, "{before} KiB became {memory} KiB");
}
