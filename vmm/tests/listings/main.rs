//! Golden listings: guest snippets and the shadow code that they become, in the text files beside this one. A change of the
//! translator shows there as a difference that can be read. After a change that is meant:
//! `VMSIM_BLESS=1 cargo test --release -p vmsim-vmm --test listings`.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use vmm::shadow::{Snippet, listing};

/// 32-bit, flat, of the kernel.
const FLAT: Snippet<'static> = Snippet {
    bytes: &[],
    eip: 0x1_0040,
    code32: true,
    stack32: true,
    user: false,
    flat: true,
    window: false,
    sse: true,
    segmented: false,
    cs_base: 0,
    reads_eip: None,
};
/// 32-bit with segments that have bases and limits.
const SEGMENTED: Snippet<'static> = Snippet { flat: false, ..FLAT };
/// 32-bit, flat, of a user in a window.
const WINDOW: Snippet<'static> = Snippet { user: true, window: true, ..FLAT };
/// Real mode.
const REAL: Snippet<'static> = Snippet {
    eip: 0x100,
    code32: false,
    stack32: false,
    flat: false,
    sse: false,
    segmented: true,
    cs_base: 0x1_2340,
    ..FLAT
};

/// What is listed: title, mode and code.
type Listed = (&'static str, Snippet<'static>, &'static [u8]);

/// By file.
const LISTINGS: &[(&str, &[Listed])] = &[
    (
        "plain",
        &[
            ("registers", FLAT, &[0x01, 0xd8, 0x66, 0x29, 0xca, 0x00, 0xe1, 0x8d, 0x44, 0x8b, 0x10]),
            ("ESP is R12", FLAT, &[0x89, 0xe5, 0x83, 0xec, 0x10, 0x8d, 0x44, 0x24, 0x08]),
            ("REP BSF is BSF", FLAT, &[0xf3, 0x0f, 0xbc, 0xc1]),
            ("DIV", FLAT, &[0xf7, 0xf1]),
            ("IDIV of 8 bits", FLAT, &[0xf6, 0xf9]),
            ("one-byte INC", FLAT, &[0x40, 0x66, 0x4b]),
            ("SHLD of 16 bits is interpreted", FLAT, &[0x66, 0x0f, 0xa5, 0xd8]),
        ],
    ),
    (
        "memory",
        &[
            ("load, flags dead", FLAT, &[0x8b, 0x04, 0x8b, 0x31, 0xc9]),
            ("load, flags live", FLAT, &[0x8b, 0x46, 0x04, 0x72, 0x00]),
            ("store of a byte", FLAT, &[0x88, 0x26, 0x31, 0xc0]),
            ("read-modify-write", FLAT, &[0x01, 0x05, 0x78, 0x56, 0x34, 0x12]),
            ("LOCK XADD", FLAT, &[0xf0, 0x0f, 0xc1, 0x0e]),
            ("through FS", FLAT, &[0x64, 0xa1, 0x10, 0x00, 0x00, 0x00, 0x31, 0xc9]),
            ("with a limit", SEGMENTED, &[0x8b, 0x43, 0x08, 0x31, 0xc9]),
            ("of a user", Snippet { user: true, ..FLAT }, &[0x8b, 0x03, 0x31, 0xc9]),
            ("16-bit address", REAL, &[0x8b, 0x40, 0x10, 0x31, 0xc9]),
        ],
    ),
    (
        "stack",
        &[
            ("PUSH and POP", FLAT, &[0x55, 0x5d, 0x31, 0xc0]),
            ("a run of them and RET", FLAT, &[0x55, 0x53, 0x6a, 0xff, 0x5f, 0x5b, 0x5d, 0xc3]),
            ("PUSH constant", FLAT, &[0x6a, 0xff, 0x31, 0xc0]),
            ("PUSH memory", FLAT, &[0xff, 0x74, 0x24, 0x04, 0x31, 0xc0]),
            ("POP ESP", FLAT, &[0x5c, 0x31, 0xc0]),
            ("PUSHA and POPA", FLAT, &[0x60, 0x61, 0x31, 0xc0]),
            ("LEAVE", FLAT, &[0xc9, 0x31, 0xc0]),
            ("in real mode", REAL, &[0x50, 0x58, 0x31, 0xc0]),
        ],
    ),
    (
        "flow",
        &[
            ("loop", FLAT, &[0x49, 0x75, 0xfd]),
            ("loop that keeps flags", FLAT, &[0x11, 0xd8, 0x49, 0x75, 0xfb]),
            ("LOOP", FLAT, &[0x40, 0xe2, 0xfd]),
            ("JECXZ", FLAT, &[0xe3, 0x02, 0x31, 0xc0]),
            ("forward over an instruction", FLAT, &[0x74, 0x02, 0x31, 0xc0]),
            ("to another page", FLAT, &[0xe9, 0x00, 0x20, 0x00, 0x00]),
            ("CALL and what it returns to", FLAT, &[0xe8, 0x03, 0x00, 0x00, 0x00, 0x31, 0xc0, 0xf4, 0xc3]),
            ("CALL memory", FLAT, &[0xff, 0x13]),
            ("JMP register", FLAT, &[0xff, 0xe0]),
            ("RET", FLAT, &[0xc3]),
            ("RET 8", FLAT, &[0xc2, 0x08, 0x00]),
            ("RET in real mode", REAL, &[0xc3]),
        ],
    ),
    (
        "string",
        &[
            ("LODSB and STOSB", FLAT, &[0xac, 0xaa, 0x31, 0xc9]),
            ("MOVSD", FLAT, &[0xa5, 0x31, 0xc9]),
            ("SCASB and CMPSB", FLAT, &[0xae, 0xa6, 0x31, 0xc9]),
            ("REP MOVSD", FLAT, &[0xf3, 0xa5, 0x31, 0xc9]),
            ("REP STOSB", FLAT, &[0xf3, 0xaa, 0x31, 0xc9]),
            ("STD and CLD", FLAT, &[0xfd, 0xfc]),
            ("XLAT", FLAT, &[0xd7, 0x31, 0xc9]),
            ("MOVSW in real mode", REAL, &[0xa5, 0x31, 0xc9]),
        ],
    ),
    (
        "float",
        &[
            ("x87", FLAT, &[0xd9, 0x03, 0xd8, 0xc1, 0xdd, 0x1e, 0x31, 0xc0]),
            ("x87, flags live", FLAT, &[0xd9, 0xe8, 0x72, 0x00]),
            ("FLDCW", FLAT, &[0xd9, 0x2b, 0x31, 0xc0]),
            ("FSIN is interpreted", FLAT, &[0xd9, 0xfe]),
            ("MMX", FLAT, &[0x0f, 0x6f, 0x03, 0x0f, 0xfe, 0xc1, 0x31, 0xc0]),
            ("SSE, aligned", FLAT, &[0x0f, 0x28, 0x03, 0x0f, 0x58, 0xc1, 0x31, 0xc0]),
            ("SSE that is not there", REAL, &[0x0f, 0x28, 0x07]),
        ],
    ),
    (
        "segment",
        &[
            ("MOV to DS", REAL, &[0x8e, 0xd8, 0x31, 0xc9]),
            ("POP ES", REAL, &[0x07, 0x31, 0xc9]),
            ("LES", REAL, &[0xc4, 0x3f, 0x31, 0xc9]),
            ("MOV to SS, and what follows it", REAL, &[0x8e, 0xd0, 0x31, 0xc9]),
            ("CALL far", REAL, &[0x9a, 0x10, 0x00, 0x00, 0xf0]),
            ("RET far", REAL, &[0xcb]),
            ("IRET", REAL, &[0xcf]),
        ],
    ),
    (
        "window",
        &[
            ("a load and a store", WINDOW, &[0x8b, 0x43, 0x08, 0x89, 0x04, 0x8b]),
            ("a load with an index", WINDOW, &[0x8b, 0x44, 0x8b, 0x04]),
            ("a run of PUSH and a CALL", WINDOW, &[0x55, 0x53, 0x6a, 0xff, 0xe8, 0x10, 0x20, 0x00, 0x00]),
            ("POP and RET", WINDOW, &[0x5b, 0x5d, 0xc3]),
            (
                "a CALL to read EIP",
                Snippet { reads_eip: Some(3), ..WINDOW },
                &[0x53, 0xe8, 0x10, 0x20, 0x00, 0x00, 0x81, 0xc3, 0xba, 0x1f, 0x00, 0x00],
            ),
            (
                "what comes between",
                WINDOW,
                &[0x53, 0x8b, 0x44, 0x24, 0x08, 0x8d, 0x14, 0x24, 0x50, 0x83, 0xec, 0x10],
            ),
            ("a frame", WINDOW, &[0x55, 0x89, 0xe5, 0x57, 0x83, 0xec, 0x0c, 0x89, 0x04, 0x24, 0x31, 0xc0]),
            ("the end of one", WINDOW, &[0x83, 0xc4, 0x0c, 0x5b, 0x5e, 0x31, 0xc0, 0xc3]),
            ("flags of ADD that are read", WINDOW, &[0x83, 0xc4, 0x0c, 0x72, 0x00]),
            ("a tight loop", WINDOW, &[0x8a, 0x0e, 0x46, 0x84, 0xc9, 0x75, 0xf9]),
        ],
    ),
    (
        "system",
        &[
            ("port", FLAT, &[0xec, 0x31, 0xc0]),
            ("CLI and STI", FLAT, &[0xfa, 0x90, 0xfb, 0x90]),
            ("PUSHF and POPF", FLAT, &[0x9c, 0x9d]),
            ("segment registers", FLAT, &[0x8c, 0xd8, 0x8e, 0xd8]),
            ("CPUID", FLAT, &[0x0f, 0xa2]),
            ("INT", FLAT, &[0xcd, 0x80]),
            ("invalid", FLAT, &[0x0f, 0xff]),
        ],
    ),
];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/listings").join(name).with_extension("txt")
}

