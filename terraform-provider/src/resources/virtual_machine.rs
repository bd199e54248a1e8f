//! `holdfast_virtual_machine`: a guest, from its disks to the address it gets.
//!
//! What only the provider knows of it: write-only user data (it lies in a Secret of ours beside the machine), what a
//! change of user data shall do, which interfaces an address is waited for.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_api as api;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use kube::ResourceExt;
use kube::api::{ApiResource, DynamicObject};
use serde_json::{Value as Json, json};

use super::cluster::{self, Cluster, Create, Error, Patience, Target};
use super::effect::Effect;
use super::field::{Absent, Field, Fields, Form, named};
use super::kind::{Decision, Kind, Writing, set, text};
use super::rules::address_rules;
use super::timeouts::Times;
use super::unread::unread;
use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::path::Path;
use crate::plugin::provider::async_trait;
use crate::plugin::value::Value;

/// The kind.
pub(crate) struct VirtualMachine;

/// What a change of user data does.
const ON_CHANGE: &str = "on_user_data_change";
/// The two texts that cloud-init reads: attribute, key in our Secret, annotation with the version.
const TEXTS: [(&str, &str, &str); 2] = [
    ("user_data", "user-data", "terraform.holdfast.dev/user-data-version"),
    ("network_data", "network-data", "terraform.holdfast.dev/network-data-version"),
];
/// Hexadecimal digits of a digest that tell two texts apart.
const MARK: usize = 12;

#[async_trait]
impl Kind for VirtualMachine {
    const NAME: &'static str = "virtual_machine";
    // The image is fetched within the first hour.
    const TIMES: Times = Times::minutes(60, 60, 10);
    const NAMES_A_HOST: bool = true;
    const LOSES: Option<&'static str> = Some("its disks are deleted with all that the guest has written");

    fn crd() -> CustomResourceDefinition {
        api::VirtualMachine::crd()
    }

    fn resource() -> ApiResource {
        ApiResource::erase::<api::VirtualMachine>(&())
    }

    fn unread(object: &DynamicObject) -> Diagnostics {
        unread::<api::VirtualMachine>(object)
    }

