//! What the keyboard sends, by scan code set, and how its queues behave.

use super::*;
use crate::keyboard::i8042::translation::translate;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

/// A keyboard that has passed its self-test.
fn keyboard() -> Ps2Keyboard {
    let mut keyboard = Ps2Keyboard::new();
    keyboard.power_on(VirtualTime(0));
    keyboard.deadline_reached(VirtualTime(BAT_NANOS));
    assert_eq!(drain(&mut keyboard), [BAT_PASSED]);
    keyboard
}

fn keyboard_in(set: u8) -> Ps2Keyboard {
    let mut keyboard = keyboard();
    assert_eq!(exchange(&mut keyboard, &[SELECT_SCAN_CODES, set]), [ACK, ACK]);
    keyboard
}

fn drain(keyboard: &mut Ps2Keyboard) -> Vec<u8> {
    std::iter::from_fn(|| keyboard.send(VirtualTime(SECOND))).collect()
}

fn exchange(keyboard: &mut Ps2Keyboard, bytes: &[u8]) -> Vec<u8> {
    for byte in bytes {
        keyboard.receive(*byte, VirtualTime(SECOND));
    }
    drain(keyboard)
}

fn key(keyboard: &mut Ps2Keyboard, key: Key, pressed: bool) {
    keyboard.host_event(&HostEvent::Key { key, pressed }, VirtualTime(SECOND));
}

fn codes(keyboard: &mut Ps2Keyboard, strokes: &[(Key, bool)]) -> Vec<u8> {
    for (which, pressed) in strokes {
        key(keyboard, *which, *pressed);
    }
    drain(keyboard)
}

#[test]
fn every_key_has_one_row_and_every_row_differs() {
    for (known, name) in Key::ALL {
        assert_eq!(scancodes::KEYS.iter().filter(|row| row.key == *known).count(), 1, "{name}");
    }
    for set in [ScanCodeSet::Set1, ScanCodeSet::Set2, ScanCodeSet::Set3] {
        let mut makes: Vec<_> =
            scancodes::KEYS.iter().map(|row| row.make(set, Modifiers::default())).collect();
        makes.sort();
        makes.dedup();
        assert_eq!(makes.len(), scancodes::KEYS.len(), "{set:?}");
    }
}

/// The set 1 column and the controller's translation of the set 2 column are independent
/// tables, and must say the same for every key in every combination of modifiers.
#[test]
fn translated_set_2_is_set_1() {
    for row in scancodes::KEYS {
        for bits in 0..32 {
            let modifiers = Modifiers {
                left_shift: bits & 1 != 0,
                right_shift: bits & 2 != 0,
                ctrl: bits & 4 != 0,
                alt: bits & 8 != 0,
                leds: if bits & 16 != 0 { LED_NUM_LOCK } else { 0 },
            };
            for codes in [KeyCodes::make, KeyCodes::repeat, KeyCodes::break_] {
                let mut pending = false;
                let translated: Vec<u8> = codes(row, ScanCodeSet::Set2, modifiers)
                    .into_iter()
                    .filter_map(|byte| translate(byte, &mut pending))
                    .collect();
                assert_eq!(translated, codes(row, ScanCodeSet::Set1, modifiers), "{:?}", row.key);
            }
        }
    }
}

#[test]
fn plain_and_extended_keys_in_each_set() {
    let strokes = [(Key::A, true), (Key::A, false), (Key::RIGHT_CTRL, true), (Key::RIGHT_CTRL, false)];
    for (set, expected) in [
        (1, &[0x1e, 0x9e, 0xe0, 0x1d, 0xe0, 0x9d][..]),
        (2, &[0x1c, 0xf0, 0x1c, 0xe0, 0x14, 0xe0, 0xf0, 0x14]),
        // A is typematic and right Ctrl make-only there: no break codes.
        (3, &[0x1c, 0x58]),
    ] {
        let mut keyboard = keyboard_in(set);
        assert_eq!(codes(&mut keyboard, &strokes), expected, "set {set}");
    }
}