/// The first line that differs, with what is around it.
fn difference(expected: &str, found: &str) -> String {
    const AROUND: usize = 6;
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let same = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let part = |lines: &[&str]| {
        lines
            .iter()
            .skip(same.saturating_sub(AROUND))
            .take(2 * AROUND)
            .copied()
            .collect::<Vec<_>>()
            .join("\n")
    };
    format!("line {}:\n--- expected\n{}\n--- found\n{}", same + 1, part(&expected), part(&found))
}

#[test]
fn shadow_code_is_what_the_listings_say() {
    let bless = std::env::var_os("VMSIM_BLESS").is_some();
    let mut failures = String::new();
    for (name, snippets) in LISTINGS {
        let mut text = String::new();
        for (title, snippet, bytes) in *snippets {
            let _ = writeln!(text, "== {title}\n{}", listing(&Snippet { bytes, ..*snippet }));
        }
        if bless {
            std::fs::write(file(name), &text).expect("the tests' folder can be written");
            continue;
        }
        let expected = std::fs::read_to_string(file(name)).unwrap_or_default();
        if expected != text {
            let _ = writeln!(failures, "{name}.txt, {}", difference(&expected, &text));
        }
    }
    assert!(failures.is_empty(), "{failures}\nIf that is meant: VMSIM_BLESS=1 cargo test --test listings");
}

#[test]
fn a_listing_is_the_same_each_time() {
    let snippet = Snippet { bytes: &[0x8b, 0x03, 0x75, 0xfc], ..FLAT };
    assert_eq!(listing(&snippet), listing(&snippet));
}
