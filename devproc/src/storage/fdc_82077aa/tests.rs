use super::spec::{port, st0, st1, st2};
use super::*;
use crate::host::DmaChannel;
use crate::storage::image::MemoryImage;
use crate::testing::Bench;
use proptest::prelude::*;

/// Time that any single step of the controller needs at most.
const STEP: u64 = 3_000_000;
const MODE_TO_MEMORY: u8 = 0x44;
const MODE_FROM_MEMORY: u8 = 0x48;
const MODE_VERIFY: u8 = 0x40;
const BUFFER: usize = 0x2000;

/// A 1.44 MB diskette whose sectors begin with their number and are filled with its low byte.
fn diskette() -> MemoryImage {
    let mut bytes = vec![0; 2880 * 512];
    for (number, sector) in (0_u16..).zip(bytes.chunks_exact_mut(512)) {
        sector.fill(number as u8);
        sector[..2].copy_from_slice(&number.to_le_bytes());
    }
    MemoryImage::new(bytes)
}

fn medium(image: &MemoryImage) -> Medium {
    let format = FloppyFormat::of_image(image.len(), None).unwrap();
    Medium { image: Box::new(image.clone()), format }
}

fn controller(image: &MemoryImage) -> Fdc {
    Fdc::new([Some(FloppyDrive { medium: Some(medium(image)) }), None])
}

/// What happens to the process at every access and timer.
#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    None,
    /// It is replaced afterwards.
    Restart,
    /// It dies when all is done but not committed: the next process does it again.
    Die,
}

/// A guest's view of the controller.
struct Guest {
    bench: Bench<Fdc>,
    image: MemoryImage,
    trouble: Trouble,
}

impl Guest {
    fn new(image: &MemoryImage) -> Self {
        Self { bench: Bench::new(controller(image)), image: image.clone(), trouble: Trouble::None }
    }

    /// A guest whose firmware has brought the controller up with motor A on.
    fn ready(image: &MemoryImage) -> Self {
        let mut guest = Self::new(image);
        guest.bring_up();
        guest
    }

    fn bring_up(&mut self) {
        self.out(port::DOR, 0x1c);
        self.wait();
        for drive in 0..4 {
            self.send(&[0x08]);
            assert_eq!(self.results(), [0xc0 | drive, 0]);
        }
        self.out(port::CCR, 0);
        self.send(&[0x03, 0xaf, 0x02]);
    }

    fn call<T>(&mut self, access: impl Fn(&mut Bench<Fdc>) -> T) -> T {
        let mut committed = Vec::new();
        self.bench.device.save(&mut committed);
        let value = access(&mut self.bench);
        match self.trouble {
            Trouble::None => value,
            Trouble::Restart => {
                self.bench.restart(controller(&self.image));
                value
            }
            Trouble::Die => {
                let mut next = controller(&self.image);
                next.load(1, &committed).unwrap();
                next.attach(&mut self.bench.host);
                self.bench.device = next;
                access(&mut self.bench)
            }
        }
    }

    fn out(&mut self, port: u16, value: u8) {
        self.call(|bench| bench.outb(port, value));
    }

    fn input(&mut self, port: u16) -> u8 {
        self.call(|bench| bench.inb(port))
    }

    fn msr(&mut self) -> u8 {
        self.input(port::MSR)
    }

    fn irq(&self) -> bool {
        self.bench.host.irq(6)
    }

    /// Lets time pass until nothing is going on.
    fn wait(&mut self) {
        let end = self.bench.host.now.after(2 * STEP);
        loop {
            let timers = &self.bench.host.timers;
            let next = timers.iter().map(|(timer, deadline)| (*deadline, *timer)).min();
            let Some((deadline, timer)) = next.filter(|(deadline, _)| *deadline <= end) else { break };
            self.bench.host.now = deadline;
            self.call(|bench| {
                bench.host.timers.remove(&timer);
                bench.device.timer(timer, deadline, &mut bench.host);
            });
        }
        self.bench.host.now = end;
    }

