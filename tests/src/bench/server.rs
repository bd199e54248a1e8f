//! An image over HTTP as a web server at its best gives it: from inside the host, by sendfile(2), without a relay.
//!
//! What the stories' own server and its link cost would be most of what an import over HTTP takes on two cores.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};
use nix::sys::sendfile::sendfile;

use crate::host::Host;

/// Serves `file` to whoever asks for anything, until the program ends; returns the address inside the host.
pub(super) fn serve(host: &Host, file: PathBuf) -> Result<String> {
    let listener = host.listen()?;
    let port = listener.local_addr().context("could not read the server's port")?.port();
    thread::spawn(move || accept(&listener, &file));
    Ok(format!("http://127.0.0.1:{port}/import.raw"))
}

fn accept(listener: &TcpListener, file: &PathBuf) {
    for peer in listener.incoming() {
        // A client that went away is the client's matter.
        if let Err(error) = peer.and_then(|peer| answer(peer, file)) {
            tracing::debug!(%error, "the bench's server lost a client");
        }
    }
}

fn answer(mut peer: TcpStream, file: &PathBuf) -> io::Result<()> {
    let asked = BufReader::new(peer.try_clone()?).lines();
    asked.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).for_each(drop);
    let file = File::open(file)?;
    let length = file.metadata()?.len();
    write!(peer, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    let mut left = usize::try_from(length).map_err(io::Error::other)?;
    while left > 0 {
        match sendfile(&peer, &file, None, left)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            sent => left -= sent,
        }
    }
    Ok(())
}
