//! Serving: from a started process to its end.
//!
//! ```text
//! environment ─▶ socket, certificate ─▶ line on standard output ─▶ RPCs … ─▶ Shutdown, SIGTERM or no host ─▶ tidy up
//! ```

use std::io::{self, Write};

use tokio_rustls::TlsAcceptor;

use super::connection;
use super::ending::{self, Ending, Interrupt};
use super::handshake::{self, Handshake};
use super::proto::plugin::grpc_controller_server::GrpcControllerServer;
use super::proto::tfplugin6::provider_server::ProviderServer;
use super::provider::Provider;
use super::service::Service;
use super::socket::{self, Socket};
use super::stop::Stop;
use super::tls::{self, Identity};

/// Bytes of a message. gRPC's usual 4 MiB is less than a plan of many large objects; the host takes 256 MiB.
const MESSAGE: usize = 256 * 1024 * 1024;

/// The name the host asks the health service for.
const HEALTH: &str = "plugin";

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody asked for us.
    #[error(transparent)]
    Handshake(#[from] handshake::Error),
    /// No way to trust the host.
    #[error("could not prepare TLS for the host")]
    Tls(#[source] tls::Error),
    /// Nowhere to be asked.
    #[error("could not open the plugin's socket")]
    Socket(#[source] socket::Error),
    /// No way to say where.
    #[error("could not write the handshake line to standard output")]
    Line(#[source] io::Error),
    /// No way to be stopped.
    #[error("could not listen to signals")]
    Signals(#[source] io::Error),
    /// The server.
    #[error("could not serve the host")]
    Serve(#[source] tonic::transport::Error),
}

/// Serves the host that started this process, until it says that it is done.
pub async fn plugin<P: Provider>(
    provider: P,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(), Error> {
    let handshake = Handshake::read(variable)?;
    let identity = handshake.client_certificate.as_deref().map(Identity::for_host).transpose();
    let identity = identity.map_err(Error::Tls)?;
    if identity.is_none() {
        tracing::warn!("serving in plain text: the host gave no certificate");
    }
    let certificate = identity.as_ref().map(Identity::certificate);
    let running = Running::start(Interrupt::Ignored)?;
    ending::with_parent(running.ending.clone());
    let line = |socket: &Socket| handshake.line(&socket.path(), certificate);
    let acceptor = identity.as_ref().map(Identity::acceptor);
    running.serve(provider, handshake.socket_dir.as_deref(), acceptor, line).await
}

/// Serves whoever uses the printed line, in plain text, until interrupted.
pub async fn debug<P: Provider>(provider: P, source: &str) -> Result<(), Error> {
    tracing::warn!("debug mode: whoever can reach the socket drives the provider with your rights");
    let line = |socket: &Socket| handshake::reattach(source, std::process::id(), &socket.path());
    Running::start(Interrupt::Ends)?.serve(provider, None, None, line).await
}

struct Running {
    stop: Stop,
    ending: Ending,
}

impl Running {
    fn start(interrupt: Interrupt) -> Result<Self, Error> {
        let (stop, ending) = (Stop::default(), Ending::default());
        ending::on_signals(ending.clone(), stop.clone(), interrupt).map_err(Error::Signals)?;
        Ok(Self { stop, ending })
    }

    async fn serve<P: Provider>(
        self,
        provider: P,
        parent: Option<&std::path::Path>,
        acceptor: Option<TlsAcceptor>,
        line: impl FnOnce(&Socket) -> String,
    ) -> Result<(), Error> {
        let (socket, listener) = Socket::listen(parent).map_err(Error::Socket)?;
        let incoming = connection::incoming(listener, acceptor);
        say(&line(&socket)).map_err(Error::Line)?;
        let service = ProviderServer::new(Service::new(provider, self.stop))
            .max_decoding_message_size(MESSAGE)
            .max_encoding_message_size(MESSAGE);
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status(HEALTH, tonic_health::ServingStatus::Serving).await;
        let begun = self.ending.clone();
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .add_service(GrpcControllerServer::new(self.ending.clone()))
            .add_service(health_service)
            .serve_with_incoming_shutdown(incoming, async move { _ = begun.begun().await });
        tokio::select! {
            outcome = server => outcome.map_err(Error::Serve),
            // Open streams and calls that do not come back are left behind.
            () = over(&self.ending) => Ok(()),
        }
    }
}

async fn over(ending: &Ending) {
    let grace = ending.begun().await;
    tokio::time::sleep(grace).await;
}

/// The only thing we ever write there: the host takes the first line and drops what follows.
fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}
