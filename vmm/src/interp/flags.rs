//! The six arithmetic flags, kept as what the last operation left instead of as bits.
//!
//! Most flags that an instruction computes are overwritten unread, so an operation stores only its
//! result and a few carry bits, in the same two words whatever the operation was; the reader does
//! the rest. There is no operation kind to switch on, and flags that are set or kept one by one
//! (INC keeps CF, BT sets only CF) are one exclusive-or.

/// Carry flag in EFLAGS.
pub const CF: u32 = 1 << 0;
/// Parity flag in EFLAGS.
pub const PF: u32 = 1 << 2;
/// Auxiliary carry flag in EFLAGS.
pub const AF: u32 = 1 << 4;
/// Zero flag in EFLAGS.
pub const ZF: u32 = 1 << 6;
/// Sign flag in EFLAGS.
pub const SF: u32 = 1 << 7;
/// Overflow flag in EFLAGS.
pub const OF: u32 = 1 << 11;
/// All six arithmetic flags.
pub const ARITHMETIC: u32 = CF | PF | AF | ZF | SF | OF;

/// `aux`: the carry out of the most significant bit (CF).
const CARRY_OUT: u32 = 1 << 31;
/// `aux`: the carry into the most significant bit; OF is where the two differ.
const CARRY_IN: u32 = 1 << 30;
/// `aux`: the carry out of bit 3 (AF).
const HALF_CARRY: u32 = 1 << 3;
/// `aux`: SF is the opposite of the result's sign.
const SIGN_FLIP: u32 = 1 << 0;
/// `aux`: PF is the opposite of the parity of the result's low byte.
const PARITY_FLIP: u32 = 1 << 8;
const PARITY_FLIP_SHIFT: u32 = 8;

/// The arithmetic flags of EFLAGS, not computed before somebody asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct LazyFlags {
    /// The last result, sign-extended to 32 bits from its operand size: ZF, SF and PF.
    result: u32,
    /// CF, OF and AF, and corrections to SF and PF for flags that were loaded rather than computed.
    aux: u32,
}

impl LazyFlags {
    /// The flags as they stand in the arithmetic bits of `eflags`.
    pub const fn from_bits(eflags: u32) -> Self {
        let zero = eflags & ZF != 0;
        let carry = eflags & CF != 0;
        let overflow = eflags & OF != 0;
        let parity = eflags & PF != 0;
        let mut aux = 0;
        if carry {
            aux |= CARRY_OUT;
        }
        if carry != overflow {
            aux |= CARRY_IN;
        }
        if eflags & AF != 0 {
            aux |= HALF_CARRY;
        }
        if eflags & SF != 0 {
            aux |= SIGN_FLIP;
        }
        // Zero has even parity, one has not.
        if parity != zero {
            aux |= PARITY_FLIP;
        }
        LazyFlags { result: !zero as u32, aux }
    }

    /// The six flags in their EFLAGS positions, other bits zero.
    #[inline]
    pub const fn to_bits(self) -> u32 {
        (self.carry() as u32)
            | (self.parity() as u32) << 2
            | (self.auxiliary() as u32) << 4
            | (self.zero() as u32) << 6
            | (self.sign() as u32) << 7
            | (self.overflow() as u32) << 11
    }

    /// After an addition, subtraction or anything else with a carry vector: `result` is
    /// sign-extended from `bits`, bit n of `carries` is the carry (or borrow) out of bit n.
    #[inline(always)]
    pub const fn set_arithmetic(&mut self, result: u32, carries: u32, bits: u32) {
        self.result = result;
        self.aux = ((carries << (32 - bits)) & (CARRY_OUT | CARRY_IN)) | (carries & HALF_CARRY);
    }

    /// As [`LazyFlags::set_arithmetic`], but CF stays (INC, DEC).
    #[inline(always)]
    pub const fn set_arithmetic_keep_carry(&mut self, result: u32, carries: u32, bits: u32) {
        let old = self.aux;
        self.set_arithmetic(result, carries, bits);
        self.flip_carry_if((old ^ self.aux) & CARRY_OUT);
    }

    /// After AND, OR, XOR, TEST: CF, OF and AF are clear. `result` is sign-extended.
    #[inline(always)]
    pub const fn set_logic(&mut self, result: u32) {
        self.result = result;
        self.aux = 0;
    }

