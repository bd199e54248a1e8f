//! `holdfast_node` and `holdfast_nodes`: the hosts of the site, which a configuration can only look at.

use holdfast_api::HypervisorNode;
use kube::api::{ApiResource, DynamicObject};
use kube::{CustomResourceExt, ResourceExt};
use serde_json::Value as Json;

use super::cluster::{Patience, Target};
use super::failure::Attempt;
use super::field::{self, Field, Fields, Form};
use super::kind::{Site, Whole, text};
use super::unread::unread;
use crate::plugin::diagnostic::{Diagnostic, Diagnostics};
use crate::plugin::path::Path;
use crate::plugin::provider::{Call, DataSource, Outcome, async_trait};
use crate::plugin::schema::{Attribute, Owner, Problem, Schema, Shape};
use crate::plugin::ty::Type;
use crate::plugin::value::Value;

/// One node.
pub(crate) struct Node(Fields);

/// All nodes.
pub(crate) struct Nodes(Fields);

impl Node {
    pub(crate) fn new() -> Self {
        Self(Fields::of(&HypervisorNode::crd()))
    }
}

impl Nodes {
    pub(crate) fn new() -> Self {
        Self(Fields::of(&HypervisorNode::crd()))
    }
}

#[async_trait]
impl DataSource for Node {
    type Client = Site;
    type Model = Whole;

    fn name(&self) -> &'static str {
        "node"
    }

    fn schema(&self) -> Result<Schema, Problem> {
        let mut attributes = vec![Attribute::required("name", Type::String, "Name of the node.")];
        attributes.extend(described(&self.0));
        Schema::new(Owner::DataSource, "A host that runs virtual machines.", attributes)
    }

    async fn read(&self, call: Call<'_, Site>, config: Whole) -> Outcome<Whole> {
        let target = target(text(config.0.attribute("name")));
        let found = Patience::to_read(call.cancel).with(call.client.cluster.get(&target)).await;
        match found.flatten() {
            Ok(Some(node)) => {
                Outcome::exists(Whole(value(&self.0, &node))).with(unread::<HypervisorNode>(&node))
            }
            Ok(None) => {
                let detail = format!("No node is called {}. See kubectl get hnode.", target.name);
                Outcome::failed(Diagnostic::error(Path::of("name"), "Node not found", detail).into())
            }
            Err(error) => Outcome::failed(attempt(&target, &self.0).failed(&error)),
        }
    }
}

#[async_trait]
impl DataSource for Nodes {
    type Client = Site;
    type Model = Whole;

    fn name(&self) -> &'static str {
        "nodes"
    }

    fn schema(&self) -> Result<Schema, Problem> {
        let mut one = vec![Attribute::computed("name", Type::String, "Name of the node.")];
        one.extend(described(&self.0));
        let nodes = Attribute::computed("nodes", Shape::list(one), "The nodes, in the order of their names.");
        Schema::new(Owner::DataSource, "The hosts that run virtual machines.", vec![nodes])
    }

    async fn read(&self, call: Call<'_, Site>, _: Whole) -> Outcome<Whole> {
        let target = target(String::new());
        let listed = Patience::to_read(call.cancel).with(call.client.cluster.list(&target)).await;
        match listed.flatten() {
            Ok(mut nodes) => {
                nodes.sort_by_key(ResourceExt::name_any);
                let mut told = Diagnostics::new();
                for node in &nodes {
                    told.append(unread::<HypervisorNode>(node));
                }
                let nodes = nodes.iter().map(|node| value(&self.0, node)).collect();
                Outcome::exists(Whole(Value::object([("nodes", Value::List(nodes))]))).with(told)
            }
            Err(error) => Outcome::failed(attempt(&target, &self.0).failed(&error)),
        }
    }
}

/// What is known of a node beside its name.
fn described(fields: &Fields) -> Vec<Attribute> {
    let mut attributes = vec![
        Attribute::computed("labels", Type::map(Type::String), "Its labels, which `placement` selects by."),
        Attribute::computed("uid", Type::String, "UID of the object."),
    ];
    attributes.extend(fields.spec.iter().map(Field::computed));
    let status = Form::Object(fields.status.clone()).shape(Field::computed);
    attributes.push(Attribute::computed("status", status, "What it is and holds."));
    attributes
}

fn value(fields: &Fields, node: &DynamicObject) -> Value {
    let nothing = Json::Null;
    let part = |name| node.data.get(name).unwrap_or(&nothing);
    let labels = node.labels().iter().map(|(key, value)| (key.clone(), Value::from(value.as_str())));
    let more = [
        ("name", Value::from(node.name_any())),
        ("labels", Value::Map(labels.collect())),
        ("uid", node.uid().into()),
        ("status", field::value_all(&fields.status, part("status"))),
    ];
    match field::value_all(&fields.spec, part("spec")) {
        Value::Object(mut attributes) => {
            attributes.extend(more.map(|(name, value)| (name.to_owned(), value)));
            Value::Object(attributes)
        }
        other => other,
    }
}

fn target(name: String) -> Target {
    Target { kind: ApiResource::erase::<HypervisorNode>(&()), namespace: String::new(), name }
}

fn attempt<'a>(target: &'a Target, fields: &'a Fields) -> Attempt<'a> {
    Attempt { verb: "read", target, resource: "holdfast_node", fields: &fields.spec }
}
