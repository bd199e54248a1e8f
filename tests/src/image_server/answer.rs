//! One answer of the image server.

use std::io::SeekFrom;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Response};
use futures::stream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::Behaviour;

/// Small enough that a throttled answer comes smoothly.
const CHUNK_BYTES: u64 = 64 * 1024;

/// Where an answer ends before its time, and how.
#[derive(Clone, Copy)]
enum Cut {
    Never,
    Close(u64),
    Stall(u64),
}

/// Answers a request for `file` in the way `behaviour` says.
pub(super) async fn give(file: &Path, behaviour: &Behaviour, headers: &HeaderMap) -> Response<Body> {
    match behaviour {
        Behaviour::NotFound => plain(404, "text/plain", "no such file\n"),
        Behaviour::HtmlPage => {
            plain(200, "text/html", "<!DOCTYPE html><html><body>Please log in.</body></html>\n")
        }
        Behaviour::Redirect(to) => {
            built(Response::builder().status(302).header("location", to).body(Body::empty()))
        }
        _ => match send(file, behaviour, headers).await {
            Ok(response) => response,
            Err(error) => plain(500, "text/plain", &format!("{}: {error}\n", file.display())),
        },
    }
}

/// A short answer.
pub(super) fn plain(status: u16, kind: &str, text: &str) -> Response<Body> {
    built(Response::builder().status(status).header("content-type", kind).body(Body::from(text.to_owned())))
}

fn built(response: Result<Response<Body>, axum::http::Error>) -> Response<Body> {
    // Only a header value with control characters can fail, and then the story's own input is wrong.
    response.unwrap_or_else(|error| Response::new(Body::from(error.to_string())))
}

async fn send(file: &Path, behaviour: &Behaviour, headers: &HeaderMap) -> std::io::Result<Response<Body>> {
    let mut opened = File::open(file).await?;
    let about = opened.metadata().await?;
    let length = about.len();
    let age = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let etag = format!("\"{length:x}-{:x}\"", age.as_nanos());
    let ranges = *behaviour != Behaviour::WithoutRanges;
    let from = if ranges { asked_from(headers, &etag, length) } else { None };
    let start = from.unwrap_or(0);
    opened.seek(SeekFrom::Start(start)).await?;

    // As web servers tell it from the name; a listing of a mirror is not taken without.
    let is_json = file.extension().is_some_and(|it| it == "json");
    let kind = if is_json { "application/json" } else { "application/octet-stream" };
    let mut response =
        Response::builder().header("content-type", kind).header("content-length", length - start);
    if ranges {
        response = response.header("etag", etag).header("accept-ranges", "bytes");
    }
    if from.is_some() && length > 0 {
        let last = length - 1;
        response = response.status(206).header("content-range", format!("bytes {start}-{last}/{length}"));
    }
    Ok(built(response.body(body(opened, start, behaviour))))
}

/// The first byte of a satisfiable open range (`bytes=N-`) whose `If-Range` still holds.
fn asked_from(headers: &HeaderMap, etag: &str, length: u64) -> Option<u64> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let from = text("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?;
    let current = text("if-range").is_none_or(|known| known == etag);
    (current && from < length).then_some(from)
}

fn body(file: File, start: u64, behaviour: &Behaviour) -> Body {
    let cut = match behaviour {
        Behaviour::Truncated(after) => Cut::Close(*after),
        Behaviour::Stalled(after) => Cut::Stall(*after),
        _ => Cut::Never,
    };
    let pause = match behaviour {
        Behaviour::Throttled(rate) => Duration::from_secs_f64(to_seconds(CHUNK_BYTES, *rate)),
        _ => Duration::ZERO,
    };
    let spoil = *behaviour == Behaviour::WrongBytes && start == 0;
    let sending = Sending { file, sent: 0, cut, pause, spoil };
    Body::from_stream(stream::try_unfold(sending, Sending::next))
}

#[expect(clippy::cast_precision_loss, reason = "a pause need not be exact")]
fn to_seconds(bytes: u64, rate: u64) -> f64 {
    bytes as f64 / rate.max(1) as f64
}

struct Sending {
    file: File,
    sent: u64,
    cut: Cut,
    pause: Duration,
    spoil: bool,
}

impl Sending {
    async fn next(mut self) -> std::io::Result<Option<(Bytes, Self)>> {
        let room = match self.cut {
            Cut::Never => CHUNK_BYTES,
            Cut::Close(after) if self.sent >= after => {
                return Err(std::io::Error::other("cut short by the story"));
            }
            Cut::Stall(after) if self.sent >= after => std::future::pending().await,
            Cut::Close(after) | Cut::Stall(after) => CHUNK_BYTES.min(after - self.sent),
        };
        if !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
        // All of its room at once: a vector that grows would ask for a few bytes at a time, each in a thread of its own.
        let mut chunk = Vec::with_capacity(usize::try_from(room).unwrap_or_default());
        (&mut self.file).take(room).read_buf(&mut chunk).await?;
        if chunk.is_empty() {
            return Ok(None);
        }
        if self.spoil && self.sent == 0 {
            chunk[0] ^= 0xff;
        }
        self.sent += chunk.len() as u64;
        Ok(Some((Bytes::from(chunk), self)))
    }
}
