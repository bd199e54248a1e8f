//! What a guest costs a node beyond what it is given: one arithmetic for whoever places it and whoever starts it.

/// QEMU itself with its devices, video memory and libvirt's share: 35 to 40 MiB measured for a small guest, and some
/// air. Smaller would let the host run out of memory under many small guests; larger wastes it.
const OVERHEAD: u64 = 64 << 20;
/// Stack and per-processor state of each virtual processor's thread.
const OVERHEAD_PER_CPU: u64 = 8 << 20;
/// Page tables of the guest's memory: 8 bytes for each 4 KiB.
const PAGE_TABLE_SHARE: u64 = 512;

/// Bytes of memory a guest with so many processors and so many bytes of memory costs beyond its own.
pub fn overhead(cpu: u64, memory: u64) -> u64 {
    OVERHEAD.saturating_add(OVERHEAD_PER_CPU.saturating_mul(cpu)).saturating_add(memory / PAGE_TABLE_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_costs_64_mib_8_for_each_processor_and_a_512th_of_its_memory() {
        assert_eq!(overhead(2, 1 << 30), (64 + 2 * 8 + 2) << 20);
        assert_eq!(overhead(u64::MAX, u64::MAX), u64::MAX);
    }
}
