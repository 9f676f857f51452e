//! Entries of a recording in words, for people.

use super::deeds::FIRST_PIN;
use super::format::{Access, AccessKind, Answer, Call, Deed, PictureHash, RegionInfo, Status, What};
use super::names::Names;
use ipc::input::HostEvent;
use std::fmt::Write;

/// Bytes of data that are shown.
const SHOWN: usize = 16;
const NANOS: u64 = 1_000_000_000;

/// Seconds, with all digits.
pub fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / NANOS, nanos % NANOS)
}

/// The first bytes, and how many there are.
pub fn bytes(data: &[u8]) -> String {
    let mut text = String::new();
    for byte in data.iter().take(SHOWN) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{byte:02x}", if text.is_empty() { "" } else { " " });
    }
    if data.len() > SHOWN {
        let _ = write!(text, " ... ({} bytes)", data.len());
    }
    if text.is_empty() { "nothing".into() } else { text }
}

/// A call, with time and place in the guest.
pub fn call(names: &Names, call: &Call) -> String {
    let model = names.model_name(call.model);
    let what = match &call.what {
        What::Access(a) => return access(names, a, call.now),
        What::Reset(hard) => if *hard { "hard reset" } else { "power-on reset" }.into(),
        What::Acknowledge(vector) => format!("interrupt {vector:02x} acknowledged"),
        What::Timer(timer, deadline) => format!("timer {timer} of {} s", seconds(*deadline)),
        What::Event(event) => host_event(event),
        What::Lines => "interrupt lines changed".into(),
        What::Render(_) => "picture".into(),
    };
    format!("{} {model} {what}", seconds(call.now))
}

fn host_event(event: &HostEvent) -> String {
    match event {
        HostEvent::Key { key, pressed } => {
            let name = ipc::input::Key::ALL.iter().find(|(k, _)| k == key).map_or("?", |(_, name)| name);
            format!("key {name} {}", if *pressed { "down" } else { "up" })
        }
        HostEvent::Mouse { dx, dy, dz, buttons } => format!("mouse {dx} {dy} {dz}, buttons {buttons:x}"),
        HostEvent::Serial => "serial cable".into(),
    }
}

/// An access, with time and place in the guest.
pub fn access(names: &Names, access: &Access, now: u64) -> String {
    let model = names.model_name(access.model);
    let place = names.place(access);
    let (kind, address) = (access.kind.word(), access.address);
    let digits = 2 * usize::from(access.width);
    let written = match access.kind {
        AccessKind::Write | AccessKind::ConfigWrite => format!(" <- {:0digits$x}", access.value),
        AccessKind::WriteBurst => format!(" <- {}", bytes(&access.data)),
        _ => String::new(),
    };
    let (cs, eip) = access.guest;
    format!("{} {cs:04x}:{eip:08x} {model} {kind} {address:04x} {place}{written}", seconds(now))
}

/// What an access was answered; empty for a write that went well.
pub fn answer(access: &Access, answer: &Answer) -> String {
    let digits = 2 * usize::from(access.width);
    match answer.status {
        Status::Done if access.kind.is_write() => String::new(),
        Status::Done if access.kind == AccessKind::ReadBurst => bytes(&answer.data),
        Status::Done => format!("{:0digits$x}", answer.value),
        Status::InvalidRegister => "no such register".into(),
        Status::InvalidWidth => "not at this width".into(),
        Status::NoResponse => "no response".into(),
        Status::Deferred => "later".into(),
    }
}

/// Two answers that differ.
pub fn answers(access: &Access, recorded: &Answer, found: &Answer) -> (String, String) {
    if recorded.status == found.status && access.kind == AccessKind::ReadBurst {
        return pieces(&recorded.data, &found.data);
    }
    let text = |a: &Answer| {
        let text = answer(access, a);
        if text.is_empty() { "done".into() } else { text }
    };
    (text(recorded), text(found))
}

/// Two runs of bytes, from where they differ.
fn pieces(recorded: &[u8], found: &[u8]) -> (String, String) {
    let at = recorded.iter().zip(found).take_while(|(recorded, found)| recorded == found).count();
    let text = |data: &[u8]| format!("at {at:#x}: {}", bytes(data.get(at..).unwrap_or_default()));
    (text(recorded), text(found))
}

/// Name of a line or pin.
pub fn line_name(line: u8) -> String {
    if line < FIRST_PIN {
        format!("IRQ {line}")
    } else {
        format!("INT{}#", char::from(b'A' + (line - FIRST_PIN) % 4))
    }
}

/// Lines that are driven.
pub fn lines(lines: u32) -> String {
    let driven: Vec<_> = (0..20).filter(|line| lines & 1 << line != 0).map(line_name).collect();
    if driven.is_empty() { "none".into() } else { driven.join(", ") }
}

/// Armed timers.
pub fn timers(timers: &[(u8, u64)]) -> String {
    let armed: Vec<_> =
        timers.iter().map(|(timer, deadline)| format!("{timer} at {} s", seconds(*deadline))).collect();
    if armed.is_empty() { "none".into() } else { armed.join(", ") }
}

/// Mirror cells.
pub fn mirrors(names: &Names, model: u8, mirrors: &[(u16, u32)]) -> String {
    let cell = |(cell, value): &(u16, u32)| format!("{}={value:02x}", names.mirror(model, *cell));
    let cells: Vec<_> = mirrors.iter().map(cell).collect();
    if cells.is_empty() { "all 0".into() } else { cells.join(" ") }
}

/// Regions.
pub fn regions(regions: &[RegionInfo]) -> String {
    regions.iter().map(region).collect::<Vec<_>>().join("; ")
}

