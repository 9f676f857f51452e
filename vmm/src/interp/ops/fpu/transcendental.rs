//! F2XM1, FYL2X, FYL2XP1, FPATAN, FPTAN, FSIN, FCOS, FSINCOS.
//!
//! No standard says what their last bit is; Intel's processors and others differ. On x86-64 hosts the host's own unit
//! computes them, to its extended precision. Elsewhere the host's double precision has to do: results then have 53
//! significant bits, and are inexact where they could be exact.

use super::unit::{begin, complete, environment, note, overflow, underflow};
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::Exec;
use crate::cpu::fpu::fsw;
use crate::interp::decode::Decoded;
use crate::interp::op::{Handler, Op};
use crate::softfloat::{Env, F80};
use iced_x86::Mnemonic;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    use Mnemonic::*;
    Some(match form.mnemonic {
        F2xm1 => compute::<B, PowerOfTwo>,
        Fyl2x => compute::<B, Logarithm>,
        Fyl2xp1 => compute::<B, LogarithmOfSum>,
        Fpatan => compute::<B, ArcTangent>,
        Fptan => compute::<B, Tangent>,
        Fsin => compute::<B, Sine>,
        Fcos => compute::<B, Cosine>,
        Fsincos => compute::<B, SineAndCosine>,
        _ => return None,
    })
}

/// What becomes of the register stack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stack {
    /// ST(0) is replaced.
    Replace,
    /// ST(1) is replaced and ST(0) popped.
    Pop,
    /// ST(0) is replaced and a second result pushed.
    Push,
}

/// Results of a function.
struct Results {
    /// C2: the operand is out of range, and stays.
    out_of_range: bool,
    /// What ST(0) and ST(1) are then.
    values: [F80; 2],
}

/// A function of ST(0), or of ST(0) and ST(1).
trait Function: 'static {
    const STACK: Stack;

    /// Computes it under a control word. Exceptions go to `env`.
    fn compute(env: &mut Env, control: u16, st0: F80, st1: F80) -> Results;
}

macro_rules! functions {
    ($($name:ident $stack:ident $instruction:ident)*) => {
        $(
            struct $name;

            impl Function for $name {
                const STACK: Stack = Stack::$stack;

                #[cfg(target_arch = "x86_64")]
                fn compute(env: &mut Env, control: u16, st0: F80, st1: F80) -> Results {
                    let outcome = super::host::$instruction(control, st0, st1);
                    env.flags = (outcome.status & fsw::EXCEPTIONS) as u8;
                    env.rounded_up = outcome.status & fsw::C1 != 0;
                    Results { out_of_range: outcome.status & fsw::C2 != 0, values: outcome.results }
                }

                #[cfg(not(target_arch = "x86_64"))]
                fn compute(env: &mut Env, _control: u16, st0: F80, st1: F80) -> Results {
                    portable::$instruction(env, st0, st1)
                }
            }
        )*
    };
}

functions! {
    PowerOfTwo Replace f2xm1
    Logarithm Pop fyl2x
    LogarithmOfSum Pop fyl2xp1
    ArcTangent Pop fpatan
    Tangent Push fptan
    Sine Replace fsin
    Cosine Replace fcos
    SineAndCosine Push fsincos
}

fn compute<B: Bus, F: Function>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let fpu = &mut cpu.state.fpu;
    fpu.status &= !fsw::C2;
    let mut results = Results { out_of_range: false, values: [F80::INDEFINITE; 2] };
    let empty = fpu.is_empty(0) || F::STACK == Stack::Pop && fpu.is_empty(1);
    let has_results = if empty {
        underflow(cpu)
    } else if F::STACK == Stack::Push && !fpu.is_empty(7) {
        overflow(cpu)
    } else {
        let mut env = environment(fpu);
        results = F::compute(&mut env, fpu.control, fpu.st(0), fpu.st(1));
        complete(cpu, &env)
    };
    let fpu = &mut cpu.state.fpu;
    if results.out_of_range {
        fpu.status |= fsw::C2;
    } else if has_results {
        let [first, second] = results.values;
        match F::STACK {
            Stack::Replace => fpu.set_st(0, first),
            Stack::Pop => {
                fpu.pop();
                fpu.set_st(0, first);
            }
            Stack::Push => {
                fpu.set_st(0, second);
                fpu.push(first);
            }
        }
    }
    Ok(())
}

/// The same with the host's double precision.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable;
