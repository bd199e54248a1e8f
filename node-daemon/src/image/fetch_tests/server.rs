//! A web server of sixty lines that serves one body well or badly.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How a request is answered: the head as it stands, then the body, then perhaps nothing for ever. Without a head
/// there is not even that.
pub(super) struct Answer {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    pub(super) then: Then,
}

/// What a server does when it has sent the body.
#[derive(Clone, Copy)]
pub(super) enum Then {
    Close,
    Silence,
    Trickle,
}

/// A running server, on loopback unless it says otherwise; it ends with the test's runtime.
pub(super) struct Site {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Site {
    /// Answers every request by what `answer` says to its text.
    pub(super) async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::on(listener, address, answer)
    }

    /// The same on another address of this host as well.
    pub(super) async fn start_at(
        address: &str,
        answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = SocketAddr::new(address.parse().unwrap(), listener.local_addr().unwrap().port());
        Self::on(listener, address, answer)
    }

    fn on(
        listener: TcpListener,
        address: SocketAddr,
        answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&seen), Arc::clone(&answer)));
            }
        });
        Self { address, requests }
    }

    /// Serves `body` as a careful server does: length, `ETag`, ranges.
    pub(super) async fn serving(body: Vec<u8>) -> Self {
        Self::start(move |request| well(request, &body, "\"one\"")).await
    }

    pub(super) fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The requests so far, as text.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>, answer: Arc<impl Fn(&str) -> Answer>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let Answer { head, body, then } = answer(&request);
    seen.lock().unwrap().push(request);
    if head.is_empty() {
        std::future::pending::<()>().await;
    }
    let head = format!("HTTP/1.1 {}\r\nconnection: close\r\n\r\n", head.trim().replace('\n', "\r\n"));
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&body).await;
    match then {
        Then::Close => {}
        Then::Silence => std::future::pending().await,
        Then::Trickle => {
            while stream.write_all(b".").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// A good answer: the whole, or the rest that `Range` asks for while `If-Range` still fits.
pub(super) fn well(request: &str, body: &[u8], etag: &str) -> Answer {
    let total = body.len();
    match range(request).filter(|_| header(request, "if-range") == Some(etag)) {
        None => say(&format!("200 OK\ncontent-length: {total}\netag: {etag}"), body),
        Some(from) if from >= total => say(&format!("416 Nothing\ncontent-range: bytes */{total}"), b""),
        Some(from) => say(
            &format!(
                "206 Partial\netag: {etag}\ncontent-length: {}\ncontent-range: bytes {from}-{}/{total}",
                total - from,
                total - 1
            ),
            &body[from..],
        ),
    }
}

pub(super) fn say(head: &str, body: &[u8]) -> Answer {
    Answer { head: head.to_owned(), body: body.to_vec(), then: Then::Close }
}

/// The first byte that `Range: bytes=<from>-` asks for.
pub(super) fn range(request: &str) -> Option<usize> {
    header(request, "range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let named = |line: &'a str| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name));
    request.lines().find_map(named).map(|(_, value)| value)
}
