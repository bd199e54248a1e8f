//! `holdfast_network`: what an interface of a virtual machine is connected to.

use holdfast_api::VirtualMachineNetwork;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use kube::api::{ApiResource, DynamicObject};

use super::kind::Kind;
use super::rules::{exactly_one, text_rule};
use super::timeouts::{SHORT, Times};
use super::unread::unread;
use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::path::Path;
use crate::plugin::value::Value;

/// The kind.
pub(crate) struct Network;

impl Kind for Network {
    const NAME: &'static str = "network";
    const TIMES: Times = SHORT;

    fn crd() -> CustomResourceDefinition {
        VirtualMachineNetwork::crd()
    }

    fn resource() -> ApiResource {
        ApiResource::erase::<VirtualMachineNetwork>(&())
    }

    fn unread(object: &DynamicObject) -> Diagnostics {
        unread::<VirtualMachineNetwork>(object)
    }

    fn about() -> &'static str {
        "A network for virtual machines of the same namespace: exactly one of `nat`, `isolated` and `bridge`. A NAT or \
         isolated network exists on each node for itself. Nothing of it but labels and annotations can change in place."
    }

    fn validate(config: &Value, diagnostics: &mut Diagnostics) {
        exactly_one(config, &Path::root(), &["nat", "isolated", "bridge"], diagnostics);
        for name in ["nat", "isolated"] {
            let at = Path::of(name).attribute("subnet");
            let rule = "an IPv4 network of /16 to /28 with no host bits set, such as 10.20.0.0/24";
            text_rule(config.attribute(name).attribute("subnet"), &at, rule, is_subnet, diagnostics);
        }
    }
}

fn is_subnet(text: &str) -> bool {
    let parts = text.split_once('/');
    let parts = parts
        .and_then(|(ip, bits)| Some((ip.parse::<std::net::Ipv4Addr>().ok()?, bits.parse::<u32>().ok()?)));
    parts.is_some_and(|(ip, bits)| (16..=28).contains(&bits) && ip.to_bits().trailing_zeros() >= 32 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_has_no_host_bits_and_a_sensible_size() {
        assert!(is_subnet("10.20.0.0/24"));
        for text in ["10.20.0.1/24", "10.0.0.0/8", "10.20.0.0/29", "10.20.0.0", "fd00::/64", ""] {
            assert!(!is_subnet(text), "{text}");
        }
    }
}
