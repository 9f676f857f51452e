//! `vmsim type` and `vmsim key`.

use crate::client;
use anyhow::{Result, bail};
use display::typing;
use ipc::control::{Control, Request};
use ipc::input::{HostEvent, Key};
use std::time::Duration;

/// How long a typed key is held, and the pause after it: what BIOS keyboard buffers keep up with.
const STROKE: Duration = Duration::from_millis(8);

fn send(control: &mut Control, key: Key, pressed: bool) -> Result<()> {
    control.ask(&Request::Input(vec![HostEvent::Key { key, pressed }]))?;
    Ok(())
}

/// Types a text.
pub fn type_text(text: &str, vm: Option<&str>) -> Result<()> {
    let text = typing::unescape(text)?;
    let combinations = typing::combinations_for(&text)?;
    let (mut control, _) = client::connect(vm)?;
    for combination in combinations {
        // Together: a key whose release is late, on a busy host, would repeat in the guest.
        let stroke = |stroke: typing::Stroke| HostEvent::Key { key: stroke.key, pressed: stroke.pressed };
        control.ask(&Request::Input(combination.strokes().into_iter().map(stroke).collect()))?;
        std::thread::sleep(STROKE);
    }
    Ok(())
}

/// Presses combinations such as `ctrl-alt-del`, one after the other.
pub fn press(combinations: &[String], vm: Option<&str>) -> Result<()> {
    let parsed = combinations.iter().map(|text| parse(text)).collect::<Result<Vec<_>>>()?;
    let (mut control, _) = client::connect(vm)?;
    for keys in parsed {
        for key in &keys {
            send(&mut control, *key, true)?;
        }
        std::thread::sleep(STROKE);
        for key in keys.iter().rev() {
            send(&mut control, *key, false)?;
        }
        std::thread::sleep(STROKE);
    }
    Ok(())
}

fn parse(text: &str) -> Result<Vec<Key>> {
    text.split('-')
        .map(|name| {
            let known = Key::ALL.iter().find(|(_, known)| known.eq_ignore_ascii_case(name));
            match known {
                Some((key, _)) => Ok(*key),
                None => {
                    let names: Vec<_> = Key::ALL.iter().map(|(_, name)| *name).collect();
                    bail!("No key is called '{name}' (in '{text}'); keys: {}", names.join(" "))
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_are_read_and_unknown_keys_named() {
        assert_eq!(parse("Ctrl-alt-del").unwrap(), [Key::LEFT_CTRL, Key::LEFT_ALT, Key::DELETE]);
        assert!(parse("ctrl-hyper").unwrap_err().to_string().contains("hyper"));
    }
}
