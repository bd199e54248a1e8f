//! `holdfast_image`: a disk image that virtual machines of its namespace may start from.

use holdfast_api::VirtualMachineImage;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use kube::api::{ApiResource, DynamicObject};

use super::kind::Kind;
use super::rules::exactly_one;
use super::timeouts::Times;
use super::unread::unread;
use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::path::Path;
use crate::plugin::value::Value;

/// The kind.
pub(crate) struct Image;

impl Kind for Image {
    const NAME: &'static str = "image";
    // With prefetch the nodes fetch gigabytes before it is Ready.
    const TIMES: Times = Times::minutes(60, 5, 5);

    fn crd() -> CustomResourceDefinition {
        VirtualMachineImage::crd()
    }

    fn resource() -> ApiResource {
        ApiResource::erase::<VirtualMachineImage>(&())
    }

    fn unread(object: &DynamicObject) -> Diagnostics {
        unread::<VirtualMachineImage>(object)
    }

    fn about() -> &'static str {
        "A disk image for virtual machines of the same namespace, from a web server or from a folder of the nodes. Its \
         SHA-256 digest is mandatory. Nothing of it but labels and annotations can change in place."
    }

    fn validate(config: &Value, diagnostics: &mut Diagnostics) {
        exactly_one(config.attribute("source"), &Path::of("source"), &["http", "file"], diagnostics);
    }
}
