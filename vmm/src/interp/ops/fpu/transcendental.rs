//! F2XM1, FYL2X, FYL2XP1, FPATAN, FPTAN, FSIN, FCOS, FSINCOS.
//!
//! No standard says what their last bit is; Intel's processors and others differ. On x86-64 hosts the host's own unit
//! computes them, to its extended precision. Elsewhere the host's double precision has to do: results then have 53
//! significant bits, and are inexact where they could be exact.

#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable;

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
    /// Whether C2 says that the operand is out of range. (Elsewhere C2 means nothing.)
    const TRIGONOMETRIC: bool;

    /// Computes it under a control word. Exceptions go to `env`.
    fn compute(env: &mut Env, control: u16, st0: F80, st1: F80) -> Results;
}

macro_rules! functions {
    ($($name:ident $stack:ident $trigonometric:literal $instruction:ident)*) => {
        $(
            struct $name;

            impl Function for $name {
                const STACK: Stack = Stack::$stack;
                const TRIGONOMETRIC: bool = $trigonometric;

                #[cfg(target_arch = "x86_64")]
                fn compute(env: &mut Env, control: u16, st0: F80, st1: F80) -> Results {
                    let outcome = super::host::$instruction(control, st0, st1);
                    env.flags = (outcome.status & fsw::EXCEPTIONS) as u8;
                    env.rounded_up = outcome.status & fsw::C1 != 0;
                    let out_of_range = Self::TRIGONOMETRIC && outcome.status & fsw::C2 != 0;
                    Results { out_of_range, values: outcome.results }
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
    PowerOfTwo Replace false f2xm1
    Logarithm Pop false fyl2x
    LogarithmOfSum Pop false fyl2xp1
    ArcTangent Pop false fpatan
    Tangent Push true fptan
    Sine Replace true fsin
    Cosine Replace true fcos
    SineAndCosine Push true fsincos
}

fn compute<B: Bus, F: Function>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let fpu = &mut cpu.state.fpu;
    if F::TRIGONOMETRIC {
        fpu.status &= !fsw::C2;
    }
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

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::{Results, portable};
    use crate::cpu::fpu::fcw;
    use crate::interp::ops::fpu::host::{self, Outcome};
    use crate::softfloat::{Env, F64, F80, x87};

    fn value(a: f64) -> F80 {
        x87::load(&mut Env::default(), F64(a.to_bits()))
    }

    fn number(a: F80) -> f64 {
        f64::from_bits(x87::store::<F64>(&mut Env::default(), a).0)
    }

    #[test]
    fn portable_functions_are_close_to_those_of_the_unit() {
        type Portable = fn(&mut Env, F80, F80) -> Results;
        type OnUnit = fn(u16, F80, F80) -> Outcome;
        let functions: [(&str, Portable, OnUnit, f64); 8] = [
            ("f2xm1", portable::f2xm1, host::f2xm1, 1.0),
            ("fyl2x", portable::fyl2x, host::fyl2x, 1e9),
            ("fyl2xp1", portable::fyl2xp1, host::fyl2xp1, 0.29),
            ("fpatan", portable::fpatan, host::fpatan, 1e9),
            ("fptan", portable::fptan, host::fptan, 1.5),
            ("fsin", portable::fsin, host::fsin, 3.0),
            ("fcos", portable::fcos, host::fcos, 1.5),
            ("fsincos", portable::fsincos, host::fsincos, 1.5),
        ];
        for (name, portable, on_unit, largest) in functions {
            for step in 1..100 {
                let (a, b) = (value(largest * f64::from(step) / 100.0), value(f64::from(step) - 30.5));
                let ours = portable(&mut Env::default(), a, b);
                let theirs = on_unit(fcw::AFTER_INIT, a, b);
                let count = if matches!(name, "fptan" | "fsincos") { 2 } else { 1 };
                for (ours, theirs) in ours.values.into_iter().zip(theirs.results).take(count) {
                    let (ours, theirs) = (number(ours), number(theirs));
                    let error = (ours - theirs).abs() / theirs.abs().max(1e-3);
                    assert!(error < 1e-14, "{name} {}, {}: {ours}, not {theirs}", number(a), number(b));
                }
            }
        }
    }

    #[test]
    fn portable_trigonometry_refuses_large_operands() {
        let large = value(9.3e18);
        assert!(portable::fsin(&mut Env::default(), large, large).out_of_range);
        assert!(!portable::fsin(&mut Env::default(), value(9.2e18), large).out_of_range);
    }
}
