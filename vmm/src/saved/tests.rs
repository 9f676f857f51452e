use super::*;
use crate::bus::BusState;
use crate::cpu::{CpuModel, CpuState};
use ipc::dma::RamRange;
use ipc::fault::{Fault, FaultRule, KeptRise, Pulse, When};
use ipc::input::Key;
use ipc::machine::{BootDevice, DriveConfig, Geometry, SerialBackend};
use ipc::time::VirtualTime;
use proptest::prelude::*;
use std::hash::Hasher;
use std::io::Cursor;

const RAM: u64 = 1 << 20;

/// Bytes that are asked for at offsets.
struct Bytes(Vec<u8>);

impl Source for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = self.0.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A VM in which every part is there.
struct Sample {
    about: About,
    machine: Machine,
    clock: Clock,
    processor: Processor,
    board: Board,
    gpu: Device,
    serial: Vec<SerialPort>,
    input: Vec<HostEvent>,
    firmware: MachineFile,
    disk: MachineFile,
}

fn sample() -> Sample {
    let drive = DriveConfig {
        path: "/hd.img".into(),
        read_only: true,
        geometry: Some(Geometry { cylinders: 100, heads: 4, sectors: 17 }),
    };
    let config = MachineConfig {
        name: "vm".into(),
        cpu: "pentium3".into(),
        engine: "interp".into(),
        ram_bytes: RAM,
        firmware: "/bios".into(),
        video_rom: None,
        floppies: [None, None],
        disks: [Some(drive), None, None, None],
        boot_order: vec![BootDevice::Disk, BootDevice::Floppy],
        cmos: Some("/cmos".into()),
        debug_console: None,
        serial: [SerialBackend::Socket("/com1".into()), SerialBackend::Unconnected],
    };
    let rule = FaultRule { fault: Fault::ShortDma { bytes: 5 }, when: When::Every(7), only: Some(3) };
    let gpu = DeviceProcess {
        name: "gpu".into(),
        program: Program::Other("/gpu".into()),
        watchdog: Some(Duration::from_millis(1500)),
        sandbox: true,
        faults: Faults { seed: 9, rules: vec![rule] },
        dma: Some(vec![RamRange { start: 0, end: 0x9000 }]),
    };
    let mut cpu = CpuState::at_reset(CpuModel::Pentium3);
    cpu.fpu.xmm[3] = 1 << 100;
    cpu.msr.tsc_offset = 77;
    let state = Exported { version: 4, data: vec![1, 2, 3] };
    Sample {
        about: About { program: "0.1.0".into(), unix_seconds: 1_700_000_000 },
        machine: Machine { config, own_serial: [true, false], display: "none".into(), devices: vec![gpu] },
        clock: Clock { nanos: 5_000_000_000, start_unix_seconds: 1_600_000_000 },
        processor: Processor { cpu, bus: BusState { config_address: 0x8000_0040, ..BusState::default() } },
        board: Board {
            wiring: Wiring { a20: 1, dma: vec![[1, 2]; 8], dreq: vec![false; 8], ..Wiring::default() },
            edges: vec![5; ALL_LINES],
            held: vec![("gpu".into(), 1 << 9), ("vmm".into(), 0)],
        },
        gpu: Device {
            name: "gpu".into(),
            build: "0.1.0 (/gpu)".into(),
            models: vec![
                Model { name: "vga".into(), state: Some(state) },
                Model { name: "new".into(), state: None },
            ],
            events: vec![HostEvent::Key { key: Key::A, pressed: true }],
            fault_counts: vec![8; MAX_FAULTS],
            line_faults: vec![LineFault {
                rise: Some(KeptRise::Late(VirtualTime(6_000_000_000))),
                pulse: Some(Pulse::Ends(VirtualTime(5_500_000_000))),
            }],
            off_bus: true,
        },
        serial: vec![SerialPort {
            under_way: UnderWay { taken: 4, sent: 5, input: b"in".into(), output: b"out".into() },
            held: b"held".into(),
        }],
        input: vec![HostEvent::Mouse { dx: -1, dy: 2, dz: 0, buttons: 1 }],
        firmware: MachineFile { used_as: Use::Firmware, path: "/bios".into(), outside: None },
        disk: MachineFile {
            used_as: Use::Disk(0),
            path: "/hd.img".into(),
            outside: Some(Identity { len: 512, modified: (7, 8), hash: 9 }),
        },
    }
}

