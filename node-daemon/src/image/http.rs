//! Asking a web server for an image, with every hop checked.
//!
//! Two gates stand before each connection: a URL with an address in it is judged here, a URL with a name is judged
//! by [`Resolver`] on the addresses the connection will really use, so a name that changes its answer between
//! check and use gains nothing. Redirects are followed by us, one by one, through the same gates. Proxies from the
//! environment are ignored: they would dial for us, unchecked.

use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, IF_RANGE, LOCATION, RANGE,
};
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url};

use super::address::{Reach, Refused};
use super::partial::Resume;
use super::patience::Patience;
use super::{Error, Rules};

/// Mirrors and object stores need one or two; a longer chain is a loop.
const MAX_REDIRECTS: usize = 5;

/// A response whose body is the image, from byte `start` on.
pub(super) struct Opened {
    response: Response,
    at: String,
    patience: Patience,
    /// First byte of the image that the body holds.
    pub(super) start: u64,
    /// Length of the whole image, if the server told.
    pub(super) total: Option<u64>,
    pub(super) etag: Option<String>,
    /// The server calls its answer a web page.
    pub(super) web_page: bool,
}

/// Builds the client of one transfer: a certificate authority that was installed meanwhile counts without a restart,
/// and an idle node holds no list of them.
///
/// A node without any still fetches by http; over https it then reports an unknown issuer.
fn client(rules: &Rules, at: &str) -> Result<Client, Error> {
    let built = builder(rules).build().or_else(|error| {
        tracing::warn!(error = innermost(&error), "https cannot be verified; install ca-certificates");
        builder(rules).tls_certs_only([]).build()
    });
    built.map_err(|error| Error::Unavailable { at: at.to_owned(), why: innermost(&error) })
}

/// Downloads are rare and large, so no idle connections are kept.
fn builder(rules: &Rules) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("holdfast-node/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(rules.connect_timeout)
        .pool_max_idle_per_host(0)
        .dns_resolver(Arc::new(Resolver(rules.reach())))
}

/// Requests the image, from where `resume` stopped if the server still has the same file.
pub(super) async fn open(rules: &Rules, url: &Url, resume: Option<&Resume>) -> Result<Opened, Error> {
    let at = shown(url);
    let client = client(rules, &at)?;
    let response = follow(&client, rules, url, resume).await?;
    match (response.status(), resume) {
        (StatusCode::OK, _) => Ok(Opened::whole(response, at, rules)),
        (StatusCode::PARTIAL_CONTENT, Some(resume)) if continues(response.headers(), resume) => {
            Ok(Opened::rest(response, at, rules, resume))
        }
        // A range we cannot use: ask once more for everything.
        (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => {
            let response = follow(&client, rules, url, None).await?;
            match response.status() {
                StatusCode::OK => Ok(Opened::whole(response, at, rules)),
                status => Err(unusable(at, status)),
            }
        }
        (status, _) => Err(unusable(at, status)),
    }
}

async fn follow(
    client: &Client,
    rules: &Rules,
    first: &Url,
    resume: Option<&Resume>,
) -> Result<Response, Error> {
    let mut url = first.clone();
    for _ in 0..=MAX_REDIRECTS {
        let response = ask(client, rules, first, &url, resume).await?;
        match redirect(&response, &url) {
            None => return Ok(response),
            Some(next) => {
                url = next.map_err(|why| Error::Misled { url: shown(first), why })?;
            }
        }
    }
    Err(Error::Misled { url: shown(first), why: format!("more than {MAX_REDIRECTS} redirects") })
}

async fn ask(
    client: &Client,
    rules: &Rules,
    first: &Url,
    url: &Url,
    resume: Option<&Resume>,
) -> Result<Response, Error> {
    check_url(rules.reach(), url).map_err(|why| {
        if url == first { Error::Refused(why) } else { Error::Misled { url: shown(first), why } }
    })?;
    // Compression on the way would change offsets and lengths.
    let mut request = client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
    if let Some(Resume { offset, etag }) = resume {
        request = request.header(RANGE, format!("bytes={offset}-")).header(IF_RANGE, etag);
    }
    let answer = tokio::time::timeout(rules.connect_timeout + rules.stall_timeout, request.send()).await;
    let response = answer.map_err(|_| stalled(first, rules))?.map_err(|error| unreachable(first, &error))?;
    check_peer(rules.reach(), first, response.remote_addr())?;
    Ok(response)
}

/// `None` when the response is an answer; otherwise where it points, or why that cannot be followed.
fn redirect(response: &Response, from: &Url) -> Option<Result<Url, String>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let target = location.and_then(|location| from.join(location).ok());
    Some(target.ok_or_else(|| "a redirect without a usable address".to_owned()))
}

