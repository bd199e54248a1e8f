//! A mirror: one folder that is a filesystem mirror of packed providers, and, served by any web server over https, a
//! network mirror. The listings are read by the latter alone.
//!
//! ```text
//! <host>/<namespace>/<type>/index.json                the versions
//!                           <version>.json            the archives of one version, with their hashes
//!                           terraform-provider-<type>_<version>_<platform>.zip
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::{Error, Package, VERSION, write};

/// `{"versions": {…}}` or `{"archives": {…}}`.
type Listing = BTreeMap<String, Map<String, Json>>;

/// Adds a package to a mirror; what else is in it stays.
pub fn mirror(package: &Package, source: &str, root: &Path) -> Result<(), Error> {
    let folder = root.join(source);
    let (of_version, of_all) = (folder.join(format!("{VERSION}.json")), folder.join("index.json"));
    let (mut archives, mut versions) = (listing(&of_version)?, listing(&of_all)?);
    let archive = json!({"url": package.file_name(), "hashes": [package.h1, package.zh()]});
    archives.entry("archives".to_owned()).or_default().insert(package.platform.clone(), archive);
    versions.entry("versions".to_owned()).or_default().insert(VERSION.to_owned(), json!({}));
    // Listed last, so that nobody is told of what is not there yet.
    package.store(&folder)?;
    store(&of_version, &archives)?;
    store(&of_all, &versions)
}

/// The listing that is there, or an empty one.
fn listing(path: &Path) -> Result<Listing, Error> {
    match fs::read(path) {
        Ok(text) => {
            serde_json::from_slice(&text).map_err(|source| Error::Listing { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Listing::new()),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

fn store(path: &Path, listing: &Listing) -> Result<(), Error> {
    write(path, format!("{:#}\n", json!(listing)).as_bytes())
}
