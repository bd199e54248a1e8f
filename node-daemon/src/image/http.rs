//! Asking a web server for an image, with every hop checked.
//!
//! Two gates stand before each connection: a URL with an address in it is judged here, a URL with a name is judged
//! by [`Resolver`] on the addresses the connection will really use, so a name that changes its answer between
//! check and use gains nothing. Redirects are followed by us, one by one, through the same gates. Proxies from the
//! environment are ignored: they would dial for us, unchecked.

use std::collections::VecDeque;
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
use super::seen::Seen;
use super::{Error, Rules, page};

/// Mirrors and object stores need one or two, a login before them some more; a longer chain is a loop.
const MAX_REDIRECTS: usize = 10;

/// What a request is for.
#[derive(Clone, Copy)]
enum Part<'a> {
    /// The image from its first byte.
    Whole,
    /// What an earlier transfer left, if the server still has the same file.
    Rest(&'a Resume),
    /// What the server says of the image. `HEAD` would ask the same, but there are servers and signed addresses that
    /// answer nothing but `GET`.
    Head,
}

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
    /// By what the server shows which file it has.
    pub(super) seen: Seen,
    /// The server calls its answer a web page.
    labelled_page: bool,
    /// Bytes of the body that were looked at and not taken yet.
    head: VecDeque<Bytes>,
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
    let part = resume.map_or(Part::Whole, Part::Rest);
    let response = follow(&client, rules, url, part).await?;
    match (response.status(), resume) {
        (StatusCode::PARTIAL_CONTENT, Some(resume)) if continues(response.headers(), resume) => {
            Ok(Opened::rest(response, at, rules, resume.offset))
        }
        // A range we cannot use: ask once more for everything.
        (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => {
            Opened::whole(follow(&client, rules, url, Part::Whole).await?, at, rules)
        }
        _ => Opened::whole(response, at, rules),
    }
}

/// Asks by what the server shows which file it has, and takes nothing of its body.
pub(super) async fn look(rules: &Rules, url: &Url) -> Result<Seen, Error> {
    let at = shown(url);
    let response = follow(&client(rules, &at)?, rules, url, Part::Head).await?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let total = content_range(response.headers()).and_then(|(_, total)| total);
            Ok(Seen::on_the_web(response.headers(), total))
        }
        status if is_whole(status) => Ok(Seen::on_the_web(response.headers(), response.content_length())),
        status => Err(unusable(at, status)),
    }
}

/// A proxy that changed something on the way says 203 (RFC 9110 section 15.3.4); whether it was the bytes, their digest
/// tells.
fn is_whole(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION)
}

async fn follow(client: &Client, rules: &Rules, first: &Url, part: Part<'_>) -> Result<Response, Error> {
    rules.host.refresh().await;
    let mut url = first.clone();
    for _ in 0..=MAX_REDIRECTS {
        let response = ask(client, rules, first, &url, part).await?;
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
    part: Part<'_>,
) -> Result<Response, Error> {
    check_url(&rules.reach(), url).map_err(|why| {
        if url == first { Error::Refused(why) } else { Error::Misled { url: shown(first), why } }
    })?;
    // Compression on the way would change offsets and lengths.
    let request = client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
    let request = match part {
        Part::Whole => request,
        Part::Rest(Resume { offset, etag }) => {
            request.header(RANGE, format!("bytes={offset}-")).header(IF_RANGE, etag)
        }
        Part::Head => request.header(RANGE, "bytes=0-0"),
    };
    let answer = tokio::time::timeout(rules.connect_timeout + rules.stall_timeout, request.send()).await;
    let response = answer.map_err(|_| stalled(first, rules))?.map_err(|error| unreachable(first, &error))?;
    check_peer(&rules.reach(), first, response.remote_addr())?;
    Ok(response)
}

/// `None` when the response is an answer; otherwise where it points, or why that cannot be followed.
fn redirect(response: &Response, from: &Url) -> Option<Result<Url, String>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    // Not only ASCII, though RFC 9110 wants that: there are servers that send file names as they are.
    let location = response.headers().get(LOCATION).and_then(|value| str::from_utf8(value.as_bytes()).ok());
    let target = location.and_then(|location| from.join(location).ok());
    Some(target.ok_or_else(|| "a redirect without a usable address".to_owned()))
}

