//! Ways to bend objects: generated from what stands in an object, one for each field.

use anyhow::{Context, Result, ensure};
use holdfast_api::names::{SYSTEM_NAMESPACE, node_lease, own_grant, vms_grant};
use holdfast_api::{
    HypervisorNode, NodeEnrolment, SSHKey, VirtualMachine, VirtualMachineImage, VirtualMachineNetwork,
};
use holdfast_client::Raw;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::at;

/// The API of a kind, whose objects are taken as they are.
pub(crate) fn raw<K: Resource<DynamicType = ()>>(client: &Client, namespace: Option<&str>) -> Api<Raw> {
    of(client, &ApiResource::erase::<K>(&()), namespace)
}

fn of(client: &Client, kind: &ApiResource, namespace: Option<&str>) -> Api<Raw> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        None => Api::all_with(client.clone(), kind),
    }
}

/// One bent field of one object.
pub(crate) struct Bend {
    /// The kind's name.
    pub(crate) kind: String,
    /// Whether nobody can read it: the book-keeping of apply is left out, and a large annotation is only large.
    pub(crate) shows: bool,
    resource: ApiResource,
    namespace: Option<String>,
    name: String,
    way: Vec<String>,
    value: Value,
}

impl Bend {
    /// Whether it still says what was written, as nobody may write over what he cannot read.
    pub(crate) async fn stands(&self, client: &Client) -> Result<()> {
        if !self.shows {
            return Ok(());
        }
        let object = of(client, &self.resource, self.namespace.as_deref()).get(&self.name).await;
        let object = object.with_context(|| format!("{} {} is gone", self.kind, self.name))?;
        let found = at(object.value(), &self.way);
        // What others say stands among the conditions wherever it likes.
        let said = object.value()["status"]["conditions"].as_array().into_iter().flatten();
        let among = self.way.len() == 4
            && self.way[1] == "conditions"
            && said.into_iter().any(|condition| condition[&self.way[3]] == self.value);
        ensure!(among || *found == self.value, "{} {} {:?} says {found}", self.kind, self.name, self.way);
        Ok(())
    }
}

/// The kinds as they were, while anything at all can be written into their objects, as a newer version might.
pub(crate) struct Kinds(Vec<(String, Value)>);

impl Kinds {
    /// Takes the schemas of our kinds off.
    pub(crate) async fn relax(client: &Client) -> Result<Self> {
        let crds = raw::<CustomResourceDefinition>(client, None);
        let mut kept = Vec::new();
        for crd in crds.list(&ListParams::default()).await.context("could not list kinds")? {
            if !crd.name_any().ends_with(".holdfast.dev") {
                continue;
            }
            let schema = crd.value()["spec"]["versions"][0]["schema"].clone();
            Self::set(&crds, &crd.name_any(), &json!({"openAPIV3Schema": anything()})).await?;
            kept.push((crd.name_any(), schema));
        }
        Ok(Self(kept))
    }

    /// Puts them back; what was written stays.
    pub(crate) async fn restore(self, client: &Client) -> Result<()> {
        let crds = raw::<CustomResourceDefinition>(client, None);
        for (name, schema) in &self.0 {
            Self::set(&crds, name, schema).await?;
        }
        Ok(())
    }

    async fn set(crds: &Api<Raw>, name: &str, schema: &Value) -> Result<()> {
        let mut crd = crds.get(name).await.context("could not read a kind")?.value().clone();
        crd["spec"]["versions"][0]["schema"] = schema.clone();
        crds.replace(name, &PostParams::default(), &Raw::new(crd)).await.context("could not write a kind")?;
        // The API server takes a moment to go by it.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        Ok(())
    }
}

/// A schema of which only that is left on which apply and field selectors stand.
fn anything() -> Value {
    let any = |properties: &Value| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": properties});
    let text = json!({"type": "string"});
    let mut condition = any(&json!({"type": text}));
    condition["required"] = json!(["type"]);
    let conditions = json!({"type": "array", "items": condition, "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"]});
    let status = any(&json!({"nodeName": text, "conditions": conditions}));
    any(&json!({"spec": any(&json!({})), "status": status}))
}