fn ram() -> Vec<u8> {
    let mut ram = vec![0; RAM as usize];
    ram[0x7c00..0x7e00].fill(0x90);
    ram[0xf_fff0] = 0xea;
    ram
}

fn write(sample: &Sample) -> Vec<u8> {
    let (ram, memory, firmware) = (Bytes(ram()), Bytes(vec![3; 5000]), Bytes(vec![4; 70_000]));
    let contents = Contents {
        about: &sample.about,
        machine: &sample.machine,
        clock: sample.clock,
        processor: &sample.processor.encode().unwrap(),
        board: &sample.board,
        devices: vec![(&sample.gpu, Some(&memory))],
        serial: &sample.serial,
        input: &sample.input,
        files: vec![(&sample.firmware, Some(&firmware)), (&sample.disk, None)],
        ram: &ram,
    };
    contents.write(Cursor::new(Vec::new()), &|| true).unwrap().into_inner()
}

fn read(bytes: &[u8]) -> Result<SavedVm<Cursor<&[u8]>>, SavedError> {
    SavedVm::read(Cursor::new(bytes))
}

/// What a file says that cannot be read.
fn error(bytes: &[u8]) -> String {
    read(bytes).err().map_or_else(|| "it is read".into(), |error| error.to_string())
}

/// Name, version, and whether it may be left out.
type Head = (String, u16, bool);

