use super::spec::{error, status};
use super::*;
use crate::storage::image::{BlockDevice, MemoryImage, disk_geometry};
use crate::testing::Bench;
use ipc::machine::Geometry;
use proptest::prelude::*;

const READY: u8 = status::DRDY | status::DSC;
const DATA_READY: u8 = READY | status::DRQ;
const SECTORS: usize = 16 * 63 * 4;

/// A disk of 4 cylinders whose sectors begin with their number and are filled with its low byte.
fn disk_image() -> MemoryImage {
    let mut bytes = vec![0; SECTORS * 512];
    for (number, sector) in (0_u32..).zip(bytes.chunks_exact_mut(512)) {
        sector.fill(number as u8);
        sector[..4].copy_from_slice(&number.to_le_bytes());
    }
    MemoryImage::new(bytes)
}

fn disk(image: &MemoryImage) -> IdeDrive {
    let mut image = image.clone();
    let geometry = Geometry { cylinders: 4, heads: 16, sectors: 63 };
    assert_eq!(disk_geometry(&mut image, None), Ok(geometry));
    IdeDrive::new(Box::new(image), geometry, "S1")
}

fn controller(image: &MemoryImage) -> Ide {
    Ide::new([[Some(disk(image)), None], [None, None]])
}

/// What happens to the process at every access.
#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    None,
    /// It is replaced afterwards.
    Restart,
    /// It dies when all is done but not committed: the next process does it again.
    Die,
}

/// A driver for one channel.
struct Guest {
    bench: Bench<Ide>,
    image: MemoryImage,
    trouble: Trouble,
}

impl Guest {
    /// Firmware has switched the decoders of both channels on.
    fn on(device: Ide, image: &MemoryImage) -> Self {
        let mut bench = Bench::new(device);
        bench.config_write(pci::IDETIM, Width::Word, 0x8000);
        bench.config_write(pci::IDETIM + 2, Width::Word, 0x8000);
        bench.config_write(register::BAR0 + 16, Width::Dword, 0xc000);
        bench.config_write(register::COMMAND, Width::Word, 0x0005);
        Self { bench, image: image.clone(), trouble: Trouble::None }
    }

    fn new(image: &MemoryImage) -> Self {
        Self::on(controller(image), image)
    }

