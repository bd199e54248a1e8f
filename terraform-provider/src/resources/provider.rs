//! The provider itself: how to reach a site. Nothing is contacted here; the first call that needs the API does it.
//!
//! Names and variables follow the provider for Kubernetes, so that existing set-ups carry over.

use std::collections::BTreeMap;

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
    type Client = Config;
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

    fn resources(&self) -> Vec<Box<dyn AnyResource<Config>>> {
        Vec::new()
    }

    fn data_sources(&self) -> Vec<Box<dyn AnyDataSource<Config>>> {
        Vec::new()
    }

    fn validate(&self, config: &Config, diagnostics: &mut Diagnostics) {
        contradictions(config, diagnostics);
        if config.insecure == Known::Value(true) {
            let detail = "The certificate of the API is not checked: whoever stands between can read and change \
                          everything. Set cluster_ca_certificate instead.";
            diagnostics.warning(Path::of("insecure"), "Connection is not secure", detail);
        }
    }

    fn configure(&self, config: Config, _: &Host) -> Result<Config, Diagnostics> {
        Ok(config)
    }
}

/// Two sources for one thing, of which one would be ignored in silence.
fn contradictions(config: &Config, diagnostics: &mut Diagnostics) {
    let content = !config.kubeconfig_content.is_null();
    let pairs = [
        ("config_content", content, "config_path", !config.kubeconfig_path.is_null()),
        ("config_content", content, "exec", !config.exec.is_null()),
        ("token", !config.token.is_null(), "exec", !config.exec.is_null()),
    ];
    for (one, one_set, other, other_set) in pairs {
        if one_set && other_set {
            let detail = format!("{one} and {other} both say how to reach the API. Keep one of them.");
            diagnostics.error(Path::of(one), "Contradictory credentials", detail);
        }
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

    fn said(set: &[(&str, Value)]) -> Vec<String> {
        let config: Config =
            parse(&Value::object(set.iter().map(|(name, value)| (*name, value.clone())))).unwrap();
        let mut diagnostics = Diagnostics::new();
        Holdfast.validate(&config, &mut diagnostics);
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
            ["config_content: Contradictory credentials"]
        );
        assert_eq!(said(&[("client_key", "k".into())]), ["client_certificate: Half a client certificate"]);
        assert!(said(&[one]).is_empty());
    }

    #[test]
    fn an_unchecked_certificate_is_always_warned_about() {
        assert_eq!(said(&[("insecure", true.into())]), ["insecure: Connection is not secure"]);
    }
}
