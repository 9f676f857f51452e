use super::Dma;
use crate::device::{Device, ResetKind};
use crate::host::{DmaDirection, Host};
use crate::testing::Bench;

const STATUS_1: u16 = 0x08;
const SINGLE_MASK_1: u16 = 0x0a;
const MODE_1: u16 = 0x0b;
const CLEAR_POINTER_1: u16 = 0x0c;
const MASTER_CLEAR_1: u16 = 0x0d;
const ALL_MASK_1: u16 = 0x0f;
const COMMAND_2: u16 = 0xd0;
const SINGLE_MASK_2: u16 = 0xd4;
const MODE_2: u16 = 0xd6;
const CLEAR_POINTER_2: u16 = 0xd8;
const MASTER_CLEAR_2: u16 = 0xda;
const ALL_MASK_2: u16 = 0xde;

/// SeaBIOS's initialization: both controllers cleared, the cascade opened.
fn bench() -> Bench<Dma> {
    let mut bench = Bench::new(Dma::new());
    bench.outb(MASTER_CLEAR_1, 0);
    bench.outb(MASTER_CLEAR_2, 0);
    bench.outb(MODE_2, 0xc0);
    bench.outb(SINGLE_MASK_2, 0x00);
    bench
}

/// SeaBIOS's floppy set-up of channel 2: address, page and length of the transfer.
fn set_up_floppy(bench: &mut Bench<Dma>, mode: u8, address: u32, len: u16) {
    bench.outb(SINGLE_MASK_1, 0x06);
    bench.outb(CLEAR_POINTER_1, 0);
    bench.outb(0x04, address as u8);
    bench.outb(0x04, (address >> 8) as u8);
    bench.outb(CLEAR_POINTER_1, 0);
    bench.outb(0x05, (len - 1) as u8);
    bench.outb(0x05, ((len - 1) >> 8) as u8);
    bench.outb(MODE_1, mode);
    bench.outb(0x81, (address >> 16) as u8);
    bench.outb(SINGLE_MASK_1, 0x02);
}

#[test]
fn a_floppy_read_lands_where_it_was_programmed_and_signals_tc() {
    let mut bench = bench();
    set_up_floppy(&mut bench, 0x46, 0x2_1230, 512);
    let outcome = bench.host.isa_dma(2, DmaDirection::ToMemory, &mut [0xa5; 512]);
    assert_eq!((outcome.bytes, outcome.terminal_count), (512, true));
    assert_eq!((bench.host.ram[0x2_1230], bench.host.ram[0x2_142f]), (0xa5, 0xa5));
    assert_eq!(bench.inb(STATUS_1), 0x04);
    assert_eq!(bench.inb(STATUS_1), 0x00, "reading the status clears TC");
    assert_eq!(bench.inb(ALL_MASK_1), 0x0f, "and the channel is masked again");
}

#[test]
fn linux_get_dma_residue_reads_the_count_after_a_partial_transfer() {
    let mut bench = bench();
    set_up_floppy(&mut bench, 0x46, 0x1_0000, 0x400);
    bench.host.isa_dma(2, DmaDirection::ToMemory, &mut [0; 0x101]);
    bench.outb(CLEAR_POINTER_1, 0);
    let residue = u16::from_le_bytes([bench.inb(0x05), bench.inb(0x05)]).wrapping_add(1);
    let address = u16::from_le_bytes([bench.inb(0x04), bench.inb(0x04)]);
    assert_eq!((residue, address), (0x2ff, 0x0101));
}

#[test]
fn the_flip_flop_is_per_controller_and_cleared_on_command() {
    let mut bench = bench();
    bench.outb(0x00, 0x11);
    bench.outb(0xc4, 0x22);
    bench.outb(CLEAR_POINTER_1, 0);
    bench.outb(0x00, 0x33);
    bench.outb(0x00, 0x44);
    bench.outb(0xc4, 0x55);
    assert_eq!(bench.host.channels[0].base_address, 0x4433);
    assert_eq!(bench.host.channels[5].base_address, 0x5522);
    bench.outb(CLEAR_POINTER_2, 0);
    assert_eq!((bench.inb(0xc5), bench.inb(0xc4)), (0x22, 0x55));
}

#[test]
fn page_registers_map_to_their_channels_and_the_rest_is_scratch() {
    let mut bench = bench();
    for port in 0x81..=0x8f {
        bench.outb(port, port as u8);
    }
    let pages = bench.host.channels.map(|channel| channel.page);
    assert_eq!(pages, [0x87, 0x83, 0x81, 0x82, 0x8f, 0x8b, 0x89, 0x8a]);
    for port in 0x81..=0x8f {
        assert_eq!(bench.inb(port), port as u8);
    }
    assert!(bench.try_outb(0x80, 0).is_err(), "port 80h belongs to debug_ports");
}

#[test]
fn mode_goes_to_the_named_channel_without_the_channel_bits() {
    let mut bench = bench();
    bench.outb(MODE_1, 0x5b);
    bench.outb(MODE_2, 0x49);
    assert_eq!((bench.host.channels[3].mode, bench.host.channels[5].mode), (0x58, 0x48));
}

