//! INT 13h for drive A: 82077AA commands, DMA channel 2 and IRQ 6, by the registers.

use crate::demo::asm::{Asm, AsmResult, asm};
use crate::demo::chips::{dma, fdc, pic};
use crate::demo::memory::*;
use iced_x86::code_asm::*;

/// Ticks to wait for an interrupt (two seconds: a recalibrate over 80 tracks fits).
const IRQ_TICKS: i32 = 37;
/// Ticks until the motor stops after the last access.
const MOTOR_ON_TICKS: i32 = 37;
const INTERRUPTED: i32 = 0x80;
/// Result phases are at most this long.
const RESULT_BYTES: i32 = 7;
/// Status codes of INT 13h.
const STATUS_BAD_COMMAND: i32 = 0x01;
const STATUS_DMA_BOUNDARY: i32 = 0x09;
const STATUS_CONTROLLER: i32 = 0x20;
const STATUS_NO_MEDIUM: i32 = 0x31;
const STATUS_READ: i32 = 0x04;
/// Drive type 1.44 MB and its geometry, as function 8 reports it.
const TYPE_144: i32 = 4;
const LAST_CYLINDER: i32 = 79;
const LAST_HEAD: i32 = 1;
/// Change line supported.
const TYPE_WITH_CHANGE_LINE: i32 = 0x0200;
/// Data rates to try and the sectors per track of 3.5 inch media at that rate.
const RATES: [(i32, u8); 3] = [(fdc::RATE_500K, 18), (fdc::RATE_250K, 9), (fdc::RATE_1M, 36)];
const CARRY: i32 = 1;

/// Functions of INT 13h (AH).
mod function {
    pub const RESET: i32 = 0x00;
    pub const STATUS: i32 = 0x01;
    pub const READ: i32 = 0x02;
    pub const PARAMETERS: i32 = 0x08;
    pub const DRIVE_TYPE: i32 = 0x15;
}

/// Places in the frame that the service builds (BP points at it), PUSHA order.
mod frame {
    pub const BX: i32 = 8;
    pub const DX: i32 = 10;
    pub const CX: i32 = 12;
    pub const AX: i32 = 14;
    pub const ES: i32 = 16;
    pub const FLAGS: i32 = 24;
}

/// Emits `floppy.init`, `floppy.irq` (IRQ 6) and `floppy.service` (INT 13h).
pub fn emit(a: &mut Asm) -> AsmResult {
    controller(a)?;
    bytes(a)?;
    medium(a)?;
    service(a)?;
    read(a)
}

fn controller(a: &mut Asm) -> AsmResult {
    asm! { a;
        // Resets the controller. CF: nobody answered.
        at("floppy.init");
        mov(byte_ptr(FLOPPY_SPT), 0); mov(byte_ptr(FLOPPY_PRESENT), 0);
        and(byte_ptr(FLOPPY_IRQ), 0xFF & !INTERRUPTED);
        out_byte(fdc::DOR, fdc::DOR_RESET);
        // The reset pulse must last; a read of an idle port takes a microsecond on a real bus.
        in_al(dma::POST_CODE); in_al(dma::POST_CODE); in_al(dma::POST_CODE); in_al(dma::POST_CODE);
        out_byte(fdc::DOR, fdc::DOR_IDLE);
        in_al(fdc::MSR); cmp(al, 0xFF); je(".none");
        call("floppy.wait"); jc(".end");
        // After a reset each of four drives reports a change of its ready state.
        mov(bl, 4);
        at(".drive");
        call("floppy.sense"); jc(".end"); dec(bl); jnz(".drive");
        mov(al, fdc::SPECIFY); call("floppy.send"); jc(".end");
        mov(al, fdc::SPECIFY_TIMES[0]); call("floppy.send"); jc(".end");
        mov(al, fdc::SPECIFY_TIMES[1]); call("floppy.send"); jc(".end");
        mov(byte_ptr(FLOPPY_PRESENT), 1); clc();
        at(".end");
        ret();
        at(".none");
        stc(); ret();

        at("floppy.irq");
        push(ax); push(ds); xor(ax, ax); mov(ds, ax);
        or(byte_ptr(FLOPPY_IRQ), INTERRUPTED);
        out_byte(pic::MASTER, pic::EOI);
        pop(ds); pop(ax); iret();

        // Sleeps until IRQ 6 came. CF: it did not.
        at("floppy.wait");
        push(ax); mov(ax, word_ptr(TICKS)); add(ax, IRQ_TICKS);
        at(".look");
        cli(); test(byte_ptr(FLOPPY_IRQ), INTERRUPTED); jnz(".came");
        cmp(ax, word_ptr(TICKS)); js(".late");
        sti(); hlt(); jmp(".look");
        at(".came");
        and(byte_ptr(FLOPPY_IRQ), 0xFF & !INTERRUPTED); sti(); pop(ax); clc(); ret();
        at(".late");
        sti(); pop(ax); stc(); ret();
    }
    Ok(())
}

