//! Where the API is and who asks, by what is configured and what the environment says.

use kube::config::AuthInfo;

use super::*;

const CANARY: &str = "canary-4711";

fn environment(set: &[(&str, &str)], access: Access) -> Access {
    access
        .with_environment(|name| set.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned()))
}

fn host() -> Access {
    Access { host: Some("https://site.example.org:6443".into()), ..Access::default() }
}

fn kubeconfig() -> Access {
    let mut document = blank();
    document["clusters"][0]["cluster"]["server"] = "https://other.example.org".into();
    document["users"][0]["user"]["token"] = "of-the-file".into();
    Access { content: Some(document.to_string()), ..Access::default() }
}

/// Who asks, as a kubeconfig would say it.
fn login(access: &Access) -> serde_json::Value {
    let content = access.content.clone().unwrap_or_else(|| blank().to_string());
    let kubeconfig = access.over(Kubeconfig::from_yaml(&content).unwrap()).unwrap();
    let user: Option<AuthInfo> = kubeconfig.auth_infos[0].auth_info.clone();
    serde_json::to_value(user).unwrap()
}

/// All that an error says, with its causes.
fn said(error: &dyn std::error::Error) -> String {
    let more = error.source().map(said).unwrap_or_default();
    format!("{error} {more}")
}

#[test]
fn the_first_that_names_a_place_counts() {
    let all = [("KUBE_CONFIG_PATH", "/b"), ("KUBE_CONFIG_PATHS", "/b1:/b2"), ("KUBECONFIG", "/c:/d")];
    let block = Access { files: vec!["/a".into()], ..Access::default() };
    assert_eq!(environment(&all, block).files, [PathBuf::from("/a")]);
    assert_eq!(environment(&all, Access::default()).files, [PathBuf::from("/b")]);
    assert_eq!(environment(&all[1..], Access::default()).files, [PathBuf::from("/b1"), PathBuf::from("/b2")]);
    let last = environment(&all[2..], Access::default());
    assert_eq!(last.files, [PathBuf::from("/c"), PathBuf::from("/d")]);
    assert!(environment(&all, host()).files.is_empty());
    assert!(environment(&all, kubeconfig()).files.is_empty());
    let by_host = environment(&[("KUBE_HOST", "https://x"), ("KUBECONFIG", "/c")], Access::default());
    assert_eq!((by_host.host.as_deref(), by_host.files.len()), (Some("https://x"), 0));
}

#[test]
fn an_empty_variable_says_nothing() {
    let files = environment(&[("KUBE_CONFIG_PATH", ""), ("KUBECONFIG", "/c")], Access::default()).files;
    assert_eq!(files, [PathBuf::from("/c")]);
}

#[test]
fn what_is_beside_the_place_is_taken_from_the_block_first() {
    let all = [
        ("KUBE_CTX", "one"),
        ("KUBE_CLUSTER_CA_CERT_DATA", "ca"),
        ("KUBE_TLS_SERVER_NAME", "name"),
        ("KUBE_INSECURE", "true"),
        ("KUBE_PROXY_URL", "http://proxy"),
    ];
    let from = environment(&all, Access::default());
    let text = |text: &str| Some(text.to_owned());
    assert_eq!((from.context, from.authority, from.tls_server_name), (text("one"), text("ca"), text("name")));
    assert_eq!((from.insecure, from.proxy_url), (Some(true), text("http://proxy")));
    let block = Access { context: text("mine"), insecure: Some(false), ..Access::default() };
    let over = environment(&all, block);
    assert_eq!((over.context, over.insecure), (text("mine"), Some(false)));
}

#[test]
fn credentials_of_the_environment_are_hidden_by_configured_ones() {
    let all = [("KUBE_TOKEN", "t"), ("KUBE_CLIENT_CERT_DATA", "c"), ("KUBE_CLIENT_KEY_DATA", "k")];
    let exec = Access { exec: Some(Exec::default()), ..Access::default() };
    let certificate = Access { client_certificate: Some("mine".into()), ..Access::default() };
    assert!(environment(&all, exec).token.is_none());
    assert!(environment(&all, certificate).token.is_none());
    assert_eq!(environment(&all, Access::default()).client_key.as_deref(), Some("k"));
}

