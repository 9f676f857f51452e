//! What `lockstep` must follow: small guests on which it once saw a difference where there was none.

use super::guest::{CODE, Machine, Random};
use super::lockstep::{Guests, Pair};
use vmm::cpu::registers::{dr7, eflags, gpr, vector};
use vmm::cpu::{Segment, TableRegister, Vcpu};
use vmm::shadow::WindowPolicy;

/// Where the guest's segments begin, and in them the handler of #DB, what is moved and where to.
const SEGMENT: u16 = (CODE >> 4) as u16;
const HANDLER: u16 = 0x800;
const SOURCE: u32 = 0x1000;
const TARGET: u32 = 0x2000;
/// Bytes that are moved.
const COUNT: u32 = 20;

/// A guest in real mode that moves bytes by REP MOVSB, and whose handler of #DB is IRET; `change` makes something of it that traps.
fn move_bytes(change: impl Fn(&mut Vcpu<Machine>)) {
    const REP_MOVSB_JMP_SELF: [u8; 4] = [0xf3, 0xa4, 0xeb, 0xfe];
    const IRET: u8 = 0xcf;
    let mut pair = Pair::new(WindowPolicy::Off, Guests::Any);
    let end = pair.run_guest(&mut Random(1), |cpu| {
        let gate = u32::from(SEGMENT) << 16 | u32::from(HANDLER);
        cpu.bus.poke(4 * u32::from(vector::DB), &gate.to_le_bytes());
        cpu.bus.poke(CODE, &REP_MOVSB_JMP_SELF);
        cpu.bus.poke(CODE + u32::from(HANDLER), &[IRET]);
        (0..COUNT as u8).for_each(|n| cpu.bus.poke(CODE + SOURCE + u32::from(n), &[n + 1]));
        cpu.reset();
        let state = &mut cpu.state;
        state.segments = [Segment::new(SEGMENT, 0x93, CODE, 0xffff); 6];
        state.idtr = TableRegister { base: 0, limit: 0x3ff };
        state.eip = 0;
        state.gpr[gpr::ECX] = COUNT;
        state.gpr[gpr::ESI] = SOURCE;
        state.gpr[gpr::EDI] = TARGET;
        state.gpr[gpr::ESP] = 0xff00;
        change(cpu);
        cpu.state_replaced();
    });
    let end = end.unwrap_or_else(|difference| panic!("{difference}"));
    let state = pair.state();
    assert_eq!(end, "rounds that went on", "nothing was there to be excused");
    assert_eq!((state.gpr[gpr::ECX], state.gpr[gpr::EDI]), (0, TARGET + COUNT), "all is moved");
}

#[test]
fn single_steps_through_a_repeated_instruction_are_followed() {
    move_bytes(|cpu| cpu.state.eflags |= eflags::TF);
}

#[test]
fn data_breakpoints_in_a_repeated_instruction_are_followed() {
    const L0: u32 = 1;
    move_bytes(|cpu| {
        cpu.state.dr[0] = CODE + TARGET + COUNT / 2;
        cpu.state.dr[7] = dr7::FIXED_ONE | L0 | dr7::ON_WRITE << 16;
    });
}
