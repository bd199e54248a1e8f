//! A host's way out: a TCP relay from a loopback port inside the host to an address of this machine, which can fail.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::runtime;
use crate::spawner::Spawner;

/// A chunk that is relayed at a time; small enough that a stall takes effect within one.
const CHUNK_BYTES: usize = 64 * 1024;

/// What the link does with connections and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything passes.
    Up,
    /// Connections are closed, new ones at once.
    Down,
    /// Connections stay open and are accepted, no byte passes.
    Stall,
}

/// The relay. It listens anew at each boot of its host.
pub struct Link {
    inside: u16,
    outside: String,
    mode: watch::Sender<Mode>,
    bytes: Arc<AtomicU64>,
    listening: Mutex<CancellationToken>,
}

impl Link {
    pub(crate) fn new(inside: u16, outside: &str) -> Self {
        Self {
            inside,
            outside: outside.to_owned(),
            mode: watch::Sender::new(Mode::Up),
            bytes: Arc::default(),
            listening: Mutex::default(),
        }
    }

    /// The port inside the host.
    pub fn port(&self) -> u16 {
        self.inside
    }

    /// Changes what happens, to open connections as well.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Bytes relayed so far, both directions together.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Listens inside the host of `spawner`; the listener of an earlier boot ends.
    pub(crate) fn listen(&self, spawner: &Spawner) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.inside));
        // A socket belongs to the network of the thread that makes it.
        let listener = spawner.run(move || TcpListener::bind(address))?;
        let listener = listener.with_context(|| format!("could not listen on {address} in the host"))?;
        listener.set_nonblocking(true).context("could not prepare the listener")?;
        let end = CancellationToken::new();
        let mut listening = self.listening.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::replace(&mut *listening, end.clone()).cancel();
        let relay = Relay {
            outside: self.outside.clone(),
            mode: self.mode.subscribe(),
            bytes: Arc::clone(&self.bytes),
        };
        runtime::harness()?.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                outcome = relay.accept(listener) => drop(outcome.inspect_err(|error| tracing::warn!(%error, "a link ended"))),
            }
        });
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listening.lock().unwrap_or_else(std::sync::PoisonError::into_inner).cancel();
    }
}

#[derive(Clone)]
struct Relay {
    outside: String,
    mode: watch::Receiver<Mode>,
    bytes: Arc<AtomicU64>,
}

impl Relay {
    async fn accept(self, listener: TcpListener) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (inside, _) = listener.accept().await?;
            tokio::spawn(self.clone().connect(inside));
        }
    }

    async fn connect(self, inside: TcpStream) {
        if *self.mode.borrow() == Mode::Down {
            return;
        }
        // A server that is not there closes the connection, as it would without a relay between.
        let Ok(outside) = TcpStream::connect(&self.outside).await else {
            return;
        };
        let (from_inside, to_inside) = inside.into_split();
        let (from_outside, to_outside) = outside.into_split();
        // The first direction to end ends the connection: HTTP clients do not half-close.
        tokio::select! {
            _ = self.clone().carry(from_inside, to_outside) => {}
            _ = self.clone().carry(from_outside, to_inside) => {}
        }
    }

    async fn carry(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = tokio::select! {
                count = from.read(&mut chunk) => count?,
                () = closed(self.mode.clone()) => return Ok(()),
            };
            if count == 0 {
                return Ok(());
            }
            let passable = self.mode.wait_for(|mode| *mode != Mode::Stall).await;
            if !passable.is_ok_and(|mode| *mode == Mode::Up) {
                return Ok(());
            }
            to.write_all(&chunk[..count]).await?;
            self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

async fn closed(mut mode: watch::Receiver<Mode>) {
    // An error means that the link is gone, which closes its connections too.
    drop(mode.wait_for(|mode| *mode == Mode::Down).await);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;
    use crate::ports;

    /// A link to a server that sends back what it gets, and a connection through it.
    fn echo() -> Result<(Link, TcpStream)> {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let link = Link::new(ports::free()?, &server.local_addr()?.to_string());
        link.listen(Spawner::machine()?)?;
        std::thread::spawn(move || {
            let (mut stream, _) = server.accept()?;
            std::io::copy(&mut stream.try_clone()?, &mut stream)
        });
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port()))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok((link, stream))
    }

    fn says(stream: &mut TcpStream, word: &[u8]) -> std::io::Result<()> {
        stream.write_all(word)?;
        hears(stream, word)
    }

    fn hears(stream: &mut TcpStream, word: &[u8]) -> std::io::Result<()> {
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        assert_eq!(answer, word);
        Ok(())
    }

    #[test]
    fn what_was_sent_into_a_stall_arrives_after_it() -> Result<()> {
        let (link, mut stream) = echo()?;
        says(&mut stream, b"ping")?;
        link.set(Mode::Stall);
        assert!(says(&mut stream, b"held").is_err(), "no byte passes a stalled link");
        link.set(Mode::Up);
        hears(&mut stream, b"held")?;
        says(&mut stream, b"pong")?;
        Ok(())
    }

    #[test]
    fn a_link_that_goes_down_closes_open_connections() -> Result<()> {
        let (link, mut stream) = echo()?;
        says(&mut stream, b"ping")?;
        link.set(Mode::Down);
        assert_eq!(stream.read(&mut [0; 4])?, 0);
        Ok(())
    }
}
