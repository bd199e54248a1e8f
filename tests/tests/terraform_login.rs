//! Each way to the API, against a real one: by the provider's block, by variables, by a program, from within a pod.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use holdfast_tests::desk::Desk;
use holdfast_tests::files;
use holdfast_tests::kubeconfig::{self, Login};
use holdfast_tests::scene::ONE_AT_A_TIME;
use holdfast_tests::terraform::{Workspace, said};
use serde_json::json;

/// Asks the API one thing.
const ASK: &str = "data \"holdfast_nodes\" \"all\" {}\n";
const NOBODY: &str = "canary-nobody";

/// The provider's block with these words; variables of these names may stand in it.
fn block(words: &str) -> String {
    let names = ["host", "ca", "token", "certificate", "key", "content"];
    let variables = names.map(|name| {
        format!("variable \"{name}\" {{\n  type = string\n  default = null\n  ephemeral = true\n}}\n")
    });
    format!("{}provider \"holdfast\" {{\n{words}\n}}\n{ASK}", variables.concat())
}

fn asked(workspace: &Workspace, how: &str, configuration: &str) -> Result<()> {
    workspace.configure(configuration)?;
    workspace.succeed(&["apply", "-auto-approve"]).with_context(|| how.to_owned())?;
    let nodes = workspace.values("data.holdfast_nodes.all")?;
    ensure!(nodes["nodes"][0]["name"] == "a", "{how}: {nodes}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_the_api_leads_there() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut desk = Desk::furnish("tf-login").await?;
    let token = desk.token().await?;
    let server = desk.office.server().clone();
    let folder = desk.office.folder().to_owned();
    let host = format!("https://{}:{}", server.host, server.port);
    let identity = desk.office.plane().pki().client("terraform-user", &["system:masters"])?;
    let good = folder.join("good.kubeconfig");
    kubeconfig::write(&good, &server, &Login::Token(&token))?;
    let bad = folder.join("bad.kubeconfig");
    kubeconfig::write(&bad, &server, &Login::Token(NOBODY))?;
    for (name, value) in [
        ("host", host.as_str()),
        ("ca", &server.authority),
        ("token", &token),
        ("certificate", &identity.certificate),
        ("key", &identity.key),
        ("content", &files::read(&good)?),
    ] {
        desk.terraform.set(&format!("TF_VAR_{name}"), value);
    }

    // The block, with an environment that would lead nowhere.
    desk.terraform.set("KUBE_CONFIG_PATH", "");
    desk.terraform.set("KUBECONFIG", &bad.display().to_string());
    let place = "host = var.host\ncluster_ca_certificate = var.ca\n";
    let good_path = good.display();
    let program = folder.join("credentials");
    let script = "#!/bin/sh\nprintf '{\"apiVersion\":\"%s\",\"kind\":\"ExecCredential\",\"status\":{\"token\":\"%s\"}}' \
                  client.authentication.k8s.io/v1 \"$TOKEN\"\n";
    files::write(&program, script)?;
    std::fs::set_permissions(&program, Permissions::from_mode(0o700)).context("not executable")?;
    let exec = format!(
        "exec = {{\n  api_version = \"client.authentication.k8s.io/v1\"\n  command = \"{}\"\n  env = {{ TOKEN = var.token }}\n}}",
        program.display()
    );
    for (how, words) in [
        ("token", format!("{place}token = var.token")),
        ("certificate", format!("{place}client_certificate = var.certificate\nclient_key = var.key")),
        ("exec", format!("{place}{exec}")),
        ("path", format!("config_path = \"{good_path}\"")),
        ("content", "config_content = var.content".to_owned()),
        (
            "path, and a token over the one in it",
            format!("config_path = \"{}\"\ntoken = var.token", bad.display()),
        ),
    ] {
        asked(&desk.terraform, how, &block(&words))?;
    }

    // The environment, the earlier over the later.
    let refused = desk.terraform.fail(&["apply", "-auto-approve", "-var=token=nobody"]);
    refused.context("a variable of the block counts")?;
    asked(&desk.terraform, "KUBECONFIG leads nowhere", ASK).expect_err("it holds no valid token");
    desk.terraform.set("KUBE_CONFIG_PATHS", &good.display().to_string());
    asked(&desk.terraform, "KUBE_CONFIG_PATHS over KUBECONFIG", ASK)?;
    desk.terraform.set("KUBE_CONFIG_PATHS", "");
    desk.terraform.set("KUBECONFIG", "");
    desk.terraform.set("KUBE_HOST", &host);
    desk.terraform.set("KUBE_CLUSTER_CA_CERT_DATA", &server.authority);
    desk.terraform.set("KUBE_TOKEN", &token);
    asked(&desk.terraform, "KUBE_HOST and KUBE_TOKEN", ASK)?;
    desk.terraform.set("KUBE_TOKEN", "");
    desk.terraform.set("KUBE_CLIENT_CERT_DATA", &identity.certificate);
    desk.terraform.set("KUBE_CLIENT_KEY_DATA", &identity.key);
    asked(&desk.terraform, "KUBE_CLIENT_CERT_DATA", ASK)?;
    for name in ["KUBE_HOST", "KUBE_CLIENT_CERT_DATA", "KUBE_CLIENT_KEY_DATA", "KUBE_CLUSTER_CA_CERT_DATA"] {
        desk.terraform.set(name, "");
    }
    let nowhere = desk.terraform.fail(&["apply", "-auto-approve"])?;
    assert!(nowhere.contains("nothing says where the API is"), "{nowhere}");

    // A pod's service account, at the paths where each pod has it: in a mount namespace of its own.
    let account = folder.join("account");
    files::create_folder(&account)?;
    files::write(&account.join("token"), &token)?;
    files::write(&account.join("ca.crt"), &server.authority)?;
    files::write(&account.join("namespace"), "default")?;
    desk.terraform.set("KUBERNETES_SERVICE_HOST", &server.host);
    desk.terraform.set("KUBERNETES_SERVICE_PORT", &server.port.to_string());
    let output = in_a_pod(&desk.terraform.command(&["apply", "-auto-approve"]), &account)
        .output()
        .context("could not enter a mount namespace")?;
    ensure!(output.status.success(), "in a pod: {}", said(&output));

    let both = block("config_path = \"/x\"\nconfig_content = \"y\"");
    desk.terraform.configure(&both)?;
    let output = desk.terraform.run(&["validate", "-json"])?;
    let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(told["error_count"], json!(1), "{told}");
    let snippet = told["diagnostics"][0]["snippet"]["code"].as_str().unwrap_or_default();
    assert!(snippet.contains("config_content"), "{told}");
    Ok(())
}

/// The same command where `/run` holds a service account and nothing else.
fn in_a_pod(command: &Command, account: &std::path::Path) -> Command {
    let script = "mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount && \
                  cp \"$0\"/* /run/secrets/kubernetes.io/serviceaccount && exec \"$@\"";
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "sh", "-c", script]).arg(account);
    inside.arg(command.get_program()).args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        inside.env(name, value.unwrap_or_default());
    }
    if let Some(folder) = command.get_current_dir() {
        inside.current_dir(folder);
    }
    inside
}