    fn call<T>(&mut self, access: impl Fn(&mut Bench<Ide>) -> T) -> T {
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

    fn out(&mut self, offset: u16, value: u8) {
        self.call(|bench| bench.outb(0x1f0 + offset, value));
    }

    fn input(&mut self, offset: u16) -> u8 {
        self.call(|bench| bench.inb(0x1f0 + offset))
    }

    fn master_out(&mut self, offset: u16, value: u8) {
        self.call(|bench| bench.outb(0xc000 + offset, value));
    }

    fn alternate(&mut self) -> u8 {
        self.bench.inb(0x3f6)
    }

    fn irq(&self) -> bool {
        self.bench.host.irq(14)
    }

    fn command(&mut self, code: u8, lba: u32, count: u8) {
        self.out(6, 0xe0 | (lba >> 24) as u8);
        self.out(2, count);
        self.out(3, lba as u8);
        self.out(4, (lba >> 8) as u8);
        self.out(5, (lba >> 16) as u8);
        self.out(7, code);
    }

    fn command_ext(&mut self, code: u8, lba: u64, count: u16) {
        self.out(6, 0x40);
        for shift in [24, 0] {
            self.out(2, (count >> (shift / 3)) as u8);
            self.out(3, (lba >> shift) as u8);
            self.out(4, (lba >> (shift + 8)) as u8);
            self.out(5, (lba >> (shift + 16)) as u8);
        }
        self.out(7, code);
    }

    fn port(&self) -> Access {
        Access { region: command_region(0), address: 0x1f0, offset: 0, width: Width::Word }
    }

    /// REP INSW.
    fn words_in(&mut self, bytes: usize) -> Vec<u8> {
        let port = self.port();
        self.call(|bench| {
            let mut data = vec![0; bytes];
            bench.device.read_burst(port, &mut data, &mut bench.host).unwrap();
            data
        })
    }

    /// REP OUTSW.
    fn words_out(&mut self, data: &[u8]) {
        let port = self.port();
        self.call(|bench| bench.device.write_burst(port, data, &mut bench.host).unwrap());
    }

    /// Reads the status register and expects an interrupt before it.
    fn acknowledge(&mut self) -> u8 {
        assert!(self.irq());
        let value = self.input(7);
        assert!(!self.irq());
        value
    }
}

fn word(data: &[u8], index: usize) -> u16 {
    u16::from_le_bytes([data[2 * index], data[2 * index + 1]])
}

#[test]
fn nothing_decodes_until_firmware_enables_the_channels() {
    let mut bench = Bench::new(controller(&disk_image()));
    assert_eq!(bench.config_read(register::VENDOR_ID, Width::Dword), 0x7111_8086);
    assert_eq!(bench.config_read(register::REVISION_ID, Width::Dword) >> 8, 0x01_01_80);
    assert_eq!(bench.inb(0x1f7), 0xff);
    bench.config_write(pci::IDETIM, Width::Word, 0x8000);
    assert_eq!(bench.inb(0x1f7), 0xff);
    bench.config_write(register::COMMAND, Width::Word, 1);
    assert_eq!(bench.inb(0x1f7), READY);
    bench.config_write(pci::IDETIM, Width::Word, 0);
    assert_eq!(bench.inb(0x1f7), 0xff);
}

#[test]
fn the_bus_master_registers_follow_their_base_address() {
    let mut guest = Guest::new(&disk_image());
    let bench = &mut guest.bench;
    assert_eq!(bench.config_read(register::BAR0 + 16, Width::Dword), 0xc001);
    bench.outl(0xc004, 0x1237);
    assert_eq!(bench.inl(0xc004), 0x1234);
    bench.outl(0xc00c, 0x5678);
    assert_eq!((bench.inl(0xc00c), bench.inl(0xc004)), (0x5678, 0x1234));
    bench.outb(0xc002, 0x60);
    assert_eq!(bench.inb(0xc002), 0x60);
    bench.config_write(register::BAR0 + 16, Width::Dword, 0xd000);
    assert_eq!((bench.inl(0xc004), bench.inl(0xd004)), (0xffff_ffff, 0x1234));
}

#[test]
fn software_reset_leaves_the_signature_of_a_disk() {
    let mut guest = Guest::new(&disk_image());
    guest.bench.outb(0x3f6, 0x0c);
    assert_eq!(guest.alternate(), status::BSY);
    guest.bench.outb(0x3f6, 0x08);
    assert_eq!(guest.alternate(), READY);
    let registers: Vec<u8> = (1..=7).map(|offset| guest.input(offset)).collect();
    assert_eq!(registers, [1, 1, 1, 0, 0, 0xa0, READY]);
    assert!(!guest.irq());
}

#[test]
fn registers_read_back_what_was_written() {
    // How SeaBIOS and Linux find out that there is something at these ports.
    let mut guest = Guest::new(&disk_image());
    guest.out(6, 0xa0);
    for (count, low) in [(0x55, 0xaa), (0xaa, 0x55)] {
        guest.out(2, count);
        guest.out(3, low);
        assert_eq!((guest.input(2), guest.input(3)), (count, low));
    }
}

#[test]
fn an_absent_slave_shows_status_zero_and_takes_no_command() {
    let mut guest = Guest::new(&disk_image());
    guest.out(6, 0xb0);
    guest.out(2, 0x12);
    assert_eq!((guest.input(7), guest.alternate(), guest.input(2)), (0, 0, 0x12));
    guest.out(7, 0xec);
    assert_eq!(guest.input(7), 0);
    assert!(!guest.irq());
    guest.out(6, 0xa0);
    assert_eq!(guest.input(7), READY);
}

#[test]
fn an_empty_channel_and_an_absent_master_float() {
    let image = disk_image();
    let mut guest = Guest::on(Ide::new([[None, Some(disk(&image))], [None, None]]), &image);
    assert_eq!((guest.bench.inb(0x177), guest.bench.inb(0x376), guest.bench.inb(0x172)), (0xff, 0xff, 0xff));
    assert_eq!((guest.input(7), guest.alternate()), (0xff, 0xff));
    guest.out(6, 0xb0);
    assert_eq!((guest.input(7), guest.alternate()), (READY, READY));
}

#[test]
fn identify_describes_the_disk() {
    let mut guest = Guest::new(&disk_image());
    guest.command(0xec, 0, 0);
    assert_eq!(guest.acknowledge(), DATA_READY);
    let data = guest.words_in(512);
    assert_eq!(guest.input(7), READY);
    assert!(!guest.irq());
    assert_eq!((word(&data, 1), word(&data, 3), word(&data, 6)), (4, 16, 63));
    assert_eq!(u32::from(word(&data, 60)) | u32::from(word(&data, 61)) << 16, SECTORS as u32);
    assert_eq!(u32::from(word(&data, 57)) | u32::from(word(&data, 58)) << 16, SECTORS as u32);
    assert_eq!(usize::from(word(&data, 100)), SECTORS);
    assert_eq!(&data[54..60], b"MVIS M");
    assert_eq!(data.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b)), 0);
}

