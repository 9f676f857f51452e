//! The bridge between host and guest: what swaps registers, flags and floating-point state.
//!
//! Naked functions, position independent. They are copied to the head of the code cache ([`Bridge::install`]), so that
//! every way out of shadow code is a direct jump; the originals are never executed.
//!
//! | function | job |
//! |---|---|
//! | `bridge_to_vm` | called by [`Bridge::task_switch`]: saves the host's registers, loads the guest's, enters shadow code |
//! | `bridge_to_host` | jumped to by shadow code: saves the guest's registers, returns to the monitor |
//! | `bridge_interpret` | called by shadow code for a terminal instruction: has it interpreted in place, and goes on if nothing else changed |
//! | `bridge_fill` | called by shadow code whose access met an empty slot: asks the monitor to fill it, or leaves |
//!
//! While the guest runs: EAX to EDI in their host namesakes but ESP in R12 (RSP is the return stack's, see [`super::home`]), arithmetic flags in
//! the host's flags, R13 = [`Context`], R14 = [`CpuState`], R15 = slots of the direct map + [`SLOT_SHIFT`], R8 to R11 scratch.
//! Code for a window has the window's address + [`SLOT_SHIFT`] in R15, the window's address in the base of GS, and the
//! window's address + ESP in R12, of which the lower half is ESP because windows are aligned to their size.
#![expect(unsafe_code, reason = "naked functions, and entering code that was generated")]

use super::cache::CodeCache;
use super::classify::Terminal;
use super::descriptors::Descriptors;
use super::home::STACK_TOP;
use super::mode::Mode;
use crate::cpu::registers::gpr;
use crate::cpu::{CpuState, Fault};
use std::arch::naked_asm;
use std::ffi::c_void;
use std::mem::offset_of;

/// R15 points this far behind the slots: the low bits of R15 are then also the shift count that makes a page number of
/// an address (SHRX takes counts modulo 32), which saves a register. Arrays are page-aligned.
pub const SLOT_SHIFT: i32 = 12;

/// Why shadow code was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Leave {
    /// There is no shadow code for the linear address in `target`, or attention is wanted.
    Miss = 0,
    /// The instruction at EIP is to be interpreted: it is terminal, or its access is not plain.
    Interpret = 1,
    /// The block at EIP needs the floating-point unit loaded; goes on at the host address in `target`.
    LoadFpu = 2,
    /// As `Interpret`, and the instruction may use the floating-point unit.
    InterpretFloat = 4,
    /// A terminal instruction was interpreted in place; the processor is where it left it.
    Done = 5,
    /// The same, and it raised the fault in `fault`.
    Fault = 6,
    /// Attention is wanted, or the budget is used up, at EIP.
    Attention = 3,
}

/// [`Context::wanted`] while EFLAGS.IF is set.
pub const WITH_INTERRUPTS: u8 = u8::MAX;
/// The same while it is clear.
pub const WITHOUT_INTERRUPTS: u8 = !(ipc::board::attention::INTR as u8);

/// What `interpret` says: shadow code goes on behind the instruction.
pub const GOES_ON: u32 = 0;
/// What `interpret` says: shadow code goes on at the linear address in `target`, in the mode that the context has now.
pub const GOES_ELSEWHERE: u32 = 2;
/// What `interpret` says: shadow code is left.
pub const LEAVES: u32 = 1;

/// What `fill` says: the access is the interpreter's.
pub const NOT_PLAIN: u64 = 0;
/// What `fill` says: the slot has been filled, try again.
pub const FILLED: u64 = 1;

/// Bytes of an FXSAVE image.
const FXSAVE_BYTES: usize = 512;

/// An FXSAVE image.
#[repr(C, align(16))]
pub struct Fxsave(pub [u8; FXSAVE_BYTES]);

/// How many modes are found without the monitor: kernel and user with and without something.
pub const KNOWN: usize = 4;

/// What running in a mode takes.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The mode.
    pub mode: Mode,
    /// Its exec map.
    pub exec: u64,
    /// Exec maps by selector, in segmented modes.
    pub far: u64,
}