#[test]
fn navigation_keys_hide_from_num_lock_and_shift() {
    let mut keyboard = keyboard();
    let home = [(Key::HOME, true), (Key::HOME, false)];

    assert_eq!(codes(&mut keyboard, &home), [0xe0, 0x6c, 0xe0, 0xf0, 0x6c]);

    exchange(&mut keyboard, &[SET_LEDS, LED_NUM_LOCK]);
    assert_eq!(codes(&mut keyboard, &home), [0xe0, 0x12, 0xe0, 0x6c, 0xe0, 0xf0, 0x6c, 0xe0, 0xf0, 0x12]);

    codes(&mut keyboard, &[(Key::RIGHT_SHIFT, true)]);
    assert_eq!(codes(&mut keyboard, &home), [0xe0, 0x6c, 0xe0, 0xf0, 0x6c]);

    exchange(&mut keyboard, &[SET_LEDS, 0]);
    assert_eq!(codes(&mut keyboard, &home), [0xe0, 0xf0, 0x59, 0xe0, 0x6c, 0xe0, 0xf0, 0x6c, 0xe0, 0x59]);
}

#[test]
fn print_screen_and_pause_have_their_sequences() {
    let mut keyboard = keyboard();

    assert_eq!(
        codes(&mut keyboard, &[(Key::PRINT_SCREEN, true), (Key::PRINT_SCREEN, false)]),
        [0xe0, 0x12, 0xe0, 0x7c, 0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12]
    );
    assert_eq!(
        codes(&mut keyboard, &[(Key::PAUSE, true), (Key::PAUSE, false)]),
        [0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77]
    );
    codes(&mut keyboard, &[(Key::LEFT_ALT, true)]);
    assert_eq!(
        codes(&mut keyboard, &[(Key::PRINT_SCREEN, true), (Key::PRINT_SCREEN, false)]),
        [0x84, 0xf0, 0x84]
    );
    codes(&mut keyboard, &[(Key::LEFT_ALT, false), (Key::LEFT_CTRL, true)]);
    assert_eq!(
        codes(&mut keyboard, &[(Key::PAUSE, true), (Key::PAUSE, false)]),
        [0xe0, 0x7e, 0xe0, 0xf0, 0x7e]
    );
}

#[test]
fn repeated_press_events_of_the_host_are_one_press() {
    let mut keyboard = keyboard();
    assert_eq!(codes(&mut keyboard, &[(Key::A, true), (Key::A, true), (Key::A, true)]), [0x1c]);
    assert_eq!(codes(&mut keyboard, &[(Key::A, false), (Key::A, false)]), [0xf0, 0x1c]);
    assert_eq!(codes(&mut keyboard, &[(Key(0x03), true)]), [], "not a key");
}

#[test]
fn held_key_repeats_after_the_delay_at_the_rate() {
    let mut keyboard = keyboard();
    // 250 ms, 30 per second.
    exchange(&mut keyboard, &[SET_TYPEMATIC, 0]);

    assert_eq!(codes(&mut keyboard, &[(Key::A, true)]), [0x1c]);
    let first = VirtualTime(SECOND + 250_000_000);
    assert_eq!(keyboard.deadline(), Some(first));
    keyboard.deadline_reached(first);
    assert_eq!(drain(&mut keyboard), [0x1c]);
    let second = first + 33_360_000;
    assert_eq!(keyboard.deadline(), Some(second));
    keyboard.deadline_reached(second);
    assert_eq!(drain(&mut keyboard), [0x1c]);

    // Another key takes over, and the first one's release does not end it.
    assert_eq!(codes(&mut keyboard, &[(Key::B, true), (Key::A, false)]), [0x32, 0xf0, 0x1c]);
    let late = VirtualTime(2 * SECOND);
    keyboard.deadline_reached(late);
    assert_eq!(drain(&mut keyboard), [0x32]);
    codes(&mut keyboard, &[(Key::B, false)]);
    assert_eq!(keyboard.deadline(), None);
}

