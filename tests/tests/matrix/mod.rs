//! Every verb on every kind and subresource the API server knows, tried by one identity, without leaving a trace.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow};
use futures::{StreamExt, stream};
use kube::core::discovery::{ApiCapabilities, ApiResource, Scope, verbs};
use kube::{Client, Discovery};
use serde_json::{Value, json};

/// Requests under way at once.
const AT_ONCE: usize = 8;
/// A name that no object has.
const NOBODY: &str = "nobody";

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Try {
    pub(crate) verb: &'static str,
    /// Such as `holdfast.dev/virtualmachines/status`; kinds of the core group begin with `/`.
    pub(crate) kind: String,
    /// Empty for cluster-scoped kinds, and for all namespaces at once.
    pub(crate) namespace: String,
    /// Empty where the verb is for a collection.
    pub(crate) name: String,
}

/// What the API server knows, and the objects to try on.
pub(crate) struct Matrix {
    tries: Vec<(Try, Request)>,
}

#[derive(Clone)]
struct Request {
    method: &'static str,
    path: String,
    body: Option<Value>,
}

struct Place<'a> {
    kind: String,
    base: String,
    namespace: &'a str,
    subresource: Option<&'a str>,
    operations: &'a [String],
    /// At least one; [`NOBODY`] where there is none.
    objects: BTreeMap<String, Value>,
}

impl Matrix {
    /// All tries in these namespaces, on all of them at once and on cluster-scoped kinds, on objects as the administrator
    /// sees them.
    pub(crate) async fn discover(admin: &Client, namespaces: &[&str]) -> Result<Self> {
        let discovery = Discovery::new(admin.clone()).run().await.context("could not discover")?;
        let mut tries = Vec::new();
        for group in discovery.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                let in_namespaces = capabilities.scope == Scope::Namespaced;
                for namespace in namespaces.iter().filter(|_| in_namespaces) {
                    visit(admin, &resource, &capabilities, namespace, &mut tries).await?;
                }
                if in_namespaces {
                    let read = |verb: &String| ["list", "watch"].contains(&verb.as_str());
                    let operations =
                        capabilities.operations.iter().filter(|verb| read(verb)).cloned().collect();
                    let everywhere = ApiCapabilities { operations, subresources: Vec::new(), ..capabilities };
                    visit(admin, &resource, &everywhere, "", &mut tries).await?;
                } else {
                    visit(admin, &resource, &capabilities, "", &mut tries).await?;
                }
            }
        }
        Ok(Self { tries })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.tries.len()
    }

    /// All of them.
    pub(crate) fn tries(&self) -> impl Iterator<Item = &Try> {
        self.tries.iter().map(|(attempt, _)| attempt)
    }

    /// Those that this identity may, among the kinds that `of_interest` picks.
    pub(crate) async fn allowed(
        &self,
        client: &Client,
        of_interest: impl Fn(&Try) -> bool,
    ) -> Result<BTreeSet<Try>> {
        let chosen = self.tries.iter().filter(|(attempt, _)| of_interest(attempt));
        let outcomes = stream::iter(chosen).map(async |(attempt, request)| {
            let allowed = passes(client, request).await.with_context(|| format!("{attempt:?}"))?;
            Ok::<_, anyhow::Error>(allowed.then(|| attempt.clone()))
        });
        let outcomes: Vec<_> = outcomes.buffer_unordered(AT_ONCE).collect().await;
        outcomes.into_iter().filter_map(Result::transpose).collect()
    }
}

