//! Lists whose pages are bounded in bytes.
//!
//! The API bounds a page by a count, and one object may be a million times the size of another: fifty of the largest would
//! be more than the memory of whoever asks. So a page that grows too large is thrown away and asked for again with half the
//! count, and the count grows again while pages are small.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::Client;
use kube::client::Body;
use tower::{BoxError, service_fn};

/// Bytes of a page. The store takes no object of more than 1.5 MiB, so one of any size fits.
const PAGE: usize = 2 << 20;
/// Bytes of a page of one object: what the API server adds to it is not much.
const ALONE: usize = 16 << 20;

/// How many objects of a path a page may have now, by path.
type Counts = Arc<Mutex<HashMap<String, u32>>>;

/// The same client, whose pages have at most 2 MiB of what was sent, or one object. Only lists that ask for pages have any:
/// those of a watch do.
pub fn paged(client: Client) -> Client {
    let counts = Counts::default();
    let namespace = client.default_namespace().to_owned();
    let service =
        service_fn(move |request: Request<Body>| pass(client.clone(), Arc::clone(&counts), request));
    Client::new(service, namespace)
}

async fn pass(client: Client, counts: Counts, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let Some(most) = asked(&request) else { return Ok(client.send(request).await?) };
    let path = request.uri().path().to_owned();
    let learnt = || counts.lock().unwrap_or_else(PoisonError::into_inner);
    let mut count = learnt().get(&path).copied().unwrap_or(most).min(most);
    loop {
        let answer = client.send(again(&request, count)?).await?;
        if !answer.status().is_success() {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        let limit = if count == 1 { ALONE } else { PAGE };
        match Limited::new(body, limit).collect().await {
            Ok(whole) => {
                let bytes = whole.to_bytes();
                let more = if bytes.len() < PAGE / 4 { count.saturating_mul(2).min(most) } else { count };
                learnt().insert(path, more);
                return Ok(Response::from_parts(parts, Body::from(bytes)));
            }
            Err(error) if count > 1 && error.is::<LengthLimitError>() => count /= 2,
            Err(error) => return Err(error),
        }
    }
}

/// How many objects a list asks for; `None` for anything else.
fn asked(request: &Request<Body>) -> Option<u32> {
    let mut pairs = request.uri().query()?.split('&');
    let limit = pairs.clone().find_map(|pair| pair.strip_prefix("limit=")?.parse().ok());
    limit.filter(|_| request.method() == Method::GET && !pairs.any(|pair| pair.starts_with("watch=")))
}

/// The same request for so many objects.
fn again(request: &Request<Body>, count: u32) -> Result<Request<Body>, http::Error> {
    let query = request.uri().query().unwrap_or_default();
    let other = |pair: &&str| !pair.starts_with("limit=") && !pair.is_empty();
    let pairs: Vec<&str> = query.split('&').filter(other).collect();
    let uri: Uri = format!("{}?limit={count}&{}", request.uri().path(), pairs.join("&")).parse()?;
    let mut next = Request::get(uri).body(Body::empty())?;
    next.headers_mut().clone_from(request.headers());
    Ok(next)
}

#[cfg(test)]
mod tests {
    use holdfast_api::SSHKey;
    use kube::api::ListParams;
    use serde_json::json;

    use super::*;

    /// An API with so many objects of these sizes, which counts what it sent at most.
    fn api(sizes: &'static [usize], largest: Arc<Mutex<Vec<usize>>>) -> Client {
        let answer = move |request: &Request<Body>| {
            let value = |key: &str| {
                let mut pairs = request.uri().query().unwrap().split('&');
                pairs.find_map(|pair| pair.strip_prefix(key)?.parse::<usize>().ok())
            };
            let (from, count) = (value("continue=").unwrap_or(0), value("limit=").unwrap());
            let to = (from + count).min(sizes.len());
            let item = |n: &usize| json!({"metadata": {"name": "k", "annotations": {"a": "x".repeat(*n)}}});
            let items: Vec<_> = sizes[from..to].iter().map(item).collect();
            let next = if to < sizes.len() { to.to_string() } else { String::new() };
            let list = json!({"kind": "List", "apiVersion": "v1", "items": items,
                "metadata": {"resourceVersion": "7", "continue": next}});
            largest.lock().unwrap().push(items.len());
            Response::new(Body::from(list.to_string().into_bytes()))
        };
        let service =
            service_fn(move |request: Request<Body>| std::future::ready(Ok::<_, BoxError>(answer(&request))));
        Client::new(service, "default")
    }

    /// Lists all, as a watch does; the number of objects and the counts of the pages that were sent.
    async fn listed(sizes: &'static [usize]) -> (usize, Vec<usize>) {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let keys = crate::all::<SSHKey>(paged(api(sizes, Arc::clone(&sent))));
        let (mut params, mut count) = (ListParams::default().limit(8), 0);
        loop {
            let page = keys.list(&params).await.unwrap();
            count += page.items.len();
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return (count, sent.lock().unwrap().clone()),
            }
        }
    }

    #[tokio::test]
    async fn pages_are_bounded_in_bytes() {
        const LARGE: [usize; 20] = [1_500_000; 20];
        const USUAL: [usize; 40] = [1_000; 40];
        let (count, sent) = listed(&LARGE).await;
        assert_eq!((count, sent[..4].to_vec()), (20, vec![8, 4, 2, 1]));
        assert!(sent[4..].iter().all(|count| *count == 1), "what was learnt is kept: {sent:?}");
        assert_eq!(listed(&USUAL).await, (40, vec![8; 5]));
    }

    #[tokio::test]
    async fn pages_grow_again_behind_the_large_ones() {
        const MIXED: [usize; 34] = {
            let mut sizes = [1_000; 34];
            (sizes[0], sizes[1]) = (1_500_000, 1_500_000);
            sizes
        };
        let (count, sent) = listed(&MIXED).await;
        assert_eq!(count, 34);
        assert_eq!(sent, [8, 4, 2, 1, 1, 1, 2, 4, 8, 8, 8, 1], "the counts of pages");
    }
}