#[test]
fn sectors_are_read_with_one_interrupt_each() {
    let mut guest = Guest::new(&disk_image());
    guest.command(0x20, 1000, 3);
    for sector in 0..3 {
        assert_eq!(guest.acknowledge(), DATA_READY);
        assert_eq!(guest.words_in(512), guest.image.bytes((1000 + sector) * 512, 512));
    }
    assert!(!guest.irq(), "none after the last sector");
    assert_eq!(guest.input(7), READY);
    assert_eq!((guest.input(2), guest.input(3)), (0, (1002_u32) as u8));
}

#[test]
fn the_data_port_takes_words_and_double_words() {
    let mut guest = Guest::new(&disk_image());
    guest.command(0x20, 0x0102, 1);
    assert_eq!(guest.bench.inl(0x1f0), 0x0102);
    assert_eq!(guest.bench.inw(0x1f0), 0x0202);
    assert_eq!(guest.bench.inb(0x1f0), 0x02);
    guest.words_in(512 - 10);
    assert_eq!(guest.alternate(), DATA_READY);
    assert_eq!(guest.bench.inw(0x1f0), 0x0202);
    assert_eq!(guest.alternate(), READY);
    assert_eq!(guest.bench.inw(0x1f0), 0xffff);
}

#[test]
fn writes_reach_the_image_before_their_interrupt() {
    let mut guest = Guest::new(&disk_image());
    guest.command(0x30, 7, 2);
    assert!(!guest.irq(), "the first sector is asked for without an interrupt");
    assert_eq!(guest.input(7), DATA_READY);
    guest.words_out(&[0x11; 512]);
    assert_eq!(guest.image.bytes(7 * 512, 512), [0x11; 512]);
    assert_eq!(guest.acknowledge(), DATA_READY);
    guest.words_out(&[0x22; 512]);
    assert_eq!(guest.acknowledge(), READY);
    assert_eq!(guest.image.bytes(8 * 512, 513)[..512], [0x22; 512]);
    assert_eq!(guest.image.bytes(9 * 512, 1), [9]);
}

#[test]
fn multiple_mode_moves_blocks_with_one_interrupt_each() {
    multiple(&mut Guest::new(&disk_image()));
}

fn multiple(guest: &mut Guest) {
    guest.command(0xc4, 0, 6);
    assert_eq!(guest.acknowledge(), READY | status::ERR, "not before SET MULTIPLE");
    guest.command(0xc6, 0, 3);
    assert_eq!(guest.acknowledge(), READY | status::ERR);
    guest.command(0xc6, 0, 4);
    assert_eq!(guest.acknowledge(), READY);

    guest.command(0xc4, 100, 6);
    assert_eq!(guest.acknowledge(), DATA_READY);
    assert_eq!(guest.words_in(4 * 512), guest.image.bytes(100 * 512, 4 * 512));
    assert_eq!(guest.acknowledge(), DATA_READY);
    assert_eq!(guest.words_in(2 * 512), guest.image.bytes(104 * 512, 2 * 512));
    assert_eq!(guest.input(7), READY);

    guest.command(0xc5, 200, 5);
    guest.words_out(&[0x33; 4 * 512]);
    assert_eq!(guest.acknowledge(), DATA_READY);
    guest.words_out(&[0x44; 512]);
    assert_eq!(guest.acknowledge(), READY);
    assert_eq!(guest.image.bytes(200 * 512, 4 * 512), vec![0x33; 4 * 512]);
    assert_eq!(guest.image.bytes(204 * 512, 512), [0x44; 512]);
}

