//! B18: from the start of the provider to its schema, as a host starts it: cookie, line, mutual TLS, one call.
//!
//! The limit is what any program costs: a fork, an exec and an end. Each command of Terraform starts the provider three
//! to five times.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, KeyPair, PKCS_ECDSA_P521_SHA512};
use reqwest::Client;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use super::stats::median;
use super::{Row, Value};
use crate::{files, peer};

/// By which a plugin knows that a host started it (go-plugin).
const COOKIE: &str = "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2";
/// An empty message as gRPC frames it: not compressed, of no bytes.
const NOTHING: &[u8] = &[0; 5];
/// The schema of six kinds and more is far above this; an error has no body.
const LEAST_SCHEMA: usize = 10_000;

pub(super) async fn measure(pairs: usize) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir().context("could not make a folder")?;
    let host = Host::new()?;
    let (mut starts, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        let before = nothing()?;
        let (ours, peak) = host.start(folder.path()).await?;
        starts.push([ours, before, nothing()?]);
        peaks.push(peak);
    }
    let row = |what, limit, value, must, moon| Row {
        id: "B18",
        what,
        accelerator: "none",
        limit,
        value,
        must,
        moon,
    };
    let took = median(&starts.iter().map(|pair| pair[0]).collect::<Vec<_>>());
    Ok(vec![
        row("provider: start to schema", "-", Value::Figure(took, "ms"), 25.0, Some(5.0)),
        row(
            "provider: beside an empty one",
            "fork, exec, exit of true",
            Value::Ratio(starts),
            f64::INFINITY,
            None,
        ),
        row("provider: most memory", "-", Value::Figure(median(&peaks), "MiB"), 20.0, Some(8.0)),
    ])
}

/// Milliseconds of a program that does nothing.
fn nothing() -> Result<f64> {
    let begun = Instant::now();
    let status = Command::new("/bin/true").env_clear().stdin(Stdio::null()).status();
    ensure!(status.context("could not run /bin/true")?.success(), "/bin/true failed");
    Ok(milliseconds(begun))
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}

/// Who starts the provider. A real one makes its key before it starts anything, so that is no part of the start.
struct Host {
    certificate: Certificate,
    key: KeyPair,
}

impl Host {
    fn new() -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).context("could not make a key")?;
        let mut params = CertificateParams::new(["localhost".to_owned()]).context("no certificate")?;
        // As go-plugin makes them (mtls.go).
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self { certificate: params.self_signed(&key).context("could not sign")?, key })
    }

    /// Milliseconds from start to schema, and the most MiB the provider had until then.
    async fn start(&self, temporary: &Path) -> Result<(f64, f64)> {
        let program = peer::ours("terraform-provider-holdfast")?;
        let pem = self.certificate.pem();
        let begun = Instant::now();
        let child = Command::new(&program)
            .env_clear()
            .env("TF_PLUGIN_MAGIC_COOKIE", COOKIE)
            .env("PLUGIN_PROTOCOL_VERSIONS", "6,5")
            .env("PLUGIN_CLIENT_CERT", pem)
            .env("TMPDIR", temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut started = Started(child.context("could not start the provider")?);
        let out = started.0.stdout.take().context("it has no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).context("it said nothing")?;
        let fields: Vec<&str> = line.trim_end().split('|').collect();
        let [.., socket, "grpc", certificate] = fields[..] else { anyhow::bail!("it said {line}") };
        let certificate = STANDARD_NO_PAD.decode(certificate).context("its certificate is no base64")?;
        let client = self.client(socket, certificate)?;
        let schema = ask(&client, "tfplugin6.Provider/GetProviderSchema").await?;
        let took = milliseconds(begun);
        ensure!(schema > LEAST_SCHEMA, "a schema of {schema} bytes");
        let peak = files::read(Path::new(&format!("/proc/{}/status", started.0.id())))?;
        let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak: f64 = peak.and_then(|it| it.split_whitespace().next()?.parse().ok()).context("no VmHWM")?;
        // Its end is asked for, so that it tidies up; the answer may be cut short by that.
        let _ = ask(&client, "plugin.GRPCController/Shutdown").await;
        started.0.wait().context("it did not end")?;
        Ok((took, peak / 1024.0))
    }

    fn client(&self, socket: &str, certificate: Vec<u8>) -> Result<Client> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("no TLS")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Only(certificate.into())))
            .with_client_auth_cert(vec![self.certificate.der().clone()], key.into())
            .context("could not present the certificate")?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let builder = Client::builder().no_proxy().http2_prior_knowledge().unix_socket(socket);
        builder.tls_backend_preconfigured(config).build().context("could not make a client")
    }
}

/// Calls a method with an empty message; returns how many bytes came.
async fn ask(client: &Client, method: &str) -> Result<usize> {
    let request = client
        .post(format!("https://localhost/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(NOTHING);
    let answer = request.send().await.with_context(|| format!("could not ask for {method}"))?;
    Ok(answer.bytes().await.with_context(|| format!("no answer to {method}"))?.len())
}

/// A provider under way; killed if its end was never asked for.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Trusts the certificate that the provider announced, and its key.
#[derive(Debug)]
struct Only(CertificateDer<'static>);

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let known = *presented == self.0;
        let foreign = rustls::Error::General("another certificate than it announced".to_owned());
        if known { Ok(ServerCertVerified::assertion()) } else { Err(foreign) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
