//! Calls between pages, and those of position-independent code, which calls only to learn where it is: shadow code does not call for that,
//! as long as what is called is what it was.

use super::*;
use vmm::cpu::Activity;

/// Where functions are: on another page than what calls them.
const FUNCTIONS: u32 = CODE + PAGE;
/// Physical page that nothing is mapped to.
const SPARE: u32 = 0x20_0000;
/// MOV of the return address into a register, and RET.
const READS_EIP: [[u8; 4]; 7] = [
    [0x8b, 0x04, 0x24, 0xc3],
    [0x8b, 0x0c, 0x24, 0xc3],
    [0x8b, 0x14, 0x24, 0xc3],
    [0x8b, 0x1c, 0x24, 0xc3],
    [0x8b, 0x2c, 0x24, 0xc3],
    [0x8b, 0x34, 0x24, 0xc3],
    [0x8b, 0x3c, 0x24, 0xc3],
];

/// What happens to a machine between two runs.
type Change<'a> = &'a dyn Fn(&mut Vcpu<Ram>);

/// Code at `CODE`, and functions behind each other on the next page.
fn with_functions(main: Vec<u8>, functions: &[[u8; 4]]) -> Vec<u8> {
    let mut code = main;
    assert!(code.len() <= PAGE as usize);
    code.resize(PAGE as usize, 0);
    code.extend(functions.concat());
    code
}