/// Judges scheme and, where the URL holds one, the address. Hyper dials literal addresses without the resolver.
fn check_url(reach: &Reach, url: &Url) -> Result<(), String> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{} is neither http nor https; use one of these", shown(url)));
    }
    let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    literal.map_or(Ok(()), |address| reach.check(address)).map_err(|refused| explain(&refused))
}

/// Belt and braces: the address the connection really has.
fn check_peer(reach: &Reach, first: &Url, peer: Option<SocketAddr>) -> Result<(), Error> {
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

/// Whether a 206 is a file from its first byte.
fn begins(headers: &HeaderMap) -> bool {
    content_range(headers).is_some_and(|(first, _)| first == 0)
}

/// First byte and total of `Content-Range: bytes <first>-<last>/<total>` (RFC 9110 section 14.4).
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) =
        headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

impl Opened {
    /// From the first byte; a server may also call that a part, though nobody asked for one.
    fn whole(response: Response, at: String, rules: &Rules) -> Result<Self, Error> {
        match response.status() {
            StatusCode::PARTIAL_CONTENT if begins(response.headers()) => {
                Ok(Self::rest(response, at, rules, 0))
            }
            status if is_whole(status) => {
                let total = response.content_length();
                Ok(Self::new(response, at, rules, 0, total))
            }
            status => Err(unusable(at, status)),
        }
    }

    fn rest(response: Response, at: String, rules: &Rules, start: u64) -> Self {
        let total = content_range(response.headers()).and_then(|(_, total)| total);
        Self::new(response, at, rules, start, total)
    }

    fn new(response: Response, at: String, rules: &Rules, start: u64, total: Option<u64>) -> Self {
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let etag = text(ETAG).map(str::to_owned);
        let labelled_page =
            text(CONTENT_TYPE).is_some_and(|kind| kind.to_lowercase().starts_with("text/html"));
        let seen = Seen::on_the_web(response.headers(), total);
        let patience = Patience::new(rules.stall_timeout);
        Self { response, at, patience, start, total, etag, seen, labelled_page, head: VecDeque::new() }
    }

    /// Whether this is a page for people. The rest of a file that we hold the start of is none, whatever it is called.
    pub(super) async fn is_page(&mut self) -> Result<bool, Error> {
        if self.start > 0 {
            return Ok(false);
        }
        let mut head = Vec::new();
        while head.len() < page::HEAD {
            let Some(bytes) = self.receive(head.len() as u64).await? else { break };
            head.extend_from_slice(&bytes[..bytes.len().min(page::HEAD - head.len())]);
            self.head.push_back(bytes);
        }
        Ok(page::is_page(self.labelled_page, &head))
    }

    /// The next bytes of the body, `None` at its end. `received` is only for the message.
    pub(super) async fn next(&mut self, received: u64) -> Result<Option<Bytes>, Error> {
        match self.head.pop_front() {
            Some(bytes) => Ok(Some(bytes)),
            None => self.receive(received).await,
        }
    }

    async fn receive(&mut self, received: u64) -> Result<Option<Bytes>, Error> {
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
        Reach {
            loopback: self.allow_loopback,
            link_local: self.allow_link_local,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            host: self.host.clone(),
        }
    }
}

/// Looks names up and hands only permitted addresses to the connection.
struct Resolver(Reach);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(permitted(&reach, found)?)
        })
    }
}

/// One refused address among good ones refuses the name: an honest name never mixes them.
fn permitted(reach: &Reach, found: Vec<SocketAddr>) -> Result<Addrs, Refused> {
    found.iter().try_for_each(|address| reach.check(address.ip()))?;
    Ok(Box::new(found.into_iter()))
}
