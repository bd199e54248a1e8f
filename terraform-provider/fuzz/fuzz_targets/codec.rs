//! Any bytes as a value that a host sends.
#![no_main]

use holdfast_provider::plugin::probe::probe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| assert_eq!(probe(bytes), Ok(())));
