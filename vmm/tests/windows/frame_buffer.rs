//! A frame buffer that a user has in its address space: while its device lets it be reached directly, windows have it like RAM, and
//! not a moment longer.

use super::*;

/// Physical address of the frame buffer.
const FRAME: u32 = 0xe000_0000;
/// Its pages, which the user has at [`DATA`].
const PAGES: u32 = 16;
/// Accesses of code to the frame buffer in each run.
const TURNS: u32 = 20;

/// A machine with a video card.
struct Card {
    ram: Ram,
    frame: Ram,
    /// The device lets its memory be reached directly.
    is_direct: bool,
    generation: u64,
    /// Accesses that came to the device.
    asked: u32,
}

impl Card {
    fn set_direct(&mut self, is_direct: bool) {
        self.is_direct = is_direct;
        self.generation += 1;
    }
}

impl Bus for Card {
    fn page(&mut self, address: u64) -> PageGrant {
        match address.checked_sub(FRAME.into()) {
            None => self.ram.page(address),
            Some(_) if !self.is_direct => PageGrant::default(),
            Some(offset) => PageGrant { cacheable_code: false, ..self.frame.page(offset) },
        }
    }
    fn map_generation(&self) -> u64 {
        self.generation
    }
    fn read_memory(&mut self, address: u64, _width: Width) -> u32 {
        self.asked += 1;
        self.frame.get(address as u32 - FRAME)
    }
    fn write_memory(&mut self, address: u64, _width: Width, value: u32) {
        self.asked += 1;
        self.frame.set(address as u32 - FRAME, value);
    }
    fn now(&mut self) -> VirtualTime {
        VirtualTime(0)
    }
}

/// Counts in the first word of each page of the frame buffer, [`TURNS`] times.
fn counts() -> Vec<u8> {
    assembled(|a| {
        let mut again = a.create_label();
        let mut page = a.create_label();
        let mut end = a.create_label();
        a.mov(edx, TURNS)?;
        a.set_label(&mut again)?;
        a.mov(ebx, DATA)?;
        a.mov(ecx, PAGES)?;
        a.set_label(&mut page)?;
        a.mov(eax, dword_ptr(ebx))?;
        a.inc(eax)?;
        a.mov(dword_ptr(ebx), eax)?;
        a.add(ebx, PAGE)?;
        a.dec(ecx)?;
        a.jnz(page)?;
        a.dec(edx)?;
        a.jnz(again)?;
        a.set_label(&mut end)?;
        a.jmp(end)
    })
}

#[test]
fn a_frame_buffer_is_mapped_while_its_device_lets_it_be() {
    let ram = memory(&counts());
    for page in 0..PAGES {
        ram.set(TABLE + 4 * (DATA / PAGE + page), (FRAME + page * PAGE) | PRESENT);
    }
    let mut cpu = user_of(Card { ram, frame: Ram::new(), is_direct: true, generation: 0, asked: 0 });
    let mut shadow = engine(WindowPolicy::Always);
    let mut expected = 0;
    for round in 0..6 {
        let is_direct = round % 2 == 0;
        cpu.bus.set_direct(is_direct);
        (cpu.state.eip, cpu.bus.asked) = (CODE, 0);
        cpu.state_replaced();
        let before = shadow.statistics().windows.not_plain;
        shadow.run(&mut cpu, 10_000);
        expected += TURNS;
        let found = (0..PAGES).map(|page| cpu.bus.frame.get(page * PAGE));
        assert_eq!(found.collect::<Vec<_>>(), [expected; PAGES as usize], "round {round}");
        // (A read and a write.)
        let asked = if is_direct { 0 } else { 2 * TURNS * PAGES };
        assert_eq!(cpu.bus.asked, asked, "accesses that the device saw in round {round}");
        let left = shadow.statistics().windows.not_plain - before;
        assert_eq!(left == 0, is_direct, "{left} accesses left shadow code in round {round}");
    }
    assert!(shadow.statistics().windows.pages_mapped >= u64::from(3 * PAGES));
}
