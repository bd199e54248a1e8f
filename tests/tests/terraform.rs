//! `tofu apply`, and `terraform apply` where Terraform is on PATH, against a real API server and the real controller; nodes
//! are played, so guests are ready at once.

use anyhow::{Context, Result};
use holdfast_tests::desk::{Desk, KEY, PLAIN, lost_machine, machine};
use holdfast_tests::scene::wait;
use holdfast_tests::terraform::Workspace;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKq5mCb1s0m7Z3fFfQy0nJ2S3zq5Wq7yqB0V8bX1tYcD bob";

fn key(more: &str) -> String {
    format!("resource \"holdfast_ssh_key\" \"alice\" {{\n  name = \"alice\"\n{more}\n}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ssh_key_lives_from_apply_to_destroy() -> Result<()> {
    Desk::tell("tf-key", async |desk, terraform| {
        let with = |key_text: &str, more: &str| key(&format!("  public_key = \"{key_text}\"\n{more}"));

        terraform.apply(&with(KEY, ""))?;
        let values = terraform.values("holdfast_ssh_key.alice")?;
        assert!(values["fingerprint"].as_str().is_some_and(|it| it.starts_with("SHA256:")), "{values}");
        assert_eq!(values["id"], "default/alice");

        // Each optional attribute comes and goes, with an empty plan after each.
        for more in [
            "  labels = { team = \"a\" }",
            "  annotations = { note = \"b\" }",
            "  timeouts = { create = \"1m\" }",
            "",
        ] {
            terraform.apply(&with(KEY, more)).with_context(|| more.to_owned())?;
        }
        terraform.apply(&with(OTHER, ""))?;
        assert_eq!(desk.keys().get("alice").await?.spec.public_key, OTHER);

        // What another changed is planned back.
        let labels = json!({"metadata": {"labels": {"foreign": "yes"}}});
        desk.keys().patch("alice", &PatchParams::default(), &Patch::Merge(labels)).await?;
        terraform.must_be_settled().context("labels of others are theirs")?;

        terraform.succeed(&["state", "rm", "holdfast_ssh_key.alice"])?;
        let refused = terraform.fail(&["apply", "-auto-approve"])?;
        assert!(refused.contains("exists already and is not taken over"), "{refused}");
        assert!(refused.contains("terraform import holdfast_ssh_key.<name> default/alice"), "{refused}");
        terraform.configure(&with(OTHER, "  labels = { foreign = \"yes\" }"))?;
        terraform.succeed(&["import", "holdfast_ssh_key.alice", "default/alice"])?;
        terraform.must_be_settled().context("after an import")?;

        let missing = terraform.fail(&["import", "holdfast_ssh_key.bob", "default/bob"])?;
        assert!(missing.contains("resource address \"holdfast_ssh_key.bob\" does not exist"), "{missing}");

        let source = "data \"holdfast_ssh_key\" \"alice\" {\n  name = \"alice\"\n}\ndata \"holdfast_nodes\" \"all\" {}\n\
                      data \"holdfast_node\" \"a\" {\n  name = \"a\"\n}";
        terraform.apply(&format!("{}\n{source}", with(OTHER, "  labels = { foreign = \"yes\" }")))?;
        assert_eq!(terraform.values("data.holdfast_ssh_key.alice")?["public_key"], OTHER);
        assert_eq!(terraform.values("data.holdfast_nodes.all")?["nodes"][0]["name"], "a");
        assert_eq!(terraform.values("data.holdfast_node.a")?["status"]["capacity"]["cpu"], 8);

        terraform.succeed(&["destroy", "-auto-approve"])?;
        assert!(desk.keys().get_opt("alice").await?.is_none());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_machine_lives_from_apply_to_destroy() -> Result<()> {
    Desk::tell("tf-vm", async |desk, terraform| {
        terraform.apply(&machine(PLAIN))?;
        let address = "holdfast_virtual_machine.web";
        let first = terraform.values(address)?;
        assert_eq!((&first["node_name"], &first["run_strategy"]), (&json!("a"), &json!("Always")));

        // The same in another spelling changes nothing.
        let spelled = machine(&PLAIN.replace("1Gi", "1024Mi"));
        assert_eq!(terraform.planned(&spelled)?[address], ["no-op"]);

        for more in [
            "  labels = { a = \"b\" }",
            "  run_strategy = \"RerunOnFailure\"",
            "  paused = true",
            "  restart_request = \"one\"",
            "  termination_grace_period_seconds = 5",
            "  timeouts = { update = \"5m\" }",
            "  on_user_data_change = \"replace\"",
            "",
        ] {
            terraform.apply(&machine(&format!("{PLAIN}\n{more}"))).with_context(|| more.to_owned())?;
        }
        terraform.apply(&machine(&PLAIN.replace("cpu = 1", "cpu = 2")))?;
        let second = terraform.values(address)?;
        assert_eq!((&second["uid"], &second["cpu"]), (&first["uid"], &json!(2)), "it was changed in place");

        let bios = machine(&format!("{PLAIN}\n  firmware = \"BIOS\""));
        assert_eq!(terraform.planned(&bios)?[address], ["delete", "create"]);

        terraform.configure(&machine(PLAIN))?;
        terraform.succeed(&["apply", "-auto-approve"])?;
        terraform.succeed(&["state", "rm", address])?;
        terraform.succeed(&["import", address, "default/web"])?;
        terraform.must_be_settled().context("after an import")?;

        terraform.apply(&machine(&format!("{PLAIN}\n  deletion_protection = true")))?;
        let refused = terraform.fail(&["destroy", "-auto-approve"])?;
        assert!(refused.contains("must not be deleted while deletion_protection is true"), "{refused}");
        terraform.configure("")?;
        let refused = terraform.fail(&["plan"])?;
        assert!(refused.contains("Object is protected VirtualMachine default/web"), "{refused}");
        terraform.apply(&machine(PLAIN))?;
        terraform.succeed(&["destroy", "-auto-approve"])?;
        assert!(desk.machines().get_opt("web").await?.is_none());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn write_only_user_data_is_in_a_secret_and_nowhere_else() -> Result<()> {
    Desk::tell("tf-secret", async |desk, terraform| {
        terraform.set("TF_VAR_secret", "canary-4711");
        let with = |version: u32| {
            let cloud_init = format!("{{ user_data_wo = var.secret, user_data_wo_version = {version} }}");
            let more = format!(
                "  cpu = 1\n  memory = \"1Gi\"\n  cloud_init = {cloud_init}\n  on_user_data_change = \"reboot\""
            );
            format!("variable \"secret\" {{\n  type = string\n  ephemeral = true\n}}\n{}", machine(&more))
        };
        terraform.apply(&with(1))?;
        let secrets: Api<Secret> = Api::namespaced(desk.admin.clone(), "default");
        let held = secrets.get("web-cloud-init").await?.data.unwrap_or_default();
        assert_eq!(held["user-data"].0, b"canary-4711");
        let vm = desk.machines().get("web").await?;
        assert_eq!(vm.spec.cloud_init.user_data_secret.context("no reference")?.name, "web-cloud-init");

        terraform.set("TF_VAR_secret", "canary-4712");
        terraform.must_be_settled().context("only the version triggers")?;
        terraform.apply(&with(2))?;
        let vm = desk.machines().get("web").await?;
        assert_eq!((vm.spec.cloud_init.reseed.as_str(), vm.spec.restart_request.as_str()), ("tf-v2", "tf-v2"));
        let held = secrets.get("web-cloud-init").await?.data.unwrap_or_default();
        assert_eq!(held["user-data"].0, b"canary-4712");

        terraform.succeed(&["plan", "-out=saved.plan"])?;
        let shown =
            terraform.succeed(&["show", "-json"])? + &terraform.succeed(&["show", "-json", "saved.plan"])?;
        assert!(!(terraform.everything()? + &shown).contains("canary"), "a secret is in plan or state");
        let trace = terraform.command(&["plan"]).env("TF_LOG_PROVIDER", "TRACE").output()?;
        assert!(!holdfast_tests::terraform::said(&trace).contains("canary"), "a secret is in the log");

        nothing_of_somebody_else_is_overwritten(desk, terraform, &secrets, &with(3)).await?;
        terraform.succeed(&["destroy", "-auto-approve"])?;
        assert!(secrets.get_opt("web-cloud-init").await?.is_none());
        Ok(())
    })
    .await
}

/// An update checks the machine's UID and the Secret's label before it writes either, and both writes carry the UID.
async fn nothing_of_somebody_else_is_overwritten(
    desk: &Desk,
    terraform: &mut Workspace,
    secrets: &Api<Secret>,
    changed: &str,
) -> Result<()> {
    let held = async || {
        anyhow::Ok(secrets.get("web-cloud-init").await?.data.unwrap_or_default()["user-data"].clone())
    };
    let relabel = async |label: &str| {
        let patch = json!({"metadata": {"labels": {"terraform.holdfast.dev/virtual-machine": label}}});
        secrets.patch("web-cloud-init", &PatchParams::default(), &Patch::Merge(patch)).await
    };
    terraform.set("TF_VAR_secret", "canary-4713");
    terraform.configure(changed)?;
    relabel("of-another").await?;
    let refused = terraform.fail(&["apply", "-auto-approve"])?;
    assert!(refused.contains("exists already and is of another maker"), "{refused}");
    assert_eq!(held().await?.0, b"canary-4712");
    assert_eq!(desk.machines().get("web").await?.spec.restart_request, "tf-v2");

    // The name has another machine since the plan, and the Secret is that one's.
    relabel("web").await?;
    terraform.succeed(&["plan", "-out=saved.plan"])?;
    let vm = desk.machines().get("web").await?;
    desk.machines().delete("web", &DeleteParams::default()).await?;
    let gone = async || Ok(desk.machines().get_opt("web").await?.is_none().then_some(()));
    wait(&desk.office, "the end of the machine", gone).await?;
    let other = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "VirtualMachine", "metadata": {"name": "web"}, "spec": vm.spec,
    });
    let other = desk.machines().create(&PostParams::default(), &serde_json::from_value(other)?).await?;
    let refused = terraform.fail(&["apply", "saved.plan"])?;
    assert!(refused.contains("Another object has the name of VirtualMachine default/web"), "{refused}");
    assert_eq!(held().await?.0, b"canary-4712");
    assert_eq!(desk.machines().get("web").await?.metadata.uid, other.metadata.uid);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_to_objects_is_told_or_left_alone() -> Result<()> {
    Desk::tell("tf-others", async |desk, terraform| {
        let with = |text: &str| key(&format!("  public_key = \"{text}\""));
        terraform.apply(&with(KEY))?;

        // Another manager takes the field: a change of ours names it, and force takes it back.
        let body =
            json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "SSHKey", "spec": {"publicKey": OTHER}});
        let params = PatchParams::apply("somebody").force();
        desk.keys().patch("alice", &params, &Patch::Apply(&body)).await?;
        let refused = terraform.fail(&["apply", "-auto-approve"])?;
        assert!(refused.contains("Another manager owns a field"), "{refused}");
        assert!(refused.contains("somebody") && refused.contains("force_conflicts"), "{refused}");
        let forced = "provider \"holdfast\" {\n  force_conflicts = true\n}\n";
        terraform.apply(&format!("{forced}{}", with(KEY)))?;

        // Deleted elsewhere: made again.
        desk.keys().delete("alice", &DeleteParams::default()).await?;
        assert_eq!(terraform.planned(&with(KEY))?["holdfast_ssh_key.alice"], ["create"]);
        terraform.apply(&with(KEY))?;

        // A machine that never gets ready is in the state, and the error says what it waits for.
        let lost = lost_machine("  timeouts = { create = \"5s\" }");
        terraform.configure(&lost)?;
        let late = terraform.fail(&["apply", "-auto-approve"])?;
        assert!(late.contains("is not ready in time") && late.contains("Ready is False"), "{late}");
        assert_eq!(terraform.values("holdfast_virtual_machine.web")?["name"], "web");
        terraform.succeed(&["destroy", "-auto-approve"])?;

        let left = desk.machines().list(&ListParams::default()).await?;
        assert!(left.iter().map(ResourceExt::name_any).next().is_none());

        let nowhere =
            format!("provider \"holdfast\" {{\n  config_context = \"elsewhere\"\n}}\n{}", with(KEY));
        terraform.configure(&nowhere)?;
        let said = terraform.fail(&["apply", "-auto-approve"])?;
        assert!(said.contains("the kubeconfig has no context elsewhere; it has: holdfast"), "{said}");
        Ok(())
    })
    .await
}

/// The managers that own a part of the spec, as the server keeps them.
fn writers_of_the_spec(object: &impl ResourceExt) -> Vec<String> {
    let entries = object.managed_fields().iter();
    let of_spec = entries.filter(|it| it.fields_v1.as_ref().is_some_and(|it| it.0.get("f:spec").is_some()));
    of_spec.filter_map(|it| it.manager.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_5_nothing_on_the_server_rewrites_what_a_user_sets() -> Result<()> {
    Desk::tell("tf-rule-5", async |desk, terraform| {
        terraform.apply(&machine(PLAIN))?;
        terraform.apply(&machine(&PLAIN.replace("cpu = 1", "cpu = 2")))?;
        let ours = ["terraform-provider-holdfast"];
        assert_eq!(writers_of_the_spec(&desk.machines().get("web").await?), ours);
        assert_eq!(writers_of_the_spec(&desk.keys().get("alice").await?), ours);
        let webhooks: Api<MutatingWebhookConfiguration> = Api::all(desk.admin.clone());
        assert!(webhooks.list(&ListParams::default()).await?.items.is_empty());
        terraform.succeed(&["destroy", "-auto-approve"])?;
        Ok(())
    })
    .await
}