/// What shadow code and bridge know of the monitor: R13.
#[repr(C)]
pub struct Context {
    /// The exec map for each value of the attention byte, see [`super::space`].
    pub exec: [u64; 256],
    /// The attention byte of code that has none of the machine's: zero, or all ones to make it stop at every poll.
    pub own_attention: u8,
    /// The machine's attention byte, or the own one. For code that is not made for its distance from R13.
    pub attention: *const u8,
    /// The guest's registers.
    pub state: *mut CpuState,
    /// R15: the slots of the direct map, or the window, and [`SLOT_SHIFT`].
    pub slots: u64,
    /// What R12 holds besides ESP: the address of the window, or nothing.
    pub stack_base: u64,
    /// Stack pointer of the host.
    host_rsp: u64,
    /// Stack pointer of shadow code, in its return stack, while it calls the host.
    shadow_rsp: u64,
    /// The processor, for `fill`.
    pub vcpu: *mut c_void,
    /// Fills the slot of a linear address: processor, address, [`super::translate::access`] bits. [`NOT_PLAIN`], [`FILLED`], or
    /// the distance to the host memory for this access alone.
    pub fill: unsafe extern "sysv64" fn(*mut c_void, u32, u32) -> u64,
    /// Interprets an instruction: context, [`crate::interp::op::Op`]. [`GOES_ON`], [`GOES_ELSEWHERE`], or shadow code is left.
    pub interpret: unsafe extern "sysv64" fn(*mut Context, *const c_void) -> u32,
    /// Where the copy of `bridge_to_host` is.
    pub to_host: u64,
    /// See [`Leave`].
    pub leave: u32,
    /// The access that `fill` was asked for.
    access: u32,
    /// Which kind of terminal instruction shadow code was left for: a [`super::classify::Terminal`] and one, or zero.
    pub terminal: u32,
    /// Arithmetic flags: OF in bit 0, the other five as LAHF has them in bits 8 to 15. The other bits mean nothing.
    pub flags: u32,
    /// See [`Leave`].
    pub target: u64,
    /// Polls left before shadow code stops by itself (only code that counts looks at it).
    pub budget: i64,
    /// Bits of the attention byte for which a poll leaves.
    pub wanted: u8,
    /// +1, or -1 when EFLAGS.DF is set.
    pub direction: i64,
    /// The guest's floating-point state is in the host's registers.
    pub fpu_loaded: u8,
    /// Number of the segment of the last operand in memory of an x87 instruction, or [`super::fpu::NO_SEGMENT`].
    pub fpu_operand_segment: u8,
    /// FOP, while that in the processor's state is [`super::fpu::NO_OPCODE`].
    pub fpu_opcode: u16,
    /// Descriptors that shadow code can load segment registers from.
    pub descriptors: Descriptors,
    /// The segment register that is being loaded from a descriptor worth remembering, and one; or zero.
    pub loading: u8,
    /// The fault of [`Leave::Fault`].
    pub fault: Option<Fault>,
    /// The mode that shadow code was entered in; far transfers may have changed the base of CS since.
    pub mode: Option<Mode>,
    /// Modes that an instruction that is interpreted in place may lead to without a look at the monitor.
    pub known: [Option<Known>; KNOWN],
    /// That may happen.
    pub redirects: bool,
    /// User code may have a window.
    pub windows: bool,
    /// The window that user code with the present CR3 is to have now, or zero: that is the monitor's to decide.
    pub window: u64,
    /// When user code was left for another privilege level, in ticks; zero: not yet.
    pub left_user: u64,
    /// What R15 is for a supervisor and for a user, with the direct map.
    pub sides: [u64; 2],
    /// The map generation then.
    pub generation: u64,
    /// Each run ends at its first poll: it is compared with the interpreter.
    pub in_lockstep: bool,
    /// The exec map of that mode (or of the segment that far transfers have led to since), and the one that is empty.
    pub maps: [u64; 2],
    /// In segmented modes: the exec maps by selector, see [`super::space::FarTable`].
    pub far: u64,
    /// See [`super::links`].
    pub link_logs: super::links::Logs,
    /// Instructions interpreted in place, by [`super::classify::Terminal`].
    pub in_place: [u64; Terminal::COUNT],
    /// MXCSR of the guest while `interpret` runs.
    guest_mxcsr: u32,
    /// A control word on its way into the unit.
    pub control_word: u16,
    /// MXCSR of the host.
    host_mxcsr: u32,
    /// Where the guest's floating-point state is when it is not loaded.
    pub fpu: Fxsave,
    /// XMM registers while `fill` runs.
    xmm: [u128; 8],
    /// The linear address of an access that met an empty slot, of an instruction that is a [`Terminal::Device`].
    pub device_linear: u32,
}

