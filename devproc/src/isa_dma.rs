//! How a device moves bytes over an ISA DMA channel.
//!
//! Source: Intel 8237A datasheet, "Active cycle" and "Mode register"; 82371AB (PIIX4) datasheet,
//! section 4.2 (page registers; channels 5-7 move words, their addresses are shifted by one).
//! The channel's programming belongs to the 8237 model; this is what happens on DREQ/DACK.

use crate::host::{DmaChannel, DmaDirection, DmaOutcome, Host};

/// A bus that nobody drives.
const FLOATING: u8 = 0xff;
/// Mode register bit 5: addresses count down.
pub const MODE_DECREMENT: u8 = 1 << 5;
/// Mode register bit 4: base registers are reloaded at terminal count.
pub const MODE_AUTO_INIT: u8 = 1 << 4;

/// Moves `buffer` over `channel` (0-7) and advances it, stopping at terminal count.
///
/// A channel that is masked moves nothing. A transfer to where no RAM is, or none that the device may
/// reach, floats: ones are read, writes are lost, the counters still advance, as on a bus where nobody answers.
pub fn transfer(host: &mut dyn Host, channel: u8, direction: DmaDirection, buffer: &mut [u8]) -> DmaOutcome {
    let mut state = host.dma_channel(channel);
    let unit = if channel >= 4 { 2 } else { 1 };
    if state.masked || buffer.len() < unit {
        return DmaOutcome { bytes: 0, terminal_count: false };
    }
    let mut moved = 0;
    let mut terminal_count = false;
    while !terminal_count && moved + unit <= buffer.len() {
        let run = contiguous_units(&state, (buffer.len() - moved) / unit);
        let start = physical_address(&state, unit);
        let low =
            if state.mode & MODE_DECREMENT != 0 { start - (run as u64 - 1) * unit as u64 } else { start };
        let part = &mut buffer[moved..moved + run * unit];
        if state.mode & MODE_DECREMENT == 0 {
            copy(host, direction, low, part);
        } else {
            for (i, piece) in part.chunks_exact_mut(unit).enumerate() {
                copy(host, direction, start - (i * unit) as u64, piece);
            }
        }
        moved += run * unit;
        terminal_count = advance(&mut state, run as u16);
    }
    host.set_dma_channel(channel, state);
    DmaOutcome { bytes: moved, terminal_count }
}

/// Units until the count runs out or the 16-bit address wraps (it wraps within its page).
fn contiguous_units(state: &DmaChannel, wanted: usize) -> usize {
    let until_count = usize::from(state.current_count) + 1;
    let until_wrap = if state.mode & MODE_DECREMENT != 0 {
        usize::from(state.current_address) + 1
    } else {
        0x1_0000 - usize::from(state.current_address)
    };
    wanted.min(until_count).min(until_wrap)
}

fn physical_address(state: &DmaChannel, unit: usize) -> u64 {
    let (page, address) = (u64::from(state.page), u64::from(state.current_address));
    if unit == 2 { (page & !1) << 16 | address << 1 } else { page << 16 | address }
}

fn copy(host: &mut dyn Host, direction: DmaDirection, address: u64, part: &mut [u8]) {
    match direction {
        DmaDirection::ToMemory => {
            // Nobody answers outside RAM: the bytes are lost, as on the ISA bus.
            let _ = host.dma_write(address, part);
        }
        DmaDirection::FromMemory => {
            if host.dma_read(address, part).is_err() {
                part.fill(FLOATING);
            }
        }
        DmaDirection::Verify => {}
    }
}

