//! A watch that no object stops, and that asks an API which is away less and less often.

use futures::{Stream, TryStreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::{Raw, Read};

/// What a watch tells. `Init` never comes: a list has begun when its first object comes or its end.
pub type Event<K> = watcher::Event<Read<K>>;

/// Lists and follows, each object decoded alone. After a failure it pauses, up to 30 s, longer each time.
///
/// kube tells `Init` before each attempt to list, successful or not, and any event takes the pause back to its beginning;
/// so an API that refuses or is away would be asked every second for ever. Hence `Init` is left out before the pauses.
pub fn watch<K>(
    api: Api<Raw>,
    asked: watcher::Config,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send
where
    K: Resource + Default + DeserializeOwned + Send + 'static,
{
    watcher(api, asked)
        .try_filter(|event| std::future::ready(!matches!(event, watcher::Event::Init)))
        .default_backoff()
        .map_ok(read)
}

fn read<K>(event: watcher::Event<Raw>) -> Event<K>
where
    K: Resource + Default + DeserializeOwned,
{
    match event {
        watcher::Event::Apply(object) => watcher::Event::Apply(object.into()),
        watcher::Event::Delete(object) => watcher::Event::Delete(object.into()),
        watcher::Event::InitApply(object) => watcher::Event::InitApply(object.into()),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitDone => watcher::Event::InitDone,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::StreamExt;
    use holdfast_api::SSHKey;
    use http::{Request, Response};
    use kube::Client;
    use kube::client::Body;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_api_that_is_away_is_asked_less_and_less_often() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let away = tower::service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Err::<Response<Body>, _>(std::io::Error::other("nobody there")))
        });
        let api = crate::all::<SSHKey>(Client::new(away, "default"));
        let events = watch::<SSHKey>(api, watcher::Config::default());
        let all = events.for_each(async |event| assert!(event.is_err()));
        tokio::time::timeout(Duration::from_secs(600), all).await.unwrap_err();
        let asked = asked.load(Ordering::Relaxed);
        assert!((10..40).contains(&asked), "asked {asked} times in ten minutes");
    }
}