impl Context {
    /// A context that nothing is in yet.
    pub fn new(
        fill: unsafe extern "sysv64" fn(*mut c_void, u32, u32) -> u64,
        interpret: unsafe extern "sysv64" fn(*mut Self, *const c_void) -> u32,
    ) -> Self {
        Self {
            exec: [0; 256],
            own_attention: 0,
            attention: std::ptr::null(),
            state: std::ptr::null_mut(),
            slots: 0,
            stack_base: 0,
            host_rsp: 0,
            shadow_rsp: 0,
            vcpu: std::ptr::null_mut(),
            fill,
            interpret,
            to_host: 0,
            leave: 0,
            access: 0,
            terminal: 0,
            flags: 0,
            target: 0,
            budget: 0,
            wanted: 0,
            direction: 1,
            fpu_loaded: 0,
            fpu_operand_segment: super::fpu::NO_SEGMENT,
            fpu_opcode: 0,
            descriptors: Descriptors::default(),
            loading: 0,
            fault: None,
            mode: None,
            known: [None; KNOWN],
            redirects: false,
            windows: false,
            window: 0,
            left_user: 0,
            sides: [0; 2],
            generation: 0,
            in_lockstep: false,
            maps: [0; 2],
            far: 0,
            link_logs: [0; 2],
            in_place: [0; Terminal::COUNT],
            guest_mxcsr: 0,
            control_word: 0,
            host_mxcsr: MXCSR_OF_RUST,
            fpu: Fxsave([0; FXSAVE_BYTES]),
            xmm: [0; 8],
            device_linear: 0,
        }
    }
}

/// All exceptions masked, to nearest: what the Rust language promises its code.
const MXCSR_OF_RUST: u32 = 0x1f80;

/// Offset of a general register in [`CpuState`].
pub const fn gpr_at(register: usize) -> usize {
    offset_of!(CpuState, gpr) + 4 * register
}

/// Stores the guest's general registers and arithmetic flags.
macro_rules! store_guest {
    () => {
        concat!(
            "mov [r14 + {eax}], eax\n",
            "lahf\n",
            "seto al\n",
            // All of EAX, as it is read: a part of it would have to reach memory first.
            "mov [r13 + {flags}], eax\n",
            "mov [r14 + {ecx}], ecx\n",
            "mov [r14 + {edx}], edx\n",
            "mov [r14 + {ebx}], ebx\n",
            "mov [r14 + {esp}], r12d\n",
            "mov [r14 + {ebp}], ebp\n",
            "mov [r14 + {esi}], esi\n",
            "mov [r14 + {edi}], edi\n",
        )
    };
}

/// Loads the guest's general registers and arithmetic flags.
macro_rules! load_guest {
    () => {
        concat!(
            "mov ecx, [r14 + {ecx}]\n",
            "mov edx, [r14 + {edx}]\n",
            "mov ebx, [r14 + {ebx}]\n",
            "mov r12d, [r14 + {esp}]\n",
            "add r12, [r13 + {stack_base}]\n",
            "mov ebp, [r14 + {ebp}]\n",
            "mov esi, [r14 + {esi}]\n",
            "mov edi, [r14 + {edi}]\n",
            "mov eax, [r13 + {flags}]\n",
            "add al, 127\n",
            "sahf\n",
            "mov eax, [r14 + {eax}]\n",
        )
    };
}

/// Stores the XMM registers, which Rust code may use.
macro_rules! store_xmm {
    () => {
        concat!(
            "movaps [r13 + {xmm}], xmm0\n",
            "movaps [r13 + {xmm} + 16], xmm1\n",
            "movaps [r13 + {xmm} + 32], xmm2\n",
            "movaps [r13 + {xmm} + 48], xmm3\n",
            "movaps [r13 + {xmm} + 64], xmm4\n",
            "movaps [r13 + {xmm} + 80], xmm5\n",
            "movaps [r13 + {xmm} + 96], xmm6\n",
            "movaps [r13 + {xmm} + 112], xmm7\n",
        )
    };
}