#[test]
fn masks_can_be_set_one_by_one_and_all_together() {
    let mut bench = bench();
    assert_eq!((bench.inb(ALL_MASK_1), bench.inb(ALL_MASK_2)), (0x0f, 0x0e));
    bench.outb(SINGLE_MASK_1, 0x01);
    assert_eq!(bench.inb(ALL_MASK_1), 0x0d);
    bench.outb(0x0e, 0);
    assert_eq!(bench.inb(ALL_MASK_1), 0x00);
    bench.outb(ALL_MASK_1, 0xfa);
    assert_eq!(bench.inb(ALL_MASK_1), 0x0a);
    assert!(!bench.host.channels[0].masked && bench.host.channels[1].masked);
}

#[test]
fn nothing_moves_while_the_cascade_channel_is_masked() {
    let mut bench = Bench::new(Dma::new());
    set_up_floppy(&mut bench, 0x46, 0x1_0000, 16);
    assert_eq!(bench.inb(ALL_MASK_1), 0x0b, "the programmed mask reads back");
    assert_eq!(bench.host.isa_dma(2, DmaDirection::ToMemory, &mut [1; 16]).bytes, 0);
    bench.outb(SINGLE_MASK_2, 0x00);
    assert_eq!(bench.host.isa_dma(2, DmaDirection::ToMemory, &mut [1; 16]).bytes, 16);
}

#[test]
fn a_disabled_controller_stands_still_and_keeps_its_masks() {
    let mut bench = bench();
    set_up_floppy(&mut bench, 0x46, 0x1_0000, 16);
    bench.outb(STATUS_1, 0x04);
    assert!(bench.host.channels[2].masked);
    bench.outb(SINGLE_MASK_1, 0x00);
    bench.outb(STATUS_1, 0x00);
    assert_eq!(bench.inb(ALL_MASK_1), 0x0a);
    bench.outb(COMMAND_2, 0x04);
    assert!(bench.host.channels[2].masked, "channels 0-3 go through controller 2");
    bench.outb(COMMAND_2, 0x00);
    assert!(!bench.host.channels[2].masked);
}

#[test]
fn status_shows_device_requests() {
    let mut bench = bench();
    bench.host.set_dreq(2, true);
    assert_eq!(bench.inb(STATUS_1), 0x40);
    bench.host.set_dreq(2, false);
    assert_eq!(bench.inb(STATUS_1), 0x00);
}

#[test]
fn software_requests_run_in_block_mode_only() {
    let mut bench = bench();
    set_up_floppy(&mut bench, 0x46, 0x1_0000, 4);
    bench.outb(0x09, 0x06);
    assert_eq!(bench.inb(STATUS_1), 0x40, "pending: the channel is in single mode");
    bench.outb(MODE_1, 0x86);
    assert_eq!(bench.inb(STATUS_1), 0x04);
    assert_eq!(bench.host.ram[0x1_0000..0x1_0005], [0xff, 0xff, 0xff, 0xff, 0x00]);
}

#[test]
fn master_clear_masks_and_clears_but_keeps_addresses() {
    let mut bench = bench();
    set_up_floppy(&mut bench, 0x46, 0x1_2345, 16);
    bench.outb(0x00, 1);
    bench.outb(MASTER_CLEAR_1, 0);
    assert_eq!(bench.inb(ALL_MASK_1), 0x0f);
    assert_eq!(u16::from_le_bytes([bench.inb(0x04), bench.inb(0x04)]), 0x2345);
    assert_eq!(bench.inb(0x0d), 0);
}

#[test]
fn write_only_registers_do_not_read() {
    let mut bench = bench();
    assert_eq!((bench.inb(0x0b), bench.inb(0xd6)), (0xff, 0xff));
}

#[test]
fn a_restart_between_the_bytes_of_an_address_goes_on_with_the_high_byte() {
    let mut bench = bench();
    bench.outb(CLEAR_POINTER_1, 0);
    bench.outb(0x02, 0xcd);
    bench.outb(0x84, 0x77);
    bench.host.mirror.clear();
    bench.restart(Dma::new());
    bench.outb(0x02, 0xab);
    assert_eq!(bench.host.channels[1].current_address, 0xabcd);
    assert_eq!(bench.inb(0x84), 0x77);
}

#[test]
fn hard_reset_keeps_pages_and_power_on_does_not() {
    let mut bench = bench();
    bench.outb(0x81, 0x12);
    bench.device.reset(ResetKind::Hard, &mut bench.host);
    assert_eq!((bench.inb(0x81), bench.inb(ALL_MASK_1)), (0x12, 0x0f));
    bench.device.reset(ResetKind::PowerOn, &mut bench.host);
    assert_eq!((bench.inb(0x81), bench.inb(ALL_MASK_2)), (0, 0x0f));
}

#[test]
fn hostile_states_never_panic() {
    let bench = bench();
    let mut state = Vec::new();
    bench.device.save(&mut state);
    for i in 0..state.len() {
        let mut bad = state.clone();
        bad[i] = 0xff;
        let mut device = Dma::new();
        if device.load(1, &bad).is_ok() {
            let mut bench = Bench::new(device);
            bench.outb(ALL_MASK_2, 0);
            bench.inb(STATUS_1);
        }
    }
    assert!(Dma::new().load(1, &[]).is_err());
    assert!(Dma::new().load(2, &state).is_err());
}
