//! The firmware of the proof: bytes assembled by hand, so that no boot image of a distribution is needed or trusted.
//!
//! QEMU maps the 64 KiB image below 4 GiB and once more at 0xF0000. The processor begins in real mode at the reset
//! vector, goes through protected mode into long mode (Intel SDM volume 3, section 9.8.5), computes [`VERDICT`] with
//! 64-bit arithmetic, which only long mode has, and hands it to the debug-exit device. Offsets below count from 0xF0000.

/// What the code writes to the debug-exit device.
const VERDICT: u8 = 0x2a;
/// The exit code QEMU makes of it: twice the value plus one.
pub(super) const EXIT_CODE: i32 = (VERDICT as i32) << 1 | 1;

const SIZE: usize = 64 << 10;

/// Real mode: load the table of segments, switch on protection, jump.
const REAL_MODE: (usize, &[u8]) = (
    0x00,
    &[
        0xfa, //                                           cli
        0x2e, 0x66, 0x0f, 0x01, 0x16, 0xa0, 0x00, //       lgdt cs:[0xa0]
        0x0f, 0x20, 0xc0, //                               mov eax, cr0
        0x0c, 0x01, //                                     or al, 1            ; PE
        0x0f, 0x22, 0xc0, //                               mov cr0, eax
        0x66, 0xea, 0x20, 0x00, 0x0f, 0x00, 0x08, 0x00, // jmp 0x08:0xf0020
    ],
);

/// Protected mode: page tables in RAM that map the first 2 MiB onto themselves, then long mode.
const PROTECTED_MODE: (usize, &[u8]) = (
    0x20,
    &[
        0x66, 0xb8, 0x10, 0x00, //                                     mov ax, 0x10
        0x8e, 0xd8, //                                                 mov ds, ax
        0x8e, 0xc0, //                                                 mov es, ax
        0x8e, 0xd0, //                                                 mov ss, ax
        0xbf, 0x00, 0x10, 0x00, 0x00, //                               mov edi, 0x1000
        0x31, 0xc0, //                                                 xor eax, eax
        0xb9, 0x00, 0x0c, 0x00, 0x00, //                               mov ecx, 0xc00      ; three pages
        0xfc, 0xf3, 0xab, //                                           cld; rep stosd
        0xc7, 0x05, 0x00, 0x10, 0x00, 0x00, 0x03, 0x20, 0x00, 0x00, // mov [0x1000], 0x2003
        0xc7, 0x05, 0x00, 0x20, 0x00, 0x00, 0x03, 0x30, 0x00, 0x00, // mov [0x2000], 0x3003
        0xc7, 0x05, 0x00, 0x30, 0x00, 0x00, 0x83, 0x00, 0x00,
        0x00, // mov [0x3000], 0x83  ; one page of 2 MiB
        0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0, //       cr4 |= 0x20         ; PAE
        0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8, //             cr3 = 0x1000
        0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, //                   mov ecx, EFER; rdmsr
        0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30, //                   or eax, 0x100; wrmsr ; LME
        0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, //             cr0 |= 1 << 31
        0x0f, 0x22, 0xc0, //                                           ; PG: long mode is active
        0xea, 0xc0, 0x00, 0x0f, 0x00, 0x18, 0x00, //                   jmp 0x18:0xf00c0
    ],
);

/// Size and address of the table of segments.
const TABLE_POINTER: (usize, &[u8]) = (0xa0, &[0x1f, 0x00, 0x00, 0x01, 0x0f, 0x00]);

/// Long mode: 2^26 rounds, then the sum's upper half is the verdict.
///
/// The rounds are the point. A processor, nested virtualisation included, needs 0.1 s for them and QEMU's translation
/// below a second; a kvm module that interprets guest code instruction by instruction (about 0.4 us each, seen with
/// para-virtual modules inside cloud machines) needs most of a minute, and no operating system would boot on it.
const LONG_MODE: (usize, &[u8]) = (
    0xc0,
    &[
        0x31, 0xc0, //                                     xor eax, eax
        0xb9, 0x00, 0x00, 0x00, 0x04, //                   mov ecx, 1 << 26
        0x48, 0x05, 0x00, VERDICT, 0x00, 0x00, // round:   add rax, VERDICT << 8
        0xff, 0xc9, //                                     dec ecx
        0x75, 0xf6, //                                     jnz round
        0x48, 0xc1, 0xe8, 0x22, //                         shr rax, 8 + 26
        0xba, 0xf4, 0x00, 0x00, 0x00, //                   mov edx, 0xf4
        0xee, //                                           out dx, al
        0xf4, 0xeb, 0xfd, //                               hlt, for ever
    ],
);

/// Segments: none, 32-bit code, data, 64-bit code; marked as accessed, since the processor cannot write into the ROM.
const SEGMENTS: (usize, &[u8]) = (
    0x100,
    &[
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, //
        0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xcf, 0x00, //
        0xff, 0xff, 0x00, 0x00, 0x00, 0x93, 0xcf, 0x00, //
        0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xaf, 0x00, //
    ],
);

/// Where the processor begins: jmp 0xf000:0.
const RESET_VECTOR: (usize, &[u8]) = (0xfff0, &[0xea, 0x00, 0x00, 0x00, 0xf0]);

/// The whole image; `None` on processors it was not written for.
pub(super) fn image() -> Option<Vec<u8>> {
    if !cfg!(target_arch = "x86_64") {
        return None;
    }
    let mut image = vec![0; SIZE];
    for (offset, bytes) in [REAL_MODE, PROTECTED_MODE, TABLE_POINTER, LONG_MODE, SEGMENTS, RESET_VECTOR] {
        image.iter_mut().skip(offset).zip(bytes).for_each(|(place, byte)| *place = *byte);
    }
    Some(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_do_not_overlap() {
        let parts = [REAL_MODE, PROTECTED_MODE, TABLE_POINTER, LONG_MODE, SEGMENTS, RESET_VECTOR];
        for pair in parts.windows(2) {
            assert!(pair[0].0 + pair[0].1.len() <= pair[1].0, "{:#x} runs into {:#x}", pair[0].0, pair[1].0);
        }
    }
}