    fn send(&mut self, command: &[u8]) {
        for byte in command {
            assert_eq!(self.msr() & 0xc0, 0x80, "controller must ask for a command byte");
            self.out(port::DATA, *byte);
        }
    }

    fn results(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.msr() & 0xd0 == 0xd0 {
            bytes.push(self.input(port::DATA));
        }
        bytes
    }

    fn dma(&mut self, mode: u8, bytes: usize) {
        let count = (bytes - 1) as u16;
        let address = BUFFER as u16;
        self.bench.host.channels[2] = DmaChannel {
            base_address: address,
            base_count: count,
            current_address: address,
            current_count: count,
            mode,
            ..DmaChannel::default()
        };
    }

    /// Runs a data command to its result.
    fn run(&mut self, command: &[u8]) -> Vec<u8> {
        self.send(command);
        assert!(!self.irq(), "an interrupt must not come at once");
        self.wait();
        assert!(self.irq());
        let result = self.results();
        assert!(!self.irq());
        result
    }

    fn memory(&self, bytes: usize) -> &[u8] {
        &self.bench.host.ram[BUFFER..BUFFER + bytes]
    }

    fn seek(&mut self, cylinder: u8) -> Vec<u8> {
        self.send(&[0x0f, 0, cylinder]);
        self.wait();
        self.send(&[0x08]);
        self.results()
    }
}

#[test]
fn reset_raises_one_interrupt_that_four_senses_explain() {
    let mut guest = Guest::new(&diskette());
    assert_eq!(guest.msr(), 0);
    guest.out(port::DOR, 0x0c);
    assert!(!guest.irq());
    guest.wait();
    assert!(guest.irq());
    for drive in 0..4 {
        guest.send(&[0x08]);
        assert!(!guest.irq());
        assert_eq!(guest.results(), [0xc0 | drive, 0]);
    }
    guest.send(&[0x08]);
    assert_eq!(guest.results(), [0x80]);
}

#[test]
fn the_dma_gate_holds_the_interrupt_back() {
    let mut guest = Guest::new(&diskette());
    guest.out(port::DOR, 0x04);
    guest.wait();
    assert!(!guest.irq());
    guest.out(port::DOR, 0x0c);
    assert!(guest.irq());
}

#[test]
fn reset_raises_its_interrupt_with_polling_disabled_too() {
    let mut guest = Guest::ready(&diskette());
    guest.send(&[0x13, 0, 0x57, 0]);
    guest.out(port::DSR, 0x80);
    guest.wait();
    assert!(guest.irq());
    guest.send(&[0x08]);
    assert_eq!(guest.results(), [0xc0, 0]);
}

/// What SeaBIOS does to read the boot sector: it senses once after reset, not four times.
fn firmware_boot_read(guest: &mut Guest) {
    guest.out(port::DOR, 0x18);
    guest.out(port::DOR, 0x1c);
    guest.wait();
    guest.send(&[0x08]);
    assert_eq!(guest.results(), [0xc0, 0]);
    guest.send(&[0x07, 0x00]);
    assert_eq!(guest.msr(), 0x81, "drive 0 is seeking, commands are taken");
    guest.wait();
    assert!(guest.irq());
    guest.send(&[0x08]);
    assert_eq!(guest.results(), [0x20, 0]);
    guest.out(port::CCR, 0);
    guest.send(&[0x4a, 0x00]);
    guest.wait();
    let id = guest.results();
    assert_eq!((id[0], id[3], id[4], id[6]), (0, 0, 0, 2));
    guest.dma(MODE_TO_MEMORY, 1024);
    let result = guest.run(&[0xe6, 0x00, 0, 0, 17, 2, 18, 0x1b, 0xff]);
    assert_eq!(result, [0x04, 0, 0, 0, 1, 1, 2]);
}

#[test]
fn firmware_reads_sectors_by_dma() {
    let mut guest = Guest::new(&diskette());
    firmware_boot_read(&mut guest);
    assert_eq!(guest.memory(3), [16, 0, 16]);
    assert_eq!(guest.memory(1024)[512..515], [17, 0, 17]);
    assert!(guest.bench.host.channels[2].terminal_count && !guest.bench.host.channels[2].request);
}

