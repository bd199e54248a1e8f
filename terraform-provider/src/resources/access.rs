//! How to reach the API: what is configured, what the environment says, and which of them counts.
//!
//! The place comes from the first that names one: the configuration, `KUBE_*`, `KUBECONFIG`, the service account of a
//! pod. `~/.kube/config` is no source: a change to the wrong cluster is worse than a question.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::Config;
use kube::client::AuthError;
use kube::config::{Context, ExecInteractiveMode, KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde_json::json;

/// What is known about reaching the API.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) content: Option<String>,
    pub(crate) context: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) authority: Option<String>,
    pub(crate) tls_server_name: Option<String>,
    pub(crate) insecure: Option<bool>,
    pub(crate) proxy_url: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) client_certificate: Option<String>,
    pub(crate) client_key: Option<String>,
    pub(crate) exec: Option<Exec>,
}

/// A program that prints credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Exec {
    pub(crate) api_version: String,
    pub(crate) command: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
}

/// Why there is no way to the API.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "nothing says where the API is: set config_path, config_content or host in the provider block, or KUBE_CONFIG_PATH, \
         KUBE_HOST or KUBECONFIG in the environment; ~/.kube/config is used only if it is named"
    )]
    Nowhere,
    #[error("the kubeconfig has no context {name}; it has: {contexts}")]
    NoContext { name: String, contexts: String },
    #[error("{0} is not the YAML of a kubeconfig")]
    Unreadable(String),
    #[error("could not use the kubeconfig")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    #[error("could not make a configuration of what the provider block says")]
    Document(#[source] serde_json::Error),
}

impl Access {
    /// The same with what the environment adds.
    pub(crate) fn with_environment(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let placed =
            |access: &Self| !access.files.is_empty() || access.content.is_some() || access.host.is_some();
        let paths = |list: String| std::env::split_paths(&list).collect::<Vec<_>>();
        if !placed(&self) {
            let one = variable("KUBE_CONFIG_PATH").map(|path| vec![PathBuf::from(path)]);
            self.files = one.or_else(|| variable("KUBE_CONFIG_PATHS").map(paths)).unwrap_or_default();
            self.host = variable("KUBE_HOST");
        }
        if !placed(&self) {
            self.files = variable("KUBECONFIG").map(paths).unwrap_or_default();
        }
        let flag = |value: String| matches!(value.as_str(), "1" | "true" | "TRUE" | "True");
        self.context = self.context.or_else(|| variable("KUBE_CTX"));
        self.authority = self.authority.or_else(|| variable("KUBE_CLUSTER_CA_CERT_DATA"));
        self.tls_server_name = self.tls_server_name.or_else(|| variable("KUBE_TLS_SERVER_NAME"));
        self.insecure = self.insecure.or_else(|| variable("KUBE_INSECURE").map(flag));
        self.proxy_url = self.proxy_url.or_else(|| variable("KUBE_PROXY_URL"));
        // Credentials of one kind only: those that are configured hide the environment's.
        if self.token.is_none() && self.client_certificate.is_none() && self.exec.is_none() {
            self.token = variable("KUBE_TOKEN");
            self.client_certificate = variable("KUBE_CLIENT_CERT_DATA");
            self.client_key = variable("KUBE_CLIENT_KEY_DATA");
        }
        self
    }

    /// What a client is made of. Reads files, contacts nothing.
    pub(crate) async fn config(&self) -> Result<Config, Error> {
        let Some(kubeconfig) = self.document()? else {
            return Config::incluster().map_err(|_| Error::Nowhere);
        };
        let kubeconfig = self.over(kubeconfig)?;
        let options = KubeConfigOptions { context: self.context(), ..KubeConfigOptions::default() };
        Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(Error::Kubeconfig)
    }

    /// Whether nobody checks the API's certificate, whoever asked for that. Where there is no way to the API yet, nobody
    /// did.
    pub(crate) fn is_unchecked(&self) -> bool {
        let kubeconfig = self.document().ok().flatten().and_then(|it| self.over(it).ok());
        kubeconfig.is_some_and(|kubeconfig| {
            let cluster = self.chosen(&kubeconfig).map(|context| context.cluster).unwrap_or_default();
            let mut clusters = kubeconfig.clusters.iter().filter(|it| it.name == cluster);
            clusters.any(|it| it.cluster.as_ref().and_then(|it| it.insecure_skip_tls_verify) == Some(true))
        })
    }

    /// The kubeconfig that counts; `None` in a pod, which needs none.
    fn document(&self) -> Result<Option<Kubeconfig>, Error> {
        match (&self.content, &self.host) {
            (Some(content), _) => {
                Kubeconfig::from_yaml(content).map(Some).map_err(|error| refused("config_content", error))
            }
            (None, _) if !self.files.is_empty() => self.read().map(Some),
            (None, Some(_)) => serde_json::from_value(blank()).map(Some).map_err(Error::Document),
            (None, None) => Ok(None),
        }
    }

