//! How long operations take: `cargo test --release -p vmsim-vmm softfloat::tests::bench -- --ignored --nocapture`.

use super::Random;
use crate::softfloat::{Env, F64, F80, exception, sse, x87};
use std::hint::black_box;
use std::time::Instant;

/// In one measurement: short, so that some are not interrupted.
const OPERATIONS: usize = 50_000;
const MEASUREMENTS: usize = 300;

/// Nanoseconds for each operation on independent operands; the loop itself takes about one.
fn time<T: Copy>(name: &str, operands: &[T; 1024], mut operation: impl FnMut(T, T) -> T) {
    let mut best = f64::MAX;
    for _ in 0..MEASUREMENTS {
        let start = Instant::now();
        for i in 0..OPERATIONS {
            black_box(&operation(operands[i % 1024], operands[(i + 1) % 1024]));
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / OPERATIONS as f64);
    }
    println!("{name}: {best:.1} ns");
}

#[test]
#[ignore = "a measurement"]
fn bench() {
    let mut random = Random(7);
    let extended: [F80; 1024] = std::array::from_fn(|_| F80 {
        significand: random.next() | 1 << 63,
        sign_exponent: ((16383 - 20 + random.below(40)) | (random.below(2) << 15)) as u16,
    });
    let double: [F64; 1024] = std::array::from_fn(|_| {
        F64((random.below(2) << 63 | (1000 + random.below(40)) << 52) | random.next() >> 12)
    });
    let mut env = Env::default();
    time("nothing", &extended, |a, _| a);
    time("F80 add", &extended, |a, b| x87::add(&mut env, a, b));
    let positive = extended.map(F80::abs);
    time("F80 add, same signs", &positive, |a, b| x87::add(&mut env, a, b));
    time("F80 mul", &extended, |a, b| x87::mul(&mut env, a, b));
    time("F80 div", &extended, |a, b| x87::div(&mut env, a, b));
    time("F80 sqrt", &extended, |a, _| x87::sqrt(&mut env, a.abs()));
    time("F64 load, F80 add", &double, |a, b| {
        black_box(x87::add(&mut env, extended[0], a));
        b
    });
    time("F80 store to F64", &extended, |a, b| {
        black_box(x87::store::<F64>(&mut env, a));
        b
    });
    let mut quick = Env { flags: exception::PE, ..Env::default() };
    time("F64 add, PE set", &double, |a, b| sse::add(&mut quick, a, b));
    time("F64 mul, PE set", &double, |a, b| sse::mul(&mut quick, a, b));
    let mut slow = Env { unmasked: exception::OE, ..Env::default() };
    time("F64 add, an exception unmasked", &double, |a, b| sse::add(&mut slow, a, b));
    time("F64 mul, an exception unmasked", &double, |a, b| sse::mul(&mut slow, a, b));
}