fn bytes(a: &mut Asm) -> AsmResult {
    asm! { a;
        // AL to the controller. CF: it does not take it.
        at("floppy.send");
        push(cx); push(dx); mov(ah, al); xor(cx, cx);
        at(".poll");
        in_al(fdc::MSR); and(al, fdc::MSR_RQM | fdc::MSR_DIO); cmp(al, fdc::MSR_RQM); je(".ready");
        loop_(".poll");
        pop(dx); pop(cx); stc(); ret();
        at(".ready");
        mov(al, ah); out_al(fdc::DATA); pop(dx); pop(cx); clc(); ret();

        // The result phase into memory. CF: it did not come.
        at("floppy.result");
        push(cx); push(dx); push(bx); mov(bx, FLOPPY_RESULT);
        at(".byte");
        xor(cx, cx);
        at(".poll");
        in_al(fdc::MSR); test(al, fdc::MSR_RQM); jnz(".ready"); loop_(".poll");
        at(".bad");
        pop(bx); pop(dx); pop(cx); stc(); ret();
        at(".ready");
        and(al, fdc::MSR_DIO | fdc::MSR_BUSY); cmp(al, fdc::MSR_DIO | fdc::MSR_BUSY); jne(".end");
        cmp(bx, FLOPPY_RESULT + RESULT_BYTES); jae(".bad");
        in_al(fdc::DATA); mov(byte_ptr(bx), al); inc(bx); jmp(".byte");
        at(".end");
        pop(bx); pop(dx); pop(cx); clc(); ret();

        at("floppy.sense");
        mov(al, fdc::SENSE_INTERRUPT); call("floppy.send"); jc(".end"); call("floppy.result");
        at(".end");
        ret();

        // Waits for the end of a seek or recalibrate. CF: it failed.
        at("floppy.seek_end");
        call("floppy.wait"); jc(".end");
        call("floppy.sense"); jc(".end");
        test(byte_ptr(FLOPPY_RESULT), fdc::ST0_FAILED); jz(".end"); stc();
        at(".end");
        ret();

        at("floppy.recalibrate");
        mov(al, fdc::RECALIBRATE); call("floppy.send"); jc(".end");
        xor(al, al); call("floppy.send"); jc(".end");
        call("floppy.seek_end");
        at(".end");
        ret();

        // To cylinder CH, head DH.
        at("floppy.seek");
        mov(al, fdc::SEEK); call("floppy.send"); jc(".end");
        mov(al, dh); shl(al, 2); call("floppy.send"); jc(".end");
        mov(al, ch); call("floppy.send"); jc(".end");
        call("floppy.seek_end");
        at(".end");
        ret();
    }
    Ok(())
}