#[test]
fn chs_addresses_go_through_the_current_translation() {
    let mut guest = Guest::new(&disk_image());
    let read = |guest: &mut Guest, cylinder: u8, head: u8, sector: u8| {
        for (offset, value) in [(6, 0xa0 | head), (2, 1), (3, sector), (4, cylinder), (5, 0), (7, 0x20)] {
            guest.out(offset, value);
        }
        let status = guest.acknowledge();
        (status, u32::from_le_bytes(guest.words_in(4).try_into().unwrap()))
    };
    assert_eq!(read(&mut guest, 2, 3, 4), (DATA_READY, (2 * 16 + 3) * 63 + 3));
    assert_eq!(read(&mut guest, 0, 0, 0).0, READY | status::ERR);
    assert_eq!(guest.input(1), error::IDNF);
    assert_eq!(read(&mut guest, 0, 0, 64).0, READY | status::ERR);
    guest.out(6, 0xa3);
    guest.out(2, 17);
    guest.out(7, 0x91);
    assert_eq!(guest.acknowledge(), READY);
    assert_eq!(read(&mut guest, 2, 3, 4), (DATA_READY, (2 * 4 + 3) * 17 + 3));
    assert_eq!(read(&mut guest, 2, 4, 4).0, READY | status::ERR);
}

#[test]
fn lba48_commands_use_the_previous_register_contents() {
    let mut guest = Guest::new(&disk_image());
    guest.command_ext(0x24, 300, 2);
    assert_eq!(guest.acknowledge(), DATA_READY);
    assert_eq!(guest.words_in(1024), guest.image.bytes(300 * 512, 1024));
    guest.command_ext(0x24, 300 | 1 << 40, 1);
    assert_eq!(guest.acknowledge(), READY | status::ERR);
    guest.command_ext(0x34, 301, 1);
    guest.words_out(&[0x55; 512]);
    assert_eq!(guest.acknowledge(), READY);
    assert_eq!(guest.image.bytes(301 * 512, 512), [0x55; 512]);
    guest.command(0x27, 0, 0);
    assert_eq!(guest.acknowledge(), READY);
    assert_eq!((guest.input(3), guest.input(4)), ((SECTORS - 1) as u8, ((SECTORS - 1) >> 8) as u8));
    guest.out(3, 0x12);
    guest.out(3, 0x34);
    guest.bench.outb(0x3f6, 0x80);
    assert_eq!(guest.input(3), 0x12);
    guest.bench.outb(0x3f6, 0);
    assert_eq!(guest.input(3), 0x34);
}

#[test]
fn the_end_of_the_disk_is_an_error_at_the_first_sector_beyond_it() {
    let mut guest = Guest::new(&disk_image());
    guest.command(0x20, SECTORS as u32 - 1, 2);
    assert_eq!(guest.acknowledge(), DATA_READY);
    guest.words_in(512);
    assert_eq!(guest.acknowledge(), READY | status::ERR);
    assert_eq!(guest.input(1), error::IDNF);
    assert_eq!((guest.input(3), guest.input(4)), (SECTORS as u8, (SECTORS >> 8) as u8));
    guest.command(0x40, SECTORS as u32 - 1, 1);
    assert_eq!(guest.acknowledge(), READY);
    guest.command(0x40, SECTORS as u32 - 1, 0);
    assert_eq!(guest.acknowledge(), READY | status::ERR);
    guest.command(0x70, SECTORS as u32, 0);
    assert_eq!(guest.acknowledge(), READY | status::ERR);
}

