//! A mirror: one folder that is a filesystem mirror of packed providers, and, served by any web server over https, a
//! network mirror. The listings are read by the latter alone.
//!
//! ```text
//! <host>/<namespace>/<type>/index.json                the versions
//!                           <version>.json            the archives of one version, with their hashes
//!                           terraform-provider-<type>_<version>_<platform>.zip
//! ```

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::{Error, Package, VERSION, write};

/// Adds a package to a mirror; what else is in it stays.
pub fn mirror(package: &Package, source: &str, root: &Path) -> Result<(), Error> {
    let folder = root.join(source);
    let mut versions = listing(&folder.join("index.json"), "versions")?;
    versions["versions"][VERSION] = json!({});
    let of_version = folder.join(format!("{VERSION}.json"));
    let mut archives = listing(&of_version, "archives")?;
    archives["archives"][&package.platform] =
        json!({"url": package.file_name(), "hashes": [package.h1, package.zh()]});
    // Listed last, so that nobody is told of what is not there yet.
    package.store(&folder)?;
    store(&of_version, &archives)?;
    store(&folder.join("index.json"), &versions)
}

/// The listing that is there, or an empty one.
fn listing(path: &Path, of: &str) -> Result<Json, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => json!({of: {}}).to_string().into_bytes(),
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    let listing: Result<serde_json::Map<String, Json>, _> = serde_json::from_slice(&text);
    listing.map(Json::Object).map_err(|source| Error::Listing { path: path.to_owned(), source })
}

fn store(path: &Path, listing: &Json) -> Result<(), Error> {
    write(path, format!("{listing:#}\n").as_bytes())
}