/// Takes them back.
macro_rules! load_xmm {
    () => {
        concat!(
            "movaps xmm0, [r13 + {xmm}]\n",
            "movaps xmm1, [r13 + {xmm} + 16]\n",
            "movaps xmm2, [r13 + {xmm} + 32]\n",
            "movaps xmm3, [r13 + {xmm} + 48]\n",
            "movaps xmm4, [r13 + {xmm} + 64]\n",
            "movaps xmm5, [r13 + {xmm} + 80]\n",
            "movaps xmm6, [r13 + {xmm} + 96]\n",
            "movaps xmm7, [r13 + {xmm} + 112]\n",
        )
    };
}

/// Takes back what `bridge_fill` saved.
macro_rules! pop_scratch {
    () => {
        concat!(
            "add rsp, 8\n",
            "popfq\n",
            "pop r11\n",
            "pop r10\n",
            "pop r8\n",
            "pop rdi\n",
            "pop rsi\n",
            "pop rdx\n",
            "pop rcx\n",
            "pop rax\n",
        )
    };
}

/// Returns from `task_switch`, with RSP as it was saved.
macro_rules! return_to_monitor {
    () => {
        concat!(
            "add rsp, 8\n",
            "pop r15\n",
            "pop r14\n",
            "pop r13\n",
            "pop r12\n",
            "pop rbp\n",
            "pop rbx\n",
            "ret\n",
        )
    };
}

#[unsafe(naked)]
unsafe extern "sysv64" fn bridge_to_vm(_context: *mut Context, _code: u64) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "mov r13, rdi",
        "mov r9, rsi",
        "mov [r13 + {host_rsp}], rsp",
        "mov r14, [r13 + {state}]",
        "mov r15, [r13 + {slots}]",
        "cmp byte ptr [r13 + {fpu_loaded}], 0",
        "je 2f",
        "fxrstor64 [r13 + {fpu}]",
        "2:",
        load_guest!(),
        "lea rsp, [r13 + {stack_top}]",
        "jmp r9",
        ".globl vmsim_bridge_to_vm_end",
        "vmsim_bridge_to_vm_end:",
        host_rsp = const offset_of!(Context, host_rsp),
        stack_top = const STACK_TOP,
        state = const offset_of!(Context, state),
        slots = const offset_of!(Context, slots),
        stack_base = const offset_of!(Context, stack_base),
        fpu_loaded = const offset_of!(Context, fpu_loaded),
        fpu = const offset_of!(Context, fpu),
        flags = const offset_of!(Context, flags),
        eax = const gpr_at(gpr::EAX),
        ecx = const gpr_at(gpr::ECX),
        edx = const gpr_at(gpr::EDX),
        ebx = const gpr_at(gpr::EBX),
        esp = const gpr_at(gpr::ESP),
        ebp = const gpr_at(gpr::EBP),
        esi = const gpr_at(gpr::ESI),
        edi = const gpr_at(gpr::EDI),
    )
}

#[unsafe(naked)]
unsafe extern "sysv64" fn bridge_to_host() {
    naked_asm!(
        store_guest!(),
        "mov rsp, [r13 + {host_rsp}]",
        "cmp byte ptr [r13 + {fpu_loaded}], 0",
        "je 2f",
        "fxsave64 [r13 + {fpu}]",
        // What the host's own x87 code, as any function, may take for granted: an empty stack, and its control word.
        "fninit",
        "ldmxcsr [r13 + {host_mxcsr}]",
        "2:",
        return_to_monitor!(),
        ".globl vmsim_bridge_to_host_end",
        "vmsim_bridge_to_host_end:",
        host_rsp = const offset_of!(Context, host_rsp),
        host_mxcsr = const offset_of!(Context, host_mxcsr),
        fpu_loaded = const offset_of!(Context, fpu_loaded),
        fpu = const offset_of!(Context, fpu),
        flags = const offset_of!(Context, flags),
        eax = const gpr_at(gpr::EAX),
        ecx = const gpr_at(gpr::ECX),
        edx = const gpr_at(gpr::EDX),
        ebx = const gpr_at(gpr::EBX),
        esp = const gpr_at(gpr::ESP),
        ebp = const gpr_at(gpr::EBP),
        esi = const gpr_at(gpr::ESI),
        edi = const gpr_at(gpr::EDI),
    )
}

