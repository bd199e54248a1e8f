//! The socket: in a fresh directory that only this user may enter, and gone with us.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::net::UnixListener;

/// Bytes of a socket's path, with the zero at its end (unix(7): `sun_path`).
const PATH: usize = 108;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its directory.
    #[error("could not make a directory for the socket in {}", .parent.display())]
    Directory {
        /// Where.
        parent: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel's limit.
    #[error("the socket's path {} is longer than {limit} bytes: set TMPDIR to a shorter one", .path.display(), limit = PATH - 1)]
    TooLong {
        /// Which.
        path: PathBuf,
    },
    /// The socket itself.
    #[error("could not listen on {}", .path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A listening socket. Its directory is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    directory: TempDir,
}

impl Socket {
    /// Listens in a new directory inside that one, or in the one for temporary files.
    pub fn listen(parent: Option<&Path>) -> Result<(Self, UnixListener), Error> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let directory = tempfile::Builder::new()
            .prefix("plugin-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&parent)
            .map_err(|source| Error::Directory { parent, source })?;
        let socket = Self { directory };
        let path = socket.path();
        if path.as_os_str().len() >= PATH {
            return Err(Error::TooLong { path });
        }
        let listener = UnixListener::bind(&path).map_err(|source| Error::Listen { path, source })?;
        Ok((socket, listener))
    }

    /// Where it listens.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_this_user_may_enter_and_nothing_is_left() {
        let (socket, _listener) = Socket::listen(None).unwrap();
        let path = socket.path();
        let directory = path.parent().unwrap();
        assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(socket);
        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn a_path_the_kernel_would_cut_is_refused_with_the_remedy() {
        let parent = tempfile::tempdir().unwrap();
        let deep = parent.path().join("d".repeat(100));
        std::fs::create_dir(&deep).unwrap();
        let refusal = Socket::listen(Some(&deep)).unwrap_err().to_string();
        assert!(refusal.contains("set TMPDIR"), "{refusal}");
        assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 0);
    }
}
