//! A secret put in through each door of the provider comes out nowhere: not in a state, a saved plan, a log at TRACE or
//! what a person reads, whether it works or fails.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use holdfast_tests::desk::{Desk, machine};
use holdfast_tests::kubeconfig::{self, Login};
use holdfast_tests::scene::{ONE_AT_A_TIME, wait};
use holdfast_tests::terraform::{Workspace, said};
use holdfast_tests::{files, pki};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

/// What stands in all secrets that need not be real.
const CANARY: &str = "canary-4711";

/// A way in for secrets.
struct Door {
    /// What a configuration says.
    words: String,
    /// What must be found nowhere.
    secrets: Vec<String>,
}

fn variables(names: &[&str]) -> String {
    let one = |name: &&str| format!("variable \"{name}\" {{\n  type = string\n  ephemeral = true\n}}\n");
    names.iter().map(one).collect()
}

/// What came of a search.
struct Search {
    /// Whether plan and apply worked.
    worked: bool,
    all: String,
}

/// Plans and applies; nothing of that may hold one of these texts.
fn searched(terraform: &Workspace, secrets: &[String], how: &str) -> Result<Search> {
    let (mut all, mut worked) = (String::new(), true);
    for words in [
        &["validate"][..],
        &["plan", "-out=saved.plan"],
        &["apply", "saved.plan"],
        &["show", "-json"],
        &["show", "-json", "saved.plan"],
    ] {
        let output = terraform.command(words).env("TF_LOG", "TRACE").output().context("not run")?;
        all += &said(&output);
        worked &= output.status.success();
    }
    all += &terraform.everything()?;
    for secret in secrets {
        ensure!(!secret.is_empty() && !all.contains(secret.as_str()), "{how}: a secret came out: {secret}");
    }
    Ok(Search { worked, all })
}