#[unsafe(naked)]
unsafe extern "sysv64" fn bridge_fill() {
    naked_asm!(
        "mov [r13 + {shadow_rsp}], rsp",
        "mov rsp, [r13 + {host_rsp}]",
        "push rax",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r10",
        "push r11",
        "pushfq",
        "sub rsp, 8",
        "cmp byte ptr [r13 + {fpu_loaded}], 0",
        "je 2f",
        store_xmm!(),
        "2:",
        "mov rdi, [r13 + {vcpu}]",
        "mov esi, r8d",
        "mov edx, r9d",
        "mov [r13 + {access}], r9d",
        "call [r13 + {fill}]",
        "cmp byte ptr [r13 + {fpu_loaded}], 0",
        "je 2f",
        load_xmm!(),
        "2:",
        "cmp rax, {filled}",
        "jb 3f",
        "mov rcx, [rsp + {r10}]",
        "jne 5f",
        "mov rcx, [r13 + {shadow_rsp}]",
        "mov rcx, [rcx]",
        "add rcx, {jump_bytes}",
        "5:",
        "mov [rsp + {r10}], rcx",
        "mov r9, rax",
        pop_scratch!(),
        "mov rsp, [r13 + {shadow_rsp}]",
        "ret",
        "3:",
        "mov dword ptr [r13 + {leave}], {interpret}",
        "test dword ptr [r13 + {access}], {float}",
        "jz 4f",
        "mov dword ptr [r13 + {leave}], {interpret_float}",
        "4:",
        pop_scratch!(),
        "jmp [r13 + {to_host}]",
        ".globl vmsim_bridge_fill_end",
        "vmsim_bridge_fill_end:",
        shadow_rsp = const offset_of!(Context, shadow_rsp),
        host_rsp = const offset_of!(Context, host_rsp),
        fpu_loaded = const offset_of!(Context, fpu_loaded),
        xmm = const offset_of!(Context, xmm),
        vcpu = const offset_of!(Context, vcpu),
        fill = const offset_of!(Context, fill),
        leave = const offset_of!(Context, leave),
        to_host = const offset_of!(Context, to_host),
        access = const offset_of!(Context, access),
        filled = const FILLED,
        // Where `pop_scratch` finds R10.
        r10 = const 3 * size_of::<u64>(),
        jump_bytes = const FILL_JUMP_BYTES,
        float = const super::translate::access::FLOAT,
        interpret = const Leave::Interpret as u32,
        interpret_float = const Leave::InterpretFloat as u32,
    )
}

#[unsafe(naked)]
unsafe extern "sysv64" fn bridge_interpret() {
    naked_asm!(
        store_guest!(),
        "cmp byte ptr [r13 + {fpu_loaded}], 0",
        "je 2f",
        store_xmm!(),
        "stmxcsr [r13 + {guest_mxcsr}]",
        "ldmxcsr [r13 + {host_mxcsr}]",
        "2:",
        "mov [r13 + {shadow_rsp}], rsp",
        "mov rsp, [r13 + {host_rsp}]",
        "mov rdi, r13",
        "mov rsi, r9",
        "call [r13 + {interpret}]",
        "mov rsp, [r13 + {shadow_rsp}]",
        "cmp byte ptr [r13 + {fpu_loaded}], 0",
        "je 2f",
        "ldmxcsr [r13 + {guest_mxcsr}]",
        load_xmm!(),
        "2:",
        "cmp eax, {leaves}",
        "je 3f",
        "ja 4f",
        load_guest!(),
        "ret",
        // Another mode, and a jump through its exec map, as shadow code makes it; nobody returns to the caller, nor where calls of
        // the old mode have come from.
        "4:",
        "mov r15, [r13 + {slots}]",
        load_guest!(),
        "lea rsp, [r13 + {stack_top}]",
        "mov r8d, [r13 + {target}]",
        "mov r10, [r13 + {attention}]",
        "movzx r10d, byte ptr [r10]",
        "shrx r9d, r8d, r15d",
        "mov r10, [r13 + r10 * 8 + {exec}]",
        "mov r10, [r10 + r9 * 8]",
        "mov r9d, [r10 + r8 * 4]",
        "jmp r9",
        // Leaves as bridge_to_host does, but what is in the registers now is not the guest's.
        "3:",
        "mov rsp, [r13 + {host_rsp}]",
        "cmp byte ptr [r13 + {fpu_loaded}], 0",
        "je 2f",
        "fxsave64 [r13 + {fpu}]",
        // What the host's own x87 code, as any function, may take for granted: an empty stack, and its control word.
        "fninit",
        "ldmxcsr [r13 + {host_mxcsr}]",
        "2:",
        return_to_monitor!(),
        ".globl vmsim_bridge_interpret_end",
        "vmsim_bridge_interpret_end:",
        shadow_rsp = const offset_of!(Context, shadow_rsp),
        interpret = const offset_of!(Context, interpret),
        leaves = const LEAVES,
        stack_top = const STACK_TOP,
        slots = const offset_of!(Context, slots),
        target = const offset_of!(Context, target),
        attention = const offset_of!(Context, attention),
        exec = const offset_of!(Context, exec),
        stack_base = const offset_of!(Context, stack_base),
        guest_mxcsr = const offset_of!(Context, guest_mxcsr),
        host_rsp = const offset_of!(Context, host_rsp),
        host_mxcsr = const offset_of!(Context, host_mxcsr),
        fpu_loaded = const offset_of!(Context, fpu_loaded),
        xmm = const offset_of!(Context, xmm),
        fpu = const offset_of!(Context, fpu),
        flags = const offset_of!(Context, flags),
        eax = const gpr_at(gpr::EAX),
        ecx = const gpr_at(gpr::ECX),
        edx = const gpr_at(gpr::EDX),
        ebx = const gpr_at(gpr::EBX),
        esp = const gpr_at(gpr::ESP),
        ebp = const gpr_at(gpr::EBP),
        esi = const gpr_at(gpr::ESI),
        edi = const gpr_at(gpr::EDI),
    )
}

