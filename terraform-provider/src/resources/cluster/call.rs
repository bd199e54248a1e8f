//! A call: one create of one object, known by a mark that the object carries.
//!
//! The answer to a create can be lost after the object was made. Whoever asks again must tell its own object from one
//! that another made, so each call writes a random mark beside what is configured. The first update leaves it out, and
//! with that the server removes it.
//!
//! A mark could be written over an object that is there, and would prove nothing then. So a marked object also demands a
//! resource version that no object has: a server compares it with what is there, and has nothing to compare with when
//! it makes the object. What carries our mark was made by us.

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Value as Json, json};

use super::Error;

/// The annotation that holds the mark.
pub(crate) const MARK: &str = "terraform.holdfast.dev/call";
/// Versions count the writes of a store, whose first is its own.
const NO_VERSION: &str = "1";

/// One create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Create(String);

impl Create {
    /// One that never was before.
    pub(crate) fn fresh() -> Self {
        Self::of(super::random())
    }

    fn of(random: u128) -> Self {
        Self(format!("{random:032x}"))
    }

    /// The one that private bytes of a state speak of.
    pub(crate) fn remembered(private: &[u8]) -> Option<Self> {
        let document: Json = serde_json::from_slice(private).ok()?;
        document["create"].as_str().map(|mark| Self(mark.to_owned()))
    }

    /// Private bytes that speak of it.
    pub(crate) fn private(&self) -> Vec<u8> {
        json!({"v": 1, "create": self.0}).to_string().into_bytes()
    }

    /// The object as this call makes it, and only if nothing is there.
    pub(super) fn marked(&self, mut body: Json) -> Json {
        body["metadata"]["annotations"][MARK] = self.0.as_str().into();
        body["metadata"]["resourceVersion"] = NO_VERSION.into();
        body
    }

    /// Whether this call made the object.
    pub(crate) fn made(&self, object: &DynamicObject) -> bool {
        object.annotations().get(MARK) == Some(&self.0)
    }

    /// Whether the object may be that of a state with these private bytes. One without UID is of an attempt that nobody
    /// answered: only what that attempt made is its object.
    pub(crate) fn may_have_made(object: &DynamicObject, without_uid: bool, private: &[u8]) -> bool {
        let attempt = Self::remembered(private).filter(|_| without_uid);
        attempt.is_none_or(|create| create.made(object))
    }

    /// What became of it when the server did not say that it made the object, by what was found afterwards.
    pub(super) fn settled(
        &self,
        error: Error,
        found: Result<Option<DynamicObject>, Error>,
    ) -> Result<DynamicObject, Error> {
        match found {
            Ok(Some(object)) if self.made(&object) => Ok(object),
            // An end by the user or the clock says more than what stands in the way of the next attempt.
            Ok(Some(_)) if !matches!(error, Error::Cancelled | Error::Late) => Err(Error::Exists),
            Ok(_) => Err(error),
            Err(_) => Err(Error::Unanswered(Box::new(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(body: Json) -> DynamicObject {
        serde_json::from_value(body).unwrap()
    }

    fn plain() -> Json {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web", "annotations": {"note": "a"}}})
    }

    #[test]
    fn a_create_knows_its_own_object_and_no_other() {
        let (one, other) = (Create::of(1), Create::of(2));
        let made = object(one.marked(plain()));
        assert!(one.made(&made) && !other.made(&made) && !one.made(&object(plain())));
        assert_eq!(made.annotations()["note"], "a");
        assert_ne!(Create::fresh(), Create::fresh());
    }

    #[test]
    fn a_marked_object_demands_a_version_that_no_object_has() {
        assert_eq!(Create::of(1).marked(plain())["metadata"]["resourceVersion"], "1");
    }

    #[test]
    fn rule_7_private_bytes_are_small_and_remember_a_create_and_others_do_not() {
        let one = Create::fresh();
        let private: Json = serde_json::from_slice(&one.private()).unwrap();
        assert_eq!((&private["v"], private.as_object().unwrap().len()), (&json!(1), 2), "versioned");
        assert!(one.private().len() < 100);
        assert_eq!(Create::remembered(&one.private()), Some(one));
        for private in ["", "{}", "nonsense", "{\"v\":1,\"uid\":\"u\"}"] {
            assert_eq!(Create::remembered(private.as_bytes()), None, "{private}");
        }
    }

    #[test]
    fn an_attempt_that_nobody_answered_takes_only_its_own_object() {
        let one = Create::of(1);
        let (mine, foreign, private) = (object(one.marked(plain())), object(plain()), one.private());
        assert!(Create::may_have_made(&mine, true, &private));
        assert!(!Create::may_have_made(&foreign, true, &private));
        assert!(Create::may_have_made(&foreign, false, &private), "read since, known by its UID");
        assert!(Create::may_have_made(&foreign, true, b""), "an import");
    }

    #[test]
    fn what_a_lost_answer_meant_is_decided_by_what_is_there() {
        let one = Create::of(1);
        let (mine, foreign) = (object(one.marked(plain())), object(plain()));
        let lost = || Error::Late;
        let conflict = || {
            let status = kube::core::Status::failure("changed", "Conflict").with_code(409);
            Error::Api(kube::Error::Api(status.boxed()))
        };
        assert_eq!(one.settled(lost(), Ok(Some(mine.clone()))).unwrap(), mine, "the first attempt made it");
        assert_eq!(one.settled(conflict(), Ok(Some(mine.clone()))).unwrap(), mine, "a repeated attempt");
        assert!(matches!(one.settled(conflict(), Ok(Some(foreign.clone()))), Err(Error::Exists)));
        assert!(matches!(one.settled(lost(), Ok(Some(foreign))), Err(Error::Late)));
        assert!(matches!(one.settled(lost(), Ok(None)), Err(Error::Late)), "it was not made");
        assert!(matches!(one.settled(lost(), Err(Error::Late)), Err(Error::Unanswered(_))));
    }
}
