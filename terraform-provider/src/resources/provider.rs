//! The provider itself: how to reach a site. Nothing is contacted here; the first call that needs the API does it.
//!
//! Names and variables follow the provider for Kubernetes, so that existing set-ups carry over.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::access::{self, Access};
use super::cluster::{Cluster, MANAGER};
use super::image::Image;
use super::kind::Site;
use super::looked::Looked;
use super::managed::Managed;
use super::network::Network;
use super::node::{Node, Nodes};
use super::ssh_key::SshKey;
use super::virtual_machine::VirtualMachine;

use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::fields::Fields;
use crate::plugin::known::Known;
use crate::plugin::path::Path;
use crate::plugin::provider::{AnyDataSource, AnyResource, FromFields, Host, Provider};
use crate::plugin::schema::{Attribute, Owner, Problem, Schema, Shape};
use crate::plugin::ty::Type;

/// The provider.
#[derive(Debug, Clone, Copy)]
pub struct Holdfast;

/// Its configuration, as written; the environment is asked later.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    kubeconfig_path: Known<String>,
    kubeconfig_content: Known<String>,
    kubeconfig_context: Known<String>,
    host: Known<String>,
    cluster_ca_certificate: Known<String>,
    tls_server_name: Known<String>,
    insecure: Known<bool>,
    proxy_url: Known<String>,
    token: Known<String>,
    client_certificate: Known<String>,
    client_key: Known<String>,
    exec: Known<Exec>,
    namespace: Known<String>,
    force_conflicts: Known<bool>,
}

/// A program that prints credentials.
#[derive(Clone, PartialEq, Eq)]
struct Exec {
    api_version: Known<String>,
    command: Known<String>,
    args: Known<Vec<Known<String>>>,
    env: Known<BTreeMap<String, Known<String>>>,
}

impl Provider for Holdfast {
    type Client = Site;
    type Config = Config;

    fn name(&self) -> &'static str {
        "holdfast"
    }

    fn schema(&self) -> Result<Schema, Problem> {
        let description = "Virtual machines at the edge, through the Kubernetes API of a Holdfast site. Sources are \
                           taken in this order: what is configured here, the `KUBE_*` variables, `KUBECONFIG`, the \
                           service account of a pod. `~/.kube/config` is used only if it is named.";
        Schema::new(Owner::Provider, description, attributes())
    }

    fn resources(&self) -> Vec<Box<dyn AnyResource<Site>>> {
        vec![
            Box::new(Managed::<Image>::new()),
            Box::new(Managed::<Network>::new()),
            Box::new(Managed::<SshKey>::new()),
            Box::new(Managed::<VirtualMachine>::new()),
        ]
    }

    fn data_sources(&self) -> Vec<Box<dyn AnyDataSource<Site>>> {
        vec![
            Box::new(Looked::<Image>::new()),
            Box::new(Looked::<Network>::new()),
            Box::new(Looked::<SshKey>::new()),
            Box::new(Looked::<VirtualMachine>::new()),
            Box::new(Node::new()),
            Box::new(Nodes::new()),
        ]
    }

    fn validate(&self, config: &Config, diagnostics: &mut Diagnostics) {
        contradictions(config, diagnostics);
        unchecked(config, |name| std::env::var(name).ok(), diagnostics);
    }

    fn configure(&self, config: Config, host: &Host) -> Result<Site, Diagnostics> {
        let agent = format!("{MANAGER}/{} (host {})", env!("CARGO_PKG_VERSION"), host.version);
        let force = config.force_conflicts == Known::Value(true);
        let access = config.access().map(|access| access.with_environment(|name| std::env::var(name).ok()));
        Ok(Site { cluster: Cluster::new(access, agent, force), namespace: config.namespace })
    }
}

impl Config {
    /// What is configured about the way to the API, or the names of what is not known yet.
    fn access(&self) -> Result<Access, Vec<&'static str>> {
        let texts = [
            ("config_path", &self.kubeconfig_path),
            ("config_content", &self.kubeconfig_content),
            ("config_context", &self.kubeconfig_context),
            ("host", &self.host),
            ("cluster_ca_certificate", &self.cluster_ca_certificate),
            ("tls_server_name", &self.tls_server_name),
            ("proxy_url", &self.proxy_url),
            ("token", &self.token),
            ("client_certificate", &self.client_certificate),
            ("client_key", &self.client_key),
        ];
        let unknown = texts.iter().filter(|(_, value)| value.is_unknown()).map(|(name, _)| *name);
        let others = [("insecure", self.insecure.is_unknown()), ("exec", self.exec.is_unknown())];
        let others = others.into_iter().filter(|(_, unknown)| *unknown).map(|(name, _)| name);
        let unknown: Vec<_> = unknown.chain(others).collect();
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let paths = |list: &String| std::env::split_paths(list).collect::<Vec<PathBuf>>();
        let exec = self.exec.as_value().map(Exec::known).transpose()?;
        let text = |value: &Known<String>| value.as_value().cloned();
        Ok(Access {
            files: self.kubeconfig_path.as_value().map(paths).unwrap_or_default(),
            content: text(&self.kubeconfig_content),
            context: text(&self.kubeconfig_context),
            host: text(&self.host),
            authority: text(&self.cluster_ca_certificate),
            tls_server_name: text(&self.tls_server_name),
            insecure: self.insecure.value(),
            proxy_url: text(&self.proxy_url),
            token: text(&self.token),
            client_certificate: text(&self.client_certificate),
            client_key: text(&self.client_key),
            exec,
        })
    }
}

