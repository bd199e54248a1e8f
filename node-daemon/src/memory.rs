//! How the C library keeps freed memory: hardly, because the daemon works in bursts and then sits beside guests for days.

#![expect(unsafe_code, reason = "one C function; the block says why it is sound")]

use nix::libc;

/// From this size on, a block is a mapping of its own and goes back to the system when it is freed. Left to itself, glibc
/// raises its first value with each large block, up to 32 MiB, and keeps those that follow. Ours is just above the largest
/// buffer of a download, whose pages would otherwise be asked for anew with each.
const LARGE: libc::c_int = 512 << 10;

/// So much that is free at the end of the heap stays: a download's buffers on their way (`image/intake.rs`).
const KEPT: libc::c_int = 1 << 20;

/// Sets it, for this process, before it has threads (mallopt(3)). All threads share one arena: each would keep what it
/// once needed, and none of them allocates in a hurry.
pub(crate) fn keep_little() {
    let settings = [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, KEPT)];
    for (name, value) in settings {
        // SAFETY: two integers go in and one comes out. mallopt is unsafe only beside other threads, and there are none.
        unsafe { libc::mallopt(name, value) };
    }
}
