//! Loopback ports that a site keeps over its restarts, so that a kubeconfig written once stays true.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result};

use crate::files;

/// The port recorded in `record`, or a free one, recorded there.
pub fn keep(record: &Path) -> Result<u16> {
    if let Some(port) = files::read(record).ok().and_then(|text| text.trim().parse().ok()) {
        return Ok(port);
    }
    let port = free()?;
    files::write(record, port.to_string())?;
    Ok(port)
}

/// A TCP port on loopback that nobody listens on at this moment.
pub fn free() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("could not find a free port")?;
    Ok(listener.local_addr().context("could not read the free port")?.port())
}