#[test]
fn write_errors_of_the_host_are_device_faults_and_protection_aborts() {
    let image = disk_image();
    let mut guest = Guest::new(&image);
    image.set_broken(true);
    guest.command(0x30, 0, 1);
    guest.words_out(&[0; 512]);
    assert_eq!(guest.acknowledge(), READY | status::DF | status::ERR);
    assert_eq!(guest.input(1), error::ABRT);
    guest.command(0xe7, 0, 0);
    assert_eq!(guest.acknowledge() & status::ERR, status::ERR);

    let mut guest = Guest::new(&disk_image().write_protected());
    guest.command(0x30, 0, 1);
    assert_eq!(guest.acknowledge(), READY | status::ERR);
    assert_eq!(guest.input(1), error::ABRT);
}

#[test]
fn alternate_status_leaves_the_interrupt_and_nien_holds_it_back() {
    let mut guest = Guest::new(&disk_image());
    guest.bench.outb(0x3f6, 0x02);
    guest.command(0x20, 0, 1);
    assert!(!guest.irq());
    guest.bench.outb(0x3f6, 0x00);
    assert!(guest.irq());
    assert_eq!(guest.alternate(), DATA_READY);
    assert!(guest.irq());
    assert_eq!(guest.input(7), DATA_READY);
    assert!(!guest.irq());
}

#[test]
fn commands_without_data_complete_or_abort_as_documented() {
    let mut guest = Guest::new(&disk_image());
    for code in [0x10, 0x1f, 0x91, 0xe0, 0xe1, 0xe2, 0xe3, 0xe7, 0xea, 0xf8] {
        guest.command(code, 0, 16);
        assert_eq!(guest.acknowledge(), READY, "command {code:#x}");
    }
    for code in [0x00, 0x08, 0xa0, 0xa1, 0xb0, 0xf6, 0xff] {
        guest.command(code, 0, 1);
        assert_eq!(guest.acknowledge(), READY | status::ERR, "command {code:#x}");
        assert_eq!(guest.input(1), error::ABRT);
    }
    guest.command(0xe0, 0, 0);
    guest.acknowledge();
    guest.command(0xe5, 0, 0x33);
    assert_eq!((guest.acknowledge(), guest.input(2)), (READY, 0x00));
    guest.command(0xe1, 0, 0);
    guest.acknowledge();
    guest.command(0xe5, 0, 0x33);
    assert_eq!((guest.acknowledge(), guest.input(2)), (READY, 0xff));
}

#[test]
fn set_features_is_shown_by_identify() {
    let mut guest = Guest::new(&disk_image());
    let mut feature = |code: u8, count: u8| {
        guest.out(1, code);
        guest.command(0xef, 0, count);
        let status = guest.acknowledge();
        guest.command(0xec, 0, 0);
        guest.acknowledge();
        (status, guest.words_in(512))
    };
    assert_eq!(word(&feature(0x82, 0).1, 85) & 0x20, 0);
    assert_eq!(word(&feature(0x02, 0).1, 85) & 0x20, 0x20);
    assert_eq!(feature(0x03, 0x0c).0, READY);
    assert_eq!(word(&feature(0x03, 0x22).1, 63), 0x0407);
    assert_eq!(word(&feature(0x03, 0x42).1, 88), 0x0407);
    assert_eq!(feature(0x03, 0x45).0, READY | status::ERR);
    assert_eq!(feature(0x5a, 0).0, READY | status::ERR);
}

#[test]
fn diagnostics_run_on_both_devices_and_select_the_first() {
    let mut guest = Guest::new(&disk_image());
    guest.out(6, 0xb0);
    guest.out(7, 0x90);
    assert_eq!(guest.acknowledge(), READY);
    assert_eq!((guest.input(1), guest.input(6)), (1, 0xa0));
}

