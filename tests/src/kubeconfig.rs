//! Kubeconfig files, and clients made from them.

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::files;
use crate::pki::Identity;

/// How a kubeconfig's user proves who it is.
pub enum Login<'a> {
    /// A client certificate, inline.
    Certificate(&'a Identity),
    /// A bearer token, inline.
    Token(&'a str),
}

/// Writes a kubeconfig, readable by its owner alone. JSON is YAML, so no YAML writer is needed.
pub fn write(file: &Path, server: &str, authority: &str, login: &Login) -> Result<()> {
    let user = match login {
        Login::Certificate(identity) => json!({
            "client-certificate-data": STANDARD.encode(&identity.certificate),
            "client-key-data": STANDARD.encode(&identity.key),
        }),
        Login::Token(token) => json!({ "token": token }),
    };
    let text =
        serde_json::to_string_pretty(&document(server, authority, &user)).context("could not write JSON")?;
    files::write_private(file, text)
}

fn document(server: &str, authority: &str, user: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "holdfast", "cluster": {
            "server": server, "certificate-authority-data": STANDARD.encode(authority)}}],
        "users": [{"name": "holdfast", "user": user}],
        "contexts": [{"name": "holdfast", "context": {"cluster": "holdfast", "user": "holdfast"}}],
        "current-context": "holdfast",
    })
}

/// A client for a kubeconfig. A client lives in the runtime that made it, so each test makes its own.
pub async fn client(file: &Path) -> Result<Client> {
    install_tls_provider();
    let kubeconfig =
        Kubeconfig::read_from(file).with_context(|| format!("could not read {}", file.display()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.with_context(|| format!("could not use {}", file.display()))?;
    Client::try_from(config).with_context(|| format!("could not make a client for {}", file.display()))
}

/// Chooses the one TLS provider of this process; later calls change nothing.
pub fn install_tls_provider() {
    // An error says that it was installed before, which is what we want.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}