unsafe extern "C" {
    static vmsim_bridge_interpret_end: u8;
    static vmsim_bridge_to_vm_end: u8;
    static vmsim_bridge_to_host_end: u8;
    static vmsim_bridge_fill_end: u8;
}

/// Bytes of `jmp r10`.
const FILL_JUMP_BYTES: usize = 3;

/// Where the copies are in a code cache.
#[derive(Clone, Copy, Debug)]
pub struct Bridge {
    to_vm: u64,
    /// `bridge_to_host`: to be jumped to with [`Context::leave`] set.
    pub to_host: u64,
    /// `bridge_interpret`: to be called with EIP behind the instruction, and the address of its `Op` in R9.
    pub interpret: u64,
    /// `bridge_fill`: to be called with the linear address in R8D, the access in R9D, and in R10 where to go on with the place of
    /// this one access in R9. Behind the call there is `jmp r10`, and what tries again.
    pub fill: u64,
}

impl Bridge {
    /// Addresses where nothing is, for listings.
    pub const fn pretended(at: u64) -> Self {
        Self { to_vm: at, to_host: at + 0x100, interpret: at + 0x200, fill: at + 0x300 }
    }

    /// Copies the bridge to the head of the code cache.
    pub fn install(cache: &mut CodeCache) -> Self {
        let mut copy = |start: *const u8, end: &'static u8| {
            let len = std::ptr::from_ref(end) as usize - start as usize;
            // SAFETY: both labels delimit one naked function in this program's code, which is readable.
            let code = unsafe { std::slice::from_raw_parts(start, len) };
            cache.append(code).unwrap_or_else(|| unreachable!("an empty cache has room"))
        };
        // SAFETY: only their addresses are used.
        let (to_vm_end, to_host_end, fill_end, interpret_end) = unsafe {
            (
                &vmsim_bridge_to_vm_end,
                &vmsim_bridge_to_host_end,
                &vmsim_bridge_fill_end,
                &vmsim_bridge_interpret_end,
            )
        };
        Self {
            to_vm: copy(bridge_to_vm as *const u8, to_vm_end),
            to_host: copy(bridge_to_host as *const u8, to_host_end),
            interpret: copy(bridge_interpret as *const u8, interpret_end),
            fill: copy(bridge_fill as *const u8, fill_end),
        }
    }

    /// Runs shadow code from `code` until it leaves: `context.leave` says why.
    ///
    /// # Safety
    /// `code` is shadow code (or its continuation) in the cache where this bridge is, made for the mode that `context`'s state is
    /// in; the pointers in `context` are valid, and nobody else uses what they point to meanwhile.
    pub unsafe fn task_switch(&self, context: &mut Context, code: u64) {
        context.to_host = self.to_host;
        // SAFETY: `to_vm` is the copy of a function of this type, which keeps all registers that the ABI wants kept.
        let enter: unsafe extern "sysv64" fn(*mut Context, u64) = unsafe { std::mem::transmute(self.to_vm) };
        // SAFETY: promised by the caller.
        unsafe { enter(context, code) }
    }
}
