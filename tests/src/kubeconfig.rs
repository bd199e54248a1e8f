//! Kubeconfig files: read, written for other identities and other addresses, and made into clients.

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::files;
use crate::pki::Identity;

/// An API server as a client needs to know it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Certificate authority, PEM; empty where the system's own authorities serve.
    pub authority: String,
    /// The name in the server's certificate, where it is not `host`.
    pub tls_name: Option<String>,
}

/// How a kubeconfig's user proves who it is.
pub enum Login<'a> {
    /// A client certificate, inline.
    Certificate(&'a Identity),
    /// A bearer token, inline.
    Token(&'a str),
}

impl Server {
    /// The server that a kubeconfig's current context names.
    pub async fn of(file: &Path) -> Result<Self> {
        let config = config(file).await?;
        let host =
            config.cluster_url.host().with_context(|| format!("{} names no server", file.display()))?;
        let port = config.cluster_url.port_u16().unwrap_or(443);
        let authority = config.root_cert.iter().flatten().map(|der| pem(der)).collect();
        Ok(Self { host: host.to_owned(), port, authority, tls_name: config.tls_server_name })
    }

    /// The same server behind a relay on a loopback port.
    #[must_use]
    pub fn behind(&self, port: u16) -> Self {
        let name = self.tls_name.clone().unwrap_or_else(|| self.host.clone());
        Self { host: "127.0.0.1".to_owned(), port, authority: self.authority.clone(), tls_name: Some(name) }
    }

    fn entry(&self) -> Value {
        let mut entry = json!({ "server": format!("https://{}:{}", self.host, self.port) });
        if !self.authority.is_empty() {
            entry["certificate-authority-data"] = STANDARD.encode(&self.authority).into();
        }
        if let Some(name) = &self.tls_name {
            entry["tls-server-name"] = name.as_str().into();
        }
        entry
    }
}

/// Writes a kubeconfig, readable by its owner alone. JSON is YAML, so no YAML writer is needed.
pub fn write(file: &Path, server: &Server, login: &Login) -> Result<()> {
    let user = match login {
        Login::Certificate(identity) => json!({
            "client-certificate-data": STANDARD.encode(&identity.certificate),
            "client-key-data": STANDARD.encode(&identity.key),
        }),
        Login::Token(token) => json!({ "token": token }),
    };
    let document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "holdfast", "cluster": server.entry()}],
        "users": [{"name": "holdfast", "user": user}],
        "contexts": [{"name": "holdfast", "context": {"cluster": "holdfast", "user": "holdfast"}}],
        "current-context": "holdfast",
    });
    let text = serde_json::to_string_pretty(&document).context("could not write JSON")?;
    files::write_private(file, text)
}

/// A client for a kubeconfig. A client lives in the runtime that made it, so each test makes its own.
pub async fn client(file: &Path) -> Result<Client> {
    let config = config(file).await?;
    Client::try_from(config).with_context(|| format!("could not make a client for {}", file.display()))
}

async fn config(file: &Path) -> Result<Config> {
    // An error says that a provider was installed before, which is what we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig =
        Kubeconfig::read_from(file).with_context(|| format!("could not read {}", file.display()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    config.with_context(|| format!("could not use {}", file.display()))
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}