impl Exec {
    fn known(&self) -> Result<access::Exec, Vec<&'static str>> {
        let Self { api_version, command, args, env } = self;
        let word = |word: &Known<String>| match word {
            Known::Unknown => Err(vec!["exec"]),
            word => Ok(word.clone().value().unwrap_or_default()),
        };
        let args = args.as_value().into_iter().flatten();
        let env = env.as_value().into_iter().flatten();
        let pair = |(name, value): (&String, &Known<String>)| word(value).map(|value| (name.clone(), value));
        Ok(access::Exec {
            api_version: word(api_version)?,
            command: word(command)?,
            args: args.map(word).collect::<Result<_, _>>()?,
            env: env.map(pair).collect::<Result<_, _>>()?,
        })
    }
}

/// Warns where nobody checks who answers for the API, be it that the block, the environment or a kubeconfig says so.
fn unchecked(config: &Config, variable: impl Fn(&str) -> Option<String>, diagnostics: &mut Diagnostics) {
    let configured = config.insecure == Known::Value(true);
    let effective = config.access().is_ok_and(|access| access.with_environment(variable).is_unchecked());
    if configured || effective {
        let (path, from) = if configured {
            (Path::of("insecure"), "")
        } else {
            (Path::root(), ", as insecure-skip-tls-verify of the kubeconfig or KUBE_INSECURE asks for")
        };
        let detail = format!(
            "The certificate of the API is not checked{from}: whoever stands between can read and change everything. Set \
             cluster_ca_certificate instead."
        );
        diagnostics.warning(path, "Connection is not secure", detail);
    }
}

/// Two sources for one thing, of which one would be ignored in silence.
fn contradictions(config: &Config, diagnostics: &mut Diagnostics) {
    let content = !config.kubeconfig_content.is_null();
    let path = !config.kubeconfig_path.is_null();
    let (token, exec) = (!config.token.is_null(), !config.exec.is_null());
    let certificate = !config.client_certificate.is_null();
    let unchecked = config.insecure == Known::Value(true);
    let pairs = [
        ("config_content", content, "config_path", path),
        ("config_content", content, "exec", exec),
        ("token", token, "exec", exec),
        ("token", token, "client_certificate", certificate),
        ("client_certificate", certificate, "exec", exec),
        ("insecure", unchecked, "cluster_ca_certificate", !config.cluster_ca_certificate.is_null()),
    ];
    for (one, one_set, other, other_set) in pairs {
        if one_set && other_set {
            let detail = format!(
                "{one} and {other} contradict each other, and one would be ignored. Keep one of them."
            );
            diagnostics.error(Path::of(one), "Contradictory settings", detail);
        }
    }
    if !config.kubeconfig_context.is_null() && !config.host.is_null() && !content && !path {
        let detail = "config_context chooses within a kubeconfig, and with host alone there is none. Leave it out, or set \
                      config_path.";
        diagnostics.error(Path::of("config_context"), "Contradictory settings", detail);
    }
    if config.client_certificate.is_null() != config.client_key.is_null() {
        let detail = "client_certificate and client_key belong together. Set both or none.";
        diagnostics.error(Path::of("client_certificate"), "Half a client certificate", detail);
    }
}

fn attributes() -> Vec<Attribute> {
    let text = |name, description| Attribute::optional(name, Type::String, description);
    let flag = |name, description| Attribute::optional(name, Type::Bool, description);
    vec![
        text(
            "config_path",
            "Path of a kubeconfig file. Environment: `KUBE_CONFIG_PATH`, `KUBE_CONFIG_PATHS`, `KUBECONFIG`.",
        ),
        text("config_content", "A kubeconfig as YAML. Not together with `config_path` or `exec`.")
            .sensitive(),
        text(
            "config_context",
            "Context of the kubeconfig; default its current one. Environment: `KUBE_CTX`.",
        ),
        text(
            "host",
            "Address of the API, such as `https://site.example.org:6443`. Environment: `KUBE_HOST`.",
        ),
        text(
            "cluster_ca_certificate",
            "PEM of the authority that signs the API's certificate. Environment: `KUBE_CLUSTER_CA_CERT_DATA`.",
        ),
        text(
            "tls_server_name",
            "Name in the API's certificate, if it is not that of `host`. Environment: `KUBE_TLS_SERVER_NAME`.",
        ),
        flag("insecure", "Do not check the API's certificate; default false. Environment: `KUBE_INSECURE`."),
        text("proxy_url", "Proxy on the way to the API. Environment: `KUBE_PROXY_URL`."),
        text("token", "Bearer token. Environment: `KUBE_TOKEN`.").sensitive(),
        text(
            "client_certificate",
            "PEM of a client certificate; with `client_key`. Environment: `KUBE_CLIENT_CERT_DATA`.",
        ),
        text("client_key", "PEM of its key. Environment: `KUBE_CLIENT_KEY_DATA`.").sensitive(),
        Attribute::optional(
            "exec",
            Shape::single(exec()),
            "A program that prints credentials. It cannot ask for input.",
        ),
        text("namespace", "Namespace of resources that name none."),
        flag("force_conflicts", "Take over fields that another field manager owns; default false."),
    ]
}