fn medium(a: &mut Asm) -> AsmResult {
    let rates = a.bytes(&RATES.map(|(rate, _)| rate as u8));
    let sectors = a.bytes(&RATES.map(|(_, sectors)| sectors));
    asm! { a;
        // Motor on, medium there, its data rate known. CF: AH says why not.
        at("floppy.ready");
        cmp(byte_ptr(FLOPPY_PRESENT), 0); jnz(".present");
        call("floppy.init"); mov(ah, STATUS_CONTROLLER); jnc(".present"); ret();
        at(".present");
        cli(); mov(byte_ptr(MOTOR_TICKS), MOTOR_ON_TICKS); sti();
        push(dx); out_byte(fdc::DOR, fdc::DOR_MOTOR_A);
        in_al(fdc::CCR_DIR); test(al, fdc::DIR_DISK_CHANGE); jz(".unchanged");
        // Only a step clears the change line; when it stays set there is no medium.
        mov(byte_ptr(FLOPPY_SPT), 0);
        push(cx); mov(cx, 0x0100); xor(dx, dx); call("floppy.seek"); pop(cx);
        call("floppy.recalibrate");
        in_al(fdc::CCR_DIR); test(al, fdc::DIR_DISK_CHANGE); jnz(".no_medium");
        at(".unchanged");
        pop(dx); cmp(byte_ptr(FLOPPY_SPT), 0); jz("floppy.detect"); clc(); ret();
        at(".no_medium");
        pop(dx); mov(ah, STATUS_NO_MEDIUM); stc(); ret();

        // Tries the data rates until a sector header can be read on track 0.
        at("floppy.detect");
        push(bx); push(dx); call("floppy.recalibrate"); jc(".none");
        xor(bx, bx);
        at(".rate");
        mov(al, byte_ptr(bx + rates).cs()); out_al(fdc::CCR_DIR);
        mov(al, fdc::READ_ID); call("floppy.send"); jc(".none");
        xor(al, al); call("floppy.send"); jc(".none");
        call("floppy.wait"); jc(".reset");
        call("floppy.result"); jc(".none");
        test(byte_ptr(FLOPPY_RESULT), fdc::ST0_FAILED); jz(".found");
        inc(bx); cmp(bx, RATES.len() as i32); jb(".rate");
        jmp(".none");
        at(".found");
        mov(al, byte_ptr(bx + sectors).cs()); mov(byte_ptr(FLOPPY_SPT), al);
        pop(dx); pop(bx); clc(); ret();
        at(".reset");
        // The command hangs for want of an index pulse; the next access starts afresh.
        mov(byte_ptr(FLOPPY_PRESENT), 0);
        at(".none");
        pop(dx); pop(bx); mov(ah, STATUS_NO_MEDIUM); stc(); ret();
    }
    Ok(())
}

fn service(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("floppy.service");
        sti(); cld(); push(ds); push(es); pusha(); mov(bp, sp);
        push(0); pop(ds);
        test(dl, dl); jnz(".bad");
        cmp(ah, function::READ); je(".read");
        cmp(ah, function::RESET); je(".reset");
        cmp(ah, function::STATUS); je(".status");
        cmp(ah, function::PARAMETERS); je(".parameters");
        cmp(ah, function::DRIVE_TYPE); je(".type");
        at(".bad");
        mov(ah, STATUS_BAD_COMMAND); stc();
        at(".answer");
        // AH and CF to the caller.
        mov(byte_ptr(FLOPPY_STATUS), ah); mov(byte_ptr(bp + (frame::AX + 1)).ss(), ah); jc(".error");
        at(".good");
        and(word_ptr(bp + frame::FLAGS).ss(), !CARRY & 0xFFFF);
        popa(); pop(es); pop(ds); iret();
        at(".error");
        or(word_ptr(bp + frame::FLAGS).ss(), CARRY);
        popa(); pop(es); pop(ds); iret();

        at(".reset");
        call("floppy.init"); mov(ah, STATUS_CONTROLLER); jc(".answer"); xor(ah, ah); jmp(".answer");
        at(".status");
        mov(ah, byte_ptr(FLOPPY_STATUS)); clc(); jmp(".answer");
        at(".read");
        call("floppy.read"); jc(".answer"); xor(ah, ah); jmp(".answer");
        at(".type");
        mov(word_ptr(bp + frame::AX).ss(), TYPE_WITH_CHANGE_LINE | 1); jmp(".good");
        at(".parameters");
        mov(cl, byte_ptr(FLOPPY_SPT)); test(cl, cl); jnz(".known");
        mov(cl, i32::from(RATES[0].1));
        at(".known");
        mov(ch, LAST_CYLINDER); mov(word_ptr(bp + frame::CX).ss(), cx);
        mov(word_ptr(bp + frame::DX).ss(), LAST_HEAD << 8 | 1);
        mov(word_ptr(bp + frame::BX).ss(), TYPE_144);
        xor(ah, ah); jmp(".answer");
    }
    Ok(())
}

