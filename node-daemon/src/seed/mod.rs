//! The `NoCloud` seed: a small FAT image labelled `CIDATA` that cloud-init reads at boot.
//!
//! It is written once per instance-id into the virtual machine's folder with mode 0600, attached read-only for the
//! machine's whole life, and rewritten only for a new instance-id. The same input gives the same bytes. User-data
//! is opaque: it is neither parsed nor logged, and the image that carries it is as secret as it is.

mod text;

use std::io::{self, Cursor, Read, Seek, Write};
use std::path::Path;

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};

use crate::durable;
use crate::retry::Retry;
use crate::secret::Secret;

/// Enough for every plain user-data; what virt tools and cloud providers use as well.
const LEAST_BYTES: u64 = 1 << 20;
/// A Kubernetes Secret holds at most 1 MiB, and a seed takes user-data and network data from two.
const MOST_BYTES: u64 = 4 << 20;
/// Room for boot sector, two FATs, the root directory and partly filled clusters.
const OVERHEAD_BYTES: u64 = 128 << 10;

/// What cloud-init is told.
pub(crate) struct Seed {
    /// Identity, hostname and keys.
    pub(crate) meta_data: MetaData,
    /// The user's own configuration, as written.
    pub(crate) user_data: Option<Secret<Vec<u8>>>,
    /// How the guest configures its interfaces.
    pub(crate) network: Network,
}

/// The part that Holdfast writes, so that user-data stays untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetaData {
    /// cloud-init runs its per-instance modules once for each value.
    pub(crate) instance_id: String,
    /// The guest's hostname.
    pub(crate) hostname: String,
    /// SSH public keys of the default user, one per line of `authorized_keys`.
    pub(crate) public_keys: Vec<String>,
}

/// Network configuration of the guest.
pub(crate) enum Network {
    /// None given: every interface asks by DHCP. The interfaces in device order.
    Dhcp(Vec<Nic>),
    /// The user's own, as written.
    Given(Secret<Vec<u8>>),
}

/// An interface as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nic {
    /// Its name in the virtual machine's spec.
    pub(crate) name: String,
    /// Its hardware address, `52:54:00:..`.
    pub(crate) mac: String,
}

/// Why a seed was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// User-data and network data together are larger than any Secret.
    #[error(
        "cloudInit: user-data and network data are larger than 4 MiB together; shorten them or load parts by URL"
    )]
    TooLarge,
    /// The folder of the virtual machine has no room.
    #[error("the disk is full; free space on the node, then the node continues by itself")]
    DiskFull,
    /// The image could not be built or written.
    #[error("could not write the cloud-init seed {path}")]
    Io { path: String, source: io::Error },
}

impl Error {
    /// When trying again can help.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::TooLarge => Retry::OnChange,
            Self::DiskFull | Self::Io { .. } => Retry::Later,
        }
    }

    /// The condition's reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge => "SeedTooLarge",
            Self::DiskFull => "DiskFull",
            Self::Io { .. } => "StorageFailed",
        }
    }
}

impl Seed {
    /// Writes the seed image, whole or not at all, in place of an older one. Blocks for a few fsyncs.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let image = self.render()?;
        durable::replace(path, 0o600, |file| file.write_all(image.expose_to_seed())).map_err(|source| {
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull,
                _ => Error::Io { path: path.display().to_string(), source },
            }
        })
    }

    /// The bytes of the image. Pure.
    fn render(&self) -> Result<Secret<Vec<u8>>, Error> {
        let files = self.files();
        let content: u64 = files.iter().map(|(_, bytes)| bytes.expose_to_seed().len() as u64).sum();
        let bytes = (content + OVERHEAD_BYTES).next_multiple_of(LEAST_BYTES);
        if bytes > MOST_BYTES {
            return Err(Error::TooLarge);
        }
        let image = vec![0; usize::try_from(bytes).map_err(|_| Error::TooLarge)?];
        fill(image, &files)
            .map(Secret::new)
            .map_err(|source| Error::Io { path: "in memory".to_owned(), source })
    }

    /// cloud-init takes a disk for a seed only when both meta-data and user-data are there, be they empty.
    fn files(&self) -> Vec<(&'static str, Secret<Vec<u8>>)> {
        let user_data = self.user_data.clone().unwrap_or_else(|| Secret::new(Vec::new()));
        let mut files = vec![
            ("meta-data", Secret::new(text::meta_data(&self.meta_data).into_bytes())),
            ("user-data", user_data),
        ];
        match &self.network {
            Network::Given(data) => files.push(("network-config", data.clone())),
            Network::Dhcp(nics) => {
                let text = text::network_config(nics);
                files.extend(text.map(|text| ("network-config", Secret::new(text.into_bytes()))));
            }
        }
        files
    }
}

/// Formats the buffer and stores the files. fatfs without its clock writes equal bytes for equal content.
fn fill(image: Vec<u8>, files: &[(&str, Secret<Vec<u8>>)]) -> io::Result<Vec<u8>> {
    let mut disk = Cursor::new(image);
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat12).volume_label(*b"CIDATA     ");
    fatfs::format_volume(&mut disk, options)?;
    disk.rewind()?;
    let filesystem = FileSystem::new(&mut disk, FsOptions::new())?;
    for (name, content) in files {
        store(&filesystem, name, content.expose_to_seed())?;
    }
    filesystem.unmount()?;
    Ok(disk.into_inner())
}

fn store<T: Read + Write + Seek>(filesystem: &FileSystem<T>, name: &str, content: &[u8]) -> io::Result<()> {
    let mut file = filesystem.root_dir().create_file(name)?;
    file.write_all(content)?;
    file.flush()
}

#[cfg(test)]
mod tests;
