//! TLS before a plain server on loopback, for what asks over https alone.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use crate::pki::Pki;
use crate::runtime;

/// The open door; it closes when dropped.
pub struct TlsFront {
    port: u16,
    task: AbortHandle,
}

impl TlsFront {
    /// Leads from a free loopback port to that one, with the authority's certificate for `127.0.0.1`.
    pub async fn before(upstream: u16, pki: &Pki) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(pki.file("apiserver.crt"))
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .context("could not read the certificate")?;
        let key =
            PrivateKeyDer::from_pem_file(pki.file("apiserver.key")).context("could not read the key")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let settings = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|it| it.with_no_client_auth().with_single_cert(chain, key))
            .context("the certificate does not fit its key")?;
        let acceptor = TlsAcceptor::from(Arc::new(settings));
        let runtime = runtime::harness()?;
        let bound = runtime.spawn(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).await;
        let listener = bound.context("the harness runtime ended")?.context("could not listen")?;
        let port = listener.local_addr().context("could not tell the port")?.port();
        let task = runtime.spawn(async move {
            while let Ok((came, _)) = listener.accept().await {
                tokio::spawn(relay(acceptor.clone(), came, upstream));
            }
        });
        Ok(Self { port, task: task.abort_handle() })
    }

    /// The address of a path behind it.
    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}/{path}", self.port)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection. Who hangs up in the middle, or does not trust us, is what a story asks for.
async fn relay(acceptor: TlsAcceptor, came: TcpStream, upstream: u16) -> std::io::Result<()> {
    let mut outside = acceptor.accept(came).await?;
    let mut inside = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await?;
    copy_bidirectional(&mut outside, &mut inside).await.map(drop)
}
