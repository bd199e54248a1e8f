//! The handshake: what the host says in the environment, and the one line it reads from standard output.
//!
//! Nowhere written down by its authors (terraform#32748); read from go-plugin's `server.go` and `client.go`. Pure: the
//! environment is an argument.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// The one protocol we speak. The host reports it itself if it does not.
const PROTOCOL: u32 = 6;

const COOKIE: (&str, &str) =
    ("TF_PLUGIN_MAGIC_COOKIE", "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2");

/// What the host said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The host's certificate as PEM. Without one it speaks plain text (`TF_DISABLE_PLUGIN_TLS`).
    pub client_certificate: Option<String>,
    /// Where it wants the socket's directory.
    pub socket_dir: Option<PathBuf>,
    /// Whether it asked about many streams over one connection, which it wants answered.
    asks_multiplexing: bool,
}

/// Why there is nobody to serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A person started the program.
    #[error(
        "this program is a plugin: Terraform or OpenTofu starts it, by itself it does nothing. To debug it, start it \
         with --debug"
    )]
    NotAPlugin,
}

impl Handshake {
    /// Reads the environment.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let (name, cookie) = COOKIE;
        if variable(name).as_deref() != Some(cookie) {
            return Err(Error::NotAPlugin);
        }
        let set = |name| variable(name).filter(|value| !value.is_empty());
        Ok(Self {
            client_certificate: set("PLUGIN_CLIENT_CERT"),
            socket_dir: set("PLUGIN_UNIX_SOCKET_DIR").map(PathBuf::from),
            asks_multiplexing: set("PLUGIN_MULTIPLEX_GRPC").is_some(),
        })
    }

    /// The line for the host, newline included. The certificate is DER, and padding of its base64 is an error there.
    pub fn line(&self, socket: &Path, certificate: Option<&[u8]>) -> String {
        let certificate = certificate.map(|der| STANDARD_NO_PAD.encode(der)).unwrap_or_default();
        let multiplexing = if self.asks_multiplexing { "|false" } else { "" };
        format!("1|{PROTOCOL}|unix|{}|grpc|{certificate}{multiplexing}\n", socket.display())
    }
}

/// The line a person sets before starting the host, in debug mode. `Test` keeps the host from ending us.
pub fn reattach(source: &str, pid: u32, socket: &Path) -> String {
    let providers = serde_json::json!({
        source: {
            "Protocol": "grpc",
            "ProtocolVersion": PROTOCOL,
            "Pid": pid,
            "Test": true,
            "Addr": { "Network": "unix", "String": socket },
        }
    });
    format!("TF_REATTACH_PROVIDERS='{providers}'\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &[(&str, &str)]) -> Result<Handshake, Error> {
        let all = [&[COOKIE], more].concat();
        Handshake::read(|name| all.iter().rfind(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn whoever_does_not_know_the_cookie_is_told_what_this_is() {
        assert_eq!(Handshake::read(|_| None), Err(Error::NotAPlugin));
        assert_eq!(read(&[(COOKIE.0, "wrong")]), Err(Error::NotAPlugin));
    }

    #[test]
    fn the_line_has_six_fields_and_its_certificate_no_padding() {
        let line = read(&[]).unwrap().line(Path::new("/tmp/p/s"), Some(b"four"));
        assert_eq!(line, "1|6|unix|/tmp/p/s|grpc|Zm91cg\n");
    }

    #[test]
    fn a_question_about_multiplexing_is_answered_in_a_seventh_field() {
        let handshake = read(&[("PLUGIN_MULTIPLEX_GRPC", "true")]).unwrap();
        assert_eq!(handshake.line(Path::new("/s"), None), "1|6|unix|/s|grpc||false\n");
    }

    #[test]
    fn an_empty_variable_is_no_certificate() {
        let handshake = read(&[("PLUGIN_CLIENT_CERT", ""), ("PLUGIN_UNIX_SOCKET_DIR", "/run/x")]).unwrap();
        assert_eq!(handshake.client_certificate, None);
        assert_eq!(handshake.socket_dir, Some(PathBuf::from("/run/x")));
    }

    #[test]
    fn the_reattach_line_names_version_six_and_test() {
        let line = reattach("example.org/a/b", 7, Path::new("/s"));
        let json = line.strip_prefix("TF_REATTACH_PROVIDERS='").unwrap().strip_suffix("'\n").unwrap();
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["example.org/a/b"]["ProtocolVersion"], 6);
        assert_eq!(json["example.org/a/b"]["Test"], true);
        assert_eq!(json["example.org/a/b"]["Addr"]["String"], "/s");
    }
}