    fn about() -> &'static str {
        "A virtual machine: made from a cloud image, configured by cloud-init, run under KVM on one node. It is there \
         when it runs, or is halted, as configured."
    }

    fn adjust(fields: &mut Fields) {
        let words = ["ignore", "reboot", "replace"].map(str::to_owned).to_vec();
        let on_change = "What a change of user data does: `ignore` (default; the guest keeps what it has), `reboot` (it \
                         restarts and cloud-init runs again), `replace`.";
        for field in &mut fields.spec {
            match (field.attribute.as_str(), &mut field.form) {
                ("restart_request", _) => field.absent = Absent::Kept,
                ("cloud_init", Form::Object(inner)) => adjust_cloud_init(inner),
                ("interfaces", Form::List(element)) => {
                    if let Form::Object(inner) = &mut **element {
                        let text = "Wait until the guest has an address here; link-local ones do not count. Default false.";
                        inner.push(Field::own("wait_for_address", Form::Flag, text));
                    }
                }
                _ => {}
            }
        }
        fields.spec.push(Field::own(ON_CHANGE, Form::Text(words), on_change).defaulting("ignore"));
    }

    fn lifted() -> &'static [(&'static str, &'static str)] {
        &[
            ("address", "First address of the guest that is not link-local."),
            ("node_name", "Node that holds the virtual machine."),
        ]
    }

    fn lift(name: &str, status: &Value) -> Value {
        match name {
            "address" => addresses(status).first().map(|(_, ip)| ip.clone()).into(),
            name => status.attribute(name).clone(),
        }
    }

    fn is_kept(name: &str, prior: &Value, planned: &Value) -> bool {
        // It moves to another node by replacement alone. Whatever starts it anew may bring another address.
        let starts = ["interfaces", "cloud_init", "restart_request", "run_strategy", "paused"];
        name == "node_name" || starts.iter().all(|it| prior.attribute(it) == planned.attribute(it))
    }

    fn effects() -> &'static [(&'static str, Effect)] {
        &[
            ("`cloud_init.reseed`", Effect::Start),
            ("`interfaces[].wait_for_address`", Effect::Local),
            ("another `image` of a disk", Effect::Replace),
            ("another first disk", Effect::Replace),
            ("`placement` before it is on a node", Effect::Live),
            ("`placement` once it is on one", Effect::Replace),
            ("user or network data under `on_user_data_change = \"replace\"`", Effect::Replace),
            (
                "user or network data under `on_user_data_change = \"reboot\"` (restarts the guest)",
                Effect::Live,
            ),
            ("a smaller `size` of a disk", Effect::Refused),
            ("destroying or replacing it while `deletion_protection` is true", Effect::Refused),
        ]
    }

    fn validate(config: &Value, diagnostics: &mut Diagnostics) {
        for list in ["disks", "interfaces"] {
            refuse_twins(config, list, diagnostics);
        }
        validate_disks(config, diagnostics);
        address_rules(config, diagnostics);
        validate_cloud_init(config.attribute("cloud_init"), diagnostics);
    }

    fn decide(prior: &Value, config: &Value, decision: &mut Decision) {
        if prior.is_null() {
            return;
        }
        decision.replace.extend(replaced_disks(prior, &decision.planned));
        refuse_shrinking(prior, decision);
        if prior.attribute("node_name") != &Value::Null
            && !same_placement(prior.attribute("placement"), decision.planned.attribute("placement"))
        {
            decision.replace.push(Path::of("placement"));
        }
        let changed = changed_data(prior.attribute("cloud_init"), decision.planned.attribute("cloud_init"));
        let Some((attribute, mark)) = changed else { return };
        let on_change = decision.planned.attribute(ON_CHANGE);
        match text(on_change).as_str() {
            "replace" => decision.replace.push(Path::of("cloud_init").attribute(&attribute)),
            "reboot" => remake(config, decision, &mark),
            // A plan that may come to be another action is refused by the host, as an error of ours.
            _ if !on_change.is_known() => {
                let detail = format!(
                    "{attribute} changes, and whether that replaces the guest must stand in the plan. Give \
                     {ON_CHANGE} a value that is known when planning, or apply first what its value comes from (-target)."
                );
                let at = Path::of(ON_CHANGE);
                decision.diagnostics.error(at, "Effect of new user data is not known", detail);
            }
            _ => {
                let detail = "The running guest keeps the data it has: cloud-init runs once. Set on_user_data_change to \
                              reboot or replace to bring the change into the guest.";
                let at = Path::of("cloud_init").attribute(&attribute);
                decision.diagnostics.warning(at, "Guest is not configured anew", detail);
            }
        }
    }

    fn dress(planned: &Value, body: &mut Json) {
        let cloud_init = planned.attribute("cloud_init");
        let secret = secret_name(&text(planned.attribute("name")));
        for (attribute, key, annotation) in TEXTS {
            if let Some(version) = version(cloud_init, attribute) {
                let field = if attribute == "user_data" { "userDataSecret" } else { "networkDataSecret" };
                body["spec"]["cloudInit"][field] = json!({"name": secret, "key": key});
                body["metadata"]["annotations"][annotation] = version.into();
            }
        }
    }

    fn undress(object: &DynamicObject, live: &mut Value) {
        let ours = Value::from(secret_name(&object.name_any()));
        for (attribute, _, annotation) in TEXTS {
            let secret = format!("{attribute}_secret");
            let named = live.attribute("cloud_init").attribute(&secret).attribute("name") == &ours;
            let version = object.annotations().get(annotation).and_then(|it| it.parse::<i64>().ok());
            if let (true, Some(version)) = (named, version) {
                set(live, &["cloud_init", &secret], Value::Null);
                set(live, &["cloud_init", &format!("{attribute}_wo_version")], version.into());
            }
        }
    }

    fn is_protected(state: &Value) -> bool {
        state.attribute("deletion_protection") == &Value::Bool(true)
    }

    fn missing(planned: &Value, object: &DynamicObject) -> Option<String> {
        let halted = planned.attribute("run_strategy") == &Value::from("Halted")
            || planned.attribute("paused") == &Value::Bool(true);
        let Value::List(interfaces) = planned.attribute("interfaces") else { return None };
        let seen = object.data.get("status").and_then(|it| it.get("addresses"));
        let seen = seen.and_then(Json::as_array).into_iter().flatten();
        let seen: Vec<_> = seen
            .filter(|it| it["ip"].as_str().is_some_and(|ip| !is_link_local(ip)))
            .filter_map(|it| it["interface"].as_str())
            .collect();
        let waited = interfaces.iter().filter(|it| it.attribute("wait_for_address") == &Value::Bool(true));
        let names = waited.map(|it| text(it.attribute("name")));
        let missing: Vec<_> = names.filter(|name| !halted && !seen.contains(&name.as_str())).collect();
        (!missing.is_empty()).then(|| format!("No address was seen at interface {}.", missing.join(", ")))
    }

    async fn prepare(cluster: &Cluster, writing: Writing<'_>) -> Result<(), Error> {
        let Writing { target, prior, config, planned, patience } = writing;
        let before = prior.attribute("cloud_init");
        let now = planned.attribute("cloud_init");
        let versions = |cloud_init: &Value| TEXTS.map(|(attribute, _, _)| version(cloud_init, attribute));
        if versions(before) == versions(now) {
            return Ok(());
        }
        if versions(now).iter().all(Option::is_none) {
            return Ok(());
        }
        // The name may have another machine now, and then the Secret is that one's.
        if let Value::String(uid) = prior.attribute("uid") {
            match patience.with(cluster.get(target)).await?? {
                Some(machine) if machine.uid().as_ref() == Some(uid) => {}
                Some(_) => return Err(Error::Replaced),
                None => return Err(Error::Deleted),
            }
        }
        let secret = secret(target);
        let mut body = cluster::body(&secret, &owner_label(target), &std::collections::BTreeMap::new());
        for (attribute, key, _) in TEXTS {
            let given = config.attribute("cloud_init").attribute(&format!("{attribute}_wo"));
            if let Value::String(given) = given {
                body["data"][key] = STANDARD.encode(given).into();
            }
        }
        write_beside(cluster, target, &secret, &body, patience).await
    }

    fn is_left(prior: &Value, planned: &Value) -> bool {
        has_secret(prior) && !has_secret(planned)
    }

    async fn clear(
        cluster: &Cluster,
        target: &Target,
        state: &Value,
        patience: Patience<'_>,
    ) -> Result<(), Error> {
        if !has_secret(state) {
            return Ok(());
        }
        let secret = secret(target);
        let found = patience.with(cluster.get(&secret)).await??;
        let Some(uid) = found.filter(|it| is_ours(it, target)).and_then(|it| it.uid()) else { return Ok(()) };
        match cluster.delete(&secret, Some(&uid), patience).await {
            // Another has its name since then: what was ours is gone.
            Ok(()) | Err(Error::Replaced) => cluster.until_gone(&secret, Some(&uid), patience).await,
            Err(error) => Err(error),
        }
    }
}