#[test]
fn each_way_to_log_in_replaces_the_one_of_the_kubeconfig() {
    assert_eq!(login(&kubeconfig()), json!({"token": "of-the-file"}));
    assert_eq!(login(&Access { token: Some("t".into()), ..kubeconfig() }), json!({"token": "t"}));
    let certificate =
        Access { client_certificate: Some("C".into()), client_key: Some("K".into()), ..kubeconfig() };
    let pair =
        json!({"client-certificate-data": STANDARD.encode("C"), "client-key-data": STANDARD.encode("K")});
    assert_eq!(login(&certificate), pair);
    let exec = Exec {
        api_version: "client.authentication.k8s.io/v1".into(),
        command: "credentials".into(),
        args: vec!["site".into()],
        env: [("A".to_owned(), "b".to_owned())].into(),
    };
    let exec = login(&Access { exec: Some(exec), ..kubeconfig() });
    assert_eq!(exec["exec"]["command"], "credentials");
    assert_eq!(exec["exec"]["args"], json!(["site"]));
    assert_eq!(exec["exec"]["env"], json!([{"name": "A", "value": "b"}]));
    assert_eq!(exec["exec"]["interactiveMode"], "Never");
}

#[test]
fn a_program_of_the_kubeconfig_is_not_asked_to_talk_to_anybody() {
    let mut document = blank();
    document["users"][0]["user"] = json!({"exec": {"command": "c", "interactiveMode": "IfAvailable"}});
    let access = Access { content: Some(document.to_string()), ..Access::default() };
    assert_eq!(login(&access)["exec"]["interactiveMode"], "Never");
}

#[tokio::test]
async fn a_host_alone_is_a_place() {
    // A context would choose within a kubeconfig, and there is none.
    let access = Access { context: Some("elsewhere".into()), insecure: Some(true), ..host() };
    let config = access.config().await.unwrap();
    assert_eq!(config.cluster_url.host(), Some("site.example.org"));
    assert!(config.accept_invalid_certs);
}

#[tokio::test]
async fn a_host_stands_for_the_one_of_the_kubeconfig() {
    let access = Access { host: host().host, tls_server_name: Some("name".into()), ..kubeconfig() };
    let config = access.config().await.unwrap();
    assert_eq!(config.cluster_url.host(), Some("site.example.org"));
    assert_eq!(config.tls_server_name.as_deref(), Some("name"));
}

#[tokio::test]
async fn without_a_place_and_outside_of_a_pod_the_choices_are_listed() {
    let said = Access::default().config().await.unwrap_err().to_string();
    for choice in ["config_path", "config_content", "host", "KUBE_CONFIG_PATH", "KUBE_HOST", "KUBECONFIG"] {
        assert!(said.contains(choice), "{said}");
    }
}

#[tokio::test]
async fn an_unknown_context_is_named_with_those_that_exist() {
    let access = Access { context: Some("elsewhere".into()), ..kubeconfig() };
    let said = access.config().await.unwrap_err().to_string();
    assert_eq!(said, "the kubeconfig has no context elsewhere; it has: site");
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_not_quoted() {
    let broken = [
        CANARY.to_owned(),
        format!("users: {CANARY}"),
        format!("users: [{{name: a, user: {{token: [{CANARY}]}}}}]\nclusters: 7"),
        format!("\ttoken: {CANARY}"),
        blank().to_string().replace("\"user\":{}", &format!("\"user\":{{\"client-key-data\":\"{CANARY}\"}}")),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (index, content) in broken.iter().enumerate() {
        let file = folder.path().join(format!("{index}.yaml"));
        std::fs::write(&file, content).unwrap();
        let by_content = Access { content: Some(content.clone()), ..Access::default() };
        let by_file = Access { files: vec![file], ..Access::default() };
        for access in [by_content, by_file] {
            if let Err(error) = access.config().await {
                assert!(!said(&error).contains(CANARY), "{}", said(&error));
            }
        }
    }
}

#[tokio::test]
async fn a_program_that_fails_is_told_without_what_it_was_given_and_what_it_said() {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let speech = |script: &str| Exec {
        api_version: "client.authentication.k8s.io/v1".into(),
        command: "sh".into(),
        args: vec!["-c".into(), script.into()],
        env: [("SECRET".to_owned(), CANARY.to_owned())].into(),
    };
    for (script, says) in [
        ("echo $SECRET; echo $SECRET >&2; exit 7", "the program in exec failed (exit status: 7)"),
        ("echo \"{$SECRET\"", "printed no ExecCredential"),
        ("echo \"status: $SECRET\"", "printed no ExecCredential"),
    ] {
        let access = Access { exec: Some(speech(script)), ..host() };
        let config = access.config().await.unwrap();
        let Err(kube::Error::Auth(error)) = kube::Client::try_from(config) else { panic!("{script}") };
        let told = told(&error);
        assert!(told.contains(says) && !told.contains(CANARY), "{script}: {told}");
    }
}
