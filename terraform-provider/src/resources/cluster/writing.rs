//! Writing: what changes objects.
//!
//! ```text
//! ask ─▶ answer                                            done, or refused for good
//!  ▲  └▶ line broken, server error ─▶ a jittered pause ─┐
//!  └────────────────────────────────────────────────────┘  until the deadline or an interrupt
//! ```
//!
//! Each write may be repeated: a create and an update say which object they mean, a delete too. The client of kube asks
//! again by itself where the server says 429, 503 or 504, and waits as long as `Retry-After` wants; what is asked again
//! here is all it leaves: broken lines and other server errors.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::Status;
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use super::super::failure::chain;
use super::call::Create;
use super::{Cluster, Error, MANAGER, Patience, RETRY, Target};

/// How long an answer is still waited for once the time is over: what was made is better known. Twice this, for the
/// question after a lost answer, is less than what SIGTERM leaves us.
const GRACE: Duration = Duration::from_secs(2);

impl Patience<'_> {
    /// The time to tidy up after a failure, whatever caused it.
    pub(crate) fn to_tidy(cancel: &CancellationToken) -> Patience<'_> {
        Patience { until: Instant::now() + GRACE, cancel }
    }

    /// Waits for the answer to a write, a little longer than there is time. Nothing is begun after the end.
    async fn answer<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if self.until <= Instant::now() {
            return Err(Error::Late);
        }
        let mut work = std::pin::pin!(work);
        match self.with(&mut work).await {
            Ok(done) => Ok(done),
            Err(end) => tokio::time::timeout(GRACE, work).await.map_err(|_| end),
        }
    }
}

impl Cluster {
    /// Makes the object. One that is being deleted is waited for; one that is there is an error. The server itself refuses
    /// to write over one (`call.rs`), so what is in the way is asked for only after a refusal.
    pub(crate) async fn create(
        &self,
        target: &Target,
        body: Json,
        create: &Create,
        patience: Patience<'_>,
    ) -> Result<DynamicObject, Error> {
        loop {
            let error = match self.apply(target, &create.marked(body.clone()), patience).await {
                Err(error) if leaves_open(&error) => error,
                settled => return settled,
            };
            let found = tokio::time::timeout(GRACE, self.get(target)).await.unwrap_or(Err(Error::Late));
            match found {
                Ok(Some(object)) if is_in_the_way(&error) && goes(&object) && !create.made(&object) => {
                    self.until_gone(target, object.uid().as_deref(), patience).await?;
                }
                // It went between the two questions.
                Ok(None) if is_in_the_way(&error) => self.pause(error, patience).await?,
                found => return create.settled(error, found),
            }
        }
    }

    /// Changes the object of this UID.
    pub(crate) async fn update(
        &self,
        target: &Target,
        uid: &str,
        mut body: Json,
        patience: Patience<'_>,
    ) -> Result<DynamicObject, Error> {
        body["metadata"]["uid"] = uid.into();
        match self.apply(target, &body, patience).await {
            Err(Error::Api(kube::Error::Api(status))) if means_another(&status) => {
                let found = patience.with(self.get(target)).await??;
                Err(if found.is_some() { Error::Replaced } else { Error::Deleted })
            }
            answer => answer,
        }
    }