/// `floppy.read`: INT 13h function 2 with the caller's registers; AH and CF are the answer.
fn read(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("floppy.read");
        test(al, al); jz(".bad");
        // EDI = physical address, SI = bytes - 1.
        movzx(edi, word_ptr(bp + frame::ES).ss()); shl(edi, 4); movzx(ebx, bx); add(edi, ebx);
        movzx(si, al); shl(si, 9); dec(si);
        mov(ax, di); add(ax, si); jc(".boundary");
        push(cx); call("floppy.ready"); pop(cx); jc(".failed");
        mov(dx, word_ptr(bp + frame::DX).ss());
        call("floppy.seek"); mov(ah, STATUS_READ); jc(".failed");
        call(".dma");
        mov(al, fdc::READ_DATA); call("floppy.send"); jc(".reset");
        mov(al, dh); shl(al, 2); call("floppy.send"); jc(".reset");
        mov(al, ch); call("floppy.send"); jc(".reset");
        mov(al, dh); call("floppy.send"); jc(".reset");
        mov(al, cl); call("floppy.send"); jc(".reset");
        mov(al, fdc::SECTOR_512); call("floppy.send"); jc(".reset");
        mov(al, byte_ptr(FLOPPY_SPT)); call("floppy.send"); jc(".reset");
        mov(al, fdc::GAP); call("floppy.send"); jc(".reset");
        mov(al, fdc::DTL_UNUSED); call("floppy.send"); jc(".reset");
        call("floppy.wait"); jc(".reset");
        call("floppy.result"); jc(".reset");
        test(byte_ptr(FLOPPY_RESULT), fdc::ST0_FAILED); jnz(".read_error");
        clc(); ret();
        at(".read_error");
        mov(byte_ptr(FLOPPY_SPT), 0); mov(ah, STATUS_READ); stc(); ret();
        at(".reset");
        mov(byte_ptr(FLOPPY_PRESENT), 0); mov(ah, STATUS_CONTROLLER); stc();
        at(".failed");
        ret();
        at(".bad");
        mov(ah, STATUS_BAD_COMMAND); stc(); ret();
        at(".boundary");
        mov(ah, STATUS_DMA_BOUNDARY); stc(); ret();

        // Channel 2: SI + 1 bytes to EDI.
        at(".dma");
        push(edi);
        out_byte(dma::MASK, dma::MASK_CHANNEL_2);
        out_byte(dma::CLEAR_FLIP_FLOP, 0);
        out_byte(dma::MODE, dma::CHANNEL_2_TO_MEMORY);
        mov(ax, di); out_al(dma::CHANNEL_2_ADDRESS); mov(al, ah); out_al(dma::CHANNEL_2_ADDRESS);
        shr(edi, 16); mov(ax, di); out_al(dma::CHANNEL_2_PAGE);
        mov(ax, si); out_al(dma::CHANNEL_2_COUNT); mov(al, ah); out_al(dma::CHANNEL_2_COUNT);
        out_byte(dma::MASK, dma::UNMASK_CHANNEL_2);
        pop(edi); ret();
    }
    Ok(())
}