fn region(region: &RegionInfo) -> String {
    let space = if region.is_memory { "memory" } else { "ports" };
    let mut text =
        format!("{} {space} {:x}+{:x} width {}", region.name, region.base, region.len, region.width);
    let policy = ["sync", "posted", "posted local", "joined"];
    let _ = write!(text, " {}", policy.get(usize::from(region.writes)).unwrap_or(&"?"));
    if let Some(first) = region.mirror {
        let _ = write!(text, " mirrored {first}");
    }
    if let Some((offset, writable)) = region.backing {
        let _ = write!(text, " direct {offset:x}{}", if writable { "" } else { " read-only" });
    }
    if !region.enabled {
        text.push_str(" disabled");
    }
    text
}

/// What the kind of a deed is called.
pub fn kind_name(deed: &Deed) -> &'static str {
    match deed {
        Deed::Line(..) => "interrupt",
        Deed::Interrupt(_) => "interrupt request",
        Deed::Dma(..) => "DMA write",
        Deed::Dreq(..) => "DMA request",
        Deed::Channel(..) => "DMA channel",
        Deed::ImageWrite(..) => "disk write",
        Deed::ImageFlush(_) => "disk flush",
        Deed::Timer(..) => "timer",
        Deed::Mirror(..) => "mirror",
        Deed::Region(_) => "region",
        Deed::A20(..) => "A20",
        Deed::Shadow(..) => "shadow RAM",
        Deed::Reset(_) => "reset request",
        Deed::PowerOff => "power off",
        Deed::Late(_) => "late reply",
        Deed::Text(_) => "debug text",
        Deed::SerialTaken(..) | Deed::SerialPut(..) | Deed::SerialSent(..) => "serial",
    }
}

/// A deed in words.
pub fn deed(names: &Names, model: u8, deed: &Deed) -> String {
    let level = |level: bool| if level { "high" } else { "low" };
    match deed {
        Deed::Line(line, up) => format!("{} {}", line_name(*line), level(*up)),
        Deed::Interrupt(Some(vector)) => format!("INTR {vector:02x}"),
        Deed::Interrupt(None) => "INTR withdrawn".into(),
        Deed::Dma(address, data) => format!("DMA to {address:x}: {}", bytes(data)),
        Deed::Dreq(channel, up) => format!("DREQ {channel} {}", level(*up)),
        Deed::Channel(channel, [low, high]) => {
            let (address, count, page) = (low >> 32 & 0xffff, low >> 48, high & 0xff);
            format!("channel {channel} at {page:02x}:{address:04x}, {count:04x} left")
        }
        Deed::ImageWrite(image, offset, data) => format!("image {image} at {offset:x}: {}", bytes(data)),
        Deed::ImageFlush(image) => format!("image {image} flushed"),
        Deed::Timer(timer, Some(deadline)) => format!("timer {timer} at {} s", seconds(*deadline)),
        Deed::Timer(timer, None) => format!("timer {timer} off"),
        Deed::Mirror(cell, value) => format!("{} reads {value:02x}", names.mirror(model, *cell)),
        Deed::Region(info) => format!("region {}", region(info)),
        Deed::A20(source, on) => format!("A20 source {source} {}", level(*on)),
        Deed::Shadow(base, len, read, write) => {
            let what = |ram: bool| if ram { "RAM" } else { "bus" };
            format!("shadow {base:x}+{len:x}: reads {}, writes {}", what(*read), what(*write))
        }
        Deed::Reset(kind) => format!("reset request {kind}"),
        Deed::PowerOff => "power off".into(),
        Deed::Late(value) => format!("late reply {value:x}"),
        Deed::Text(text) => format!("text {:?}", String::from_utf8_lossy(text)),
        Deed::SerialTaken(port, taken) => format!("COM{} took up to {taken}", port.saturating_add(1)),
        Deed::SerialPut(port, at, byte) => format!("COM{} puts {byte:02x} at {at}", port.saturating_add(1)),
        Deed::SerialSent(port, sent) => format!("COM{} sent up to {sent}", port.saturating_add(1)),
    }
}

/// Two deeds that differ, or one that is missing.
pub fn deeds(names: &Names, model: u8, recorded: Option<&Deed>, found: Option<&Deed>) -> (String, String) {
    if let (Some(Deed::Dma(a, recorded)), Some(Deed::Dma(b, found))) = (recorded, found)
        && a == b
    {
        let (recorded, found) = pieces(recorded, found);
        return (format!("DMA to {a:x} {recorded}"), format!("DMA to {a:x} {found}"));
    }
    let text = |side: Option<&Deed>| side.map_or_else(|| "nothing".into(), |side| deed(names, model, side));
    (text(recorded), text(found))
}

/// What differs between two pictures.
pub fn pictures(recorded: &PictureHash, found: &PictureHash) -> (String, String, String) {
    let size = |hash: &PictureHash| format!("{} x {}", hash.width, hash.height);
    if (recorded.width, recorded.height) != (found.width, found.height) {
        return ("picture size".into(), size(recorded), size(found));
    }
    let differing = recorded.rows.iter().zip(&found.rows).position(|(recorded, found)| recorded != found);
    let hash = |value: u64| format!("hash {value:016x}");
    match differing {
        Some(at) => {
            let first = at * PictureHash::ROWS;
            let what = format!("pixels, rows {first} to {}", first + PictureHash::ROWS - 1);
            (what, hash(recorded.rows[at]), hash(found.rows[at]))
        }
        None => ("characters or cursor on the screen".into(), hash(recorded.text), hash(found.text)),
    }
}
