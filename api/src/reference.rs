//! References to other objects of the same namespace.

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::bounds::{LABEL_KEY, LABEL_VALUE, SELECTOR};

/// Names another object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
pub struct ObjectRef {
    /// Name of the object, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')")
        .message("name must be the name of an object: lower-case letters, digits, '-' and '.', such as debian-13"))]
    pub name: String,
}

/// Names one key of a Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
pub struct SecretKeyRef {
    /// Name of the Secret, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')")
        .message("name must be the name of a Secret: lower-case letters, digits, '-' and '.', such as web-seed"))]
    pub name: String,
    /// Key within the Secret whose bytes are taken.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[-._a-zA-Z0-9]+$')")
        .message("key must be a key of the Secret: letters, digits, '-', '_' and '.', such as user-data"))]
    pub key: String,
}

/// The schema of labels that a node must carry. A schema bounds values and their number; keys need a rule.
pub(crate) fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": SELECTOR,
        "additionalProperties": { "type": "string", "maxLength": LABEL_VALUE },
        "x-kubernetes-validations": [{
            "rule": format!("self.all(key, key.size() <= {LABEL_KEY})"),
            "message": format!("nodeSelector must have keys of labels, of at most {LABEL_KEY} characters, such as example.org/zone"),
        }],
    })
}