/// The sections of a file, each as `change` makes it: left out, once or several times.
fn rewritten(bytes: &[u8], mut change: impl FnMut(&Section, Vec<u8>) -> Vec<(Head, Vec<u8>)>) -> Vec<u8> {
    let mut reader = Reader::new(Cursor::new(bytes)).unwrap();
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    for section in reader.sections().to_vec() {
        let content = reader.read(&section).unwrap();
        for ((name, version, optional), content) in change(&section, content) {
            writer.section(&name, version, optional, |to| Ok(to.write_all(&content)?)).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

fn copied(section: &Section, content: Vec<u8>) -> Vec<(Head, Vec<u8>)> {
    with_version(section, section.version, content)
}

fn with_version(section: &Section, version: u16, content: Vec<u8>) -> Vec<(Head, Vec<u8>)> {
    vec![((section.name.clone(), version, section.optional), content)]
}

#[test]
fn everything_comes_back_as_it_was() {
    let sample = sample();
    let bytes = write(&sample);
    let mut vm = read(&bytes).unwrap();
    assert_eq!(vm.about, sample.about);
    assert_eq!(vm.machine, sample.machine);
    assert_eq!(vm.clock, sample.clock);
    assert_eq!(Processor::decode(&vm.processor).unwrap(), sample.processor);
    assert_eq!(vm.board, sample.board);
    assert_eq!(vm.devices, [sample.gpu]);
    assert_eq!(vm.serial, sample.serial);
    assert_eq!(vm.input, sample.input);
    assert_eq!(vm.files, [sample.firmware, sample.disk]);
    let mut back = vec![0; RAM as usize];
    let mut put = |at: u64, block: &[u8]| {
        back[at as usize..][..block.len()].copy_from_slice(block);
        Ok(())
    };
    vm.read_ram(&mut put).unwrap();
    assert!(back == ram());
    assert_eq!((vm.device_memory_len(0), vm.device_memory_len(1)), (Some(5000), None));
    assert_eq!((vm.file_len(0), vm.file_len(1)), (Some(70_000), None));
    let mut count = 0;
    vm.read_device_memory(0, |_, block| {
        count += block.iter().filter(|byte| **byte == 3).count();
        Ok(())
    })
    .unwrap();
    vm.read_file(0, |_, block| {
        count += block.iter().filter(|byte| **byte == 4).count();
        Ok(())
    })
    .unwrap();
    assert_eq!(count, 75_000);
    vm.read_file(1, |_, _| panic!("it is outside")).unwrap();
}

#[test]
fn a_section_of_a_later_build_is_left_out_if_it_says_so_and_refused_otherwise() {
    let bytes = write(&sample());
    let with = |optional| {
        rewritten(&bytes, |section, content| {
            let mut both = copied(section, content);
            both.insert(0, (("future".into(), 3, optional), b"???".to_vec()));
            both
        })
    };
    assert_eq!(read(&with(true)).unwrap().clock, sample().clock);
    assert!(error(&with(false)).contains("'future' is unknown to this build"), "{}", error(&with(false)));
}

#[test]
fn each_section_is_checked_for_its_version_and_missed_by_its_name() {
    let bytes = write(&sample());
    let names = Reader::new(Cursor::new(&bytes[..])).unwrap().sections().to_vec();
    assert_eq!(names.len(), 12 + 1, "a section that this test does not know");
    for wanted in names.iter().map(|section| section.name.as_str()) {
        let newer = rewritten(&bytes, |section, content| {
            let version = if section.name == wanted { 99 } else { section.version };
            with_version(section, version, content)
        });
        let said = error(&newer);
        assert!(said.contains(&format!("'{wanted}' has version 99")) && said.contains("newer"), "{said}");
        let zero = rewritten(&bytes, |section, content| {
            let version = if section.name == wanted { 0 } else { section.version };
            with_version(section, version, content)
        });
        assert!(error(&zero).contains("has version 0"));
        let longer = rewritten(&bytes, |section, mut content| {
            content.extend((section.name == wanted).then_some(1));
            copied(section, content)
        });
        let is_memory = ["ram", "device-memory", "file-content"].contains(&wanted);
        assert!(is_memory || error(&longer).contains(&format!("'{wanted}'")), "{wanted}: {}", error(&longer));
        let without =
            rewritten(
                &bytes,
                |section, content| {
                    if section.name == wanted { Vec::new() } else { copied(section, content) }
                },
            );
        match wanted {
            "about" => assert_eq!(read(&without).unwrap().about, About::default()),
            // Not every process has memory.
            "device-memory" => assert_eq!(read(&without).unwrap().device_memory_len(0), None),
            _ => {
                let part = wanted.split('-').next().unwrap();
                assert!(error(&without).contains(&format!("'{part}")), "{wanted}: {}", error(&without));
            }
        }
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let refused = |change: &dyn Fn(&mut Sample), why: &str| {
        let mut sample = sample();
        change(&mut sample);
        let said = error(&write(&sample));
        assert!(said.contains(why), "{said} for {why}");
    };
    refused(&|sample| sample.machine.config.ram_bytes *= 2, "'ram'");
    refused(&|sample| sample.machine.config.cpu = "pentium2".into(), "is not of a pentium2");
    refused(&|sample| sample.gpu.name = "cpu".into(), "for each device process");
    refused(&|sample| sample.gpu.models = vec![sample.gpu.models[0].clone(); MAX_MODELS + 1], "'gpu'");
    let long = || Exported { version: 1, data: vec![0; STATE_BYTES + 1] };
    refused(&|sample| sample.gpu.models[0].state = Some(long()), "'gpu'");
    refused(&|sample| sample.gpu.line_faults = vec![LineFault::default(); ALL_LINES + 1], "'gpu'");
    refused(&|sample| sample.board.edges.truncate(3), "another machine");
    refused(&|sample| sample.machine.config.disks[0] = None, "it is read");
    refused(&|sample| sample.disk.used_as = Use::Firmware, "Disk(0)");
    refused(&|sample| sample.disk.outside = None, "no content for /hd.img");
    refused(&|sample| sample.processor.cpu.cpl = 2, "processor state");
    let doubled = rewritten(&write(&sample()), |section, content| {
        let mut twice = copied(section, content);
        if section.name == "clock" {
            twice.push(twice[0].clone());
        }
        twice
    });
    assert!(error(&doubled).contains("'clock' is there twice"));
}

#[test]
fn older_versions_of_sections_are_read() {
    let sample = sample();
    let bytes = write(&sample);
    let older = rewritten(&bytes, |section, content| {
        let Device { name, build, models, events, fault_counts, .. } = &sample.gpu;
        // A tuple is written as a structure is.
        let content = match section.name.as_str() {
            "device" => postcard::to_stdvec(&(name, build, models, events, fault_counts)).unwrap(),
            "serial" => postcard::to_stdvec(&[&sample.serial[0].under_way][..]).unwrap(),
            _ => return copied(section, content),
        };
        with_version(section, 1, content)
    });
    let vm = read(&older).unwrap();
    assert_eq!(vm.devices, [Device { line_faults: Vec::new(), off_bus: false, ..sample.gpu }]);
    assert_eq!(vm.serial, [SerialPort { held: Vec::new(), ..sample.serial[0].clone() }]);
}

#[test]
fn a_file_is_known_by_length_and_content_whatever_its_age() {
    let file = tempfile::tempfile().unwrap();
    let put = |byte: u8| std::os::unix::fs::FileExt::write_all_at(&file, &[byte; 1000], 0).unwrap();
    put(1);
    let identity = Identity::of(&file, || true).unwrap();
    assert_eq!(identity.check(&file).unwrap(), Match::Same);
    let later = std::time::SystemTime::now() + Duration::from_secs(60);
    file.set_modified(later).unwrap();
    assert_eq!(identity.check(&file).unwrap(), Match::Same);
    put(2);
    file.set_modified(later).unwrap();
    assert_eq!(identity.check(&file).unwrap(), Match::Content);
    file.set_len(999).unwrap();
    assert_eq!(identity.check(&file).unwrap(), Match::Length(999));
}

/// What this test fails for is a format that changed: raise the version in `section` (or `Processor::VERSION`), keep
/// reading the former one, and put the new hash here.
#[test]
fn the_formats_are_those_of_their_versions() {
    let hash = |bytes: &[u8]| {
        let mut hash = twox_hash::XxHash3_64::with_seed(0);
        hash.write(bytes);
        hash.finish()
    };
    let bytes = write(&sample());
    let mut reader = Reader::new(Cursor::new(&bytes[..])).unwrap();
    let sections = reader.sections().to_vec();
    // What compression makes of memory may change.
    let plain =
        sections.iter().filter(|section| !["ram", "device-memory", "file-content"].contains(&&*section.name));
    let found: Vec<_> = plain
        .map(|section| (section.name.clone(), section.version, hash(&reader.read(section).unwrap())))
        .collect();
    let found: Vec<_> = found.iter().map(|(name, version, hash)| (name.as_str(), *version, *hash)).collect();
    let expected = [
        ("about", 1, 0xa2ce_79b9_0354_ebcf),
        ("machine", 1, 0xd75c_50f8_3704_7625),
        ("clock", 1, 0x2d23_e9cb_04c8_cff2),
        ("board", 1, 0x6401_6eb7_b028_4f0d),
        ("serial", 2, 0xaa6b_81c1_558b_5323),
        ("input", 1, 0xdf70_0e15_95df_b1ca),
        ("processor", 1, 0x05b3_858a_93cb_9d30),
        ("device", 2, 0x3349_2fb5_8557_5d47),
        ("file", 1, 0x92fc_287a_9d62_2e59),
        ("file", 1, 0x0a53_058f_c158_039f),
    ];
    assert!(found == expected, "{found:#x?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Checksums are right, contents are not: whatever comes of it, nothing panics.
    #[test]
    fn hostile_contents_are_refused_or_taken_but_never_panic(
        number in 0usize..13, at in any::<prop::sample::Index>(), with in any::<[u8; 3]>(), cut in any::<bool>(),
    ) {
        let bytes = write(&sample());
        let mut index = 0;
        let hostile = rewritten(&bytes, |section, mut content| {
            if index == number && !content.is_empty() {
                let at = at.index(content.len());
                for (byte, new) in content[at..].iter_mut().zip(with) {
                    *byte = new;
                }
                if cut {
                    content.truncate(at);
                }
            }
            index += 1;
            copied(section, content)
        });
        if let Ok(mut vm) = read(&hostile) {
            let mut most = 0;
            let mut put = |at: u64, block: &[u8]| {
                most = most.max(at + block.len() as u64);
                Ok(())
            };
            let _ = vm.read_ram(&mut put);
            prop_assert!(most <= RAM);
            let _ = vm.read_device_memory(0, |_, _| Ok(()));
            let _ = vm.read_file(0, |_, _| Ok(()));
        }
    }
}