/// Tries of one kind in one namespace; "" for none or all.
async fn visit(
    admin: &Client,
    resource: &ApiResource,
    capabilities: &ApiCapabilities,
    namespace: &str,
    onto: &mut Vec<(Try, Request)>,
) -> Result<()> {
    let root = match resource.group.as_str() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    let base = match namespace {
        "" => format!("{root}/{}", resource.plural),
        namespace => format!("{root}/namespaces/{namespace}/{}", resource.plural),
    };
    let kind = format!("{}/{}", resource.group, resource.plural);
    let mut objects = if capabilities.supports_operation(verbs::LIST) {
        objects(admin, &base, &resource.api_version, &resource.kind).await?
    } else {
        BTreeMap::new()
    };
    if objects.is_empty() {
        let nobody =
            json!({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": NOBODY}});
        objects.insert(NOBODY.to_owned(), nobody);
    }
    let place = |kind, subresource, operations| Place {
        kind,
        base: base.clone(),
        namespace,
        subresource,
        operations,
        objects: objects.clone(),
    };
    place(kind.clone(), None, &capabilities.operations).tries(onto);
    for (sub, theirs) in &capabilities.subresources {
        let name = sub.plural.rsplit('/').next().unwrap_or_default();
        place(format!("{kind}/{name}"), Some(name), &theirs.operations).tries(onto);
    }
    Ok(())
}

impl Place<'_> {
    fn tries(&self, onto: &mut Vec<(Try, Request)>) {
        let named = &self.objects;
        for verb in self.operations {
            match verb.as_str() {
                "list" => self.collection("list", "GET", "?limit=1", None, onto),
                "watch" => self.collection("watch", "GET", "?watch=1&timeoutSeconds=1", None, onto),
                "deletecollection" => {
                    self.collection("deletecollection", "DELETE", "?dryRun=All", None, onto);
                }
                "create" if self.subresource.is_none() => {
                    let body = named.values().next().map(fresh);
                    self.collection("create", "POST", "?dryRun=All", body, onto);
                }
                verb => named.iter().for_each(|(name, object)| self.named(verb, name, object, onto)),
            }
        }
    }

    fn collection(
        &self,
        verb: &'static str,
        method: &'static str,
        query: &str,
        body: Option<Value>,
        onto: &mut Vec<(Try, Request)>,
    ) {
        let request = Request { method, path: format!("{}{query}", self.base), body };
        onto.push((self.attempt(verb, ""), request));
    }

    fn named(&self, verb: &str, name: &str, object: &Value, onto: &mut Vec<(Try, Request)>) {
        let (verb, method, query, body) = match verb {
            "get" => ("get", "GET", "", None),
            "update" => ("update", "PUT", "?dryRun=All", Some(changed(object))),
            "patch" => ("patch", "PATCH", "?dryRun=All", Some(patch(&self.kind))),
            "delete" => ("delete", "DELETE", "?dryRun=All", None),
            "create" => ("create", "POST", "?dryRun=All", Some(json!({}))),
            _ => return,
        };
        let path = match self.subresource {
            Some(subresource) => format!("{}/{name}/{subresource}{query}", self.base),
            None => format!("{}/{name}{query}", self.base),
        };
        onto.push((self.attempt(verb, name), Request { method, path, body }));
    }

    fn attempt(&self, verb: &'static str, name: &str) -> Try {
        Try { verb, kind: self.kind.clone(), namespace: self.namespace.to_owned(), name: name.to_owned() }
    }
}

async fn objects(admin: &Client, base: &str, version: &str, kind: &str) -> Result<BTreeMap<String, Value>> {
    let request = axum::http::Request::get(base).body(Vec::new()).context("no request")?;
    let list: Value = admin.request(request).await.with_context(|| format!("could not list {base}"))?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let whole = items.into_iter().map(|mut item| {
        item["apiVersion"] = json!(version);
        item["kind"] = json!(kind);
        (item["metadata"]["name"].as_str().unwrap_or_default().to_owned(), item)
    });
    Ok(whole.collect())
}

/// The object as somebody else would make it anew.
fn fresh(object: &Value) -> Value {
    let mut object = object.clone();
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    object["metadata"] =
        json!({"name": format!("{name}-probe"), "namespace": object["metadata"]["namespace"]});
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    object
}

/// The object with one harmless change. A change of metadata on a Lease would hide that its spec may be changed.
fn changed(object: &Value) -> Value {
    let mut object = object.clone();
    match object["kind"].as_str() {
        Some("Lease") => object["spec"]["holderIdentity"] = json!("probe"),
        _ => object["metadata"]["annotations"]["probe"] = json!("probe"),
    }
    object
}

fn patch(kind: &str) -> Value {
    match kind {
        "coordination.k8s.io/leases" => json!({"spec": {"holderIdentity": "probe"}}),
        "holdfast.dev/nodeenrolments" => json!({"spec": {"response": "probe"}}),
        _ => json!({"metadata": {"annotations": {"probe": "probe"}}}),
    }
}

/// Whether neither rights nor a policy stand in the way; that the request makes no sense is another matter.
async fn passes(client: &Client, request: &Request) -> Result<bool> {
    let kind = if request.method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = request.body.as_ref().map(Value::to_string).unwrap_or_default().into_bytes();
    let built =
        axum::http::Request::builder().method(request.method).uri(&request.path).header("content-type", kind);
    match client.request_text(built.body(body).context("no request")?).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) => {
            let refused = matches!(status.code, 401 | 403 | 405)
                || status.message.contains("ValidatingAdmissionPolicy");
            Ok(!refused)
        }
        Err(error) => Err(anyhow!(error)),
    }
}