/// Bends every kind that is watched, everything in the objects of ours, and what can be bent in those of others. Returns
/// what was bent, and in words what the API server refused.
pub(crate) async fn bend_all(client: &Client, namespace: &str) -> Result<(Vec<Bend>, Vec<String>)> {
    let (mut done, mut refused) = (Vec::new(), Vec::new());
    for (resource, namespace, object) in templates(namespace) {
        for (number, (way, value)) in ways(&object).into_iter().enumerate() {
            let name = format!("bent-{number}");
            let kind = resource.kind.clone();
            let bend = Bend {
                kind,
                shows: true,
                resource: resource.clone(),
                namespace: namespace.clone(),
                name,
                way,
                value,
            };
            match make(client, &object, &bend).await {
                Ok(()) => done.push(bend),
                Err(error) => {
                    refused.push(format!("{} {:?} as {}: {error:#}", bend.kind, bend.way, bend.value));
                }
            }
        }
    }
    for (resource, namespace, name) in standing(client, namespace).await? {
        for patch in
            [book_keeping(&resource), json!({"metadata": {"annotations": {"large": "x".repeat(250_000)}}})]
        {
            let api = of(client, &resource, namespace.as_deref());
            match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => done.push(Bend {
                    kind: resource.kind.clone(),
                    shows: false,
                    resource: resource.clone(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                    way: Vec::new(),
                    value: Value::Null,
                }),
                Err(error) => refused.push(format!("{} {name}: {error}", resource.kind)),
            }
        }
    }
    live(client, namespace, &mut done).await?;
    for kind in [
        "VirtualMachine",
        "VirtualMachineImage",
        "VirtualMachineNetwork",
        "SSHKey",
        "HypervisorNode",
        "NodeEnrolment",
        "Lease",
        "Role",
        "RoleBinding",
        "ClusterRole",
        "ClusterRoleBinding",
        "CertificateSigningRequest",
    ] {
        ensure!(done.iter().any(|bend| bend.kind == kind), "no {kind} could be bent: {refused:#?}");
    }
    Ok((done, refused))
}

/// What is in use: a node and a virtual machine that runs on it.
async fn live(client: &Client, namespace: &str, done: &mut Vec<Bend>) -> Result<()> {
    let condition = json!({"type": "Bent", "status": "True", "reason": "Bent", "message": "",
        "lastTransitionTime": "2024-01-01T00:00:00+99:99"});
    let apply = PatchParams::apply("bender").force();
    for (resource, namespace, name) in [
        (ApiResource::erase::<HypervisorNode>(&()), None, "a"),
        (ApiResource::erase::<VirtualMachine>(&()), Some(namespace), "old"),
    ] {
        let api = of(client, &resource, namespace);
        let body = json!({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name},
            "status": {"conditions": [condition]}});
        api.patch_status(name, &apply, &Patch::Apply(&body)).await.context("could not bend a condition")?;
    }
    let (way, value) = (vec!["spec".to_owned(), "runStrategy".to_owned()], json!("OnFullMoon"));
    let resource = ApiResource::erase::<VirtualMachine>(&());
    let bend = Bend {
        kind: resource.kind.clone(),
        shows: true,
        resource,
        namespace: Some(namespace.to_owned()),
        name: "old".to_owned(),
        way,
        value,
    };
    write(client, &json!({}), &bend).await.context("could not bend old")?;
    done.push(bend);
    Ok(())
}

