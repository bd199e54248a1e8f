//! Addresses that are the host's own or that it depends on: no guest is given one, and no image is fetched from its own.
//!
//! Everything is read when it is asked for, since all of it changes under a running daemon. Only the API server's name is
//! looked up seldom, and what was found last stays while nobody answers, also over a restart: a start needs neither the API
//! nor DNS.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use crate::{durable, identity};

/// Where clouds keep what their hosts may know: AWS and most others, AWS by IPv6, Alibaba, Azure.
pub(crate) const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// Who resolves names for the host: its own list, and the one behind systemd-resolved's local address.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// An API server moves seldom; this long a guest could be given the address it has moved to.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// A name server that is away must not hold a start up.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// What an address is to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// One of its own.
    Own,
    /// That of the API server.
    ApiServer,
    /// It resolves names.
    Resolver,
    /// Routes lead there.
    Gateway,
    /// A cloud's metadata service.
    Metadata,
}

impl Role {
    /// The role as the end of a sentence.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Own => "an address of this host",
            Self::ApiServer => "the address of the API server",
            Self::Resolver => "a resolver of this host",
            Self::Gateway => "a gateway of this host",
            Self::Metadata => "the metadata service of a cloud",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.noun())
    }
}

/// Reads the host's addresses. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostAddresses {
    kubeconfig: PathBuf,
    /// Where what was found is remembered; nowhere if empty.
    file: PathBuf,
    server: Arc<RwLock<Server>>,
}

/// The API server as it was found last.
#[derive(Debug, Default)]
struct Server {
    looked: Option<Instant>,
    addresses: Vec<IpAddr>,
}

impl HostAddresses {
    /// `kubeconfig` names the API server; `file` remembers its addresses, one a line.
    pub(crate) fn new(kubeconfig: &Path, file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let addresses = text.lines().filter_map(|line| line.parse().ok()).collect();
        let server = Arc::new(RwLock::new(Server { looked: None, addresses }));
        Self { kubeconfig: kubeconfig.to_owned(), file: file.to_owned(), server }
    }

    /// Looks the API server's name up, unless that was done within the last minute.
    pub(crate) async fn refresh(&self) {
        let looked = self.server.read().unwrap_or_else(PoisonError::into_inner).looked;
        if looked.is_some_and(|looked| looked.elapsed() < LOOK_AGAIN) {
            return;
        }
        let found = tokio::time::timeout(LOOK_LIMIT, look_up(&self.kubeconfig)).await;
        let mut server = self.server.write().unwrap_or_else(PoisonError::into_inner);
        server.looked = Some(Instant::now());
        let Ok(Some(addresses)) = found else {
            tracing::debug!("the API server's name was not resolved; the addresses known last stand");
            return;
        };
        if addresses != server.addresses {
            remember(&self.file, &addresses);
            server.addresses = addresses;
        }
    }

    /// What an address is to the host, of what it is itself and of the API server. Loopback is nobody's in particular.
    pub(crate) fn role(&self, address: IpAddr) -> io::Result<Option<Role>> {
        if address.is_loopback() {
            return Ok(None);
        }
        if own()?.contains(&address) {
            return Ok(Some(Role::Own));
        }
        Ok(self.api_server().contains(&address).then_some(Role::ApiServer))
    }

    /// All addresses that no guest may be given, but for gateways, which only the kernel knows.
    pub(crate) fn needed(&self) -> io::Result<Vec<(IpAddr, Role)>> {
        let as_role = |role| move |address: IpAddr| (address, role);
        let own = own()?.into_iter().map(as_role(Role::Own));
        let server = self.api_server().into_iter().map(as_role(Role::ApiServer));
        let resolvers = resolvers().into_iter().map(as_role(Role::Resolver));
        let needed = server.chain(resolvers).chain(METADATA.map(as_role(Role::Metadata))).chain(own);
        Ok(needed.filter(|(address, _)| !address.is_loopback()).collect())
    }