/// Runs code, which ends in HLT, until that shuts the processor down, and again after each of `changes`; on every engine, as it runs in
/// machines: nothing is counted. Registers and memory are the interpreter's.
fn same_until_it_ends(code: &[u8], changes: &[Change<'_>]) {
    let restart = |cpu: &mut Vcpu<Ram>| {
        cpu.state.activity = Activity::Running;
        cpu.state.eip = CODE;
        cpu.state.gpr[gpr::ESP] = STACK;
        cpu.state_replaced();
    };
    let mut expected = Vec::new();
    let (mut cpu, mut interp) = (user(code), Interp::new());
    let nothing: Change<'_> = &|_| {};
    let changes = || std::iter::once(nothing).chain(changes.iter().copied());
    for change in changes() {
        change(&mut cpu);
        restart(&mut cpu);
        interp.run(&mut cpu, 1_000_000);
        assert_eq!(cpu.state.activity, Activity::Shutdown, "it ends");
        expected.push(outcome(&mut cpu));
    }
    for policy in [WindowPolicy::Off, WindowPolicy::Always] {
        let mut shadow = Shadow::new().expect("there is memory");
        shadow.use_windows(policy);
        let mut cpu = user(code);
        for (n, (change, expected)) in changes().zip(&expected).enumerate() {
            change(&mut cpu);
            restart(&mut cpu);
            while cpu.state.activity == Activity::Running {
                shadow.run(&mut cpu, u64::MAX);
            }
            assert_same(&outcome(&mut cpu), expected, &format!("{policy:?}, run {n}"));
        }
        let has_windows = shadow.statistics().windows.promotions > 0;
        assert_eq!(has_windows, policy == WindowPolicy::Always, "this host has no windows for us");
    }
}

/// Adds up what calls of `FUNCTIONS + at` leave in `register`, with the stack moved before and after.
fn adds_up(at: u32, register: AsmRegister32) -> Vec<u8> {
    assembled(|a| {
        let (mut again, mut carry) = (a.create_label(), a.create_label());
        a.mov(dword_ptr(DATA), 300)?;
        a.set_label(&mut again)?;
        a.push(0x1234)?;
        a.sub(esp, 8)?;
        a.call(u64::from(FUNCTIONS + at))?;
        a.add(register, 0x100)?;
        a.add(dword_ptr(DATA + 4), register)?;
        a.add(esp, 8)?;
        a.pop(register)?;
        a.add(dword_ptr(DATA + 8), register)?;
        // Flags that are read behind the call.
        a.cmp(dword_ptr(DATA), 100)?;
        a.call(u64::from(FUNCTIONS + at))?;
        a.jc(carry)?;
        a.add(dword_ptr(DATA + 12), register)?;
        a.set_label(&mut carry)?;
        a.dec(dword_ptr(DATA))?;
        a.jnz(again)?;
        a.hlt()
    })
}

#[test]
fn what_is_called_to_read_eip_leaves_it_in_every_register() {
    for (n, register) in [eax, ecx, edx, ebx, ebp, esi, edi].into_iter().enumerate() {
        same_until_it_ends(&with_functions(adds_up(4 * n as u32, register), &READS_EIP), &[]);
    }
}

#[test]
fn on_the_same_page_too() {
    let code = assembled(|a| {
        let (mut again, mut function) = (a.create_label(), a.create_label());
        a.mov(ecx, 300)?;
        a.set_label(&mut again)?;
        a.push(ecx)?;
        a.call(function)?;
        a.add(eax, ebx)?;
        a.pop(ecx)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()?;
        a.set_label(&mut function)?;
        a.mov(ebx, dword_ptr(esp))?;
        a.ret()
    });
    let at = code.windows(4).position(|bytes| bytes == READS_EIP[3]).expect("it is there");
    same_until_it_ends(
        &code,
        &[&|cpu: &mut Vcpu<Ram>| {
            cpu.bus.load(physical(CODE + at as u32 + 1), &[0x0c]);
            cpu.state_replaced();
        }],
    );
}

#[test]
fn a_function_that_is_written_over_does_what_is_written() {
    let code = assembled(|a| {
        let (mut again, mut first) = (a.create_label(), a.create_label());
        a.mov(ecx, 600)?;
        a.set_label(&mut again)?;
        a.push(ecx)?;
        a.call(u64::from(FUNCTIONS))?;
        a.xor(ebx, ecx)?;
        a.add(eax, ebx)?;
        a.pop(ecx)?;
        a.cmp(ecx, 300)?;
        a.jne(first)?;
        // EBX becomes ECX, with what is in both registers in use.
        a.mov(byte_ptr(FUNCTIONS + 1), 0x0c)?;
        a.set_label(&mut first)?;
        a.cmp(ecx, 100)?;
        a.mov(edx, FUNCTIONS)?;
        let mut second = a.create_label();
        a.jne(second)?;
        // INC EBX, RET.
        a.mov(dword_ptr(edx), 0x9090_c343_u32)?;
        a.set_label(&mut second)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
    same_until_it_ends(&with_functions(code, &READS_EIP[3..4]), &[]);
}

#[test]
fn a_function_whose_page_is_another_does_what_is_there() {
    let code = with_functions(adds_up(0, ebx), &READS_EIP[3..4]);
    let map = |cpu: &mut Vcpu<Ram>, page: u32| {
        cpu.bus.set(TABLE + 4 * (FUNCTIONS / PAGE), page | PRESENT);
        cpu.state_replaced();
    };
    let other = |cpu: &mut Vcpu<Ram>| {
        cpu.bus.load(SPARE, &READS_EIP[1]);
        map(cpu, SPARE);
    };
    let same = |cpu: &mut Vcpu<Ram>| map(cpu, physical(FUNCTIONS));
    same_until_it_ends(&code, &[&other, &same, &other, &same]);
}

#[test]
fn links_to_another_page_follow_what_is_mapped_there() {
    // MOV of a constant into EBX, RET.
    const ONE: [u8; 6] = [0xbb, 1, 0, 0, 0, 0xc3];
    const TWO: [u8; 6] = [0xbb, 2, 0, 0, 0, 0xc3];
    let code = with_functions(adds_up(0, ebx), &[]);
    let code = [&code[..], &ONE].concat();
    let map = |cpu: &mut Vcpu<Ram>, page: u32| {
        cpu.bus.set(TABLE + 4 * (FUNCTIONS / PAGE), page | PRESENT);
        cpu.state_replaced();
    };
    let other = |cpu: &mut Vcpu<Ram>| {
        cpu.bus.load(SPARE, &TWO);
        map(cpu, SPARE);
    };
    let same = |cpu: &mut Vcpu<Ram>| map(cpu, physical(FUNCTIONS));
    same_until_it_ends(&code, &[&other, &same, &other]);
}