fn exec() -> Vec<Attribute> {
    let env = Attribute::optional("env", Type::map(Type::String), "Variables added to its environment.");
    vec![
        Attribute::required(
            "api_version",
            Type::String,
            "Version of its output, such as `client.authentication.k8s.io/v1`.",
        ),
        Attribute::required("command", Type::String, "The program."),
        Attribute::optional("args", Type::list(Type::String), "Its arguments."),
        env,
    ]
}

impl FromFields for Config {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            kubeconfig_path: fields.string("config_path"),
            kubeconfig_content: fields.string("config_content"),
            kubeconfig_context: fields.string("config_context"),
            host: fields.string("host"),
            cluster_ca_certificate: fields.string("cluster_ca_certificate"),
            tls_server_name: fields.string("tls_server_name"),
            insecure: fields.boolean("insecure"),
            proxy_url: fields.string("proxy_url"),
            token: fields.string("token"),
            client_certificate: fields.string("client_certificate"),
            client_key: fields.string("client_key"),
            exec: fields.nested("exec", |exec| Exec {
                api_version: exec.string("api_version"),
                command: exec.string("command"),
                args: exec.strings("args"),
                env: exec.string_map("env"),
            }),
            namespace: fields.string("namespace"),
            force_conflicts: fields.boolean("force_conflicts"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::any::parse;
    use crate::plugin::value::Value;

    fn config(set: &[(&str, Value)]) -> Config {
        parse(&Value::object(set.iter().map(|(name, value)| (*name, value.clone())))).unwrap()
    }

    fn said(set: &[(&str, Value)]) -> Vec<String> {
        let mut diagnostics = Diagnostics::new();
        Holdfast.validate(&config(set), &mut diagnostics);
        diagnostics.iter().map(|it| format!("{}: {}", it.path, it.summary)).collect()
    }

    #[test]
    fn the_schema_can_be_served() {
        assert!(Holdfast.schema().is_ok());
    }

    #[test]
    fn two_sources_for_one_thing_are_refused_even_if_one_is_not_known_yet() {
        let one = ("config_content", Value::UNKNOWN);
        assert_eq!(
            said(&[one.clone(), ("config_path", "/x".into())]),
            ["config_content: Contradictory settings"]
        );
        assert_eq!(said(&[("client_key", "k".into())]), ["client_certificate: Half a client certificate"]);
        assert!(said(&[one]).is_empty());
        let (token, certificate, key) =
            (("token", "t".into()), ("client_certificate", "c".into()), ("client_key", "k".into()));
        assert_eq!(said(&[token, certificate, key]), ["token: Contradictory settings"]);
        let (host, context) = (("host", "https://x".into()), ("config_context", Value::from("a")));
        assert_eq!(said(&[host.clone(), context.clone()]), ["config_context: Contradictory settings"]);
        assert!(said(&[host, context, ("config_path", "/x".into())]).is_empty());
        let said = said(&[("insecure", true.into()), ("cluster_ca_certificate", "c".into())]);
        assert_eq!(said[0], "insecure: Contradictory settings");
    }

    #[test]
    fn an_unchecked_certificate_is_warned_about_wherever_it_comes_from() {
        assert_eq!(said(&[("insecure", true.into())]), ["insecure: Connection is not secure"]);
        let kubeconfig = |skips: bool| {
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c}}}}]\n\
                 clusters: [{{name: c, cluster: {{server: \"https://h\", insecure-skip-tls-verify: {skips}}}}},\
                 {{name: other, cluster: {{insecure-skip-tls-verify: true}}}}]\n"
            )
        };
        let warned = [": Connection is not secure"];
        assert_eq!(said(&[("config_content", Value::from(kubeconfig(true)))]), warned);
        assert!(said(&[("config_content", Value::from(kubeconfig(false)))]).is_empty());
        let overruled = [("config_content", Value::from(kubeconfig(true))), ("insecure", false.into())];
        assert!(said(&overruled).is_empty());
        let file = std::env::temp_dir().join(format!("holdfast-unchecked-{}", std::process::id()));
        std::fs::write(&file, kubeconfig(true)).unwrap();
        assert_eq!(said(&[("config_path", Value::from(file.display().to_string()))]), warned);
        std::fs::remove_file(file).unwrap();
        let mut diagnostics = Diagnostics::new();
        let variable = |name: &str| ["KUBE_HOST", "KUBE_INSECURE"].contains(&name).then(|| "true".to_owned());
        unchecked(&config(&[]), variable, &mut diagnostics);
        assert_eq!(diagnostics.iter().count(), 1, "the environment");
    }
}