#[test]
fn repetition_does_not_pile_up_while_nobody_reads() {
    let mut keyboard = keyboard();
    key(&mut keyboard, Key::A, true);
    for _ in 0..20 {
        let deadline = keyboard.deadline().expect("the key is held");
        keyboard.deadline_reached(deadline);
    }
    key(&mut keyboard, Key::A, false);
    assert_eq!(drain(&mut keyboard), [0x1c, 0xf0, 0x1c]);
}

#[test]
fn default_rate_is_eleven_per_second_after_half_a_second() {
    assert_eq!(typematic_delay_nanos(DEFAULT_TYPEMATIC), 500_000_000);
    assert_eq!(SECOND / (typematic_period_nanos(DEFAULT_TYPEMATIC) / 10), 109);
    assert_eq!(typematic_delay_nanos(TYPEMATIC_MASK), SECOND);
    assert_eq!(typematic_period_nanos(0x1f), 120 * 4_170_000);
}

#[test]
fn commands_are_answered() {
    let mut keyboard = keyboard();
    assert_eq!(exchange(&mut keyboard, &[ECHO]), [ECHO]);
    assert_eq!(exchange(&mut keyboard, &[READ_ID]), [ACK, 0xab, 0x83]);
    assert_eq!(exchange(&mut keyboard, &[RESEND]), [0x83]);
    assert_eq!(exchange(&mut keyboard, &[SET_LEDS, 0b101]), [ACK, ACK]);
    assert_eq!(keyboard.leds(), 0b101);
    assert_eq!(exchange(&mut keyboard, &[SELECT_SCAN_CODES, SCAN_CODES_QUERY]), [ACK, ACK, 2]);
    assert_eq!(exchange(&mut keyboard, &[SELECT_SCAN_CODES, 4]), [ACK, RESEND_REQUEST]);
    assert_eq!(exchange(&mut keyboard, &[0x12]), [RESEND_REQUEST]);
    assert_eq!(exchange(&mut keyboard, &[0xef]), [RESEND_REQUEST]);
    // A command in the place of an option byte.
    assert_eq!(exchange(&mut keyboard, &[SET_LEDS, READ_ID]), [ACK, ACK, 0xab, 0x83]);
    assert_eq!(keyboard.leds(), 0b101);
}

#[test]
fn disabled_keyboard_sends_nothing_and_forgets_what_was_typed() {
    let mut keyboard = keyboard();
    assert_eq!(exchange(&mut keyboard, &[DEFAULT_DISABLE]), [ACK]);
    assert_eq!(codes(&mut keyboard, &[(Key::A, true), (Key::A, false)]), []);
    assert_eq!(exchange(&mut keyboard, &[ENABLE]), [ACK]);
    assert_eq!(codes(&mut keyboard, &[(Key::B, true)]), [0x32]);
}

#[test]
fn reset_acknowledges_then_tests_itself_and_takes_defaults() {
    let mut keyboard = keyboard_in(1);
    exchange(&mut keyboard, &[SET_LEDS, 7]);
    key(&mut keyboard, Key::A, true);

    assert_eq!(exchange(&mut keyboard, &[RESET]), [ACK]);
    assert_eq!(keyboard.leds(), 0);
    let ends = keyboard.deadline().expect("self-test runs");
    assert_eq!(ends, VirtualTime(SECOND + BAT_NANOS));
    keyboard.deadline_reached(ends);
    assert_eq!(drain(&mut keyboard), [BAT_PASSED]);
    // Held over the reset: its press is forgotten, its release is not taken for a press.
    assert_eq!(codes(&mut keyboard, &[(Key::A, false), (Key::A, true)]), [0xf0, 0x1c, 0x1c]);
}

