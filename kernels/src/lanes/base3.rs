//! The tables that decode a base-3 byte: what every byte, also one that no packer writes, stands for.

/// Digit `plane` of byte `x`: the integer part of `3 x / 256`, where each plane goes on with the rest.
const fn digit(x: u8, plane: usize) -> u8 {
    let mut x = x;
    let mut i = 0;
    while i < plane {
        x = x.wrapping_mul(3);
        i += 1;
    }
    ((x as u16 * 3) >> 8) as u8
}

/// Planes 0 to 3 as 2-bit codes, plane 0 in the low bits.
pub static FIRST_FOUR: [u8; 256] = {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        let byte = x as u8;
        table[x] = digit(byte, 0) | digit(byte, 1) << 2 | digit(byte, 2) << 4 | digit(byte, 3) << 6;
        x += 1;
    }
    table
};

/// Plane 4.
pub static LAST: [u8; 256] = {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        table[x] = digit(x as u8, 4);
        x += 1;
    }
    table
};