/// A line from the middle of a key: its beginning is the same in all keys.
fn middle(identity: &pki::Identity) -> String {
    let lines: Vec<_> = identity.key.lines().filter(|line| !line.starts_with("---")).collect();
    lines[lines.len() / 2].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_the_provider_comes_out_anywhere() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut desk = Desk::furnish("tf-canary").await?;
    let token = desk.token().await?;
    let server = desk.office.server().clone();
    let identity = desk.office.plane().pki().client("terraform-user", &["system:masters"])?;
    let file = desk.office.folder().join("token.kubeconfig");
    kubeconfig::write(&file, &server, &Login::Token(&token))?;
    let mut content: serde_json::Value = serde_json::from_str(&files::read(&file)?)?;
    let spare = json!({"name": "spare", "user": {"token": CANARY}});
    content["users"].as_array_mut().context("no users")?.push(spare);
    let program = desk.office.folder().join("credentials");
    let script = "#!/bin/sh\n[ -z \"$FAIL\" ] || { echo \"$SECRET\"; echo \"$SECRET\" >&2; exit 3; }\nprintf \
                  '{\"apiVersion\":\"%s\",\"kind\":\"ExecCredential\",\"status\":{\"token\":\"%s\"}}' \
                  client.authentication.k8s.io/v1 \"$TOKEN\"\n";
    files::write(&program, script)?;
    std::fs::set_permissions(&program, Permissions::from_mode(0o700)).context("not executable")?;
    for (name, value) in [
        ("TF_VAR_token", token.as_str()),
        ("TF_VAR_key", &identity.key),
        ("TF_VAR_content", &content.to_string()),
        ("TF_VAR_broken", &format!("users: [{CANARY}]\n\tnonsense: {CANARY}")),
        ("TF_VAR_secret", CANARY),
        ("KUBE_CONFIG_PATH", ""),
    ] {
        desk.terraform.set(name, value);
    }
    let place = format!(
        "  host = \"https://{}:{}\"\n  cluster_ca_certificate = <<-EOT\n{}\nEOT\n",
        server.host, server.port, server.authority
    );
    let exec = |more: &str| {
        format!(
            "{place}  exec = {{\n    api_version = \"client.authentication.k8s.io/v1\"\n    command = \"{}\"\n    env = {{ TOKEN \
             = var.token, SECRET = var.secret{more} }}\n  }}",
            program.display()
        )
    };
    let certificate = format!(
        "{place}  client_certificate = <<-EOT\n{}\nEOT\n  client_key = var.key",
        identity.certificate
    );
    let canary = || vec![CANARY.to_owned()];
    let working = [
        Door { words: format!("{place}  token = var.token"), secrets: vec![token.clone()] },
        Door { words: certificate, secrets: vec![middle(&identity)] },
        Door { words: "  config_content = var.content".into(), secrets: vec![token.clone(), CANARY.into()] },
        Door { words: exec(""), secrets: vec![token.clone(), CANARY.into()] },
    ];
    let failing = [
        Door { words: format!("{place}  token = var.secret"), secrets: canary() },
        Door { words: "  config_content = var.broken".into(), secrets: canary() },
        Door { words: exec(", FAIL = \"yes\""), secrets: vec![token.clone(), CANARY.into()] },
        Door {
            words: format!("{place}  client_certificate = \"c\"\n  client_key = var.secret"),
            secrets: canary(),
        },
    ];
    let ask = "data \"holdfast_nodes\" \"all\" {}\noutput \"first\" {\n  value = data.holdfast_nodes.all.nodes[0].name\n}";
    let names = variables(&["token", "key", "content", "broken", "secret"]);
    for (doors, works) in [(&working, true), (&failing, false)] {
        for Door { words, secrets } in doors {
            desk.terraform.configure(&format!("{names}provider \"holdfast\" {{\n{words}\n}}\n{ask}"))?;
            let Search { worked, all } = searched(&desk.terraform, secrets, words)?;
            assert_eq!(worked, works, "{words}: {all}");
        }
    }

    // By variables of the environment.
    desk.terraform.set("KUBE_HOST", &format!("https://{}:{}", server.host, server.port));
    desk.terraform.set("KUBE_CLUSTER_CA_CERT_DATA", &server.authority);
    desk.terraform.set("KUBE_TOKEN", &token);
    desk.terraform.configure(ask)?;
    searched(&desk.terraform, std::slice::from_ref(&token), "KUBE_TOKEN")?;
    desk.terraform.set("KUBE_TOKEN", "");
    desk.terraform.set("KUBE_CLIENT_CERT_DATA", &identity.certificate);
    desk.terraform.set("KUBE_CLIENT_KEY_DATA", &identity.key);
    searched(&desk.terraform, &[middle(&identity)], "KUBE_CLIENT_KEY_DATA")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn write_only_data_of_both_kinds_comes_out_nowhere_and_is_replaced_when_left_behind() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut desk = Desk::furnish("tf-canary-vm").await?;
    desk.terraform.set("TF_VAR_secret", CANARY);
    desk.terraform.set("TF_VAR_network", "canary-0815");
    let secrets = [CANARY.to_owned(), "canary-0815".to_owned()];
    let with = |version: u32, more: &str| {
        let cloud_init = format!(
            "user_data_wo = var.secret, user_data_wo_version = {version}, network_data_wo = var.network, \
             network_data_wo_version = {version}"
        );
        let words = format!("  cpu = 1\n  memory = \"1Gi\"\n  cloud_init = {{ {cloud_init} }}\n{more}");
        format!("{}{}", variables(&["secret", "network"]), machine(&words))
    };
    let terraform = &desk.terraform;
    terraform.configure(&with(1, ""))?;
    let Search { worked, all } = searched(terraform, &secrets, "write-only data")?;
    assert!(worked, "{all}");
    let held: Api<Secret> = Api::namespaced(desk.admin.clone(), "default");
    let data = held.get("web-cloud-init").await?.data.unwrap_or_default();
    assert_eq!((&*data["user-data"].0, &*data["network-data"].0), (CANARY.as_bytes(), &b"canary-0815"[..]));

    // One that never gets ready.
    terraform.succeed(&["destroy", "-auto-approve"])?;
    assert!(held.get_opt("web-cloud-init").await?.is_none());
    terraform
        .configure(&with(1, "  timeouts = { create = \"5s\" }\n  placement = { node_name = \"nowhere\" }"))?;
    let Search { worked, all } = searched(terraform, &secrets, "a machine that never gets ready")?;
    assert!(!worked && all.contains("is not ready in time"), "{all}");
    terraform.succeed(&["destroy", "-auto-approve"])?;
    assert!(held.get_opt("web-cloud-init").await?.is_none());

    // A machine that is deleted past us leaves its Secret: the next machine of that name takes it.
    terraform.apply(&with(1, ""))?;
    desk.machines().delete("web", &DeleteParams::default()).await?;
    let gone = async || Ok(desk.machines().get_opt("web").await?.is_none().then_some(()));
    wait(&desk.office, "the end of the machine", gone).await?;
    terraform.apply(&with(2, ""))?;
    terraform.succeed(&["destroy", "-auto-approve"])?;
    assert!(held.get_opt("web-cloud-init").await?.is_none());

    // A Secret of somebody else is not taken.
    let foreign = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web-cloud-init"}, "stringData": {"a": "b"}});
    held.create(&kube::api::PostParams::default(), &serde_json::from_value(foreign)?).await?;
    terraform.configure(&with(1, ""))?;
    let refused = terraform.fail(&["apply", "-auto-approve"])?;
    assert!(
        refused.contains("Secret default/web-cloud-init exists already and is of another maker"),
        "{refused}"
    );
    let left = held.get("web-cloud-init").await?.data.unwrap_or_default();
    assert_eq!(left.keys().collect::<Vec<_>>(), ["a"]);
    assert!(desk.machines().get_opt("web").await?.is_none());
    terraform.succeed(&["destroy", "-auto-approve"])?;
    Ok(())
}
