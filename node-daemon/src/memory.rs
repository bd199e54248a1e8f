//! How the C library keeps freed memory: hardly, because the daemon works in bursts and then sits beside guests for days.

#![expect(unsafe_code, reason = "one C function; the block says why it is sound")]

use nix::libc;

/// From this size on, a block is a mapping of its own and goes back to the system when it is freed. This is glibc's own
/// first value; left to itself, glibc raises it with each large block, up to 32 MiB, and keeps those that follow.
const LARGE: libc::c_int = 128 << 10;

/// Sets it, for this process, before it has threads (mallopt(3)). All threads share one arena: each would keep what it
/// once needed, and none of them allocates in a hurry.
pub(crate) fn keep_little() {
    let settings = [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, LARGE)];
    for (name, value) in settings {
        // SAFETY: two integers go in and one comes out. mallopt is unsafe only beside other threads, and there are none.
        unsafe { libc::mallopt(name, value) };
    }
}