/// Counts `units` transfers; true when the last one was the terminal count.
fn advance(state: &mut DmaChannel, units: u16) -> bool {
    state.current_address = if state.mode & MODE_DECREMENT != 0 {
        state.current_address.wrapping_sub(units)
    } else {
        state.current_address.wrapping_add(units)
    };
    let done = state.current_count.checked_sub(units).is_none();
    state.current_count = state.current_count.wrapping_sub(units);
    if done {
        state.terminal_count = true;
        if state.mode & MODE_AUTO_INIT != 0 {
            state.current_address = state.base_address;
            state.current_count = state.base_count;
        } else {
            state.masked = true;
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, ResetKind, StateError};
    use crate::testing::TestHost;

    struct Nothing;
    impl Device for Nothing {
        fn name(&self) -> &'static str {
            "nothing"
        }
        fn reset(&mut self, _: ResetKind, _: &mut dyn Host) {}
        fn save(&self, _: &mut Vec<u8>) {}
        fn load(&mut self, _: u16, _: &[u8]) -> Result<(), StateError> {
            Ok(())
        }
    }

    fn host_with(channel: u8, address: u16, page: u8, count: u16, mode: u8) -> TestHost {
        let mut host = TestHost::new(&Nothing);
        host.channels[channel as usize] = DmaChannel {
            base_address: address,
            base_count: count,
            current_address: address,
            current_count: count,
            page,
            mode,
            ..DmaChannel::default()
        };
        host
    }

    #[test]
    fn bytes_land_at_page_and_address_and_terminal_count_masks_the_channel() {
        let mut host = host_with(2, 0x1000, 0x01, 3, 0);
        let outcome = transfer(&mut host, 2, DmaDirection::ToMemory, &mut [1, 2, 3, 4, 5, 6]);
        assert_eq!(outcome, DmaOutcome { bytes: 4, terminal_count: true });
        assert_eq!(host.ram[0x1_1000..0x1_1006], [1, 2, 3, 4, 0, 0]);
        assert!(host.channels[2].masked && host.channels[2].terminal_count);
        assert_eq!(transfer(&mut host, 2, DmaDirection::ToMemory, &mut [9]).bytes, 0);
    }

    #[test]
    fn the_address_wraps_within_its_page() {
        let mut host = host_with(2, 0xffff, 0x02, 0xff, 0);
        transfer(&mut host, 2, DmaDirection::ToMemory, &mut [7, 8]);
        assert_eq!((host.ram[0x2_ffff], host.ram[0x2_0000]), (7, 8));
    }

    #[test]
    fn word_channels_shift_the_address_and_ignore_the_lowest_page_bit() {
        let mut host = host_with(5, 0x0800, 0x03, 1, 0);
        let outcome = transfer(&mut host, 5, DmaDirection::ToMemory, &mut [1, 2, 3, 4]);
        assert_eq!(outcome, DmaOutcome { bytes: 4, terminal_count: true });
        assert_eq!(host.ram[0x2_1000..0x2_1004], [1, 2, 3, 4]);
    }

    #[test]
    fn where_nobody_answers_ones_are_read_and_writes_are_lost() {
        let mut host = host_with(2, 0xfffe, 0x0f, 3, 0);
        host.ram.fill(0x55);
        host.ram.truncate(0xf_ffff);
        let mut bytes = [1, 2];
        assert_eq!(transfer(&mut host, 2, DmaDirection::FromMemory, &mut bytes).bytes, 2);
        assert_eq!(bytes, [0xff; 2]);
        assert_eq!(transfer(&mut host, 2, DmaDirection::ToMemory, &mut [7; 2]).bytes, 2);
        assert_eq!(host.ram[0xf_fffe], 0x55);
    }

    #[test]
    fn auto_init_reloads_and_decrement_walks_down() {
        let mut host = host_with(1, 0x10, 0, 1, MODE_AUTO_INIT | MODE_DECREMENT);
        let outcome = transfer(&mut host, 1, DmaDirection::ToMemory, &mut [1, 2]);
        assert!(outcome.terminal_count);
        assert_eq!(host.ram[0x0f..0x11], [2, 1]);
        assert_eq!((host.channels[1].current_address, host.channels[1].masked), (0x10, false));
    }
}
