//! A release: the files that a registry wants of one version, but for the signature of the checksums, which is made
//! where the key is.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::{Error, NAME, Package, VERSION, sha256, write};

/// Adds a package to the folder of a release and sums up all that is in it.
pub fn release(package: &Package, folder: &Path) -> Result<(), Error> {
    package.store(folder)?;
    let manifest = json!({"version": 1, "metadata": {"protocol_versions": ["6.0"]}});
    write(&folder.join(format!("{NAME}_{VERSION}_manifest.json")), format!("{manifest:#}\n").as_bytes())?;
    write(&folder.join(format!("{NAME}_{VERSION}_SHA256SUMS")), sums(folder)?.as_bytes())
}

/// In the form of `sha256sum`, in the order of the names.
fn sums(folder: &Path) -> Result<String, Error> {
    let unread = |source| Error::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread)? {
        let name = entry.map_err(unread)?.file_name().to_string_lossy().into_owned();
        let ours = name.starts_with(&format!("{NAME}_{VERSION}_"));
        let summed = [".zip", "_manifest.json"].iter().any(|ending| name.ends_with(ending));
        if ours && summed {
            names.push(name);
        }
    }
    names.sort();
    let line = |name: String| {
        let path = folder.join(&name);
        let bytes = fs::read(&path).map_err(|source| Error::Read { path, source })?;
        Ok(format!("{}  {name}\n", sha256(&bytes)))
    };
    names.into_iter().map(line).collect()
}
