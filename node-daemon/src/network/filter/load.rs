//! Loads the rules with `nft`, the one program that speaks nftables' language; one load at a time.

use std::collections::BTreeSet;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Port, text};
use crate::network::netlink::{self, Netlink};
use crate::network::record::NetworkRecord;

/// Where Debian's package nftables has it.
const NFT: &str = "/usr/sbin/nft";
/// Hundreds of guests load within milliseconds; a tool that hangs must not hold up every start for ever.
const DEADLINE: Duration = Duration::from_secs(20);
/// How much of the tool's complaint is kept: the first error names its line.
const SAID: usize = 300;
/// Makes room where an older version left sets of another shape. Rules come back with the same load; what the kernel read
/// from DHCP answers comes back with the leases.
const ANEW: &str = "add table bridge holdfast\ndelete table bridge holdfast\n\
    add table inet holdfast\ndelete table inet holdfast\n";

/// Why the rules are not loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The program is not on this node.
    #[error("{NFT} is missing")]
    Missing,
    /// It could not be run to its end.
    #[error("could not run {NFT}")]
    Run { source: io::Error },
    /// It did not end.
    #[error("{NFT} did not finish within {} s", DEADLINE.as_secs())]
    TooSlow,
    /// It, or the kernel, refused.
    #[error("{NFT} refused: {said}")]
    Refused { said: String },
}

/// Loads one after the other; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Filter {
    /// Requests so far.
    asked: Arc<AtomicU64>,
    loaded: Arc<Mutex<Loaded>>,
}

/// The last load that succeeded.
#[derive(Default)]
struct Loaded {
    /// The requests it served.
    served: u64,
    /// Devices of guests that may not send what they like.
    closed: BTreeSet<String>,
    /// What was loaded; empty before the first load.
    text: String,
}

/// The right to look at all guests and load what they need; whoever asked meanwhile needs no load of their own.
pub(crate) struct Turn {
    covers: u64,
    loaded: OwnedMutexGuard<Loaded>,
}

impl Filter {
    /// Waits for a turn; none is needed when a load whose look began after this call succeeded meanwhile.
    pub(in crate::network) async fn turn(&self) -> Option<Turn> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let loaded = self.loaded.clone().lock_owned().await;
        (loaded.served < asked).then(|| Turn { covers: self.asked.load(Ordering::SeqCst), loaded })
    }

    /// Puts what guests say to bridges that speak STP themselves under the rules, where their devices are there by now.
    pub(in crate::network) async fn screen(&self) -> Result<(), netlink::Error> {
        let (kernel, loaded) = (Netlink::open()?, self.loaded.lock().await);
        for (index, device) in kernel.unscreened().await? {
            if loaded.closed.contains(&device) {
                kernel.screen(index).await?;
            }
        }
        Ok(())
    }
}

impl Turn {
    /// Replaces all rules and sets of ours at once, and keeps what the kernel read from DHCP answers. After an error the
    /// rules are those of before. A host that never had a guest since the daemon started is left alone.
    pub(in crate::network) async fn load(
        mut self,
        ports: &[Port],
        trusts: impl Fn(&NetworkRecord) -> bool,
    ) -> Result<(), Error> {
        if ports.is_empty() && self.loaded.served == 0 {
            return Ok(());
        }
        let text = text(ports, &trusts);
        match run(&text).await {
            Err(Error::Refused { said }) => {
                tracing::debug!(said, "the rules of before are in the way; loading them anew");
                run(&format!("{ANEW}{text}")).await?;
            }
            loaded => loaded?,
        }
        let closed = ports.iter().filter(|port| !trusts(&port.network));
        let closed = closed.map(|port| port.device.clone()).collect();
        *self.loaded = Loaded { served: self.covers, closed, text };
        Ok(())
    }

    /// Loads once more what was loaded last, for want of a look at the guests: somebody may have removed the rules.
    pub(in crate::network) async fn repeat(self) -> Result<(), Error> {
        if self.loaded.text.is_empty() { Ok(()) } else { run(&self.loaded.text).await }
    }
}

async fn run(text: &str) -> Result<(), Error> {
    let mut command = Command::new(NFT);
    command.args(["-f", "-"]).env_clear().env("LC_ALL", "C").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing,
        _ => Error::Run { source },
    };
    let mut child = command.spawn().map_err(failed)?;
    let input = child.stdin.take();
    let feed = async {
        if let Some(mut input) = input {
            // A tool that ends early says why on its standard error.
            let _ = input.write_all(text.as_bytes()).await;
        }
    };
    let exchange = async { tokio::join!(child.wait_with_output(), feed).0 };
    let output = tokio::time::timeout(DEADLINE, exchange).await.map_err(|_| Error::TooSlow)?;
    let output = output.map_err(|source| Error::Run { source })?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr).chars().take(SAID).collect();
    Err(Error::Refused { said: said.split_whitespace().collect::<Vec<_>>().join(" ") })
}
