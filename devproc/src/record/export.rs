//! A recording in other forms: lines of text, JSON lines, VCD for waveform viewers, and figures.

use super::coverage::Coverage;
use super::deeds::FIRST_PIN;
use super::format::{Access, AccessKind, Answer, Call, Deed, FormatError, Learnt, What};
use super::items::{Item, Items, Transaction};
use super::names::{Names, Touched};
use super::show;
use crate::outside::ImageAct;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Read, Write};
use std::time::Duration;
use thiserror::Error;

/// A form to bring a recording into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A line per transaction.
    Text,
    /// A JSON object per line.
    Json,
    /// Value change dump (IEEE 1364, chapter 18).
    Vcd,
}

/// Which part of a recording is wanted.
#[derive(Clone, Debug)]
pub struct Part {
    /// First transaction.
    pub from: u64,
    /// Most lines.
    pub limit: u64,
    /// Only accesses to registers or regions whose names contain this, and only these.
    pub only: Option<String>,
    /// With what the model learnt and did.
    pub details: bool,
}

impl Default for Part {
    fn default() -> Self {
        Self { from: 0, limit: u64::MAX, only: None, details: false }
    }
}

/// Why a recording could not be brought into another form.
#[derive(Debug, Error)]
pub enum ExportError {
    /// It cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The result cannot be written.
    #[error("The result cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Writes a recording in another form.
///
/// # Errors
/// [`ExportError`].
pub fn export(source: impl Read, form: Form, part: &Part, out: &mut impl Write) -> Result<(), ExportError> {
    let (mut items, header) = Items::new(source)?;
    let names = Names::new(&header);
    if form == Form::Vcd {
        return vcd(&mut items, &names, part, out);
    }
    let (mut at, mut now, mut left) = (0, 0, part.limit);
    while left > 0
        && let Some(item) = items.next()?
    {
        if let Item::Transaction(transaction) = &item {
            (at, now) = (transaction.number, transaction.call.now);
        }
        if at < part.from || !wanted(&names, &item, part) {
            continue;
        }
        left -= 1;
        match form {
            Form::Text => text(&names, &item, now, part.details, out)?,
            _ => json(&names, &item, now, out)?,
        }
    }
    Ok(())
}

fn access_of(item: &Item) -> Option<&Access> {
    match item {
        Item::Bus(both) => Some(&both.0),
        Item::Transaction(transaction) => match &transaction.call.what {
            What::Access(access) => Some(access),
            _ => None,
        },
        Item::Start(_) | Item::End(_) => None,
    }
}

fn wanted(names: &Names, item: &Item, part: &Part) -> bool {
    let Some(only) = &part.only else { return true };
    let only = only.to_ascii_lowercase();
    access_of(item).is_some_and(|access| {
        let region = names.region(access).is_some_and(|region| region.name.contains(&only));
        region || names.place(access).to_ascii_lowercase().contains(&only)
    })
}

fn text(names: &Names, item: &Item, now: u64, details: bool, out: &mut impl Write) -> io::Result<()> {
    match item {
        Item::Start(start) => {
            let how = if start.cold { "power-on" } else { "running" };
            writeln!(out, "         {} starts, {how}", show::seconds(start.now))
        }
        Item::End(_) => writeln!(out, "         {} ends", show::seconds(now)),
        Item::Bus(both) => {
            let (access, answer) = &**both;
            let answer = show::answer(access, answer);
            let arrow = if answer.is_empty() { "" } else { " -> " };
            writeln!(out, "       - {}{arrow}{answer}", show::access(names, access, now))
        }
        Item::Transaction(transaction) => {
            let Transaction { number, call, learnt, outcome } = &**transaction;
            write!(out, "{number:>8} {}", show::call(names, call))?;
            let Some(outcome) = outcome else { return writeln!(out, " ... and did not come back") };
            if let What::Access(access) = &call.what {
                let answer = show::answer(access, &outcome.answer);
                write!(out, "{}{answer}", if answer.is_empty() { "" } else { " -> " })?;
            }
            let deeds: Vec<_> =
                outcome.deeds.iter().map(|deed| show::deed(names, call.model, deed)).collect();
            if !deeds.is_empty() && !details {
                write!(out, " | {}", deeds.join(", "))?;
            }
            if let Some(picture) = &outcome.picture {
                write!(out, " {} x {}", picture.width, picture.height)?;
            }
            writeln!(out)?;
            if details {
                for learnt in learnt {
                    writeln!(out, "           learnt {}", learnt_text(names, call.model, learnt))?;
                }
                for deed in deeds {
                    writeln!(out, "           did    {deed}")?;
                }
            }
            Ok(())
        }
    }
}

fn learnt_text(names: &Names, model: u8, learnt: &Learnt) -> String {
    match learnt {
        Learnt::Dma { address, data: Some(data), .. } => {
            format!("DMA from {address:x}: {}", show::bytes(data))
        }
        Learnt::Dma { address, len, data: None } => format!("DMA from {address:x}, {len} bytes: no RAM"),
        Learnt::DmaTaken { address, taken } => {
            format!("DMA to {address:x} {}", if *taken { "done" } else { "met no RAM" })
        }
        Learnt::Channel(channel, state, request) => {
            let dreq = if *request { ", DREQ" } else { "" };
            format!("{}{dreq}", show::deed(names, model, &Deed::Channel(*channel, *state)))
        }
        Learnt::Lines(isa, _, pirq) => format!("IRQ lines {isa:04x}, PIRQ {pirq:x}"),
        Learnt::Cable(port, connected, taken, sent) => {
            let peer = if *connected { "connected" } else { "not connected" };
            format!("COM{} {peer}, taken {taken}, sent {sent}", port.saturating_add(1))
        }
        Learnt::Serial(port, at, Some(byte)) => format!("COM{} {byte:02x} at {at}", port.saturating_add(1)),
        Learnt::Serial(port, at, None) => format!("COM{} nothing at {at}", port.saturating_add(1)),
        Learnt::Image(ImageAct::Read { image, offset, len, data }) => {
            let data = data.as_ref().map_or_else(|| "an error".into(), |data| show::bytes(data));
            format!("image {image} at {offset:x}, {len} bytes: {data}")
        }
        Learnt::Image(ImageAct::Write { image, offset, done, .. }) => {
            format!("image {image} write at {offset:x} {}", if *done { "done" } else { "failed" })
        }
        Learnt::Image(ImageAct::Flush { image, done }) => {
            format!("image {image} flush {}", if *done { "done" } else { "failed" })
        }
    }
}

/// A string in JSON.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out + "\""
}