/// Writes the Secret of a machine: makes it, or changes the very one that was seen to be ours. It may be left of a machine
/// that was deleted past us, or of an apply that was cut short. One of another maker stays as it is.
async fn write_beside(
    cluster: &Cluster,
    target: &Target,
    secret: &Target,
    body: &Json,
    patience: Patience<'_>,
) -> Result<(), Error> {
    loop {
        let found = patience.with(cluster.get(secret)).await??;
        let written = match found.filter(|it| it.metadata.deletion_timestamp.is_none()) {
            None => cluster.create(secret, body.clone(), &Create::fresh(), patience).await,
            Some(it) if !is_ours(&it, target) => return Err(Error::Beside(Box::new(secret.clone()))),
            Some(it) => cluster.update(secret, &it.uid().unwrap_or_default(), body.clone(), patience).await,
        };
        match written {
            // Somebody was there between the two questions.
            Err(Error::Exists | Error::Deleted | Error::Replaced) => {}
            written => return written.map(drop),
        }
    }
}

fn is_ours(object: &DynamicObject, target: &Target) -> bool {
    owner_label(target).iter().all(|(key, name)| object.labels().get(key) == Some(name))
}

fn adjust_cloud_init(fields: &mut Vec<Field>) {
    for field in fields.iter_mut().filter(|field| field.attribute == "reseed") {
        field.absent = Absent::Kept;
    }
    for (attribute, _, _) in TEXTS {
        let what = attribute.replace('_', "-");
        let hidden = format!(
            "The {what} as a secret: in no plan and no state. It goes into a Secret that this resource owns. Needs \
             Terraform or OpenTofu 1.11, and `{attribute}_wo_version`."
        );
        let version = format!("A change writes `{attribute}_wo` anew; nothing else does.");
        fields.push(Field::own(&format!("{attribute}_wo"), Form::Text(Vec::new()), &hidden).hidden());
        fields.push(Field::own(&format!("{attribute}_wo_version"), Form::Whole, &version));
    }
}

