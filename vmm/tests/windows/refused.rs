//! A host that has no mappings left: windows are given up, and the guest notices nothing.

use super::*;
use std::process::Command;

/// Set in the process that runs alone.
const ALONE: &str = "VMSIM_TEST_WITHOUT_MAPPINGS";

/// All mappings that this process may have but some.
struct Mappings {
    at: *mut std::ffi::c_void,
    bytes: usize,
}

impl Mappings {
    fn take_all_but(spare: usize) -> Self {
        const MOST: usize = 1 << 16;
        let bytes = 2 * MOST * PAGE as usize;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::empty(), flags) }
                .expect("there is address space");
        let taken = Self { at, bytes };
        // Each page that differs from its neighbours is a mapping, and what is left behind it another.
        let refused = (0..MOST).find(|n| taken.protect(2 * n + 1, ProtFlags::READ).is_err());
        let most = refused.expect("there is a limit");
        for n in most.saturating_sub(spare)..most {
            taken.protect(2 * n + 1, ProtFlags::empty()).expect("it is possible to have fewer");
        }
        taken
    }

    fn protect(&self, page: usize, protection: ProtFlags) -> rustix::io::Result<()> {
        let flags = rustix::mm::MprotectFlags::from_bits_retain(protection.bits());
        // SAFETY: within the mapping, which nobody uses.
        unsafe { rustix::mm::mprotect(self.at.wrapping_byte_add(page * PAGE as usize), PAGE as usize, flags) }
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        // SAFETY: made by `take_all_but`, and nobody uses it.
        let _ = unsafe { rustix::mm::munmap(self.at, self.bytes) };
    }
}

/// EDX times reads and counts on every page of the data, and calls INC EAX or DEC EAX, which it writes at EBP.
fn counts() -> Vec<u8> {
    /// What makes one of INC and DEC the other.
    const OTHER: u32 = 0x40 ^ 0x48;
    assembled(|a| {
        let mut again = a.create_label();
        let mut page = a.create_label();
        let mut end = a.create_label();
        a.set_label(&mut again)?;
        a.mov(ebx, DATA)?;
        a.mov(ecx, PAGES)?;
        a.set_label(&mut page)?;
        a.add(esi, dword_ptr(ebx))?;
        a.inc(dword_ptr(ebx))?;
        a.add(ebx, PAGE)?;
        a.dec(ecx)?;
        a.jnz(page)?;
        a.xor(byte_ptr(ebp), OTHER)?;
        a.call(ebp)?;
        a.dec(edx)?;
        a.jnz(again)?;
        a.set_label(&mut end)?;
        a.jmp(end)
    })
}

/// Pages of data.
const PAGES: u32 = 64;
/// INC EAX, RET.
const FUNCTION: [u8; 2] = [0x40, 0xc3];

/// What has become of a guest whose page tables change between runs, with `spare` mappings left in every other run.
fn outcome_with(spare: Option<usize>, run: &mut dyn FnMut(&mut Vcpu<Ram>)) -> Outcome {
    let mut cpu = user(&counts());
    let entry = |page: u32| TABLE + (DATA / PAGE + page) * 4;
    // In order, so that one mapping has several pages.
    for page in 0..PAGES {
        cpu.bus.set(entry(page), (START + DATA + page * PAGE) | PRESENT);
    }
    for round in 0..12 {
        let taken = spare.filter(|_| round % 2 == 1).map(Mappings::take_all_but);
        match round % 6 {
            // Two pages change places.
            3 => {
                let [one, other] = [2, 3].map(|page| cpu.bus.get(entry(page)));
                cpu.bus.set(entry(2), other);
                cpu.bus.set(entry(3), one);
            }
            // Page 8 is seen twice, or once again.
            5 => cpu.bus.set(entry(9), cpu.bus.get(entry(9)) ^ PAGE),
            // Code is met in a page that others lie around.
            _ => {}
        }
        let function = DATA + (16 + 2 * round) * PAGE + 8;
        cpu.bus.load(START + function, &FUNCTION);
        cpu.state.eip = CODE;
        (cpu.state.gpr[gpr::EDX], cpu.state.gpr[gpr::EBP]) = (10, function);
        cpu.state_replaced();
        run(&mut cpu);
        drop(taken);
    }
    outcome(&mut cpu)
}

#[test]
fn a_host_without_mappings_costs_windows_and_nothing_else() {
    if std::env::var_os(ALONE).is_none() {
        // Not with other tests in one process, who need mappings too.
        let name = "refused::a_host_without_mappings_costs_windows_and_nothing_else";
        let exe = std::env::current_exe().expect("this is a program");
        let run = Command::new(exe).env(ALONE, "1").args(["--exact", name, "--nocapture"]).output();
        let run = run.expect("it can be started again");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        return;
    }
    const BUDGET: u64 = 10_000;
    let mut interp = Interp::new();
    let expected = outcome_with(None, &mut |cpu| _ = interp.run(cpu, BUDGET));
    for spare in [0, 1, 2, 3, 8] {
        let mut shadow = engine(WindowPolicy::Always);
        let found = outcome_with(Some(spare), &mut |cpu| _ = shadow.run(cpu, BUDGET));
        assert_same(&found, &expected, &format!("{spare} mappings left"));
    }
}