    /// An API server on loopback is reached by whoever may reach loopback, and is not listed.
    fn api_server(&self) -> Vec<IpAddr> {
        let server = self.server.read().unwrap_or_else(PoisonError::into_inner);
        server.addresses.iter().copied().filter(|address| !address.is_loopback()).collect()
    }
}

fn remember(file: &Path, addresses: &[IpAddr]) {
    let write = |file: &mut File| addresses.iter().try_for_each(|address| writeln!(file, "{address}"));
    if let Err(error) = durable::replace(file, 0o600, write) {
        tracing::warn!(%error, file = %file.display(), "the addresses of the API server are not remembered");
    }
}

/// The addresses of all devices of the host.
fn own() -> io::Result<Vec<IpAddr>> {
    let all = getifaddrs()?;
    Ok(all.filter_map(|interface| ip(interface.address.as_ref()?)).collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
}

async fn look_up(kubeconfig: &Path) -> Option<Vec<IpAddr>> {
    let server = identity::server(kubeconfig).await.ok()?.cluster_url;
    let host = server.host()?.trim_matches(['[', ']']);
    let found = tokio::net::lookup_host((host, server.port_u16().unwrap_or(443))).await.ok()?;
    Some(found.map(|found| found.ip()).collect())
}

fn resolvers() -> Vec<IpAddr> {
    let texts = RESOLVERS.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    texts.flat_map(|text| name_servers(&text)).collect()
}

/// The `nameserver` lines of resolv.conf(5). A link-local one names its device behind a `%`.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| line.strip_prefix("nameserver")?.trim().split('%').next()?.parse().ok();
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_resolver_reads_them() {
        let text = "# nameserver 10.0.0.1\nsearch example.org\nnameserver 10.0.0.2\nnameserver\tfe80::1%eth0\nnameserver x\n";
        let expected: Vec<IpAddr> = ["10.0.0.2", "fe80::1"].map(|ip| ip.parse().unwrap()).to_vec();
        assert_eq!(name_servers(text), expected);
    }

    #[tokio::test]
    async fn the_api_server_of_the_kubeconfig_is_known_and_stays_known_while_nobody_answers() {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let write = |server: &str| {
            let text = format!(
                "{{apiVersion: v1, kind: Config, current-context: a, contexts: [{{name: a, context: {{cluster: a, user: a}}}}], \
                 clusters: [{{name: a, cluster: {{server: '{server}'}}}}], users: [{{name: a, user: {{}}}}]}}"
            );
            std::fs::write(&kubeconfig, text).unwrap();
        };
        let file = folder.path().join("api-addresses");
        let host = HostAddresses::new(&kubeconfig, &file);
        write("https://192.0.2.7:6443");
        host.refresh().await;
        let role = |text: &str| host.role(text.parse().unwrap()).unwrap();
        assert_eq!(
            (role("192.0.2.7"), role("192.0.2.8"), role("127.0.0.1")),
            (Some(Role::ApiServer), None, None)
        );
        host.server.write().unwrap().looked = None;
        std::fs::remove_file(&kubeconfig).unwrap();
        host.refresh().await;
        assert_eq!(role("192.0.2.7"), Some(Role::ApiServer));
        let restarted = HostAddresses::new(&kubeconfig, &file);
        restarted.refresh().await;
        assert_eq!(restarted.role("192.0.2.7".parse().unwrap()).unwrap(), Some(Role::ApiServer));
        host.server.write().unwrap().looked = None;
        write("https://[2001:db8::7]:6443");
        host.refresh().await;
        assert_eq!((role("192.0.2.7"), role("2001:db8::7")), (None, Some(Role::ApiServer)));
        host.server.write().unwrap().looked = None;
        write("https://127.0.0.1:6443");
        host.refresh().await;
        assert_eq!(role("127.0.0.1"), None, "who allows loopback allows what listens there");
    }
}
