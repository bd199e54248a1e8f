//! The provider as Terraform and OpenTofu fetch it: a zip with the program, and its hashes. Called by `main`.
//!
//! ```text
//! program ─ pack ─▶ Package ─┬─ mirror    for sites without a registry: from a folder, or from a web server
//!                            └─ release   what a registry takes: zips, manifest, checksums
//! ```
//!
//! The same program gives the same bytes: nothing in a zip is of the time or the machine it was made at.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

mod mirror;
mod release;

pub use mirror::mirror;
pub use release::release;

/// Program and archives are named after it.
const NAME: &str = "terraform-provider-holdfast";
/// That of this program, whatever program is packed.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why there is no package.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to pack.
    #[error("could not read {path}")]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why it could not.
        source: io::Error,
    },
    /// No place for it.
    #[error("could not write {path}")]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// Why it could not.
        source: io::Error,
    },
    /// The zip could not be made.
    #[error("could not pack the program")]
    Pack(#[source] zip::result::ZipError),
    /// A listing that is there already is none of ours.
    #[error("{path} is no listing of a mirror: remove it, or name another folder")]
    Listing {
        /// The listing.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The packed provider.
#[derive(Debug)]
pub struct Package {
    /// Operating system and architecture in the words of Go, such as `linux_amd64`.
    platform: String,
    zip: Vec<u8>,
    /// The hash of what is in the zip, as lock files have it, however it is packed.
    h1: String,
}

impl Package {
    /// Packs a program that was built for a platform.
    pub fn of(program: &Path, platform: &str) -> Result<Self, Error> {
        let bytes = fs::read(program).map_err(|source| Error::Read { path: program.to_owned(), source })?;
        let name = format!("{NAME}_v{VERSION}");
        // Compressing with unoptimised code takes half a minute, and a development build is not sent anywhere.
        let method =
            if cfg!(debug_assertions) { CompressionMethod::Stored } else { CompressionMethod::Deflated };
        let zip = zipped(&name, &bytes, method).map_err(Error::Pack)?;
        Ok(Self { platform: platform.to_owned(), zip, h1: content_hash(&name, &bytes) })
    }

    fn file_name(&self) -> String {
        format!("{NAME}_{VERSION}_{}.zip", self.platform)
    }

    /// The hash of the zip itself, as registries sign it.
    fn zh(&self) -> String {
        format!("zh:{}", sha256(&self.zip))
    }

    /// Puts the zip into a folder.
    fn store(&self, folder: &Path) -> Result<(), Error> {
        write(&folder.join(self.file_name()), &self.zip)
    }
}

/// The platform this program was built for.
pub fn own_platform() -> String {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        system => system,
    };
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        architecture => architecture,
    };
    format!("{system}_{architecture}")
}

fn zipped(name: &str, bytes: &[u8], method: CompressionMethod) -> zip::result::ZipResult<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(method)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o755);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file(name, options)?;
    zip.write_all(bytes)?;
    zip.finish().map(Cursor::into_inner)
}