/// A process that dies in the middle of a sector moves it again, to the same place, and nothing else.
#[test]
fn dying_or_restarting_at_every_access_changes_nothing() {
    for trouble in [Trouble::Restart, Trouble::Die] {
        let mut guest = Guest::new(&diskette());
        guest.trouble = trouble;
        firmware_boot_read(&mut guest);
        assert_eq!(guest.memory(1024), guest.image.bytes(16 * 512, 1024));
        assert_eq!(guest.bench.host.ram[BUFFER + 1024..BUFFER + 2048], [0; 1024]);
        multi_track_read(&mut guest);
        dma_write(&mut guest);
        scan(&mut guest);
        verify(&mut guest);
        dos_format(&mut guest);
    }
}

#[test]
fn multi_track_goes_on_at_the_other_side_and_stops_at_its_end() {
    multi_track_read(&mut Guest::ready(&diskette()));
}

fn multi_track_read(guest: &mut Guest) {
    guest.seek(3);
    guest.dma(MODE_TO_MEMORY, 36 * 512);
    let result = guest.run(&[0xc6, 0x00, 3, 0, 1, 2, 18, 0x1b, 0xff]);
    assert_eq!(result, [0x04, 0, 0, 4, 0, 1, 2]);
    assert_eq!(guest.memory(36 * 512), guest.image.bytes(3 * 36 * 512, 36 * 512));
}

#[test]
fn without_terminal_count_the_end_of_the_track_is_an_error() {
    let mut guest = Guest::ready(&diskette());
    guest.dma(MODE_TO_MEMORY, 4096);
    let result = guest.run(&[0x46, 0x04, 0, 1, 18, 2, 18, 0x1b, 0xff]);
    assert_eq!(result, [st0::ABNORMAL | 0x04, st1::EN, 0, 1, 1, 1, 2]);
    assert_eq!(guest.memory(512), guest.image.bytes(35 * 512, 512));
}

#[test]
fn dma_writes_reach_the_image_before_the_interrupt() {
    dma_write(&mut Guest::ready(&diskette()));
}

fn dma_write(guest: &mut Guest) {
    guest.seek(1);
    guest.bench.host.ram[BUFFER..BUFFER + 700].fill(0xa5);
    guest.dma(MODE_FROM_MEMORY, 700);
    let result = guest.run(&[0xc5, 0x00, 1, 0, 2, 2, 18, 0x1b, 0xff]);
    assert_eq!(result, [0, 0, 0, 1, 0, 4, 2]);
    let written = guest.image.bytes(37 * 512, 1024);
    assert_eq!(written[..700], [0xa5; 700]);
    assert_eq!(written[700..], [0; 324], "terminal count in mid-sector pads with zeros");
}

#[test]
fn a_write_protected_diskette_is_not_writable() {
    let image = diskette().write_protected();
    let mut guest = Guest::ready(&image);
    guest.dma(MODE_FROM_MEMORY, 512);
    let result = guest.run(&[0x45, 0, 0, 0, 1, 2, 18, 0x1b, 0xff]);
    assert_eq!(result[..2], [st0::ABNORMAL, st1::NW]);
    guest.dma(MODE_FROM_MEMORY, 72);
    assert_eq!(guest.run(&[0x4d, 0, 2, 18, 0x54, 0xf6])[1], st1::NW);
    guest.send(&[0x04, 0x00]);
    assert_eq!(guest.results(), [0x78]);
}

#[test]
fn a_full_host_disk_is_an_equipment_check() {
    let mut guest = Guest::ready(&diskette());
    guest.image.set_broken(true);
    guest.dma(MODE_FROM_MEMORY, 512);
    let result = guest.run(&[0x45, 0, 0, 0, 1, 2, 18, 0x1b, 0xff]);
    assert_eq!(result[0], st0::ABNORMAL | st0::EC);
}