#[test]
fn two_disks_keep_their_own_registers_and_interrupts() {
    let (first, second) = (disk_image(), disk_image());
    second.clone().write_at(0, &[0x99; 512]).unwrap();
    let ide = Ide::new([[Some(disk(&first)), Some(disk(&second))], [None, None]]);
    let mut guest = Guest::on(ide, &first);
    guest.command(0x20, 0, 1);
    assert!(guest.irq());
    guest.out(6, 0xf0);
    assert!(!guest.irq(), "only the selected device drives INTRQ");
    assert_eq!(guest.input(7), READY);
    guest.out(6, 0xe0);
    assert_eq!(guest.acknowledge(), DATA_READY);
    guest.words_in(512);
    for (offset, value) in [(6, 0xf0), (2, 1), (3, 0), (4, 0), (5, 0), (7, 0x20)] {
        guest.out(offset, value);
    }
    assert_eq!(guest.acknowledge(), DATA_READY);
    assert_eq!(guest.words_in(512), [0x99; 512]);
}

#[test]
fn the_secondary_channel_has_its_own_ports_and_interrupt() {
    let image = disk_image();
    let mut guest = Guest::on(Ide::new([[None, None], [Some(disk(&image)), None]]), &image);
    guest.bench.outb(0x176, 0xe0);
    guest.bench.outb(0x177, 0xec);
    assert!(guest.bench.host.irq(15) && !guest.bench.host.irq(14));
    assert_eq!(guest.bench.inb(0x376), DATA_READY);
    assert_eq!(guest.bench.inw(0x170), 0x0040);
}

#[test]
fn dying_or_restarting_at_every_access_changes_nothing() {
    for trouble in [Trouble::Restart, Trouble::Die] {
        let mut guest = Guest::new(&disk_image());
        guest.trouble = trouble;
        guest.command(0x20, 500, 2);
        assert_eq!(guest.acknowledge(), DATA_READY);
        let mut data = guest.words_in(100);
        data.extend(guest.words_in(412));
        assert_eq!(guest.acknowledge(), DATA_READY);
        data.extend(guest.words_in(512));
        assert_eq!(data, guest.image.bytes(500 * 512, 1024));
        guest.command(0x30, 600, 1);
        guest.words_out(&[0x66; 200]);
        guest.words_out(&[0x77; 312]);
        assert_eq!(guest.acknowledge(), READY);
        assert_eq!(guest.image.bytes(600 * 512 + 199, 2), [0x66, 0x77]);
        assert_eq!(guest.image.bytes(601 * 512, 1), [601_u16 as u8]);
        multiple(&mut guest);
        dma_read(&mut guest);
        dma_write(&mut guest);
        guest.bench.restart(controller(&guest.image));
        assert_eq!(guest.bench.inl(0xc004), 0x1000, "the base address survived");
    }
}

#[test]
fn polling_changes_no_state_and_the_state_stays_small() {
    let mut guest = Guest::new(&disk_image());
    guest.command(0xc6, 0, 16);
    guest.acknowledge();
    guest.command(0xc4, 0, 16);
    guest.acknowledge();
    guest.bench.take_changed();
    guest.input(7);
    guest.alternate();
    assert!(!guest.bench.take_changed());
    guest.words_in(1024);
    assert!(guest.bench.take_changed());
    let mut state = Vec::new();
    guest.bench.device.save(&mut state);
    assert!(state.len() < 1024, "{} bytes", state.len());
}

/// Puts a descriptor table of `(address, bytes)` at 1000h.
fn table(guest: &mut Guest, regions: &[(u32, u16)]) {
    for (i, (address, count)) in regions.iter().enumerate() {
        let end = if i + 1 == regions.len() { 1_u32 << 31 } else { 0 };
        let at = 0x1000 + 8 * i;
        guest.bench.host.ram[at..at + 4].copy_from_slice(&address.to_le_bytes());
        guest.bench.host.ram[at + 4..at + 8].copy_from_slice(&(end | u32::from(*count)).to_le_bytes());
    }
    guest.bench.outl(0xc004, 0x1000);
}

#[test]
fn bus_master_reads_follow_the_descriptors() {
    dma_read(&mut Guest::new(&disk_image()));
}