    /// The context of the kubeconfig that counts.
    fn chosen(&self, kubeconfig: &Kubeconfig) -> Result<Context, Error> {
        let name = self.context().or_else(|| kubeconfig.current_context.clone()).unwrap_or_default();
        let Some(context) = kubeconfig.contexts.iter().find(|it| it.name == name) else {
            let contexts = kubeconfig.contexts.iter().map(|it| it.name.as_str()).collect::<Vec<_>>();
            return Err(Error::NoContext { name, contexts: contexts.join(", ") });
        };
        Ok(context.context.clone().unwrap_or_default())
    }

    /// The context that is asked for; without a kubeconfig there is none to choose.
    fn context(&self) -> Option<String> {
        let chooses = self.content.is_some() || !self.files.is_empty();
        self.context.clone().filter(|_| chooses)
    }

    fn read(&self) -> Result<Kubeconfig, Error> {
        self.files.iter().map(|file| expanded(file)).try_fold(Kubeconfig::default(), |all, file| {
            let name = file.display().to_string();
            let read = Kubeconfig::read_from(file).and_then(|one| all.merge(one));
            read.map_err(|error| refused(&name, error))
        })
    }

    /// The kubeconfig with what is set beside it, in the context that counts.
    fn over(&self, mut kubeconfig: Kubeconfig) -> Result<Kubeconfig, Error> {
        let context = self.chosen(&kubeconfig)?;
        let base64 = |text: &String| STANDARD.encode(text);
        for cluster in kubeconfig.clusters.iter_mut().filter(|it| it.name == context.cluster) {
            let cluster = cluster.cluster.get_or_insert_default();
            cluster.server = self.host.clone().or_else(|| cluster.server.take());
            if let Some(authority) = &self.authority {
                cluster.certificate_authority_data = Some(base64(authority));
                cluster.certificate_authority = None;
            }
            cluster.tls_server_name = self.tls_server_name.clone().or_else(|| cluster.tls_server_name.take());
            cluster.insecure_skip_tls_verify = self.insecure.or(cluster.insecure_skip_tls_verify);
            cluster.proxy_url = self.proxy_url.clone().or_else(|| cluster.proxy_url.take());
        }
        for user in kubeconfig.auth_infos.iter_mut().filter(|it| Some(&it.name) == context.user.as_ref()) {
            let info = user.auth_info.get_or_insert_default();
            if let Some(login) = self.login() {
                *info = serde_json::from_value(login).map_err(Error::Document)?;
            }
            // Standard input belongs to the host's protocol.
            if let Some(exec) = &mut info.exec {
                exec.interactive_mode = Some(ExecInteractiveMode::Never);
            }
        }
        Ok(kubeconfig)
    }

    /// The user entry that the configuration replaces the kubeconfig's with.
    fn login(&self) -> Option<serde_json::Value> {
        if let Some(Exec { api_version, command, args, env }) = &self.exec {
            let env: Vec<_> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            let exec = json!({
                "apiVersion": api_version, "command": command, "args": args, "env": env, "interactiveMode": "Never",
            });
            return Some(json!({ "exec": exec }));
        }
        if let (Some(certificate), Some(key)) = (&self.client_certificate, &self.client_key) {
            return Some(json!({
                "client-certificate-data": STANDARD.encode(certificate),
                "client-key-data": STANDARD.encode(key),
            }));
        }
        self.token.as_ref().map(|token| json!({ "token": token }))
    }
}

/// A parser quotes what it does not understand, and a kubeconfig holds secrets: where it stands has to do.
fn refused(name: &str, error: KubeconfigError) -> Error {
    match error {
        KubeconfigError::Parse(_) => Error::Unreadable(name.to_owned()),
        error => Error::Kubeconfig(error),
    }
}

/// What went wrong with credentials, as far as it may be told: the command of a program that prints them stands with its
/// environment in kube's error, and what it printed too.
pub(crate) fn told(error: &AuthError) -> String {
    let program = "the program in exec";
    match error {
        AuthError::AuthExecRun { out, .. } => {
            format!("{program} failed ({}): run it by hand to see why", out.status)
        }
        AuthError::AuthExecStart(error) => format!("{program} could not be started: {error}"),
        AuthError::AuthExecParse(_) | AuthError::ExecPluginFailed => {
            format!("{program} printed no ExecCredential with a status")
        }
        AuthError::MissingCommand => "exec names no program".to_owned(),
        AuthError::InvalidBearerToken(_) => "the token has characters that no token has".to_owned(),
        AuthError::ReadTokenFile(error, path) => format!("could not read {}: {error}", path.display()),
        _ => "the kubeconfig's way to credentials is not supported or failed: use a token, a client certificate or exec"
            .to_owned(),
    }
}

/// A kubeconfig in which everything is still to be set.
fn blank() -> serde_json::Value {
    json!({
        "clusters": [{"name": "site", "cluster": {}}],
        "users": [{"name": "site", "user": {}}],
        "contexts": [{"name": "site", "context": {"cluster": "site", "user": "site"}}],
        "current-context": "site",
    })
}

/// A path as shells read it: `~/` is the home of the user.
fn expanded(path: &std::path::Path) -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