fn pio_transfer(guest: &mut Guest) {
    guest.send(&[0x03, 0xaf, 0x03]);
    guest.send(&[0x46, 0, 0, 0, 18, 2, 18, 0x1b, 0xff]);
    guest.wait();
    assert!(guest.irq());
    let mut bytes = Vec::new();
    while guest.msr() & 0xf0 == 0xf0 {
        bytes.push(guest.input(port::DATA));
    }
    assert_eq!(bytes, guest.image.bytes(17 * 512, 512));
    guest.wait();
    assert_eq!(guest.results(), [st0::ABNORMAL, st1::EN, 0, 1, 0, 1, 2]);

    guest.send(&[0x45, 0, 0, 0, 18, 2, 18, 0x1b, 0xff]);
    guest.wait();
    let mut sent = 0_u16;
    while guest.msr() & 0xf0 == 0xb0 {
        guest.out(port::DATA, sent as u8 ^ 0x5a);
        sent += 1;
    }
    assert_eq!(sent, 512);
    guest.wait();
    assert_eq!(guest.results()[1], st1::EN);
    let expected: Vec<u8> = (0..512).map(|i: u16| i as u8 ^ 0x5a).collect();
    assert_eq!(guest.image.bytes(17 * 512, 512), expected);
}

#[test]
fn non_dma_mode_moves_bytes_through_the_data_register() {
    pio_transfer(&mut Guest::ready(&diskette()));
}

#[test]
fn non_dma_mode_survives_a_restart_or_death_at_every_byte() {
    for trouble in [Trouble::Restart, Trouble::Die] {
        let mut guest = Guest::ready(&diskette());
        guest.trouble = trouble;
        pio_transfer(&mut guest);
    }
}

#[test]
fn the_fifo_threshold_decides_how_often_pio_interrupts() {
    let mut guest = Guest::ready(&diskette());
    guest.send(&[0x13, 0, 0x0f, 0]);
    guest.send(&[0x03, 0xaf, 0x03]);
    guest.send(&[0x46, 0, 0, 0, 1, 2, 1, 0x1b, 0xff]);
    guest.wait();
    let before = guest.bench.host.lines.isa_edges[6];
    for _ in 0..32 {
        guest.input(port::DATA);
    }
    assert_eq!(guest.bench.host.lines.isa_edges[6] - before, 2);
}

#[test]
fn dos_format_fills_a_track_with_the_filler_byte() {
    dos_format(&mut Guest::ready(&diskette()));
}

fn dos_format(guest: &mut Guest) {
    guest.seek(40);
    let ids: Vec<u8> = (1..=18).flat_map(|r| [40, 1, r, 2]).collect();
    guest.bench.host.ram[BUFFER..BUFFER + 72].copy_from_slice(&ids);
    guest.dma(MODE_FROM_MEMORY, 72);
    let result = guest.run(&[0x4d, 0x04, 2, 18, 0x54, 0xf6]);
    assert_eq!(result[..3], [0x04, 0, 0]);
    let track = (40 * 2 + 1) * 18 * 512;
    assert_eq!(guest.image.bytes(track, 18 * 512), vec![0xf6; 18 * 512]);
    assert_eq!(guest.image.bytes(track - 512, 1), [(40 * 36 + 17) as u8]);
    assert_eq!(guest.image.bytes(track + 18 * 512, 1), [(41 * 36) as u8]);
}

#[test]
fn a_layout_that_the_image_cannot_hold_is_not_formatted() {
    let mut guest = Guest::ready(&diskette());
    guest.dma(MODE_FROM_MEMORY, 36);
    assert_eq!(guest.run(&[0x4d, 0, 2, 9, 0x54, 0xf6])[1], st1::NW);
    guest.dma(MODE_FROM_MEMORY, 72);
    guest.bench.host.ram[BUFFER..BUFFER + 4].copy_from_slice(&[0, 0, 99, 2]);
    assert_eq!(guest.run(&[0x4d, 0, 2, 18, 0x54, 0xf6])[1], st1::NW);
    assert_eq!(guest.image.bytes(0, 4), [0, 0, 0, 0]);
}

