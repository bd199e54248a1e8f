//! Says of an object what of it cannot be read: as a rule because a newer version wrote it.

use holdfast_client::{Raw, Read};
use kube::api::DynamicObject;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::plugin::diagnostic::{Diagnostic, Diagnostics};
use crate::plugin::path::Path;

/// A warning that names the object and the fields; none where all was read. Conditions are read one by one.
pub(crate) fn unread<K>(object: &DynamicObject) -> Diagnostics
where
    K: Resource<DynamicType = ()> + Default + DeserializeOwned,
{
    let faults = Read::<K>::from(Raw::from(object)).faults;
    if !faults.beyond("status.conditions") {
        return Diagnostics::new();
    }
    let name = match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    };
    let detail = format!(
        "{} {name} holds what this provider cannot read, and nothing is shown in its place: {faults}. Correct the object, \
         or use a newer provider if a newer version of Holdfast wrote it.",
        K::kind(&())
    );
    Diagnostic::warning(Path::root(), "Object cannot be read whole", detail).into()
}

#[cfg(test)]
mod tests {
    use holdfast_api::SSHKey;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_that_cannot_be_read_is_named_and_what_can_be_read_is_shown() {
        let object = |key: serde_json::Value| -> DynamicObject {
            Raw::new(json!({"metadata": {"name": "ada", "namespace": "shop", "managedFields": [{"time": "+99:99"}]},
                "spec": {"publicKey": key}}))
            .into()
        };
        assert!(unread::<SSHKey>(&object(json!("ssh-ed25519 AAAA"))).is_empty());
        let told = unread::<SSHKey>(&object(json!(7)));
        let detail = &told.iter().next().unwrap().detail;
        assert!(
            detail.starts_with("SSHKey shop/ada holds what") && detail.contains("spec.publicKey"),
            "{detail}"
        );
    }
}