    /// After a shift: SF, ZF and PF from the sign-extended `result`; CF and OF as given; AF, which is
    /// undefined, is set as on the Intel processors that this was compared with.
    #[inline(always)]
    pub const fn set_shift(&mut self, result: u32, carry: bool, overflow: bool) {
        self.result = result;
        self.aux = (carry as u32) << 31 | ((carry != overflow) as u32) << 30 | HALF_CARRY;
    }

    #[inline(always)]
    const fn flip_carry_if(&mut self, carry_out_bit: u32) {
        // Both bits, so that OF stays what it is.
        self.aux ^= carry_out_bit | carry_out_bit >> 1;
    }

    /// CF.
    #[inline(always)]
    pub const fn carry(self) -> bool {
        self.aux & CARRY_OUT != 0
    }

    /// PF.
    #[inline(always)]
    pub const fn parity(self) -> bool {
        ((self.result ^ (self.aux >> PARITY_FLIP_SHIFT)) as u8).count_ones() & 1 == 0
    }

    /// AF.
    #[inline(always)]
    pub const fn auxiliary(self) -> bool {
        self.aux & HALF_CARRY != 0
    }

    /// ZF.
    #[inline(always)]
    pub const fn zero(self) -> bool {
        self.result == 0
    }

    /// SF.
    #[inline(always)]
    pub const fn sign(self) -> bool {
        ((self.result >> 31) ^ (self.aux & SIGN_FLIP)) != 0
    }

    /// OF.
    #[inline(always)]
    pub const fn overflow(self) -> bool {
        (self.aux ^ (self.aux << 1)) & CARRY_OUT != 0
    }

    /// Sets CF alone.
    #[inline(always)]
    pub const fn set_carry(&mut self, carry: bool) {
        self.flip_carry_if((self.aux & CARRY_OUT) ^ ((carry as u32) << 31));
    }

    /// Sets CF and OF alone (rotates).
    #[inline(always)]
    pub const fn set_carry_overflow(&mut self, carry: bool, overflow: bool) {
        self.aux =
            (self.aux & !(CARRY_OUT | CARRY_IN)) | (carry as u32) << 31 | ((carry != overflow) as u32) << 30;
    }

    /// Sets ZF alone (BSF, CMPXCHG8B, LAR, VERR).
    pub const fn set_zero(&mut self, zero: bool) {
        let bits = self.to_bits() & !ZF;
        *self = Self::from_bits(bits | (zero as u32) << 6);
    }

    /// Replaces all six by the bits of `eflags`.
    #[inline]
    pub const fn set_bits(&mut self, eflags: u32) {
        *self = Self::from_bits(eflags);
    }
}

impl PartialEq for LazyFlags {
    fn eq(&self, other: &Self) -> bool {
        self.to_bits() == other.to_bits()
    }
}

impl Eq for LazyFlags {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_bits_survives() {
        for n in 0..64u32 {
            let bits = (n & 1) | (n & 2) << 1 | (n & 4) << 2 | (n & 8) << 3 | (n & 16) << 3 | (n & 32) << 6;
            assert_eq!(LazyFlags::from_bits(bits | !ARITHMETIC).to_bits(), bits);
        }
    }

    #[test]
    fn setting_carry_keeps_the_other_five() {
        for n in 0..64u32 {
            let bits = [CF, PF, AF, ZF, SF, OF]
                .iter()
                .enumerate()
                .fold(0, |all, (i, flag)| if n >> i & 1 != 0 { all | flag } else { all });
            for carry in [false, true] {
                let mut flags = LazyFlags::from_bits(bits);
                flags.set_carry(carry);
                assert_eq!(flags.to_bits(), bits & !CF | carry as u32);
                let mut flags = LazyFlags::from_bits(bits);
                flags.set_carry_overflow(carry, !carry);
                assert_eq!(flags.to_bits(), bits & !(CF | OF) | if carry { CF } else { OF });
                let mut flags = LazyFlags::from_bits(bits);
                flags.set_zero(carry);
                assert_eq!(flags.to_bits(), bits & !ZF | if carry { ZF } else { 0 });
            }
        }
    }
}