    /// Deletes the object of this UID. Its finalizers may still have to run.
    pub(crate) async fn delete(
        &self,
        target: &Target,
        uid: Option<&str>,
        patience: Patience<'_>,
    ) -> Result<(), Error> {
        let preconditions = Preconditions { uid: uid.map(str::to_owned), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api = self.api(target).await?;
        let _write = self.lists.write();
        let answer = loop {
            match self.heard(patience.answer(api.delete(&target.name, &params)).await?) {
                Err(error) if self.asks_again(&error) => self.pause(error, patience).await?,
                answer => break answer,
            }
        };
        match answer {
            Ok(_) => Ok(()),
            Err(Error::Api(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
            Err(Error::Api(kube::Error::Api(status))) if status.is_conflict() => Err(Error::Replaced),
            Err(error) => Err(error),
        }
    }

    /// Waits until the object of this UID, or whichever it is, is there no more.
    pub(crate) async fn until_gone(
        &self,
        target: &Target,
        uid: Option<&str>,
        patience: Patience<'_>,
    ) -> Result<(), Error> {
        let gone = |object: Option<&DynamicObject>| {
            object.is_none_or(|object| uid.is_some() && object.metadata.uid.as_deref() != uid).then_some(())
        };
        self.until(target, None, patience, gone).await
    }

    async fn apply(
        &self,
        target: &Target,
        body: &Json,
        patience: Patience<'_>,
    ) -> Result<DynamicObject, Error> {
        let params = PatchParams::apply(MANAGER);
        let params = if self.force { params.force() } else { params };
        let (api, patch) = (self.api(target).await?, Patch::Apply(body));
        let _write = self.lists.write();
        loop {
            match self.heard(patience.answer(api.patch(&target.name, &params, &patch)).await?) {
                Err(error) if self.asks_again(&error) => self.pause(error, patience).await?,
                answer => return answer.map(DynamicObject::from),
            }
        }
    }

    /// A server that never answered is not away but elsewhere: that is told at once.
    fn asks_again(&self, error: &Error) -> bool {
        is_left_to_us(error) && self.answered.load(Ordering::Relaxed)
    }

    /// Waits before something is asked again. Without the time for that the error is what is to be told.
    async fn pause(&self, error: Error, patience: Patience<'_>) -> Result<(), Error> {
        tracing::warn!(error = chain(&error), "writing again");
        patience.with(tokio::time::sleep(pause(super::random()))).await.map_err(|_| error)
    }
}

/// Whether the object with the UID of an apply is not there: with another in its place the server takes the UID for a
/// change of it, and without one for a condition (apiserver: registry/rest/update.go, endpoints/handlers/patch.go).
fn means_another(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let is_changed = status.code == 422 && causes.into_iter().any(|cause| cause.field == "metadata.uid");
    is_changed || status.is_conflict() && status.message.contains("uid mismatch")
}

/// Whether the object may have been made although this was the answer.
fn leaves_open(error: &Error) -> bool {
    match error {
        Error::Late | Error::Cancelled | Error::Away { .. } => true,
        Error::Api(kube::Error::Api(status)) => matches!(status.code, 409 | 429 | 500..),
        _ => false,
    }
}

/// Whether the server found an object of that name.
fn is_in_the_way(error: &Error) -> bool {
    matches!(error, Error::Api(kube::Error::Api(status)) if status.is_conflict())
}

fn goes(object: &DynamicObject) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

/// Whether it is worth to ask again, and kube has not done so.
fn is_left_to_us(error: &Error) -> bool {
    match error {
        Error::Away { .. } => true,
        Error::Api(kube::Error::Api(status)) => status.code >= 500 && !matches!(status.code, 503 | 504),
        _ => false,
    }
}

/// Between half a pause and one and a half: those who lost the same server do not come back together.
fn pause(random: u128) -> Duration {
    let thousandth = u32::try_from(random % 1001).unwrap_or_default();
    RETRY / 2 + RETRY * thousandth / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(code: u16) -> Error {
        Error::Api(kube::Error::Api(Status::failure("no", "").with_code(code).boxed()))
    }

    fn away() -> Error {
        let source = kube::Error::Service("refused".into());
        Error::Away { host: "site:6443".to_owned(), source: Box::new(source) }
    }

    #[test]
    fn only_what_kube_does_not_ask_again_is_asked_again() {
        for (code, again) in
            [(400, false), (403, false), (422, false), (429, false), (503, false), (504, false)]
        {
            assert_eq!(is_left_to_us(&says(code)), again, "{code}");
        }
        assert!(is_left_to_us(&says(500)) && is_left_to_us(&says(502)) && is_left_to_us(&away()));
    }

    #[test]
    fn a_refusal_is_final_and_all_else_leaves_open_what_was_made() {
        for code in [400, 401, 403, 404, 422] {
            assert!(!leaves_open(&says(code)), "{code}");
        }
        for code in [409, 429, 500, 503] {
            assert!(leaves_open(&says(code)), "{code}");
        }
        assert!(leaves_open(&away()) && leaves_open(&Error::Late));
    }

    #[test]
    fn an_object_in_the_place_of_ours_is_told_from_a_field_that_changed() {
        let status = |code: u16, message: &str, field: &str| -> Status {
            let causes = serde_json::json!({"causes": [{"field": field, "message": "", "reason": ""}]});
            let details = serde_json::from_value(causes).unwrap();
            let reason = if code == 409 { "Conflict" } else { "Invalid" };
            Status { details: Some(details), ..Status::failure(message, reason).with_code(code) }
        };
        assert!(means_another(&status(422, "is invalid", "metadata.uid")));
        assert!(means_another(&status(409, "uid mismatch: the provided object specified uid u, and no", "")));
        assert!(!means_another(&status(422, "is invalid", "spec.cpu")));
        assert!(!means_another(&status(
            409,
            "Apply failed with 1 conflict: conflict with \"guid\"",
            ".spec.cpu"
        )));
    }

    #[test]
    fn pauses_are_spread_around_one() {
        assert_eq!(pause(0), RETRY / 2);
        assert_eq!(pause(1000), RETRY * 3 / 2);
    }

    #[tokio::test]
    async fn an_answer_under_way_is_still_taken_after_an_interrupt_and_nothing_new_is_begun() {
        let cancel = CancellationToken::new();
        let patience = Patience { until: Instant::now() + Duration::from_secs(60), cancel: &cancel };
        let answer = async {
            cancel.cancel();
            tokio::time::sleep(Duration::from_millis(20)).await;
            "made"
        };
        assert_eq!(patience.answer(answer).await.unwrap(), "made");
        assert!(matches!(patience.answer(std::future::ready(())).await, Err(Error::Cancelled)));
    }
}
