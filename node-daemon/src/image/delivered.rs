//! Who brought an image: `sha256-<hex>.from`, beside its bytes and as lasting as they are.
//!
//! A digest opens the bytes that a node holds to every namespace that knows it. Once an image object said
//! `private: true` of them, they serve only the namespaces whose own source delivered them, here.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Digest;
use crate::durable;

/// The namespace an image is wanted for, and what its object says of the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tenant {
    /// Namespace of the image object.
    pub(crate) namespace: String,
    /// Whom the bytes may serve.
    pub(crate) privacy: Privacy,
}

/// Whom the bytes of an image may serve: `spec.private`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Privacy {
    /// Whoever knows the digest.
    Shared,
    /// Namespaces whose own source delivered them.
    Private,
}

/// What is remembered of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delivered {
    /// Whether some object that delivered them said `private: true`. It stays so while the bytes are here.
    private: bool,
    /// Namespaces whose source delivered exactly these bytes.
    namespaces: BTreeSet<String>,
}

impl Delivered {
    /// Whether the bytes may be used for this tenant as they are noted now.
    pub(super) fn serves(&self, tenant: &Tenant) -> bool {
        match tenant.privacy {
            Privacy::Shared => !self.private || self.came_from(&tenant.namespace),
            Privacy::Private => self.private && self.came_from(&tenant.namespace),
        }
    }

    /// Whether a source of this namespace delivered them.
    pub(super) fn came_from(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    /// Those whose source delivered them.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &String> {
        self.namespaces.iter()
    }

    fn with(mut self, tenant: &Tenant) -> Self {
        self.private |= tenant.privacy == Privacy::Private;
        self.namespaces.insert(tenant.namespace.clone());
        self
    }
}

fn path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(format!("{}.from", digest.file_stem()))
}

/// What is noted. An image without a note came before there were notes, and serves everybody; what cannot be read
/// serves nobody but who delivers it again.
pub(super) fn read(dir: &Path, digest: &Digest) -> Delivered {
    let unreadable = || Delivered { private: true, namespaces: BTreeSet::new() };
    match fs::read(path(dir, digest)) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|_| unreadable()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Delivered::default(),
        Err(_) => unreadable(),
    }
}

/// Notes that a source of this tenant delivered the bytes. Called before they get their final name: after a crash in
/// between, private bytes must not lie there without the note.
pub(super) fn note(dir: &Path, digest: &Digest, tenant: &Tenant) -> io::Result<()> {
    let (old, path) = (read(dir, digest), path(dir, digest));
    let new = old.clone().with(tenant);
    if new == old && path.exists() {
        return Ok(());
    }
    let text = serde_json::to_vec(&new)?;
    durable::replace(&path, 0o600, |file| io::Write::write_all(file, &text))
}

/// Forgets it, after the bytes.
pub(super) fn remove(dir: &Path, digest: &Digest) -> io::Result<()> {
    durable::remove(&path(dir, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(namespace: &str, privacy: Privacy) -> Tenant {
        Tenant { namespace: namespace.to_owned(), privacy }
    }

    #[test]
    fn private_bytes_serve_only_namespaces_whose_own_source_delivered_them() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::new([7; 32]);
        let serves = |namespace: &str, privacy| read(dir.path(), &digest).serves(&tenant(namespace, privacy));
        note(dir.path(), &digest, &tenant("shop", Privacy::Shared)).unwrap();
        assert!(serves("bank", Privacy::Shared), "a digest is a capability");
        assert!(!serves("bank", Privacy::Private), "its own source has not delivered them");
        note(dir.path(), &digest, &tenant("bank", Privacy::Private)).unwrap();
        assert!(serves("bank", Privacy::Private) && serves("shop", Privacy::Shared));
        assert!(!serves("desk", Privacy::Shared));
        note(dir.path(), &digest, &tenant("desk", Privacy::Shared)).unwrap();
        assert!(serves("desk", Privacy::Shared), "and they stay private");
        assert!(!serves("club", Privacy::Shared));
    }

    #[test]
    fn a_note_that_cannot_be_read_serves_nobody_and_an_image_without_one_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::new([7; 32]);
        let shop = tenant("shop", Privacy::Shared);
        assert!(read(dir.path(), &digest).serves(&shop));
        fs::write(path(dir.path(), &digest), "torn").unwrap();
        assert!(!read(dir.path(), &digest).serves(&shop));
        note(dir.path(), &digest, &shop).unwrap();
        assert!(read(dir.path(), &digest).serves(&shop));
        remove(dir.path(), &digest).unwrap();
        assert_eq!(read(dir.path(), &digest), Delivered::default());
    }
}
