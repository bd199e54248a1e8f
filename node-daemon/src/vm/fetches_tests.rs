use std::net::TcpListener;

use super::*;
use crate::image::Rules;

/// Downloads into a folder of their own, from servers that nobody waits for long.
struct Bench {
    _dir: tempfile::TempDir,
    fetches: Fetches,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rules = Rules {
            allow_loopback: true,
            reserve_bytes: 0,
            stall_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            ..Rules::default()
        };
        let cache = Cache::open(&dir.path().join("images"), rules).unwrap();
        Self { fetches: Fetches::new(Arc::new(cache)), _dir: dir }
    }

    /// Waits until the download of this has failed, and says why.
    async fn failure(&self, wanted: &Wanted) -> Obstacle {
        loop {
            if let Some(Fetch::Failed(obstacle)) = self.fetches.state(wanted) {
                return obstacle;
            }
            self.fetches.ended().await;
        }
    }
}

/// An image that nobody has.
fn wanted(number: u8, url: &str) -> Wanted {
    let digest = format!("sha256:{}", format!("{number:02x}").repeat(32));
    Wanted {
        source: Source::Http(url.parse().unwrap()),
        digest: digest.parse().unwrap(),
        format: Format::Raw,
    }
}

/// A server that takes connections and says nothing.
fn silence() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/disk", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_servers_take_a_few_turns_and_whoever_waits_comes_next() {
    let (bench, (_server, url)) = (Bench::new(), silence());
    let all: Vec<_> = (0..8).map(|number| wanted(number, &url)).collect();
    all.iter().for_each(|wanted| bench.fetches.begin(wanted.clone()));
    assert_eq!(bench.fetches.running().len(), AT_ONCE);
    assert!(all.iter().any(|wanted| bench.fetches.state(wanted) == Some(Fetch::Waiting)));
    for wanted in &all {
        assert_eq!(bench.failure(wanted).await.reason, "DownloadStalled");
    }
}

#[test]
fn a_download_that_gets_no_further_is_tried_ever_more_seldom() {
    let mut past = Past::default();
    let mut pauses = Vec::new();
    for bytes in [100, 100, 100, 100, 200, 200] {
        past.broke_off(bytes);
        pauses.push(pause(Retry::Soon, past.idle).as_secs());
    }
    assert_eq!(pauses, [2, 4, 8, 16, 2, 4]);
    assert_eq!(pause(Retry::Soon, 60), LONGEST_PAUSE);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_remembers_the_ones_before_it() {
    let (bench, wanted) = (Bench::new(), wanted(1, "http://127.0.0.1:1/disk"));
    bench.fetches.begin(wanted.clone());
    assert_eq!(bench.failure(&wanted).await.reason, "SourceUnavailable");
    let mut tasks = bench.fetches.lock();
    let task = tasks.get_mut(&wanted.digest).unwrap();
    task.past.broke_off(100);
    task.state = State::Failed { obstacle: task.past.last.clone().unwrap(), again: Instant::now() };
    drop(tasks);
    bench.fetches.begin(wanted.clone());
    assert_eq!(bench.fetches.lock().get(&wanted.digest).unwrap().past.best, 100);
    assert!(bench.fetches.trouble(&wanted).unwrap().contains("127.0.0.1:1/disk could not be read"));
}
