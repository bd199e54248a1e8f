//! Servers that break off, mislabel or change what they have: each download is tried again, or taken for what it is.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::server::{Answer, Site, range, say, well};
use super::*;

/// Serves the first request that names no range by `first`, and all others by `then`.
async fn once(
    first: impl Fn(&str) -> Answer + Send + Sync + 'static,
    then: impl Fn(&str) -> Answer + Send + Sync + 'static,
) -> Site {
    let asked = AtomicUsize::new(0);
    Site::start(move |request| if asked.fetch_add(1, Relaxed) == 0 { first(request) } else { then(request) })
        .await
}

fn half(mut answer: Answer) -> Answer {
    answer.body.truncate(answer.body.len() / 2);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_without_a_length_is_a_download_that_broke_off() {
    let body = Arc::new(raw_image(2_000_000));
    for head in ["200 OK", "200 OK\netag: \"one\"", "203 Maybe\netag: W/\"one\""] {
        let (bench, digest) = (Bench::new(), digest_of(&body));
        let [first, then] = [body.clone(), body.clone()];
        let site = once(move |_| half(say(head, &first)), move |_| say(head, &then)).await;
        let broken = bench.fetch_raw(site.url("/disk"), &digest).await.unwrap_err();
        assert_eq!(
            (broken.reason(), broken.retry()),
            ("DownloadInterrupted", Retry::Soon),
            "{head}: {broken}"
        );
        assert!(broken.to_string().contains("ended after 1000000 bytes"), "{broken}");
        assert_eq!(bench.files().len(), 0, "nothing is kept of bytes that are not the image");
        bench.fetch_raw(site.url("/disk"), &digest).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_file_that_is_called_a_web_page_is_taken() {
    let body = Arc::new(raw_image(2_000_000));
    let html = "\ncontent-type: Text/HTML; charset=UTF-8";
    let labelled = move |mut answer: Answer| {
        answer.head += html;
        answer
    };
    let whole = |body: &[u8]| say(&format!("200 OK\ncontent-length: {}\netag: \"one\"", body.len()), body);
    for resumes in [true, false] {
        let (bench, digest) = (Bench::new(), digest_of(&body));
        let [first, then] = [body.clone(), body.clone()];
        let answer =
            move |request: &str| if resumes { well(request, &then, "\"one\"") } else { whole(&then) };
        let site = once(
            move |request| half(labelled(well(request, &first, "\"one\""))),
            move |request| labelled(answer(request)),
        );
        let site = site.await;
        let broken = bench.fetch_raw(site.url("/disk"), &digest).await.unwrap_err();
        assert_eq!(broken.reason(), "DownloadInterrupted");
        bench.fetch_raw(site.url("/disk"), &digest).await.unwrap();
        let requests = site.requests();
        assert_eq!((requests.len(), range(&requests[1])), (2, Some(1_000_000)), "continued, or fetched anew");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_image_that_is_called_a_web_page_is_an_image_with_a_wrong_digest() {
    let body = raw_image(100_000);
    let head = format!("200 OK\ncontent-type: text/html\ncontent-length: {}", body.len());
    let site = Site::start(move |_| say(&head, &body)).await;
    let refused = Bench::new().fetch_raw(site.url("/disk"), &digest_of(b"other")).await.unwrap_err();
    assert_eq!(refused.reason(), "DigestMismatch", "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_costs_nothing_that_was_received_whatever_it_is_called() {
    let (bench, digest) = (Bench::new(), digest_of(b"wanted"));
    let site = Site::start(|_| say("200 OK\ncontent-type: text/plain", b"<!doctype HTML>log in")).await;
    fs::write(bench.partial(&digest), b"gigabytes").unwrap();
    let note = format!(r#"{{"url":"{}","etag":"\"one\""}}"#, site.url("/disk"));
    fs::write(bench.partial(&digest).with_extension("note"), note).unwrap();
    assert_eq!(bench.fetch_raw(site.url("/disk"), &digest).await.unwrap_err().reason(), "NotAnImage");
    assert_eq!(fs::read(bench.partial(&digest)).unwrap(), b"gigabytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_another_status_and_the_whole_file_is_taken_for_it() {
    let body = raw_image(100_000);
    let digest = digest_of(&body);
    let part = format!("206 Part\ncontent-range: bytes 0-{}/{}", body.len() - 1, body.len());
    for head in ["203 Non-Authoritative Information\nvia: 1.1 proxy", &part] {
        let (head, body) = (head.to_owned(), body.clone());
        let site = Site::start(move |_| say(&head, &body)).await;
        Bench::new().fetch_raw(site.url("/disk"), &digest).await.unwrap();
    }
    for head in ["202 Later", "206 Part\ncontent-range: bytes 5-9/10"] {
        let site = Site::start(move |_| say(head, b"not it")).await;
        let refused = Bench::new().fetch_raw(site.url("/disk"), &digest).await.unwrap_err();
        assert_eq!((refused.reason(), refused.retry()), ("SourceUnavailable", Retry::Later), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_redirects_are_followed_and_one_more_is_not() {
    let body = raw_image(1000);
    let digest = digest_of(&body);
    let site = Site::start(move |request| {
        let left: u32 = request.split(' ').nth(1).unwrap().rsplit('/').next().unwrap().parse().unwrap();
        match left {
            0 => well(request, &body, "\"one\""),
            // A file name as it is, which is not the letter of the law.
            left => say(&format!("307 Next\nlocation: /grün/{}", left - 1), b""),
        }
    });
    let (site, bench) = (site.await, Bench::new());
    let refused = bench.fetch_raw(site.url("/11"), &digest).await.unwrap_err();
    assert!(refused.to_string().contains("more than 10 redirects"), "{refused}");
    bench.fetch_raw(site.url("/10"), &digest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_tells_whether_a_source_has_another_file_and_takes_none_of_it() {
    let bodies = Arc::new(std::sync::Mutex::new((raw_image(3_000_000), "\"one\"")));
    let served = bodies.clone();
    let site = Site::start(move |request| {
        let (body, etag) = served.lock().unwrap().clone();
        match etag {
            "" => say(&format!("200 OK\ncontent-length: {}", body.len()), &body),
            etag => well(request, &body, etag),
        }
    });
    let (site, bench) = (site.await, Bench::new());
    let source = Source::Http(site.url("/disk"));
    let wrong = bench.fetch_raw(site.url("/disk"), &digest_of(b"other")).await.unwrap_err();
    let Error::DigestMismatch { seen, .. } = wrong else { panic!("{wrong}") };
    let look = async || bench.cache.look(&source).await.unwrap();
    assert!(!look().await.differs(&seen), "the same file");
    bodies.lock().unwrap().1 = "\"two\"";
    assert!(look().await.differs(&seen));
    *bodies.lock().unwrap() = (raw_image(3_000_001), "");
    assert!(look().await.differs(&seen), "by its length alone");
    assert_eq!(bench.files().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_goes_through_the_same_gates_as_a_download() {
    let bench = Bench::with(|rules| rules.allow_loopback = false);
    let site = Site::serving(raw_image(10)).await;
    let refused = bench.cache.look(&Source::Http(site.url("/disk"))).await.unwrap_err();
    assert_eq!((refused.reason(), site.requests().len()), ("SourceRefused", 0));
    assert_eq!(
        bench.cache.look(&Source::File("/etc/passwd".into())).await.unwrap_err().reason(),
        "SourceRefused"
    );
}
