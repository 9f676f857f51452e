//! What `[[fault]]` in a machine file means.

use super::DevicePlan;
use crate::machine_file::{FaultEntry, MachineFile};
use anyhow::{Context, Result, bail, ensure};
use ipc::fault::{CERTAIN, FIRST_PIRQ, Fault, FaultRule, MAX_FAULTS, When};
use std::collections::BTreeMap;

const ISA_LINES: u8 = 16;
const PIRQS: u8 = 4;
const NANOS_PER_MICRO: u64 = 1000;

/// Gives each device process its faults.
pub fn add(file: &MachineFile, devices: &mut BTreeMap<String, DevicePlan>) -> Result<()> {
    for (number, entry) in (1..).zip(&file.fault) {
        let about = || format!("Fault {number} ({} of {})", entry.what, entry.device);
        let known = devices.keys().cloned().collect::<Vec<_>>().join(", ");
        let plan = devices.get_mut(&entry.device);
        let plan = plan.with_context(|| format!("{}: the device processes are {known}", about()))?;
        plan.faults.rules.push(rule(entry).with_context(about)?);
        ensure!(
            plan.faults.rules.len() <= MAX_FAULTS,
            "{}: at most {MAX_FAULTS} per device process",
            about()
        );
        plan.faults.seed = file.fault_seed;
    }
    Ok(())
}

fn rule(entry: &FaultEntry) -> Result<FaultRule> {
    let line = match (entry.irq, entry.pirq) {
        (None, None) => None,
        (Some(irq), None) if irq < ISA_LINES => Some(irq),
        (None, Some(pirq)) if pirq < PIRQS => Some(FIRST_PIRQ + pirq),
        _ => bail!("give either irq, 0 to {}, or pirq, 0 to {}", ISA_LINES - 1, PIRQS - 1),
    };
    let micros = entry.micros.map(|micros| micros.saturating_mul(NANOS_PER_MICRO));
    let fault = match entry.what.as_str() {
        "delay-interrupt" => Fault::DelayInterrupt { nanos: micros.context("micros = ... is missing")? },
        "drop-interrupt" => Fault::DropInterrupt,
        "repeat-interrupt" => Fault::RepeatInterrupt,
        "float-read" => Fault::FloatRead,
        "short-dma" => Fault::ShortDma { bytes: entry.bytes.context("bytes = ... is missing")? },
        "kill" => Fault::Kill,
        other => bail!(
            "there is no '{other}': use delay-interrupt, drop-interrupt, repeat-interrupt, float-read, short-dma or kill"
        ),
    };
    let interrupt =
        matches!(fault, Fault::DelayInterrupt { .. } | Fault::DropInterrupt | Fault::RepeatInterrupt);
    let access = matches!(fault, Fault::FloatRead | Fault::Kill);
    ensure!(interrupt || line.is_none(), "irq and pirq are for interrupts");
    ensure!(access || entry.address.is_none(), "address is for float-read and kill");
    ensure!(
        matches!(fault, Fault::DelayInterrupt { .. }) || micros.is_none(),
        "micros is for delay-interrupt"
    );
    ensure!(matches!(fault, Fault::ShortDma { .. }) || entry.bytes.is_none(), "bytes is for short-dma");
    let when = match (entry.at, entry.every, entry.chance) {
        (Some(at), None, None) if at > 0 => When::At(at),
        (None, Some(every), None) if every > 0 => When::Every(every),
        (None, None, Some(chance)) if (0.0..=1.0).contains(&chance) => {
            When::Chance((chance * f64::from(CERTAIN)).round() as u32)
        }
        _ => bail!("give one of at = NUMBER, every = NUMBER (both from 1 on) and chance = 0.0 to 1.0"),
    };
    Ok(FaultRule { fault, when, only: line.map(u64::from).or(entry.address) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> FaultEntry {
        let file: MachineFile = toml::from_str(&format!("[[fault]]\ndevice = \"gpu\"\n{text}")).unwrap();
        file.fault[0].clone()
    }

    #[test]
    fn faults_are_read_as_written() {
        let late = entry("what = \"delay-interrupt\"\nirq = 14\nmicros = 5\nevery = 3\n");
        let expected =
            FaultRule { fault: Fault::DelayInterrupt { nanos: 5000 }, when: When::Every(3), only: Some(14) };
        assert_eq!(rule(&late).unwrap(), expected);
        let float = entry("what = \"float-read\"\naddress = 0x1f7\nchance = 0.25\n");
        let expected =
            FaultRule { fault: Fault::FloatRead, when: When::Chance(CERTAIN / 4), only: Some(0x1f7) };
        assert_eq!(rule(&float).unwrap(), expected);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (text, why) in [
            ("what = \"explode\"\nat = 1\n", "explode"),
            ("what = \"kill\"\n", "at = NUMBER"),
            ("what = \"kill\"\nat = 0\n", "from 1 on"),
            ("what = \"kill\"\nat = 1\nevery = 2\n", "one of"),
            ("what = \"kill\"\nat = 1\nirq = 2\n", "for interrupts"),
            ("what = \"delay-interrupt\"\nat = 1\n", "micros"),
            ("what = \"drop-interrupt\"\nirq = 16\nat = 1\n", "0 to 15"),
            ("what = \"short-dma\"\nbytes = 1\naddress = 3\nat = 1\n", "address is for"),
        ] {
            let error = rule(&entry(text)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