fn dma_read(guest: &mut Guest) {
    table(guest, &[(0x2000, 700), (0x8000, 1536 - 700)]);
    guest.master_out(0, 0x08);
    guest.master_out(2, 0x06);
    guest.command(0xc8, 50, 3);
    assert!(!guest.irq());
    guest.master_out(0, 0x09);
    assert_eq!(guest.bench.inb(0xc002), 0x04);
    assert_eq!(guest.acknowledge(), READY);
    let expected = guest.image.bytes(50 * 512, 1536);
    assert_eq!(guest.bench.host.ram[0x2000..0x2000 + 700], expected[..700]);
    assert_eq!(guest.bench.host.ram[0x8000..0x8000 + 836], expected[700..]);
    guest.master_out(0, 0);
    guest.master_out(2, 0x04);
    assert_eq!(guest.bench.inb(0xc002), 0);
}

#[test]
fn bus_master_writes_reach_the_image() {
    dma_write(&mut Guest::new(&disk_image()));
}

fn dma_write(guest: &mut Guest) {
    guest.bench.host.ram[0x2000..0x2400].fill(0x88);
    table(guest, &[(0x2000, 1024)]);
    guest.command_ext(0x35, 70, 2);
    guest.master_out(0, 0x01);
    assert_eq!(guest.acknowledge(), READY);
    assert_eq!(guest.image.bytes(70 * 512, 1024), vec![0x88; 1024]);
}

#[test]
fn a_transfer_waits_for_mastering_to_be_allowed_and_for_the_right_direction() {
    let mut guest = Guest::new(&disk_image());
    table(&mut guest, &[(0x2000, 512)]);
    guest.bench.config_write(register::COMMAND, Width::Word, 0x0001);
    guest.command(0xc8, 50, 1);
    guest.bench.outb(0xc000, 0x09);
    assert_eq!((guest.irq(), guest.bench.inb(0xc002)), (false, 0x01));
    guest.bench.config_write(register::COMMAND, Width::Word, 0x0005);
    assert_eq!((guest.irq(), guest.bench.inb(0xc002)), (true, 0x04));
    guest.acknowledge();
    guest.bench.outb(0xc000, 0x00);
    guest.command(0xca, 50, 1);
    guest.bench.outb(0xc000, 0x09);
    assert!(!guest.irq());
    assert_eq!(guest.image.bytes(50 * 512, 1), [50]);
}

#[test]
fn a_table_that_ends_early_or_lies_outside_ram_is_a_bus_master_error() {
    let mut guest = Guest::new(&disk_image());
    table(&mut guest, &[(0x2000, 512)]);
    guest.command(0xc8, 50, 2);
    guest.bench.outb(0xc000, 0x09);
    assert_eq!(guest.bench.inb(0xc002) & 0x03, 0x02);
    let master_abort = |guest: &mut Guest| {
        let status = guest.bench.config_read(register::STATUS, Width::Word) as u16;
        status & crate::pci::status::RECEIVED_MASTER_ABORT != 0
    };
    assert!(!master_abort(&mut guest), "all of the table was in RAM");
    guest.bench.outb(0xc000, 0);
    guest.bench.outl(0xc004, 0xfff0_0000);
    guest.bench.outb(0xc002, 0x02);
    guest.command(0xca, 50, 1);
    guest.bench.outb(0xc000, 0x01);
    assert_eq!(guest.bench.inb(0xc002) & 0x03, 0x02);
    assert!(master_abort(&mut guest));
    // Written as one it goes, like the error bit.
    guest.bench.config_write(register::STATUS, Width::Word, crate::pci::status::RECEIVED_MASTER_ABORT.into());
    assert!(!master_abort(&mut guest));
    // A buffer where nobody answers, in a table that is in RAM.
    guest.bench.outb(0xc000, 0);
    table(&mut guest, &[(0x7fff_0000, 512)]);
    guest.bench.outb(0xc002, 0x02);
    guest.command(0xc8, 50, 1);
    guest.bench.outb(0xc000, 0x09);
    assert_eq!(guest.bench.inb(0xc002) & 0x03, 0x02);
    assert!(master_abort(&mut guest));
}

