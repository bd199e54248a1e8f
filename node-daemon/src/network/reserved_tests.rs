//! What no guest is given, over libvirt's test driver and the real kernel: addresses that the host has or depends on, at the
//! first start and after the host came to a network that guests had.

use std::net::IpAddr;

use super::tests::{Host, bridged, ip, nat, networks, on_a_host};
use super::*;
use crate::host_addresses::HostAddresses;
use crate::retry::Retry;

/// A host whose API server is at this address.
fn with_api_server(mut host: Host, address: &str) -> (Host, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: a, contexts: [{{name: a, context: {{cluster: a, user: a}}}}], \
         clusters: [{{name: a, cluster: {{server: 'https://{address}:6443'}}}}], users: [{{name: a, user: {{}}}}]}}"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    host.networks =
        networks(&host.libvirt, HostAddresses::new(&kubeconfig, &kubeconfig.with_extension("addresses")));
    (host, folder)
}

fn uplink(address: &str) {
    ip("link add lan0 type bridge");
    ip(&format!("address add {address} dev lan0"));
    ip("link set lan0 up");
}

#[test]
fn a_subnet_around_the_api_server_a_gateway_or_link_local_is_given_to_nobody_whatever_the_pool_says() {
    on_a_host(|host| async move {
        let (host, _folder) = with_api_server(host, "10.88.7.9");
        uplink("192.0.2.2/24");
        ip("route add 10.99.0.0/16 via 192.0.2.1");
        for (subnet, with) in [
            ("10.88.7.0/24", "10.88.7.9, the address of the API server,"),
            ("10.88.0.0/16", "10.88.7.9, the address of the API server,"),
            ("192.0.2.0/28", "the subnet 192.0.2.0/24 of device lan0"),
            ("10.99.0.0/16", "the route 10.99.0.0/16 of device lan0"),
            ("169.254.169.0/24", "the link-local addresses 169.254.0.0/16"),
            ("127.1.0.0/16", "the loopback addresses 127.0.0.0/8"),
            ("100.100.100.192/28", "100.100.100.200, the metadata service of a cloud,"),
            ("168.63.0.0/16", "168.63.129.16, the metadata service of a cloud,"),
        ] {
            let error = host.ensure(&nat(8, "shop/lan", subnet)).await.unwrap_err();
            assert_eq!((error.reason(), error.retry()), ("SubnetClash", Retry::Later), "{subnet}: {error}");
            assert!(
                error.to_string().contains(&format!("overlaps {with} on this node")),
                "{subnet}: {error}"
            );
        }
        // Where the node chooses, it chooses another.
        host.ensure(&nat(7, "shop/auto", "")).await.unwrap();
        assert_eq!(host.subnet(&nat(7, "shop/auto", "")).await, "10.88.8.0/24");
    });
}

#[test]
fn a_gateway_is_kept_from_guests_also_where_no_address_of_the_host_is_near() {
    on_a_host(|host| async move {
        uplink("192.0.2.2/32");
        ip("route add default via 10.88.7.1 dev lan0 onlink");
        let error = host.ensure(&nat(8, "shop/lan", "10.88.7.0/24")).await.unwrap_err();
        assert!(
            error.to_string().contains("overlaps 10.88.7.1, a gateway of this host, on this node"),
            "{error}"
        );
    });
}

#[test]
fn a_network_moves_when_the_host_comes_to_its_subnet_and_guests_on_it_run_on() {
    on_a_host(|host| async move {
        let lan = nat(7, "shop/lan", "");
        host.ensure(&lan).await.unwrap();
        // A guest, as the kernel shows it.
        let bridge = names::bridge(lan.uid);
        ip(&format!("link add {bridge} type bridge"));
        ip("link add tap0 type veth peer name far0");
        ip(&format!("link set tap0 master {bridge}"));
        uplink("10.88.7.200/24");
        let error = host.ensure(&lan).await.unwrap_err();
        assert_eq!((error.reason(), error.retry()), ("SubnetClash", Retry::Later), "{error}");
        assert_eq!(host.subnet(&lan).await, "10.88.7.0/24", "the guest runs on");
        ip("link delete tap0");
        host.ensure(&lan).await.unwrap();
        assert_eq!(host.subnet(&lan).await, "10.88.8.0/24");
        assert!(host.find(&lan).await.unwrap().active);
    });
}

#[test]
fn an_address_that_the_host_has_or_depends_on_cannot_be_listed_for_a_guest() {
    on_a_host(|host| async move {
        let (mut host, _folder) = with_api_server(host, "192.0.2.7");
        ip("link add br0 type bridge");
        ip("address add 192.0.2.2/24 dev br0");
        ip("address add 2001:db8::2/64 dev br0 nodad");
        ip("link set br0 up");
        ip("route add default via 192.0.2.1");
        let plant = bridged(8, "br0");
        let listed = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
        for (address, role) in [
            ("192.0.2.7", "the address of the API server"),
            ("192.0.2.2", "an address of this host"),
            ("2001:db8::2", "an address of this host"),
            ("192.0.2.1", "a gateway of this host"),
            ("168.63.129.16", "the metadata service of a cloud"),
        ] {
            let error = host.networks.ensure(Uuid::nil(), &plant, &listed(address)).await.unwrap_err();
            assert_eq!((error.reason(), error.retry()), ("AddressTaken", Retry::Later));
            let says = format!("{address} in spec.interfaces[].addresses is {role}, which no guest is given");
            assert!(error.to_string().contains(&says), "{error}");
        }
        host.networks.ensure(Uuid::nil(), &plant, &listed("192.0.2.50")).await.unwrap();
        // A guest on a trusted bridge may be the host's router.
        let trusted =
            holdfast_api::offer::OfferedBridge { name: "br0".into(), trusted: true, ..Default::default() };
        host.networks.offer = Arc::new(NetworkOffer { bridges: vec![trusted], ..NetworkOffer::default() });
        host.networks.ensure(Uuid::nil(), &plant, &listed("192.0.2.1")).await.unwrap();
    });
}
