//! Enrolment: how the node gets, renews and regains its certificate.
//!
//! ```text
//!            no certificate │ 2/3 of its life gone │ expired │ the API refuses us lastingly
//!                                        ▼
//!   new NodeEnrolment <name>-<random> ──► wait (a person may have to approve) ──► certificate ──► new client
//! ```
//!
//! All four are one act. Invariants: it never blocks anything else, the daemon runs guests with no identity at all; the
//! clock alone cannot make it spin, because a fresh certificate is left alone for a part of its life. Spawned by `run`.

mod need;
mod request;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::NodeName;
use crate::contact::Contact;
use crate::identity::{self, Identity, Validity};
use crate::jitter;
use need::{Why, need};

/// First pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Longest pause of a node that was in: many such nodes return over minutes, not at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Longest pause of a node that was never in: somebody may stand before it, with the cable in his hand.
const LONGEST_FIRST_PAUSE: Duration = Duration::from_secs(60);
/// How often the age of the certificate is looked at; also spreads renewals.
const LOOK: Duration = Duration::from_secs(60);

/// How often a refusal is looked at, which enrols when it lasts.
const REFUSED_LOOK: Duration = Duration::from_secs(10);

/// Why an attempt to enrol ended without a certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The node's own files or its kubeconfig.
    #[error("could not enrol with the key folder and the kubeconfig of this node")]
    Identity { source: identity::Error },
    /// The API did not answer.
    #[error("could not reach the API to enrol")]
    Away { source: Option<kube::Error> },
    /// The API does not accept the install credential or the request.
    #[error("the API refused the request to enrol; check the install credential in the kubeconfig")]
    Refused { source: kube::Error },
    /// Somebody removed the request; another one is made.
    #[error("the NodeEnrolment {name} was removed before it was answered")]
    Vanished { name: String },
}

/// What enrolment needs to know.
pub(crate) struct Enroller {
    pub(crate) node: NodeName,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) clock: Clock,
}

/// A certificate and when this process got it; `None` when it was there already.
struct Held {
    validity: Validity,
    got: Option<Instant>,
}

impl Enroller {
    /// Keeps the certificate good for ever and hands each new client to `session`.
    pub(crate) async fn keep(
        self,
        session: watch::Sender<Option<Client>>,
        contact: watch::Receiver<Contact>,
    ) {
        let mut held = self.identity.validity().map(|validity| Held { validity, got: None });
        if let Some(held) = &held {
            self.clock.certify(held.validity);
            self.publish(&session).await;
        }
        let (mut pause, mut said) = (FIRST_PAUSE, String::new());
        loop {
            let Some(why) = self.wait_for_need(held.as_ref(), contact.clone()).await else { return };
            if said.is_empty() {
                info!(why = why.sentence(), "enrolling");
            }
            match self.attempt(&session).await {
                Ok(validity) => {
                    held = Some(Held { validity, got: Some(Instant::now()) });
                    (pause, said) = (FIRST_PAUSE, String::new());
                }
                Err(error) => {
                    tell(&error, &mut said);
                    sleep(jitter::spread(pause)).await;
                    pause = (pause * 2).min(longest_pause(held.as_ref()));
                }
            }
        }
    }

    /// Waits until there is a reason to enrol; `None` when the daemon ends.
    async fn wait_for_need(&self, held: Option<&Held>, mut contact: watch::Receiver<Contact>) -> Option<Why> {
        if self.identity.pending_enrolment().is_some() {
            return Some(Why::Open);
        }
        loop {
            let refused = match *contact.borrow_and_update() {
                Contact::Refused { since } => Some(since.elapsed()),
                Contact::Never | Contact::Reachable | Contact::Away { .. } => None,
            };
            let since_issue = held.and_then(|held| held.got).map(|got| got.elapsed());
            if let Some(why) = need(held.map(|held| held.validity), self.clock.now(), refused, since_issue) {
                return Some(why);
            }
            let pause = if refused.is_some() { REFUSED_LOOK } else { LOOK };
            if let Ok(Err(_)) = timeout(jitter::spread(pause), contact.changed()).await {
                return None;
            }
        }
    }

    async fn attempt(&self, session: &watch::Sender<Option<Client>>) -> Result<Validity, Error> {
        let failed = |source| Error::Identity { source };
        let client = identity::install_client(&self.kubeconfig).await.map_err(failed)?;
        let certificate = request::certificate(client, &self.node, &self.identity).await?;
        // Forgotten first: an answer that cannot be kept must not be taken up again for ever.
        self.identity.forget_enrolment().map_err(failed)?;
        let validity = self.identity.keep(&certificate).map_err(failed)?;
        self.clock.certify(validity);
        info!(node = %self.node, until = %until(validity), "enrolled");
        self.publish(session).await;
        Ok(validity)
    }

    async fn publish(&self, session: &watch::Sender<Option<Client>>) {
        match self.identity.client(&self.kubeconfig).await {
            Ok(client) => {
                session.send_replace(Some(client));
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "the certificate at hand cannot be used");
            }
        }
    }
}

fn longest_pause(held: Option<&Held>) -> Duration {
    if held.is_some() { LONGEST_PAUSE } else { LONGEST_FIRST_PAUSE }
}

/// Logs a failure unless it is the one before again: a node may be without a link for weeks.
fn tell(error: &Error, said: &mut String) {
    let new = format!("{error:?}");
    if *said != new {
        warn!(error = error as &dyn std::error::Error, "not enrolled yet; guests are not affected");
        *said = new;
    }
}

fn until(validity: Validity) -> String {
    k8s_openapi::jiff::Timestamp::try_from(validity.not_after)
        .map_or_else(|_| "an impossible time".to_owned(), |time| time.to_string())
}
