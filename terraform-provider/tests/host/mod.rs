//! A host of our own: starts the plugin as Terraform does and speaks to it over the same mutual TLS.

#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in helpers of tests too")]

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use holdfast_provider::plugin::proto::plugin::Empty;
use holdfast_provider::plugin::proto::plugin::grpc_controller_client::GrpcControllerClient;
use holdfast_provider::plugin::proto::tfplugin6::provider_client::ProviderClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tonic::transport::Channel;

pub(crate) mod certificate;
mod channel;

#[allow(unused_imports, reason = "each test program uses a part")]
pub(crate) use channel::{connect, connect_plain};

use certificate::Identity;

/// By which a plugin knows that a host started it.
pub(crate) const COOKIE: &str = "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2";

/// A started plugin. It is killed when this is dropped.
pub(crate) struct Plugin {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// The handshake line.
    pub(crate) line: String,
    /// What the host proves itself with.
    pub(crate) identity: Identity,
}

/// A killed plugin cannot tidy up, so its host does.
impl Drop for Plugin {
    fn drop(&mut self) {
        let socket = self.socket();
        let ours = |folder: &&Path| {
            folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("plugin-"))
        };
        if let Some(folder) = socket.parent().filter(ours) {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// The provider of this crate.
pub(crate) fn holdfast() -> PathBuf {
    env!("CARGO_BIN_EXE_terraform-provider-holdfast").into()
}

/// A program of `examples/`, which cargo builds for a whole test run but not for one named test.
pub(crate) fn example(name: &str) -> PathBuf {
    let path = holdfast().with_file_name("examples").join(name);
    assert!(path.is_file(), "peer missing: {name} (cargo build -p terraform-provider-holdfast --examples)");
    path
}

/// A command for a plugin with the environment a host gives it and nothing else.
pub(crate) fn command(program: &Path, client_certificate: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("TF_PLUGIN_MAGIC_COOKIE", COOKIE)
        .env("PLUGIN_PROTOCOL_VERSIONS", "6,5")
        .env("PLUGIN_MIN_PORT", "10000")
        .env("PLUGIN_MAX_PORT", "25000")
        .env("PLUGIN_CLIENT_CERT", client_certificate)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Plugin {
    /// Starts the program and reads its line.
    pub(crate) async fn start(program: &Path) -> Self {
        let identity = Identity::of_a_host();
        let command = command(program, &identity.pem());
        Self::spawn(command, identity).await
    }

    /// Starts a command and reads its line.
    pub(crate) async fn spawn(mut command: Command, identity: Identity) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        tokio::time::timeout(Duration::from_secs(20), stdout.read_line(&mut line)).await.unwrap().unwrap();
        Self { child, stdout, line, identity }
    }

    /// Field of the line, from 0.
    pub(crate) fn field(&self, number: usize) -> &str {
        self.line.trim_end().split('|').nth(number).unwrap_or_default()
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.field(3).into()
    }

    /// The certificate it announced.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        STANDARD_NO_PAD.decode(self.field(5)).unwrap()
    }

    /// A channel as the host opens it.
    pub(crate) async fn channel(&self) -> Channel {
        connect(&self.socket(), &self.certificate(), Some(self.identity.resolver())).await.unwrap()
    }

    /// The provider's RPCs.
    pub(crate) async fn provider(&self) -> ProviderClient<Channel> {
        ProviderClient::new(self.channel().await)
    }

    /// Asks it to end, as the host does after each phase.
    pub(crate) async fn shutdown(&self) {
        GrpcControllerClient::new(self.channel().await).shutdown(Empty {}).await.unwrap();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits until it has ended, at most that long.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        tokio::time::timeout(within, self.child.wait()).await.expect("it is still running").unwrap()
    }

    /// What else it wrote to standard output until its end.
    pub(crate) async fn rest_of_stdout(&mut self) -> String {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).await.unwrap();
        rest
    }

    /// What it wrote to standard error until its end.
    pub(crate) async fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).await.unwrap();
        text
    }

    /// Its resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}
