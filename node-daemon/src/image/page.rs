//! Whether an answer is a page for people and not an image. Pure.
//!
//! Captive portals and login pages answer every address with status 200. Their label alone says little: there are servers
//! that call every file `text/html`. So the first bytes decide; those of a disk are never text.

/// Bytes that are looked at: a boot sector, which no text fills.
pub(super) const HEAD: usize = 512;

/// How a page begins, whatever it is called.
const MARKUP: [&[u8]; 2] = [b"<!doctype html", b"<html"];

/// Judges the first bytes of an answer; `labelled` says that its server calls it a web page.
pub(super) fn is_page(labelled: bool, head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let begins = |with: &&[u8]| head.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    MARKUP.iter().any(begins) || (labelled && head.iter().all(|byte| is_text(*byte)))
}

/// In whatever encoding that keeps ASCII.
fn is_text(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte.is_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_one_by_its_bytes_and_a_disk_is_none_by_its_label() {
        let zeros = [0; HEAD];
        for page in [&b"<!DOCTYPE html><title>Log in"[..], b"\xef\xbb\xbf \n<HTML lang=en>"] {
            assert!(is_page(false, page) && is_page(true, page));
        }
        for text in [&b"please log in"[..], "bitte anmelden, M\u{fc}ller".as_bytes(), b""] {
            assert!(is_page(true, text) && !is_page(false, text));
        }
        for disk in [&b"QFI\xfb\0\0\0\x03"[..], &zeros, b"\xeb\x63\x90\x10\x8e\xd0"] {
            assert!(!is_page(true, disk) && !is_page(false, disk));
        }
    }
}
