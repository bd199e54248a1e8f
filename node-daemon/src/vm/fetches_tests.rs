use std::net::TcpListener;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::turns::AT_ONCE;
use super::*;
use crate::image::{Error, Privacy, Rules, Seen};

/// Downloads into a folder of their own, from servers that nobody waits for long.
struct Bench {
    _dir: tempfile::TempDir,
    fetches: Fetches,
    problems: watch::Sender<Option<Vec<NodeProblem>>>,
}

impl Bench {
    fn new(stall: Duration, pace: Pace) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rules = Rules {
            allow_loopback: true,
            reserve_bytes: 0,
            stall_timeout: stall,
            connect_timeout: Duration::from_secs(1),
            ..Rules::default()
        };
        let cache = Cache::open(&dir.path().join("images"), rules).unwrap();
        cache.learn(Needs::Unknown, 0);
        let problems = watch::Sender::new(None);
        Self { fetches: Fetches::at_pace(Arc::new(cache), problems.subscribe(), pace), problems, _dir: dir }
    }

    /// Waits until the download of this has failed, and says why.
    async fn failure(&self, wanted: &Wanted) -> Obstacle {
        loop {
            if let Some(Fetch::Failed(obstacle)) = self.fetches.state(&wish(wanted)) {
                return obstacle;
            }
            self.fetches.ended().await;
        }
    }
}

fn wanted(digest: &str, url: &str) -> Wanted {
    Wanted {
        source: Source::Http(url.parse().unwrap()),
        digest: digest.parse().unwrap(),
        format: Format::Raw,
        tenant: Tenant { namespace: "shop".to_owned(), privacy: Privacy::Shared },
    }
}

fn wish(wanted: &Wanted) -> Wish {
    Wish { wanted: wanted.clone(), object: None, purpose: Purpose::Ahead }
}

/// A server that takes connections and says nothing.
fn silence() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/disk", listener.local_addr().unwrap());
    (listener, url)
}

/// A server that sends `text` to each who asks, and then nothing more.
async fn saying(text: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/disk", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(text.as_bytes()).await;
            open.push(stream);
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_servers_take_a_few_turns_and_whoever_waits_comes_next() {
    let (bench, (_server, url)) = (Bench::new(Duration::from_secs(1), Pace::default()), silence());
    let digest = |number: u8| format!("sha256:{}", format!("{number:02x}").repeat(32));
    let all: Vec<_> = (0..8).map(|number| wanted(&digest(number), &url)).collect();
    for wanted in &all {
        bench.fetches.begin(&wish(wanted));
    }
    assert_eq!(bench.fetches.running().len(), AT_ONCE);
    assert!(all.iter().any(|wanted| bench.fetches.state(&wish(wanted)) == Some(Fetch::Waiting)));
    for wanted in &all {
        assert_eq!(bench.failure(wanted).await.reason, "DownloadStalled");
    }
}

#[tokio::test]
async fn no_import_begins_while_the_state_disk_takes_no_writes_and_each_does_once_it_does() {
    let (bench, (_server, url)) = (Bench::new(Duration::from_secs(1), Pace::default()), silence());
    let wanted = wanted(&format!("sha256:{}", "01".repeat(32)), &url);
    let problem =
        |reason: &str| Some(vec![NodeProblem { reason: reason.to_owned(), ..NodeProblem::default() }]);
    for reason in ["StateReadOnly", "StateUnreachable"] {
        bench.problems.send_replace(problem(reason));
        bench.fetches.begin(&wish(&wanted));
        bench.fetches.learn(Needs::Unknown, 0);
        assert_eq!(bench.fetches.running(), [], "{reason}");
        assert_eq!(bench.fetches.state(&wish(&wanted)), Some(Fetch::Waiting));
    }
    bench.problems.send_replace(problem("ClockJumped"));
    bench.fetches.learn(Needs::Unknown, 0);
    assert_eq!(bench.fetches.running().len(), 1, "a wrong clock bars no import");
}

/// Has a source of this namespace bring a wrong file that its server showed as `"a"`, a while ago.
fn was_wrong(bench: &Bench, namespace: &str, number: u8, url: &str) -> Wanted {
    let mut wanted = wanted(&format!("sha256:{}", format!("{number:02x}").repeat(32)), url);
    wanted.tenant.namespace = namespace.to_owned();
    let then = Instant::now().checked_sub(Duration::from_secs(20)).unwrap();
    let mut tasks = bench.fetches.lock();
    tasks.ask(&wish(&wanted), then);
    tasks.start(&wanted, watch::channel(Progress::default()).1, then);
    let (at, seen) = (url.to_owned(), Box::new(Seen::etag("\"a\"")));
    let wrong = Error::DigestMismatch { at, expected: wanted.digest, found: None, seen };
    tasks.fail(&wanted, Failure::Fetch(wrong), then);
    wanted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_exchanged_is_seen_however_many_silent_servers_others_have() {
    let (bench, (_server, silent)) = (Bench::new(Duration::from_secs(60), Pace::default()), silence());
    for (number, namespace) in
        (0..60).zip(["flood", "swamp", "storm", "surge", "spate", "tide"].iter().cycle())
    {
        let wanted = was_wrong(&bench, namespace, number, &silent);
        assert!(matches!(bench.fetches.state(&wish(&wanted)), Some(Fetch::Failed(_))));
    }
    let exchanged = saying("HTTP/1.1 200 OK\r\ncontent-length: 5\r\netag: \"b\"\r\n\r\nd").await;
    let shop = was_wrong(&bench, "shop", 200, &exchanged);
    let asked = Instant::now();
    while matches!(bench.fetches.state(&wish(&shop)), Some(Fetch::Failed(_))) {
        assert!(asked.elapsed() < LOOK_TIMEOUT / 2, "the looks of others go first");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The bytes are `disk` and a line end; their digest was made with sha256sum.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_source_does_not_keep_the_image_from_a_good_one() {
    let digest = "sha256:e4afa146b6cac84107134c69a12c93b983d4a09d5f628f325d11aa7347a8e895";
    let pace = Pace { window: Duration::from_millis(50), bytes: 1 << 20 };
    let bench = Bench::new(Duration::from_secs(3600), pace);
    let slow = wanted(digest, &saying("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nd").await);
    let good = wanted(digest, &saying("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ndisk\n").await);
    bench.fetches.begin(&wish(&slow));
    bench.fetches.begin(&wish(&good));
    while bench.fetches.cache().lookup(&good.digest).is_none() {
        // It is asked again as the driver asks: the blocks of the other one may still be on their way to the disk.
        bench.fetches.begin(&wish(&good));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(bench.fetches.trouble(&slow).unwrap().contains("very slow, so others had their turn first"));
}