fn book_keeping(resource: &ApiResource) -> Value {
    let entry = json!({"manager": "bender", "operation": "Update", "apiVersion": resource.api_version,
        "time": "9999-12-31T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {}});
    json!({"metadata": {"managedFields": [entry]}})
}

type Place = (ApiResource, Option<String>, String);

/// Objects that our programs made or use.
async fn standing(client: &Client, namespace: &str) -> Result<Vec<Place>> {
    let here = || Some(namespace.to_owned());
    let mut places: Vec<Place> = vec![
        (ApiResource::erase::<VirtualMachine>(&()), here(), "old".to_owned()),
        (ApiResource::erase::<HypervisorNode>(&()), None, "a".to_owned()),
        (ApiResource::erase::<Lease>(&()), Some(SYSTEM_NAMESPACE.to_owned()), node_lease("a")),
        (ApiResource::erase::<Role>(&()), here(), vms_grant("a")),
        (ApiResource::erase::<RoleBinding>(&()), here(), vms_grant("a")),
        (ApiResource::erase::<ClusterRole>(&()), None, own_grant("a")),
        (ApiResource::erase::<ClusterRoleBinding>(&()), None, own_grant("a")),
    ];
    for resource in
        [ApiResource::erase::<NodeEnrolment>(&()), ApiResource::erase::<CertificateSigningRequest>(&())]
    {
        let all = of(client, &resource, None).list(&ListParams::default()).await.context("could not list")?;
        let name = all.items.first().context("there is none")?.name_any();
        places.push((resource, None, name));
    }
    Ok(places)
}

/// An object of each of our kinds, in which every field is to be bent.
fn templates(namespace: &str) -> Vec<(ApiResource, Option<String>, Value)> {
    let here = || Some(namespace.to_owned());
    // Of somebody else: what our programs say themselves they say again.
    let seen = json!([{"type": "Seen", "status": "True", "reason": "Up", "message": "up", "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let machine = json!({
        // Nowhere: while its size cannot be read, a node takes nothing more.
        "spec": {"cpu": 1, "memory": "64Mi", "runStrategy": "Halted", "placement": {"nodeSelector": {"no": "where"}},
            "firmware": "BIOS", "terminationGracePeriodSeconds": 1, "deletionProtection": false,
            "disks": [{"name": "root", "size": "1Mi", "blank": {}}],
            "cloudInit": {"hostname": "bent", "userDataSecret": {"name": "seed", "key": "user-data"}}},
        "status": {"observedGeneration": 1, "restartCount": 1, "printableStatus": "Stopped",
            "applied": {"cpu": 1, "memory": "64Mi"}, "addresses": [{"interface": "lan", "ip": "10.0.0.1", "source": "Lease"}]},
    });
    let node = json!({
        "spec": {"unschedulable": true, "cpuOvercommit": 4, "discard": ["u"]},
        "status": {"capacity": {"cpu": 1, "memory": "1Gi", "storage": "1Gi"}, "insecureDev": true,
            "accelerator": {"name": "tcg", "proved": false}, "virtualMachines": ["u"], "conditions": seen},
    });
    let image = json!({
        "spec": {"source": {"file": {"path": "/d"}}, "digest": format!("sha256:{:064}", 1), "format": "raw",
            "prefetch": {"nodeSelector": {"no": "where"}}},
        "status": {"observedGeneration": 1, "nodes": ["x"], "size": 7, "conditions": seen},
    });
    let request = json!({"spec": {"nodeName": "bent", "mode": "InsecureDev", "csr": "AAAA"},
        "status": {"certificate": "", "conditions": seen}});
    vec![
        (ApiResource::erase::<VirtualMachine>(&()), here(), machine),
        (ApiResource::erase::<HypervisorNode>(&()), None, node),
        (ApiResource::erase::<VirtualMachineImage>(&()), here(), image),
        (
            ApiResource::erase::<VirtualMachineNetwork>(&()),
            here(),
            json!({"spec": {"isolated": {}}, "status": {"conditions": seen}}),
        ),
        (
            ApiResource::erase::<SSHKey>(&()),
            here(),
            json!({"spec": {"publicKey": "ssh-ed25519 AAAA"}, "status": {"fingerprint": "x"}}),
        ),
        (ApiResource::erase::<NodeEnrolment>(&()), None, request),
    ]
}

/// For each field that holds a value, one that it must not hold: of another type, a time or a variant nobody knows, a
/// number beyond all bounds.
fn ways(object: &Value) -> Vec<(Vec<String>, Value)> {
    let mut ways = Vec::new();
    for part in ["spec", "status"] {
        walk(&object[part], &mut vec![part.to_owned()], &mut ways);
    }
    ways
}

fn walk(value: &Value, way: &mut Vec<String>, ways: &mut Vec<(Vec<String>, Value)>) {
    let mut within = |step: String, value: &Value| {
        way.push(step);
        walk(value, way, ways);
        way.pop();
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, value)| within(key.clone(), value));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(index, value)| within(index.to_string(), value));
        }
        Value::String(text) if text.ends_with('Z') && text.contains('T') => {
            ways.push((way.clone(), json!("2024-01-01T00:00:00+99:99")));
        }
        Value::String(text) if text.starts_with(char::is_uppercase) => {
            ways.push((way.clone(), json!("OnFullMoon")));
        }
        Value::String(_) => ways.push((way.clone(), json!(7))),
        Value::Number(_) => ways.push((way.clone(), json!(1e30))),
        Value::Bool(_) => ways.push((way.clone(), json!("perhaps"))),
        _ => ways.push((way.clone(), json!([true]))),
    }
}

/// Makes the object as it should be, then bends it.
async fn make(client: &Client, object: &Value, bend: &Bend) -> Result<()> {
    let body = json!({"apiVersion": bend.resource.api_version, "kind": bend.resource.kind,
        "metadata": {"name": bend.name}, "spec": object["spec"]});
    let api = of(client, &bend.resource, bend.namespace.as_deref());
    api.create(&PostParams::default(), &Raw::new(body)).await.context("not created")?;
    let status = Patch::Merge(json!({"status": object["status"]}));
    api.patch_status(&bend.name, &PatchParams::default(), &status).await.context("no status")?;
    write(client, object, bend).await
}

/// Writes the bent field.
async fn write(client: &Client, object: &Value, bend: &Bend) -> Result<()> {
    let mut whole = object.clone();
    let patch = patch(&mut whole, &bend.way, &bend.value);
    let api = of(client, &bend.resource, bend.namespace.as_deref());
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
    let written = match bend.way[0].as_str() {
        "status" => api.patch_status(&bend.name, &parameters, &patch).await,
        _ => api.patch(&bend.name, &parameters, &patch).await,
    };
    written.map(drop).context("refused")
}

/// A merge patch that sets one field; lists are written whole.
fn patch(place: &mut Value, way: &[String], value: &Value) -> Value {
    let Some((step, rest)) = way.split_first() else { return value.clone() };
    if rest.first().is_some_and(|next| next.parse::<usize>().is_ok()) {
        let mut list = place[step].clone();
        set(&mut list, rest, value);
        return json!({ step: list });
    }
    json!({ step: patch(&mut place[step], rest, value) })
}

fn set(place: &mut Value, way: &[String], value: &Value) {
    match way.split_first() {
        None => *place = value.clone(),
        Some((step, rest)) => match step.parse::<usize>() {
            Ok(index) => set(&mut place[index], rest, value),
            Err(_) => set(&mut place[step], rest, value),
        },
    }
}