fn json_access(names: &Names, access: &Access, answer: Option<&Answer>) -> String {
    let mut text = format!(
        ",\"model\":{},\"access\":{},\"address\":{},\"register\":{},\"width\":{},\"posted\":{},\"cs\":{},\"eip\":{}",
        quoted(names.model_name(access.model)),
        quoted(access.kind.word()),
        access.address,
        quoted(&names.place(access)),
        access.width,
        access.posted,
        access.guest.0,
        access.guest.1
    );
    match access.kind {
        AccessKind::Write | AccessKind::ConfigWrite => text += &format!(",\"value\":{}", access.value),
        AccessKind::WriteBurst => text += &format!(",\"data\":\"{}\"", hex(&access.data)),
        _ => {}
    }
    if let Some(answer) = answer {
        match access.kind {
            AccessKind::Read | AccessKind::ConfigRead => text += &format!(",\"value\":{}", answer.value),
            AccessKind::ReadBurst => text += &format!(",\"data\":\"{}\"", hex(&answer.data)),
            _ => {}
        }
        text += &format!(",\"status\":{}", quoted(&format!("{:?}", answer.status)));
    }
    text
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn json(names: &Names, item: &Item, now: u64, out: &mut impl Write) -> io::Result<()> {
    match item {
        Item::Start(start) => {
            writeln!(out, "{{\"type\":\"start\",\"ns\":{},\"cold\":{}}}", start.now, start.cold)
        }
        Item::End(_) => writeln!(out, "{{\"type\":\"end\",\"ns\":{now}}}"),
        Item::Bus(both) => {
            let access = json_access(names, &both.0, Some(&both.1));
            writeln!(out, "{{\"type\":\"bus\",\"ns\":{now}{access}}}")
        }
        Item::Transaction(transaction) => {
            let Transaction { number, call, learnt, outcome } = &**transaction;
            let what = match &call.what {
                What::Access(access) => json_access(names, access, outcome.as_ref().map(|o| &o.answer)),
                _ => {
                    let words = show::call(names, call);
                    let words = words.split_once(' ').map_or("", |(_, words)| words);
                    format!(",\"model\":{},\"call\":{}", quoted(names.model_name(call.model)), quoted(words))
                }
            };
            let learnt: Vec<_> =
                learnt.iter().map(|learnt| quoted(&learnt_text(names, call.model, learnt))).collect();
            let deeds = outcome.iter().flat_map(|outcome| &outcome.deeds);
            let deeds: Vec<_> = deeds.map(|deed| quoted(&show::deed(names, call.model, deed))).collect();
            let returned = outcome.is_some();
            writeln!(
                out,
                "{{\"type\":\"transaction\",\"number\":{number},\"ns\":{}{what},\"returned\":{returned},\
                 \"learnt\":[{}],\"did\":[{}]}}",
                call.now,
                learnt.join(","),
                deeds.join(",")
            )
        }
    }
}

/// Identifier of signal `number` in a VCD: printable characters from `!` to `~`.
fn identifier(mut number: usize) -> String {
    const FIRST: u8 = b'!';
    const COUNT: usize = 94;
    let mut text = String::new();
    loop {
        text.push(char::from(FIRST + (number % COUNT) as u8));
        number /= COUNT;
        if number == 0 {
            return text;
        }
    }
}

/// The signals of a VCD.
struct Signals {
    registers: BTreeMap<(u8, String), (String, u32, u32)>,
    lines: BTreeMap<(u8, u8), String>,
    dma: Vec<(String, String)>,
    pictures: Vec<String>,
}

fn vcd(
    items: &mut Items<impl Read>,
    names: &Names,
    part: &Part,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let mut signals = declare(names, out)?;
    let (mut at, mut now) = (0, 0);
    let mut written = None;
    while let Some(item) = items.next()? {
        match &item {
            // Time only goes on, whatever the recording says.
            Item::Transaction(transaction) => {
                at = transaction.number;
                now = transaction.call.now.max(now);
            }
            Item::Start(start) => now = start.now.max(now),
            _ => {}
        }
        if at < part.from || !wanted(names, &item, part) {
            continue;
        }
        let mut changes = String::new();
        match &item {
            Item::Bus(both) => signals.access(names, &both.0, Some(&both.1), &mut changes),
            Item::Transaction(transaction) => signals.transaction(names, transaction, &mut changes),
            Item::Start(start) => {
                for (model, start) in (0..).zip(&start.models) {
                    for line in (0..32).filter(|line| start.shown.lines & 1 << line != 0) {
                        signals.line(model, line, true, &mut changes);
                    }
                }
            }
            Item::End(_) => {}
        }
        if !changes.is_empty() {
            if written != Some(now) {
                writeln!(out, "#{now}")?;
                written = Some(now);
            }
            out.write_all(changes.as_bytes())?;
        }
    }
    writeln!(out, "#{}", now.saturating_add(1))?;
    Ok(())
}

fn declare(names: &Names, out: &mut impl Write) -> io::Result<Signals> {
    let mut count = 0;
    let mut next = || {
        count += 1;
        identifier(count - 1)
    };
    let mut signals =
        Signals { registers: BTreeMap::new(), lines: BTreeMap::new(), dma: Vec::new(), pictures: Vec::new() };
    writeln!(out, "$timescale 1 ns $end")?;
    let plain = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    for (model, info) in (0..).zip(names.models()) {
        writeln!(out, "$scope module {} $end", plain(&info.name))?;
        for register in &info.registers {
            if let Entry::Vacant(place) = signals.registers.entry((model, register.name.clone())) {
                let (id, bits) = (next(), u32::from(register.width) * 8);
                writeln!(out, "$var reg {bits} {id} {} $end", plain(&register.name))?;
                place.insert((id, bits, 0));
            }
        }
        for line in 0..FIRST_PIN + 4 {
            let id = next();
            writeln!(out, "$var wire 1 {id} {} $end", plain(&show::line_name(line)))?;
            signals.lines.insert((model, line), id);
        }
        let (address, len, picture) = (next(), next(), next());
        writeln!(out, "$var reg 64 {address} dma_address $end")?;
        writeln!(out, "$var reg 32 {len} dma_length $end")?;
        writeln!(out, "$var event 1 {picture} picture $end")?;
        signals.dma.push((address, len));
        signals.pictures.push(picture);
        writeln!(out, "$upscope $end")?;
    }
    writeln!(out, "$enddefinitions $end")?;
    writeln!(out, "$dumpvars")?;
    for id in signals.lines.values() {
        writeln!(out, "0{id}")?;
    }
    writeln!(out, "$end")?;
    Ok(signals)
}

impl Signals {
    fn line(&self, model: u8, line: u8, level: bool, out: &mut String) {
        if let Some(id) = self.lines.get(&(model, line)) {
            *out += &format!("{}{id}\n", u8::from(level));
        }
    }

    fn register(&mut self, model: u8, part: &Touched<'_>, mask: u32, value: u32, out: &mut String) {
        if let Some((id, _, last)) = self.registers.get_mut(&(model, part.register.name.clone())) {
            *last = *last & !mask | part.value(value) & mask;
            *out += &format!("b{last:b} {id}\n");
        }
    }

    fn access(&mut self, names: &Names, access: &Access, answer: Option<&Answer>, out: &mut String) {
        let value = match access.kind {
            AccessKind::Write | AccessKind::ConfigWrite => Some(access.value),
            AccessKind::Read | AccessKind::ConfigRead => answer.map(|answer| answer.value),
            AccessKind::ReadBurst | AccessKind::WriteBurst => None,
        };
        let Some(value) = value else { return };
        for part in names.touched(access) {
            let mask = part.mask(access);
            self.register(access.model, &part, mask, value, out);
        }
    }

    fn transaction(&mut self, names: &Names, transaction: &Transaction, out: &mut String) {
        let Transaction { call: Call { model, what, .. }, outcome, .. } = transaction;
        if let What::Access(access) = what {
            self.access(names, access, outcome.as_ref().map(|outcome| &outcome.answer), out);
        }
        let Some(outcome) = outcome else { return };
        for deed in &outcome.deeds {
            match deed {
                Deed::Line(line, level) => self.line(*model, *line, *level, out),
                Deed::Dma(address, data) => {
                    if let Some((at, len)) = self.dma.get(usize::from(*model)) {
                        *out += &format!("b{address:b} {at}\nb{:b} {len}\n", data.len());
                    }
                }
                _ => {}
            }
        }
        if outcome.picture.is_some()
            && let Some(id) = self.pictures.get(usize::from(*model))
        {
            *out += &format!("1{id}\n");
        }
    }
}

/// Counts what is in a recording.
///
/// # Errors
/// [`FormatError`].
pub fn statistics(source: impl Read) -> Result<String, FormatError> {
    let (mut items, header) = Items::new(source)?;
    let names = Names::new(&header);
    let mut coverage = Coverage::new(&header);
    let mut counts: BTreeMap<(u8, &'static str), u64> = BTreeMap::new();
    let (mut first, mut last, mut guest, mut transactions) = (0, 0, 0u64, 0u64);
    while let Some(item) = items.next()? {
        coverage.add(&item);
        let mut count = |model: u8, what, n: u64| {
            let count: &mut u64 = counts.entry((model, what)).or_default();
            *count = count.saturating_add(n);
        };
        match &item {
            Item::Start(start) => {
                guest = guest.saturating_add(u64::saturating_sub(last, first));
                (first, last) = (start.now, start.now);
            }
            Item::End(_) => {}
            Item::Bus(both) => count(both.0.model, "answered by the bus", 1),
            Item::Transaction(transaction) => {
                transactions += 1;
                let Transaction { call, learnt, outcome, .. } = &**transaction;
                last = call.now.max(last);
                let what = match &call.what {
                    What::Access(access) => access.kind.word(),
                    What::Reset(_) => "reset",
                    What::Acknowledge(_) => "interrupt acknowledge",
                    What::Timer(..) => "timer",
                    What::Event(_) => "host event",
                    What::Lines => "lines changed",
                    What::Render(_) => "picture",
                };
                count(call.model, what, 1);
                for learnt in learnt {
                    match learnt {
                        Learnt::Dma { len, .. } => count(call.model, "bytes read by DMA", *len),
                        Learnt::Image(ImageAct::Read { len, .. }) => {
                            count(call.model, "bytes read from images", *len);
                        }
                        _ => {}
                    }
                }
                for deed in outcome.iter().flat_map(|outcome| &outcome.deeds) {
                    match deed {
                        Deed::Line(_, true) => count(call.model, "interrupts raised", 1),
                        Deed::Dma(_, data) => count(call.model, "bytes written by DMA", data.len() as u64),
                        Deed::ImageWrite(_, _, data) => {
                            count(call.model, "bytes written to images", data.len() as u64);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    guest = guest.saturating_add(u64::saturating_sub(last, first));
    let seconds = Duration::from_nanos(guest).as_secs_f64();
    let mut out = format!(
        "{}, recorded by version {}: {transactions} transactions in {seconds:.3} s of guest time{}\n",
        header.device,
        header.build,
        if items.is_cut() { "; its end is cut off" } else { "" }
    );
    for ((model, what), count) in counts {
        out += &format!("  {:10} {what:24} {count:>12}\n", names.model_name(model));
    }
    let mut busy: Vec<_> =
        coverage.registers().filter(|(.., touch)| touch.reads + touch.writes > 0).collect();
    busy.sort_by_key(|(.., touch)| std::cmp::Reverse(touch.reads + touch.writes));
    out += "  most used registers:\n";
    for (model, name, touch) in busy.into_iter().take(10) {
        out += &format!("  {model:10} {name:30} {:>9} reads {:>9} writes\n", touch.reads, touch.writes);
    }
    Ok(out)
}