#[test]
fn a_state_that_no_drive_can_be_in_is_refused() {
    let image = disk_image();
    let mut guest = Guest::new(&image);
    guest.command(0x20, 0, 2);
    let refused = |change: fn(&mut State)| {
        let channels = guest.bench.device.channels.clone();
        let mut state = State { channels, config: guest.bench.device.config.state() };
        assert_eq!(state.validate(), Ok(()));
        change(&mut state);
        let mut bytes = Vec::new();
        crate::device::save_state(&state, &mut bytes);
        controller(&image).load(1, &bytes).is_err()
    };
    assert!(refused(|s| s.channels[1].selected = 2));
    assert!(refused(|s| s.channels[0].units[0].heads = 0));
    assert!(refused(|s| s.channels[0].units[1].multiple = 17));
    assert!(refused(|s| s.channels[0].units[0].transfer.as_mut().unwrap().position = 512));
    assert!(refused(|s| s.channels[0].units[0].transfer.as_mut().unwrap().buffer.truncate(3)));
    assert!(refused(|s| s.channels[0].units[0].transfer.as_mut().unwrap().remaining = 0));
    assert!(refused(|s| s.channels[0].units[0].transfer.as_mut().unwrap().block_left = 0));
    assert!(controller(&image).load(2, &[]).is_err());
    assert!(controller(&image).load(1, &[0; 7]).is_err());
}

#[derive(Clone, Debug)]
enum Action {
    Out(u16, u8),
    Outw(u16, u16),
    Outl(u16, u32),
    In(u16),
    Inl(u16),
    Config(u8, u8),
    Burst(usize),
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    let port =
        || prop_oneof![0x1f0_u16..0x1f8, Just(0x3f6), 0x170_u16..0x178, Just(0x376), 0xc000_u16..0xc010];
    let commands: Vec<u8> = vec![
        0x20, 0x24, 0x30, 0x34, 0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0xec, 0xef, 0x91, 0x40, 0x70, 0x29, 0x39, 0xe6,
    ];
    prop_oneof![
        4 => prop::sample::select(commands).prop_map(|c| Action::Out(0x1f7, c)),
        4 => (port(), any::<u8>()).prop_map(|(p, v)| Action::Out(p, v)),
        2 => (0x1f2_u16..0x1f7, 0_u8..4).prop_map(|(p, v)| Action::Out(p, v)),
        2 => (port(), any::<u16>()).prop_map(|(p, v)| Action::Outw(p, v)),
        2 => (port(), any::<u32>()).prop_map(|(p, v)| Action::Outl(p, v)),
        2 => port().prop_map(Action::In),
        2 => port().prop_map(Action::Inl),
        1 => (0x04_u8..0x50, any::<u8>()).prop_map(|(r, v)| Action::Config(r, v)),
        3 => (1_usize..2000).prop_map(|n| Action::Burst(2 * n)),
        1 => Just(Action::Restart),
    ]
}

fn perform(guest: &mut Guest, action: &Action, may_restart: bool) {
    match *action {
        Action::Out(port, value) => guest.bench.outb(port, value),
        Action::Outw(port, value) => guest.bench.outw(port, value),
        Action::Outl(port, value) => guest.bench.outl(port, value),
        Action::In(port) => drop(guest.bench.inb(port)),
        Action::Inl(port) => drop(guest.bench.inl(port)),
        Action::Config(at, value) => guest.bench.config_write(at, Width::Byte, value.into()),
        Action::Burst(count) => {
            // Not answered while an absent device is selected.
            let (port, Bench { device, host, .. }) = (guest.port(), &mut guest.bench);
            let mut data = vec![0x3c; count];
            let _ = device.read_burst(port, &mut data, host);
            let _ = device.write_burst(port, &data, host);
        }
        Action::Restart if may_restart => guest.bench.restart(controller(&guest.image)),
        Action::Restart => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_accesses_never_panic_and_every_state_loads(actions in prop::collection::vec(action(), 1..200)) {
        let mut guest = Guest::new(&disk_image());
        for action in &actions {
            perform(&mut guest, action, true);
        }
    }

    #[test]
    fn a_damaged_state_is_refused_or_harmless(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        actions in prop::collection::vec(action(), 1..60),
    ) {
        let mut guest = Guest::new(&disk_image());
        guest.command(0x20, 5, 3);
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
        for action in &actions {
            perform(&mut guest, action, false);
        }
    }
}
