//! Connections: accepted one per task, so that a peer that never finishes its TLS handshake holds up nobody.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Time for a TLS handshake. The host's takes milliseconds; a busy machine is forgiven a lot.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause after an accept that failed, for want of file descriptors as a rule: at once it would fail again.
const PAUSE: Duration = Duration::from_millis(100);

/// A peer that may ask: it came through TLS, or there is none.
pub struct Connection(Box<dyn Stream>);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The peers that connect, from now on.
pub fn incoming(
    listener: UnixListener,
    acceptor: Option<TlsAcceptor>,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(accept(listener, acceptor, sender));
    ReceiverStream::new(receiver)
}

async fn accept(
    listener: UnixListener,
    acceptor: Option<TlsAcceptor>,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    while !accepted.is_closed() {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(admit(stream, acceptor.clone(), accepted.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// A peer that is refused is our news, not the server's: it must go on for the others.
async fn admit(
    stream: UnixStream,
    acceptor: Option<TlsAcceptor>,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    let connection = match acceptor {
        None => Connection(Box::new(stream)),
        Some(acceptor) => match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Connection(Box::new(stream)),
            Ok(Err(error)) => return tracing::warn!(%error, "refused a connection"),
            Err(_) => return tracing::warn!("refused a connection that did not finish its handshake"),
        },
    };
    let _ = accepted.send(Ok(connection)).await;
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
