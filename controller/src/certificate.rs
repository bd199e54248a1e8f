//! Reads when a certificate ends.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use x509_cert::Certificate;
use x509_cert::der::DecodePem;

/// The end of the first certificate in this PEM text; `None` for what is no certificate.
pub(crate) fn end(pem: &str) -> Option<Time> {
    const END: &str = "-----END CERTIFICATE-----";
    let first = &pem[..pem.find(END)? + END.len()];
    let certificate = Certificate::from_pem(first.trim_start()).ok()?;
    let end = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    Timestamp::from_second(i64::try_from(end.as_secs()).ok()?).ok().map(Time)
}