/// `golang.org/x/mod/sumdb/dirhash`, `Hash1`, of a folder with that one file.
fn content_hash(name: &str, bytes: &[u8]) -> String {
    let listed = format!("{}  {name}\n", sha256(bytes));
    format!("h1:{}", STANDARD.encode(digest(&SHA256, listed.as_bytes())))
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        // A String takes all that is written.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes a file whole or not at all, since others may be reading the folder.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let fresh = PathBuf::from(format!("{}.new", path.display()));
    let written = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = written.and_then(|()| fs::write(&fresh, bytes)).and_then(|()| fs::rename(&fresh, path));
    written.map_err(|source| Error::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path) -> PathBuf {
        let program = folder.join("program");
        fs::write(&program, b"#!/bin/sh\n").unwrap();
        program
    }

    #[test]
    fn the_same_program_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let program = program(folder.path());
        let [one, other] = [(); 2].map(|()| Package::of(&program, "linux_amd64").unwrap());
        assert_eq!(one.zip, other.zip);
    }

    #[test]
    fn what_is_packed_comes_out_again_as_a_program_compressed_or_not() {
        let bytes = vec![7; 100_000];
        for (method, most) in [(CompressionMethod::Stored, 101_000), (CompressionMethod::Deflated, 1_000)] {
            let packed = zipped("program", &bytes, method).unwrap();
            assert!(packed.len() < most, "{method}");
            let mut archive = zip::ZipArchive::new(Cursor::new(packed)).unwrap();
            let mut file = archive.by_name("program").unwrap();
            let mut unpacked = Vec::new();
            io::Read::read_to_end(&mut file, &mut unpacked).unwrap();
            assert_eq!(
                (unpacked.as_slice(), file.unix_mode().map(|mode| mode & 0o777)),
                (&bytes[..], Some(0o755))
            );
        }
    }

    #[test]
    fn the_content_is_hashed_as_lock_files_have_it() {
        // By `dirhash.HashZip` of a zip with this file.
        let name = "terraform-provider-holdfast_v0.1.0";
        let expected = "h1:Ofdd8hlsLaBDdynbwwV9UeQ0oza0TYdgRNRV/jt5bmI=";
        assert_eq!(content_hash(name, b"#!/bin/sh\n"), expected);
    }

    #[test]
    fn a_mirror_lists_every_platform_with_both_hashes_and_keeps_earlier_versions() {
        let folder = tempfile::tempdir().unwrap();
        let program = program(folder.path());
        let (source, root) = ("host.example.org/one/holdfast", folder.path().join("mirror"));
        let at = root.join(source);
        write(&at.join("index.json"), br#"{"versions": {"0.0.9": {}}}"#).unwrap();
        for platform in ["linux_amd64", "linux_arm64"] {
            mirror(&Package::of(&program, platform).unwrap(), source, &root).unwrap();
        }
        let read = |name: String| -> serde_json::Value {
            serde_json::from_slice(&fs::read(at.join(name)).unwrap()).unwrap()
        };
        let versions = read("index.json".to_owned());
        assert_eq!(versions, serde_json::json!({"versions": {"0.0.9": {}, VERSION: {}}}));
        let listed = read(format!("{VERSION}.json"));
        for platform in ["linux_amd64", "linux_arm64"] {
            let package = Package::of(&program, platform).unwrap();
            let archive = &listed["archives"][platform];
            assert_eq!(archive["url"], package.file_name());
            assert_eq!(archive["hashes"], serde_json::json!([package.h1, package.zh()]));
            assert_eq!(fs::read(at.join(package.file_name())).unwrap(), package.zip);
        }
    }

    #[test]
    fn a_listing_that_is_none_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let package = Package::of(&program(folder.path()), "linux_amd64").unwrap();
        let listing = folder.path().join("a/b/c/index.json");
        for other in ["hello", r#"{"versions": []}"#] {
            write(&listing, other.as_bytes()).unwrap();
            assert!(matches!(mirror(&package, "a/b/c", folder.path()), Err(Error::Listing { .. })));
            assert_eq!(fs::read_to_string(&listing).unwrap(), other);
        }
    }

    #[test]
    fn a_release_sums_all_zips_and_the_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let (program, out) = (program(folder.path()), folder.path().join("out"));
        for platform in ["linux_arm64", "linux_amd64"] {
            release(&Package::of(&program, platform).unwrap(), &out).unwrap();
        }
        let sums = fs::read_to_string(out.join(format!("{NAME}_{VERSION}_SHA256SUMS"))).unwrap();
        let names = ["linux_amd64.zip", "linux_arm64.zip", "manifest.json"];
        assert_eq!(sums.lines().count(), names.len());
        for (line, name) in sums.lines().zip(names) {
            let name = format!("{NAME}_{VERSION}_{name}");
            assert_eq!(line, format!("{}  {name}", sha256(&fs::read(out.join(&name)).unwrap())));
        }
    }
}
