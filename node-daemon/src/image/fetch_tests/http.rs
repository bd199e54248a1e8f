//! Sources on the web, good and bad.

use super::server::{Answer, Site, Then, range, say, well};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_listed_by_root_alone_and_images_are_opened_by_name() {
    let (bench, body) = (Bench::new(), raw_image(300_000));
    let site = Site::serving(body.clone()).await;
    let image = bench.fetch_raw(site.url("/disk"), &digest_of(&body)).await.unwrap();
    let images = bench.dir.path().join("images");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&images), mode(&images.join(".partial"))), (0o711, 0o700));
    assert_eq!(
        mode(&image.path),
        0o444,
        "QEMU of whichever guest opens it by its path, and nobody writes it"
    );
    for note in ["json", "from"] {
        assert_eq!(mode(&image.path.with_extension(note)), 0o600, "who delivered it is nobody's affair");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_fetched_verified_and_published() {
    let (bench, body) = (Bench::new(), qcow2_image(&[]));
    let (site, digest) = (Site::serving(body.clone()).await, digest_of(&body));
    let progress = watch::Sender::default();
    let source = Source::Http(site.url("/disk.qcow2"));
    let image = fetch(&bench.cache, &source, &digest, Format::Qcow2, &progress).await.unwrap();
    assert_eq!((image.virtual_size, image.format), (64 << 20, Format::Qcow2));
    assert_eq!(fs::read(&image.path).unwrap(), body);
    assert_eq!(fs::metadata(&image.path).unwrap().permissions().mode() & 0o777, 0o444);
    assert_eq!(*progress.borrow(), Progress { bytes: body.len() as u64, total: Some(body.len() as u64) });
    assert_eq!(bench.cache.lookup(&digest), Some(image.clone()));
    assert_eq!(bench.cache.list().unwrap(), [image]);
    assert_eq!(bench.files().len(), 3, "image, seal and who brought it, nothing partial");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_in_the_cache_is_not_fetched_again() {
    let (bench, body) = (Bench::new(), raw_image(70_000));
    let (site, digest) = (Site::serving(body.clone()).await, digest_of(&body));
    for _ in 0..2 {
        bench.fetch_raw(site.url("/disk"), &digest).await.unwrap();
    }
    assert_eq!(site.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_with_the_same_image_fetch_it_once() {
    let (bench, body) = (Bench::new(), raw_image(3_000_000));
    let (site, digest) = (Site::serving(body.clone()).await, digest_of(&body));
    let fetch = || bench.fetch_raw(site.url("/disk"), &digest);
    let (first, second) = tokio::join!(fetch(), fetch());
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(site.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_download_continues_where_it_stopped() {
    let (bench, body) = (Bench::new(), raw_image(5_000_000));
    let digest = digest_of(&body);
    let site = Site::start(move |request| {
        let mut answer = well(request, &body, "\"one\"");
        if range(request).is_none() {
            answer.body.truncate(2_000_000);
        }
        answer
    });
    let site = site.await;
    let broken = bench.fetch_raw(site.url("/disk"), &digest).await.unwrap_err();
    assert_eq!((broken.reason(), broken.retry()), ("DownloadInterrupted", Retry::Soon));
    bench.fetch_raw(site.url("/disk"), &digest).await.unwrap();
    let requests = site.requests();
    assert!(requests[1].contains("range: bytes=2000000-") && requests[1].contains("if-range: \"one\""));
    assert_eq!(requests.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_fetch_continues_where_it_stopped() {
    let (bench, body) = (Bench::new(), raw_image(5_000_000));
    let digest = digest_of(&body);
    let site = Site::start(move |request| {
        let mut answer = well(request, &body, "\"one\"");
        if range(request).is_none() {
            answer.body.truncate(3_000_000);
            answer.then = Then::Silence;
        }
        answer
    });
    let site = site.await;
    let some_bytes = async {
        while fs::metadata(bench.partial(&digest)).map_or(0, |partial| partial.len()) < 1_000_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        ended = bench.fetch_raw(site.url("/disk"), &digest) => panic!("not dropped: {ended:?}"),
        () = some_bytes => {}
    }
    while let Err(error) = bench.fetch_raw(site.url("/disk"), &digest).await {
        assert_eq!(error.retry(), Retry::Soon, "{error}");
    }
    assert!(site.requests().last().unwrap().contains("range: bytes="));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_on_the_server_is_fetched_from_the_start() {
    let (bench, body) = (Bench::new(), raw_image(2_000_000));
    let digest = digest_of(&body);
    fs::write(bench.partial(&digest), &body[..1_000_000]).unwrap();
    let site = Site::start(move |request| well(request, &body, "\"two\"")).await;
    let url = site.url("/disk");
    let note = format!(r#"{{"url":"{url}","etag":"\"one\""}}"#);
    fs::write(bench.partial(&digest).with_extension("note"), note).unwrap();
    bench.fetch_raw(url, &digest).await.unwrap();
    assert_eq!(site.requests().len(), 1, "If-Range makes the server send everything at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_file_that_a_crash_left_damaged_is_not_blamed_on_the_source() {
    let (bench, body) = (Bench::new(), raw_image(2_000_000));
    let (site, digest) = (Site::serving(body.clone()).await, digest_of(&body));
    for leftover in [1_000_000, 2_000_000, 3_000_000] {
        seal::remove(&bench.cache.dir, &digest).unwrap();
        fs::write(bench.partial(&digest), vec![0; leftover]).unwrap();
        let note = format!(r#"{{"url":"{}","etag":"\"one\""}}"#, site.url("/disk"));
        fs::write(bench.partial(&digest).with_extension("note"), note).unwrap();
        bench.fetch_raw(site.url("/disk"), &digest).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_or_lengths_serves_too() {
    let (bench, body) = (Bench::new(), raw_image(2_000_000));
    let digest = digest_of(&body);
    let site = Site::start(move |_| say("200 OK\ncontent-type: text/plain", &body)).await;
    let image = bench.fetch_raw(site.url("/disk"), &digest).await.unwrap();
    assert_eq!(image.bytes, 2_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_digest_names_both_and_ends_by_itself() {
    let (bench, body) = (Bench::new(), raw_image(1 << 20));
    let (site, wrong) = (Site::serving(body.clone()).await, digest_of(b"other"));
    let refused = bench.fetch_raw(site.url("/disk"), &wrong).await.unwrap_err();
    assert_eq!((refused.reason(), refused.retry()), ("DigestMismatch", Retry::Later));
    let text = refused.to_string();
    assert!(text.contains(&wrong.to_string()) && text.contains(&digest_of(&body).to_string()), "{text}");
    assert_eq!(bench.files().len(), 0, "nothing is kept of bytes that are not the image");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_of_an_answer_below_1_mib_is_not_printed() {
    let (bench, body) = (Bench::new(), raw_image((1 << 20) - 1));
    let (site, wrong) = (Site::serving(body.clone()).await, digest_of(b"other"));
    let refused = bench.fetch_raw(site.url("/disk"), &wrong).await.unwrap_err();
    assert_eq!(refused.reason(), "DigestMismatch");
    assert!(!format!("{refused} {refused:?}").contains(&digest_of(&body).to_string()), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_answer_has_its_own_reason() {
    let html = b"<!DOCTYPE html><title>Please log in</title>";
    for (head, body, reason) in [
        ("404 Not Found", &b"no"[..], "ImageNotFound"),
        ("500 Broken", b"", "SourceUnavailable"),
        ("403 Forbidden", b"", "SourceUnavailable"),
        ("200 OK\ncontent-type: text/html; charset=utf-8", html, "NotAnImage"),
        ("200 OK\ncontent-length: 1000", b"short", "DownloadInterrupted"),
        ("204 Nothing", b"", "SourceUnavailable"),
    ] {
        let site = Site::start(move |_| say(head, body)).await;
        let bench = Bench::new();
        let refused = bench.fetch_raw(site.url("/disk"), &digest_of(b"wanted")).await.unwrap_err();
        assert_eq!(refused.reason(), reason, "{head}: {refused}");
        assert_ne!(refused.retry(), Retry::OnChange, "{head} ends by itself");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captive_portal_does_not_cost_what_was_received() {
    let (bench, digest) = (Bench::new(), digest_of(b"wanted"));
    let site = Site::start(|_| say("200 OK\ncontent-type: text/html", b"<html>log in")).await;
    fs::write(bench.partial(&digest), b"gigabytes").unwrap();
    let note = format!(r#"{{"url":"{}","etag":"\"one\""}}"#, site.url("/disk"));
    fs::write(bench.partial(&digest).with_extension("note"), note).unwrap();
    assert_eq!(bench.fetch_raw(site.url("/disk"), &digest).await.unwrap_err().reason(), "NotAnImage");
    assert_eq!(fs::read(bench.partial(&digest)).unwrap(), b"gigabytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stalls_is_given_up_in_time() {
    let good = "200 OK\ncontent-length: 100000";
    for (head, then) in [(good, Then::Silence), (good, Then::Trickle), ("", Then::Close)] {
        let stall = move |_: &str| Answer { head: head.to_owned(), body: b"some".to_vec(), then };
        let impatient = Bench::with(|rules| rules.stall_timeout = Duration::from_millis(400));
        let site = Site::start(stall).await;
        let begun = std::time::Instant::now();
        let stalled = impatient.fetch_raw(site.url("/disk"), &digest_of(b"wanted")).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!((stalled.reason(), stalled.retry()), ("DownloadStalled", Retry::Later), "{stalled}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named_without_its_password() {
    let url = "http://user:hunter2@127.0.0.1:1/disk?token=hunter2".parse().unwrap();
    let refused = Bench::new().fetch_raw(url, &digest_of(b"")).await.unwrap_err();
    assert_eq!(refused.reason(), "SourceUnavailable");
    let text = format!("{refused} {refused:?}");
    assert!(text.contains("127.0.0.1:1/disk") && !text.contains("hunter2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_is_refused_by_address_and_by_name_before_any_request() {
    let bench = Bench::with(|rules| rules.allow_loopback = false);
    let site = Site::serving(raw_image(10)).await;
    let port = site.port();
    for host in [
        "127.0.0.1",
        "[::1]",
        "localhost",
        "0x7f.1",
        "2130706433",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "169.254.169.254",
    ] {
        let url = format!("http://{host}:{port}/disk").parse().unwrap();
        let refused = bench.fetch_raw(url, &digest_of(b"")).await.unwrap_err();
        assert_eq!(refused.reason(), "SourceRefused", "{host}: {refused}");
    }
    assert_eq!(site.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_followed_but_not_to_refused_places() {
    let body = raw_image(1000);
    let digest = digest_of(&body);
    let site = Site::start(move |request| match request.split(' ').nth(1) {
        Some("/good") => say("302 Found\nlocation: /disk", b""),
        Some("/disk") => well(request, &body, "\"one\""),
        Some("/loop") => say("301 Moved\nlocation: /loop", b""),
        Some("/metadata") => say("302 Found\nlocation: http://169.254.169.254/latest", b""),
        Some("/file") => say("302 Found\nlocation: file:///etc/passwd", b""),
        _ => say("302 Found", b""),
    });
    let (site, bench) = (site.await, Bench::new());
    for path in ["/loop", "/metadata", "/file", "/nowhere"] {
        let refused = bench.fetch_raw(site.url(path), &digest).await.unwrap_err();
        assert_eq!(refused.reason(), "SourceRefused", "{path}: {refused}");
    }
    bench.fetch_raw(site.url("/good"), &digest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_over_the_limit_is_refused_before_and_during() {
    let bench = Bench::with(|rules| rules.max_bytes = 1_000_000);
    for head in ["200 OK\ncontent-length: 2000000", "200 OK"] {
        let site = Site::start(move |_| say(head, &raw_image(2_000_000))).await;
        let refused = bench.fetch_raw(site.url("/disk"), &digest_of(b"")).await.unwrap_err();
        assert_eq!((refused.reason(), refused.retry()), ("ImageTooLarge", Retry::OnChange), "{head}");
    }
    assert_eq!(bench.files().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_image_with_the_right_digest_is_refused() {
    let backing = qcow2_image(&["-u", "-b", "/etc/passwd", "-F", "raw"]);
    let good = qcow2_image(&[]);
    for (body, format, reason) in [
        (backing, Format::Qcow2, "HostileImage"),
        (good.clone(), Format::Raw, "WrongFormat"),
        (raw_image(1000), Format::Qcow2, "NotAnImage"),
        (good[..300].to_vec(), Format::Qcow2, "NotAnImage"),
        (Vec::new(), Format::Raw, "NotAnImage"),
    ] {
        let (bench, digest) = (Bench::new(), digest_of(&body));
        let site = Site::serving(body).await;
        let refused = bench.fetch(Source::Http(site.url("/disk")), &digest, format).await.unwrap_err();
        assert_eq!((refused.reason(), refused.retry()), (reason, Retry::OnChange), "{refused}");
        assert_eq!(bench.files().len(), 0);
    }
}