#[test]
fn a_changed_diskette_is_shown_until_the_head_steps() {
    let mut guest = Guest::ready(&diskette());
    assert_eq!(guest.input(port::DIR) & 0x80, 0x80, "after power-on nobody knows what is in");
    guest.seek(1);
    assert_eq!(guest.input(port::DIR) & 0x80, 0);

    let bench = &mut guest.bench;
    assert!(bench.device.change_medium(0, None, &mut bench.host).is_some());
    assert_eq!(guest.input(port::DIR) & 0x80, 0x80);
    guest.seek(2);
    assert_eq!(guest.input(port::DIR) & 0x80, 0x80, "an empty drive stays changed");
    let other = diskette();
    let bench = &mut guest.bench;
    assert!(bench.device.change_medium(0, Some(medium(&other)), &mut bench.host).is_none());
    guest.seek(0);
    assert_eq!(guest.input(port::DIR) & 0x80, 0);
    guest.out(port::DOR, 0x1d);
    assert_eq!(guest.input(port::DIR) & 0x80, 0, "drive B is not connected");
}

#[test]
fn the_wrong_rate_or_density_finds_no_address_mark() {
    let mut guest = Guest::ready(&diskette());
    guest.dma(MODE_TO_MEMORY, 512);
    for rate in 1..=3 {
        guest.out(port::CCR, rate);
        let result = guest.run(&[0x46, 0, 0, 0, 1, 2, 18, 0x1b, 0xff]);
        assert_eq!(result[..3], [st0::ABNORMAL, st1::MA, 0]);
    }
    guest.out(port::DSR, 0);
    assert_eq!(guest.run(&[0x06, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[1], st1::MA);
    assert_eq!(guest.run(&[0x46, 0, 0, 0, 1, 2, 1, 0x1b, 0xff])[0], 0);
}

#[test]
fn a_sector_that_is_not_there_is_not_found() {
    let mut guest = Guest::ready(&diskette());
    guest.dma(MODE_TO_MEMORY, 512);
    let missing = guest.run(&[0x46, 0, 0, 0, 19, 2, 20, 0x1b, 0xff]);
    assert_eq!(missing, [st0::ABNORMAL, st1::ND, 0, 0, 0, 19, 2]);
    let elsewhere = guest.run(&[0x46, 0, 5, 0, 1, 2, 18, 0x1b, 0xff]);
    assert_eq!(elsewhere[..3], [st0::ABNORMAL, st1::ND, st2::WC]);
    let size = guest.run(&[0x46, 0, 0, 0, 1, 3, 18, 0x1b, 0xff]);
    assert_eq!(size[1], st1::ND);
    guest.seek(82);
    assert_eq!(guest.run(&[0x46, 0, 82, 0, 1, 2, 18, 0x1b, 0xff])[1], st1::MA);
}

#[test]
fn an_empty_or_standing_drive_keeps_the_controller_busy_until_reset() {
    for dor in [0x0c, 0x2d] {
        let mut guest = Guest::ready(&diskette());
        guest.out(port::DOR, dor);
        guest.dma(MODE_TO_MEMORY, 512);
        guest.send(&[0x46, dor & 1, 0, 0, 1, 2, 18, 0x1b, 0xff]);
        guest.bench.advance(10_000_000_000);
        assert!(!guest.irq());
        assert_eq!(guest.msr(), 0x10);
        guest.out(port::DOR, 0x18);
        assert_eq!(guest.msr(), 0);
        guest.bring_up();
        assert_eq!(guest.run(&[0x46, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[0], 0);
    }
}

#[test]
fn recalibrating_a_drive_that_is_not_there_fails_after_79_steps() {
    let mut guest = Guest::ready(&diskette());
    guest.send(&[0x07, 1]);
    guest.wait();
    guest.send(&[0x08]);
    assert_eq!(guest.results(), [0x71, 0]);
}

#[test]
fn overlapped_seeks_each_get_their_interrupt() {
    let mut guest = Guest::ready(&diskette());
    guest.send(&[0x0f, 0, 10]);
    guest.send(&[0x0f, 1, 10]);
    assert_eq!(guest.msr(), 0x83);
    let before = guest.bench.host.lines.isa_edges[6];
    guest.wait();
    guest.send(&[0x08]);
    assert_eq!(guest.results(), [0x20, 10]);
    assert!(guest.irq());
    guest.send(&[0x08]);
    assert_eq!(guest.results(), [0x21, 10]);
    assert!(!guest.irq());
    assert!(guest.bench.host.lines.isa_edges[6] - before >= 2);
}

#[test]
fn relative_seeks_move_the_head_and_the_cylinder_number() {
    let mut guest = Guest::ready(&diskette());
    guest.seek(10);
    guest.send(&[0xcf, 0, 5]);
    guest.wait();
    guest.send(&[0x08]);
    assert_eq!(guest.results(), [0x20, 15]);
    guest.send(&[0x8f, 0, 12]);
    guest.wait();
    guest.send(&[0x08]);
    assert_eq!(guest.results(), [0x20, 3]);
    guest.send(&[0x4a, 0]);
    guest.wait();
    assert_eq!(guest.results()[3], 3);
}

#[test]
fn implied_seek_moves_to_the_cylinder_of_the_command() {
    let mut guest = Guest::ready(&diskette());
    guest.send(&[0x13, 0, 0x40, 0]);
    guest.dma(MODE_TO_MEMORY, 512);
    let result = guest.run(&[0x46, 0, 7, 0, 1, 2, 18, 0x1b, 0xff]);
    assert_eq!(result, [st0::SE, 0, 0, 7, 0, 2, 2]);
    assert_eq!(guest.memory(512), guest.image.bytes(7 * 36 * 512, 512));
}

#[test]
fn drivers_recognise_an_82077aa() {
    // The sequence of the Linux driver's get_fdc_version.
    let mut guest = Guest::ready(&diskette());
    guest.send(&[0x0e]);
    assert_eq!(guest.results().len(), 10);
    guest.send(&[0x13, 0, 0x1a, 0]);
    guest.send(&[0x12, 0x80]);
    guest.send(&[0x14]);
    assert_eq!(guest.results(), [0x00]);
    guest.send(&[0x18]);
    assert_eq!(guest.results(), [0x80], "PART ID is what an 82078 has");
    guest.send(&[0x10]);
    assert_eq!(guest.results(), [0x90]);
    assert!(!guest.irq());
}

#[test]
fn lock_keeps_the_fifo_setting_over_a_software_reset() {
    let dump = |guest: &mut Guest| {
        guest.out(port::DSR, 0x80);
        guest.wait();
        guest.send(&[0x0e]);
        guest.results()
    };
    let mut guest = Guest::ready(&diskette());
    guest.send(&[0x13, 0, 0x4a, 20]);
    guest.send(&[0x12, 0x87]);
    guest.send(&[0x94]);
    assert_eq!(guest.results(), [0x10]);
    assert_eq!(dump(&mut guest), [0, 0, 0, 0, 0xaf, 0x02, 0, 0x84, 0x4a, 20]);
    guest.send(&[0x14]);
    assert_eq!(guest.results(), [0x00]);
    assert_eq!(dump(&mut guest)[7..], [0x04, 0x60, 0]);
}

#[test]
fn the_bios_verifies_with_a_dma_channel_that_moves_nothing() {
    let mut guest = Guest::ready(&diskette());
    guest.bench.host.ram[BUFFER..BUFFER + 512].fill(0x77);
    guest.dma(MODE_VERIFY, 512);
    assert_eq!(guest.run(&[0x46, 0, 0, 0, 5, 2, 18, 0x1b, 0xff]), [0, 0, 0, 0, 0, 6, 2]);
    assert_eq!(guest.memory(512), [0x77; 512]);
}

#[test]
fn verify_reads_without_dma_and_ends_at_its_count() {
    verify(&mut Guest::ready(&diskette()));
}

fn verify(guest: &mut Guest) {
    guest.seek(0);
    assert_eq!(guest.run(&[0x56, 0x80, 0, 0, 3, 2, 18, 0x1b, 4]), [0, 0, 0, 0, 0, 7, 2]);
    assert_eq!(guest.run(&[0x56, 0x00, 0, 0, 3, 2, 18, 0x1b, 0xff]), [0, 0, 0, 1, 0, 1, 2]);
    assert_eq!(guest.run(&[0x56, 0x00, 0, 0, 3, 2, 20, 0x1b, 0xff])[1], st1::ND);
}

#[test]
fn scan_finds_the_sector_that_equals_the_hosts_bytes() {
    scan(&mut Guest::ready(&diskette()));
}

fn scan(guest: &mut Guest) {
    guest.seek(0);
    let wanted = guest.image.bytes(4 * 512, 512);
    for (i, sector) in guest.bench.host.ram[BUFFER..BUFFER + 9 * 512].chunks_exact_mut(512).enumerate() {
        sector.copy_from_slice(&wanted);
        sector[1] = if i == 0 { 0xff } else { 0 };
    }
    guest.dma(MODE_FROM_MEMORY, 9 * 512);
    let hit = guest.run(&[0x51, 0, 0, 0, 1, 2, 9, 0x1b, 1]);
    assert_eq!(hit, [0, 0, st2::SH, 0, 0, 5, 2]);
    guest.dma(MODE_FROM_MEMORY, 9 * 512);
    let missed = guest.run(&[0x51, 0, 0, 0, 6, 2, 9, 0x1b, 2]);
    assert_eq!(missed[..3], [0, 0, st2::SN]);
    guest.dma(MODE_FROM_MEMORY, 9 * 512);
    let higher = guest.run(&[0x5d, 0, 0, 0, 7, 2, 9, 0x1b, 1]);
    assert_eq!(higher, [0, 0, 0, 0, 0, 7, 2]);
}

#[test]
fn read_track_takes_sectors_from_the_index_hole_on() {
    let mut guest = Guest::ready(&diskette());
    guest.dma(MODE_TO_MEMORY, 4096);
    let result = guest.run(&[0x42, 0, 0, 0, 7, 2, 3, 0x1b, 0xff]);
    assert_eq!(result[..2], [0, st1::ND], "the IDs do not match, the data come anyway");
    assert_eq!(guest.memory(3 * 512), guest.image.bytes(0, 3 * 512));
}

#[test]
fn a_deleted_read_meets_only_normal_sectors() {
    let mut guest = Guest::ready(&diskette());
    guest.dma(MODE_TO_MEMORY, 4096);
    assert_eq!(guest.run(&[0x4c, 0, 0, 0, 1, 2, 18, 0x1b, 0xff]), [0, 0, st2::CM, 0, 0, 2, 2]);
    let skipped = guest.run(&[0x6c, 0, 0, 0, 17, 2, 18, 0x1b, 0xff]);
    assert_eq!(skipped[..3], [st0::ABNORMAL, st1::EN, st2::CM]);
}

#[test]
fn a_masked_channel_is_waited_for_and_then_an_overrun() {
    let mut guest = Guest::ready(&diskette());
    guest.bench.host.channels[2].masked = true;
    guest.send(&[0x46, 0, 0, 0, 1, 2, 18, 0x1b, 0xff]);
    guest.wait();
    assert!(!guest.irq() && guest.bench.host.channels[2].request);
    guest.dma(MODE_TO_MEMORY, 512);
    guest.wait();
    assert_eq!(guest.results()[0], 0);

    guest.bench.host.channels[2].masked = true;
    guest.send(&[0x46, 0, 0, 0, 1, 2, 18, 0x1b, 0xff]);
    guest.bench.advance(1_000_000_000);
    assert_eq!(guest.results()[..2], [st0::ABNORMAL, st1::OR]);
}

#[test]
fn status_registers_a_and_b_show_the_drive() {
    let mut guest = Guest::ready(&diskette());
    assert_eq!(guest.input(port::SRA), 0x46);
    assert_eq!(guest.input(port::SRB), 0xc1);
    guest.out(port::DOR, 0x2d);
    assert_eq!(guest.input(port::SRB), 0xe2);
    assert_eq!(guest.input(port::DOR), 0x2d);
    guest.out(port::TDR, 0xff);
    assert_eq!(guest.input(port::TDR), 0xff);
    guest.out(port::TDR, 0);
    assert_eq!(guest.input(port::TDR), 0xfc);
}

#[test]
fn a_state_that_no_controller_can_be_in_is_refused() {
    let mut fdc = controller(&diskette());
    assert!(matches!(fdc.load(2, &[]), Err(StateError::Version { found: 2, newest: 1 })));
    assert!(fdc.load(1, &[1, 2, 3]).is_err());
    let refused = |change: fn(&mut State)| {
        let mut state = State::power_on();
        state.dor = dor::RESET_N;
        state.phase = Phase::Command;
        assert_eq!(state.validate(), Ok(()));
        change(&mut state);
        let mut bytes = Vec::new();
        crate::device::save_state(&state, &mut bytes);
        controller(&diskette()).load(1, &bytes).is_err()
    };
    assert!(refused(|s| s.command = vec![0x46; 10]));
    assert!(refused(|s| s.command = vec![0x1f]));
    assert!(refused(|s| s.phase = Phase::Result));
    assert!(refused(|s| s.phase = Phase::Execution));
    assert!(refused(|s| s.rate = 4));
    assert!(refused(|s| s.ready_changes = 0x10));
    assert!(refused(|s| s.dor = 0));
}

#[derive(Clone, Debug)]
enum Action {
    Out(u16, u8),
    In(u16),
    Advance(u64),
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    let port = 0x3f0_u16..0x3f8;
    prop_oneof![
        8 => any::<u8>().prop_map(|v| Action::Out(port::DATA, v)),
        4 => prop::sample::select(vec![0x46_u8, 0xc5, 0x4d, 0x42, 0x56, 0x51, 0x4a, 0x0f, 0x07, 0x08, 0, 1, 2])
            .prop_map(|v| Action::Out(port::DATA, v)),
        2 => (port.clone(), any::<u8>()).prop_map(|(p, v)| Action::Out(p, v)),
        1 => Just(Action::Out(port::DOR, 0x1c)),
        4 => port.prop_map(Action::In),
        3 => (0_u64..2_000_000).prop_map(Action::Advance),
        1 => Just(Action::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_accesses_never_panic_and_every_state_loads(
        actions in prop::collection::vec(action(), 1..300),
        mode in any::<u8>(),
        count in any::<u16>(),
    ) {
        let image = diskette();
        let mut bench = Bench::new(controller(&image));
        bench.outb(port::DOR, 0x1c);
        bench.advance(STEP);
        bench.host.channels[2] =
            DmaChannel { mode, current_count: count, base_count: count, ..DmaChannel::default() };
        for action in actions {
            match action {
                Action::Out(port, value) => bench.outb(port, value),
                Action::In(port) => { bench.inb(port); }
                Action::Advance(nanos) => bench.advance(nanos),
                Action::Restart => bench.restart(controller(&image)),
            }
        }
    }

    #[test]
    fn a_damaged_state_is_refused_or_harmless(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        actions in prop::collection::vec(action(), 1..60),
    ) {
        let mut guest = Guest::ready(&diskette());
        guest.dma(MODE_TO_MEMORY, 4096);
        guest.send(&[0x46, 0, 0, 0, 1, 2, 18, 0x1b, 0xff]);
        guest.bench.advance(110_000);
        let mut bytes = Vec::new();
        guest.bench.device.save(&mut bytes);
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let mut fresh = controller(&guest.image);
        if fresh.load(1, &bytes).is_ok() {
            fresh.attach(&mut guest.bench.host);
            guest.bench.device = fresh;
        }
        for action in actions {
            match action {
                Action::Out(port, value) => guest.bench.outb(port, value),
                Action::In(port) => { guest.bench.inb(port); }
                Action::Advance(nanos) => guest.bench.advance(nanos),
                Action::Restart => {}
            }
        }
    }
}