fn refuse_twins(config: &Value, list: &str, diagnostics: &mut Diagnostics) {
    let Value::List(elements) = config.attribute(list) else { return };
    for (index, element) in elements.iter().enumerate() {
        let name = element.attribute("name");
        let known = name.is_known() && !name.is_null();
        if known && elements[..index].iter().any(|it| it.attribute("name") == name) {
            let at = Path::of(list).index(index).attribute("name");
            let detail = format!("{at} is the name of an earlier element. Each needs a name of its own.");
            diagnostics.error(at, "Name stands there twice", detail);
        }
    }
}

fn validate_disks(config: &Value, diagnostics: &mut Diagnostics) {
    let Value::List(disks) = config.attribute("disks") else { return };
    for (index, disk) in disks.iter().enumerate().filter(|(_, disk)| disk.is_known()) {
        let (image, blank) = (disk.attribute("image"), disk.attribute("blank"));
        let is_blank = blank == &Value::Bool(true);
        if blank.is_known() && image.is_known() && image.is_null() != is_blank {
            let detail = "A disk starts as an image or blank. Set image, or blank = true, and not both.";
            diagnostics.error(Path::of("disks").index(index), "Disk without exactly one source", detail);
        }
    }
}

fn validate_cloud_init(cloud_init: &Value, diagnostics: &mut Diagnostics) {
    let at = Path::of("cloud_init");
    for (attribute, _, _) in TEXTS {
        let [wo, version, secret] =
            ["_wo", "_wo_version", "_secret"].map(|ending| format!("{attribute}{ending}"));
        let set = [attribute, &wo, &secret].map(|name| !cloud_init.attribute(name).is_null());
        if set.iter().filter(|set| **set).count() > 1 {
            let detail =
                format!("At most one of {attribute}, {wo} and {secret} can be set. Keep one of them.");
            diagnostics.error(at.attribute(attribute), "Contradictory data", detail);
        }
        if cloud_init.attribute(&wo).is_null() != cloud_init.attribute(&version).is_null() {
            let detail = format!(
                "{wo} and {version} belong together: only a change of the version writes the data. Set both or none."
            );
            diagnostics.error(at.attribute(&version), "Write-only data without its version", detail);
        }
    }
}

/// The guest has written to a disk: another source means another machine. What is not known yet may come to be one.
fn replaced_disks(prior: &Value, planned: &Value) -> Vec<Path> {
    let at = Path::of("disks");
    let (before, now) = match (prior.attribute("disks"), planned.attribute("disks")) {
        (Value::List(before), Value::List(now)) => (before, now),
        (Value::List(_), Value::Unknown(_)) => return vec![at],
        _ => return Vec::new(),
    };
    let other_source = now.iter().enumerate().filter(|(_, disk)| {
        let name = disk.attribute("name");
        let may_be = |before: &&Value| match name {
            Value::Unknown(_) => named(now, before).is_none(),
            name => name == before.attribute("name"),
        };
        before.iter().filter(may_be).any(|before| before.attribute("image") != disk.attribute("image"))
    });
    let mut paths: Vec<_> = other_source.map(|(index, _)| at.index(index).attribute("image")).collect();
    let boot = |disks: &[Value]| disks.first().map(|disk| disk.attribute("name").clone());
    if boot(before) != boot(now) {
        paths.push(at.index(0).attribute("name"));
    }
    paths
}