#[test]
fn set_3_keys_take_the_types_given() {
    let mut keyboard = keyboard_in(3);
    let strokes = [(Key::A, true), (Key::A, false), (Key::F1, true), (Key::F1, false)];

    assert_eq!(exchange(&mut keyboard, &[SET_ALL_MAKE_BREAK]), [ACK]);
    assert_eq!(codes(&mut keyboard, &strokes), [0x1c, 0xf0, 0x1c, 0x07, 0xf0, 0x07]);
    assert_eq!(exchange(&mut keyboard, &[SET_KEY_MAKE, 0x1c, 0x07, ENABLE]), [ACK; 4]);
    assert_eq!(codes(&mut keyboard, &strokes), [0x1c, 0x07]);
    exchange(&mut keyboard, &[SET_KEY_TYPEMATIC, 0x07, ENABLE]);
    key(&mut keyboard, Key::A, true);
    assert_eq!(keyboard.deadline(), None, "A is make-only now");
    key(&mut keyboard, Key::F1, true);
    assert!(keyboard.deadline().is_some(), "F1 is typematic now");
    exchange(&mut keyboard, &[SET_DEFAULT, SELECT_SCAN_CODES, 3]);
    assert_eq!(
        codes(&mut keyboard, &[(Key::LEFT_SHIFT, true), (Key::LEFT_SHIFT, false)]),
        [0x12, 0xf0, 0x12]
    );
}

#[test]
fn strokes_that_find_the_buffer_full_wait_and_keep_their_order() {
    let mut keyboard = keyboard();
    let letters = [Key::A, Key::B, Key::C, Key::D, Key::E, Key::F, Key::G, Key::H, Key::I, Key::J];
    let mut expected = Vec::new();
    for letter in letters {
        key(&mut keyboard, letter, true);
        key(&mut keyboard, letter, false);
        let code = scancodes::find(letter).expect("a letter").set3; // the same as in set 2
        expected.extend([code, 0xf0, code]);
    }
    assert!(keyboard.state.buffer.len() <= BUFFER_BYTES);
    assert_eq!(drain(&mut keyboard), expected);
}

#[test]
fn overrun_is_told_once_and_no_key_sticks() {
    let mut keyboard = keyboard();
    key(&mut keyboard, Key::LEFT_SHIFT, true);
    for _ in 0..2 * WAITING_STROKES {
        key(&mut keyboard, Key::A, true);
        key(&mut keyboard, Key::A, false);
    }
    key(&mut keyboard, Key::LEFT_SHIFT, false);
    key(&mut keyboard, Key::B, true);
    assert!(keyboard.state.validate().is_ok());

    let codes = drain(&mut keyboard);

    let count = |sequence: &[u8]| codes.windows(sequence.len()).filter(|w| *w == sequence).count();
    // Lost presses of A and the lost one of B lie on the two sides of the Shift release.
    assert_eq!(count(&[OVERRUN]), 2);
    let breaks = count(&[0xf0, 0x1c]);
    assert!(breaks > WAITING_STROKES / 3);
    assert_eq!(count(&[0x1c]) - breaks, breaks, "each press sent has its release");
    assert_eq!(count(&[0xf0, 0x12]), 1, "Shift is let go");
    assert_eq!(count(&[0x32]), 0, "B was lost");
    assert_eq!(keyboard.state.held, state::Bits256::default());
}

#[test]
fn answers_go_before_waiting_codes() {
    let mut keyboard = keyboard();
    key(&mut keyboard, Key::A, true);
    assert_eq!(exchange(&mut keyboard, &[SET_LEDS, 0]), [ACK, ACK, 0x1c]);
}

#[test]
fn unread_answers_are_bounded() {
    let mut keyboard = keyboard();
    assert_eq!(exchange(&mut keyboard, &[ECHO; 100]).len(), ANSWER_BYTES);
}

proptest! {
    /// Whatever bytes are offered as state, the keyboard refuses them or works on with them.
    #[test]
    fn hostile_state_does_no_harm(data in proptest::collection::vec(any::<u8>(), 0..400), flip: (usize, u8)) {
        let mut keyboard = keyboard();
        let _ = keyboard.load(&data);
        let mut state = Vec::new();
        keyboard.save(&mut state);
        let index = flip.0 % state.len();
        state[index] = flip.1;
        if keyboard.load(&state).is_ok() {
            key(&mut keyboard, Key::HOME, true);
            for _ in 0..50 {
                if let Some(deadline) = keyboard.deadline() {
                    keyboard.deadline_reached(deadline);
                }
            }
            key(&mut keyboard, Key::HOME, false);
            exchange(&mut keyboard, &[READ_ID]);
        }
    }
}