/// Judges scheme and, where the URL holds one, the address. Hyper dials literal addresses without the resolver.
fn check_url(reach: Reach, url: &Url) -> Result<(), String> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{} is neither http nor https; use one of these", shown(url)));
    }
    let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    literal.map_or(Ok(()), |address| reach.check(address)).map_err(|refused| explain(&refused))
}

/// Belt and braces: the address the connection really has.
fn check_peer(reach: Reach, first: &Url, peer: Option<SocketAddr>) -> Result<(), Error> {
    let verdict = peer.map_or(Ok(()), |peer| reach.check(peer.ip()));
    verdict.map_err(|refused| Error::Misled { url: shown(first), why: explain(&refused) })
}

fn explain(refused: &Refused) -> String {
    format!("{refused}, which this node does not fetch from")
}

/// Whether a 206 continues exactly where we stopped, and is of the same file.
fn continues(headers: &HeaderMap, resume: &Resume) -> bool {
    let etag = headers.get(ETAG).and_then(|value| value.to_str().ok());
    let first = content_range(headers).map(|(first, _)| first);
    first == Some(resume.offset) && etag.is_none_or(|etag| etag == resume.etag)
}

/// First byte and total of `Content-Range: bytes <first>-<last>/<total>` (RFC 9110 section 14.4).
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) =
        headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

impl Opened {
    fn whole(response: Response, at: String, rules: &Rules) -> Self {
        let total = response.content_length();
        Self::new(response, at, rules, 0, total)
    }

    fn rest(response: Response, at: String, rules: &Rules, resume: &Resume) -> Self {
        let total = content_range(response.headers()).and_then(|(_, total)| total);
        Self::new(response, at, rules, resume.offset, total)
    }

    fn new(response: Response, at: String, rules: &Rules, start: u64, total: Option<u64>) -> Self {
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let etag = text(ETAG).map(str::to_owned);
        let web_page = text(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"));
        Self { response, at, patience: Patience::new(rules.stall_timeout), start, total, etag, web_page }
    }

    /// The next bytes of the body, `None` at its end. `received` is only for the message.
    pub(super) async fn next(&mut self, received: u64) -> Result<Option<Bytes>, Error> {
        let begun = Instant::now();
        let Ok(chunk) = tokio::time::timeout(self.patience.left(), self.response.chunk()).await else {
            return Err(Error::Stalled { at: self.at.clone(), seconds: self.patience.window().as_secs() });
        };
        let chunk = chunk.map_err(|error| {
            tracing::debug!(at = self.at, error = %innermost(&error), "the download broke off");
            Error::Interrupted { at: self.at.clone(), bytes: received }
        })?;
        self.patience.spend(begun.elapsed(), chunk.as_ref().map_or(0, Bytes::len));
        Ok(chunk)
    }
}

/// The URL without password, query and fragment, where credentials live.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that cannot have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

fn unusable(at: String, status: StatusCode) -> Error {
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Error::NotFound { at },
        status => Error::Unavailable { at, why: format!("the server answered {status}") },
    }
}

fn stalled(url: &Url, rules: &Rules) -> Error {
    Error::Stalled { at: shown(url), seconds: (rules.connect_timeout + rules.stall_timeout).as_secs() }
}

fn unreachable(first: &Url, error: &reqwest::Error) -> Error {
    let first_cause: &(dyn StdError + 'static) = error;
    let mut causes = std::iter::successors(Some(first_cause), |&cause| cause.source());
    match causes.find_map(|cause| cause.downcast_ref::<Refused>()) {
        Some(refused) => Error::Misled { url: shown(first), why: explain(refused) },
        None => Error::Unavailable { at: shown(first), why: innermost(error) },
    }
}

/// The cause at the end of the chain, which names the fact (`Connection refused`); reqwest's own text repeats the URL.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

impl Rules {
    pub(super) fn reach(&self) -> Reach {
        Reach { loopback: self.allow_loopback, link_local: self.allow_link_local }
    }
}

/// Looks names up and hands only permitted addresses to the connection.
struct Resolver(Reach);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(permitted(reach, found)?)
        })
    }
}

/// One refused address among good ones refuses the name: an honest name never mixes them.
fn permitted(reach: Reach, found: Vec<SocketAddr>) -> Result<Addrs, Refused> {
    found.iter().try_for_each(|address| reach.check(address.ip()))?;
    Ok(Box::new(found.into_iter()))
}