fn refuse_shrinking(prior: &Value, decision: &mut Decision) {
    let (Value::List(before), Value::List(now)) =
        (prior.attribute("disks"), decision.planned.attribute("disks"))
    else {
        return;
    };
    let bytes = |disk: &Value| api::Quantity(text(disk.attribute("size"))).bytes().ok();
    let shrunk = now.iter().enumerate().filter(|(_, disk)| {
        let before = named(before, disk).and_then(bytes);
        matches!((before, bytes(disk)), (Some(before), Some(now)) if now < before)
    });
    let paths: Vec<_> = shrunk.map(|(index, _)| Path::of("disks").index(index).attribute("size")).collect();
    for at in paths.into_iter().filter(|_| decision.replace.is_empty()) {
        let detail = "A disk cannot shrink, because that would cut off what the guest has stored. Keep its size, or add \
                      a smaller disk with another name.";
        decision.diagnostics.error(at, "Disk would shrink", detail);
    }
}

fn same_placement(one: &Value, other: &Value) -> bool {
    let says = |value: &Value, name: &str| match value.attribute(name) {
        empty if super::field::is_empty(empty) => None,
        said => Some(said.clone()),
    };
    ["node_name", "node_selector"].iter().all(|name| says(one, name) == says(other, name))
}

/// Another first boot, by values that are new because of the change; what the configuration says stands.
fn remake(config: &Value, decision: &mut Decision, mark: &Value) {
    for path in [&["cloud_init", "reseed"][..], &["restart_request"]] {
        let configured = path.iter().fold(config, |value, name| value.attribute(name));
        if configured.is_null() {
            decision.set(path, mark.clone());
        }
    }
}

/// Which data changed, and a value that is new because of it.
fn changed_data(before: &Value, now: &Value) -> Option<(String, Value)> {
    TEXTS.iter().find_map(|(attribute, _, _)| {
        let version = format!("{attribute}_wo_version");
        let (text, secret) = (now.attribute(attribute), format!("{attribute}_secret"));
        if before.attribute(&version) != now.attribute(&version) {
            let mark = match now.attribute(&version) {
                Value::Number(number) => format!("tf-v{number}").into(),
                Value::Unknown(_) => Value::UNKNOWN,
                _ => mark(""),
            };
            return Some((version, mark));
        }
        if before.attribute(attribute) != text {
            let mark = match text {
                Value::String(text) => mark(text),
                Value::Unknown(_) => Value::UNKNOWN,
                _ => mark(""),
            };
            return Some(((*attribute).to_owned(), mark));
        }
        let named = now.attribute(&secret);
        (before.attribute(&secret) != named).then(|| {
            let part = |name| super::kind::text(named.attribute(name));
            let known = named.is_wholly_known();
            let mark =
                if known { mark(&format!("{}/{}", part("name"), part("key"))) } else { Value::UNKNOWN };
            (secret, mark)
        })
    })
}

/// The beginning of a digest.
fn mark(text: &str) -> Value {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let number =
        digest.as_ref().iter().take(MARK / 2).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("tf-{number:0MARK$x}").into()
}

fn version(cloud_init: &Value, attribute: &str) -> Option<String> {
    match cloud_init.attribute(&format!("{attribute}_wo_version")) {
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn addresses(status: &Value) -> Vec<(String, Value)> {
    let Value::List(addresses) = status.attribute("addresses") else { return Vec::new() };
    let usable = addresses.iter().filter(|it| !is_link_local(&text(it.attribute("ip"))));
    usable.map(|it| (text(it.attribute("interface")), it.attribute("ip").clone())).collect()
}

fn is_link_local(ip: &str) -> bool {
    match ip.parse() {
        Ok(IpAddr::V4(ip)) => ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_unicast_link_local(),
        Err(_) => false,
    }
}

fn has_secret(state: &Value) -> bool {
    TEXTS.iter().any(|(attribute, _, _)| version(state.attribute("cloud_init"), attribute).is_some())
}

/// The Secret with write-only data of a machine.
fn secret_name(machine: &str) -> String {
    format!("{machine}-cloud-init")
}

fn secret(target: &Target) -> Target {
    let kind = ApiResource::erase::<k8s_openapi::api::core::v1::Secret>(&());
    Target { kind, namespace: target.namespace.clone(), name: secret_name(&target.name) }
}

fn owner_label(target: &Target) -> std::collections::BTreeMap<String, String> {
    [("terraform.holdfast.dev/virtual-machine".to_owned(), target.name.clone())].into()
}

#[cfg(test)]
#[path = "virtual_machine_tests.rs"]
mod tests;
