//! Who gets the keys: the guest, or the window itself.
//!
//! The guest has the input focus from when the window gets the desktop's focus, or is
//! clicked, until Ctrl+Alt is pressed and let go without another key. Whenever it loses the
//! focus, all keys that are down for it go up: the guest must not keep a key that was let go
//! elsewhere.

use ipc::input::Key;

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The guest's key goes down or up.
    Send(Key, bool),
    /// The guest loses the input focus.
    Release,
    /// Full screen on or off.
    ToggleFullScreen,
    /// Ctrl+Alt+Del for the guest.
    CtrlAltDel,
}

/// Keys that do something for the window while Ctrl and Alt are held.
const HOT_KEYS: &[(Key, Action)] = &[(Key::F, Action::ToggleFullScreen), (Key::INSERT, Action::CtrlAltDel)];

/// The keys that are down, and for whom.
#[derive(Debug, Default)]
pub struct Focus {
    captured: bool,
    /// Keys that are down on the person's keyboard.
    down: Vec<Key>,
    /// Those of them that the guest knows of.
    sent: Vec<Key>,
    /// Ctrl and Alt are down and nothing came after.
    release_pending: bool,
}

impl Focus {
    /// Gives the guest the input focus.
    pub fn capture(&mut self) {
        self.captured = true;
    }

    /// A key went down or up.
    pub fn key(&mut self, key: Key, pressed: bool) -> Vec<Action> {
        if pressed { self.press(key) } else { self.let_go(key) }
    }

    fn press(&mut self, key: Key) -> Vec<Action> {
        if self.down.contains(&key) {
            return Vec::new(); // The desktop's repetition; the guest's keyboard has its own.
        }
        let hot = self.hot_keys_down();
        self.down.push(key);
        if let Some((_, action)) = HOT_KEYS.iter().find(|(known, _)| hot && *known == key) {
            self.release_pending = false;
            // What the hot key does must not meet a guest with Ctrl and Alt held.
            return self.lift_all().into_iter().chain([*action]).collect();
        }
        self.release_pending = self.captured && is_hot_modifier(key) && self.hot_keys_down();
        if !self.captured {
            return Vec::new();
        }
        self.sent.push(key);
        vec![Action::Send(key, true)]
    }

    fn let_go(&mut self, key: Key) -> Vec<Action> {
        self.down.retain(|down| *down != key);
        let mut actions = Vec::new();
        if self.sent.contains(&key) {
            self.sent.retain(|sent| *sent != key);
            actions.push(Action::Send(key, false));
        }
        if self.release_pending && is_hot_modifier(key) {
            actions.extend(self.release());
            actions.push(Action::Release);
        }
        actions
    }

    /// Takes the input focus from the guest.
    pub fn release(&mut self) -> Vec<Action> {
        self.captured = false;
        self.release_pending = false;
        self.lift_all()
    }

    /// The desktop's focus went elsewhere: what is let go there is not seen here.
    pub fn lost(&mut self) -> Vec<Action> {
        self.down.clear();
        self.release()
    }

    fn lift_all(&mut self) -> Vec<Action> {
        self.sent.drain(..).rev().map(|key| Action::Send(key, false)).collect()
    }

    fn hot_keys_down(&self) -> bool {
        let down = |key| self.down.contains(&key);
        (down(Key::LEFT_CTRL) || down(Key::RIGHT_CTRL)) && down(Key::LEFT_ALT)
    }
}

/// Right Alt is not one: it is AltGr on many keyboards.
fn is_hot_modifier(key: Key) -> bool {
    matches!(key, Key::LEFT_CTRL | Key::RIGHT_CTRL | Key::LEFT_ALT)
}

#[cfg(test)]
mod tests {
    use super::Action::*;
    use super::*;

    fn captured() -> Focus {
        let mut focus = Focus::default();
        focus.capture();
        focus
    }

    fn strike(focus: &mut Focus, keys: &[(Key, bool)]) -> Vec<Action> {
        keys.iter().flat_map(|(key, pressed)| focus.key(*key, *pressed)).collect()
    }

    #[test]
    fn guest_gets_keys_once_and_only_with_the_focus() {
        let mut focus = Focus::default();
        assert_eq!(strike(&mut focus, &[(Key::A, true), (Key::A, false)]), []);
        focus.capture();
        assert_eq!(
            strike(&mut focus, &[(Key::A, true), (Key::A, true), (Key::A, false), (Key::A, false)]),
            [Send(Key::A, true), Send(Key::A, false)]
        );
    }

    #[test]
    fn ctrl_alt_let_go_releases_and_leaves_nothing_pressed() {
        let mut focus = captured();
        let actions = strike(
            &mut focus,
            &[(Key::X, true), (Key::LEFT_CTRL, true), (Key::LEFT_ALT, true), (Key::LEFT_CTRL, false)],
        );
        assert_eq!(
            actions[3..],
            [Send(Key::LEFT_CTRL, false), Send(Key::LEFT_ALT, false), Send(Key::X, false), Release]
        );
        assert!(!focus.captured);
        assert_eq!(strike(&mut focus, &[(Key::LEFT_ALT, false), (Key::X, false)]), []);
    }

    #[test]
    fn ctrl_alt_with_another_key_is_the_guests() {
        let mut focus = captured();
        let keys = [Key::LEFT_CTRL, Key::LEFT_ALT, Key::F1];
        let down = keys.map(|key| (key, true));
        let up = keys.map(|key| (key, false));
        assert_eq!(strike(&mut focus, &down), keys.map(|key| Send(key, true)));
        assert_eq!(strike(&mut focus, &up), keys.map(|key| Send(key, false)));
        assert!(focus.captured);
    }

    #[test]
    fn hot_keys_are_not_the_guests() {
        let mut focus = captured();
        strike(&mut focus, &[(Key::RIGHT_CTRL, true), (Key::LEFT_ALT, true)]);
        assert_eq!(
            strike(&mut focus, &[(Key::INSERT, true)]),
            [Send(Key::LEFT_ALT, false), Send(Key::RIGHT_CTRL, false), CtrlAltDel]
        );
        let up = [(Key::INSERT, false), (Key::LEFT_ALT, false), (Key::RIGHT_CTRL, false)];
        assert_eq!(strike(&mut focus, &up), []);
        assert!(focus.captured);
    }

    #[test]
    fn full_screen_works_without_the_focus_too() {
        let mut focus = Focus::default();
        let keys = [(Key::LEFT_CTRL, true), (Key::LEFT_ALT, true), (Key::F, true)];
        assert_eq!(strike(&mut focus, &keys), [ToggleFullScreen]);
    }

    #[test]
    fn losing_the_desktops_focus_lifts_all_keys() {
        let mut focus = captured();
        strike(&mut focus, &[(Key::LEFT_SHIFT, true), (Key::A, true)]);
        assert_eq!(focus.lost(), [Send(Key::A, false), Send(Key::LEFT_SHIFT, false)]);
        focus.capture();
        assert_eq!(strike(&mut focus, &[(Key::A, true)]), [Send(Key::A, true)]);
    }
}
