//! Whose bytes may use the room there is, and for whom: budget, guests' promises, private images.

use std::collections::HashMap;

use super::keep::on_a_small_disk;
use super::server::Site;
use super::*;
use crate::vm::room::{self, Claim, Share};
use uuid::Uuid;

/// A cache that holds `size` bytes at most and in which each namespace may take all.
fn budget(bytes: u64) -> Bench {
    Bench::with(|rules| rules.budget = Budget { bytes, namespace_percent: 100 })
}

async fn bring(bench: &Bench, length: usize, first: u8) -> Result<Image, Error> {
    let mut body = raw_image(length);
    body[0] = first;
    let site = Site::serving(body.clone()).await;
    bench.fetch_raw(site.url("/disk"), &digest_of(&body)).await
}

fn needed(image: &Image) -> Needs {
    let machines = ["shop".to_owned()].into();
    Needs::Known(HashMap::from([(image.digest, Need { machines, ..Need::default() })]))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_cache_has_a_budget_and_a_needed_image_is_not_given_for_another() {
    let bench = budget(1_000_000);
    let image = bring(&bench, 700_000, 1).await.unwrap();
    bench.cache.learn(needed(&image), 0);
    let full = bring(&bench, 700_000, 2).await.unwrap_err();
    assert_eq!((full.reason(), full.retry()), ("ImageCacheFull", Retry::Later), "{full}");
    assert_eq!(bench.cache.list().unwrap(), [image]);
    assert!(bench.files().iter().all(|file| !file.contains(".part")), "what came is not kept");
    bring(&bench, 200_000, 3).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_needs_makes_room_once_it_was_left_alone_for_a_while() {
    let bench = budget(1_000_000);
    let image = bring(&bench, 700_000, 1).await.unwrap();
    bench.cache.learn(Needs::Known(HashMap::new()), 0);
    assert_eq!(bench.cache.collect().unwrap(), [], "a disk may just be made on it");
    assert!(bring(&bench, 700_000, 2).await.is_err());
    bench.cache.ledger.age(&image.digest, Duration::from_secs(400));
    let second = bring(&bench, 700_000, 2).await.unwrap();
    assert_eq!(bench.cache.list().unwrap(), std::slice::from_ref(&second));
    fs::write(bench.partial(&image.digest), "half").unwrap();
    fs::write(bench.dir.path().join("images/notes.txt"), "somebody's").unwrap();
    bench.cache.collect().unwrap();
    for digest in [&image.digest, &second.digest] {
        bench.cache.ledger.age(digest, Duration::from_secs(4000));
    }
    assert_eq!(bench.cache.collect().unwrap(), [second.digest]);
    assert_eq!(bench.files(), ["notes.txt"], "what is not ours stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_knows_who_needs_what_no_image_goes() {
    let bench = budget(1_000_000);
    let image = bring(&bench, 700_000, 1).await.unwrap();
    bench.cache.ledger.age(&image.digest, Duration::from_secs(8000));
    bench.cache.learn(Needs::Unknown, 0);
    assert_eq!(bench.cache.collect().unwrap(), []);
    assert_eq!(bring(&bench, 700_000, 2).await.unwrap_err().reason(), "ImageCacheFull");
    assert_eq!(bench.cache.list().unwrap(), [image]);
}

#[tokio::test]
async fn after_a_look_that_failed_no_image_goes_by_what_was_known_before() {
    let bench = budget(1_000_000);
    let image = bring(&bench, 700_000, 1).await.unwrap();
    bench.cache.learn(Needs::Known(HashMap::new()), 0);
    bench.cache.ledger.age(&image.digest, Duration::from_secs(8000));
    bench.cache.doubt();
    assert_eq!(bring(&bench, 700_000, 2).await.unwrap_err().reason(), "ImageCacheFull");
    assert_eq!(bench.cache.list().unwrap(), [image]);
}

#[test]
fn guests_promised_blocks_are_never_given_to_a_download() {
    on_a_small_disk("size=24m", 4 << 20, async |cache, images| {
        let body = raw_image(8 << 20);
        let (digest, site) = (digest_of(&body), Site::serving(body.clone()).await);
        let source = Source::Http(site.url("/disk"));
        cache.learn(Needs::Unknown, 14 << 20);
        let full = fetch(&cache, &source, &digest, Format::Raw, &watch::Sender::default()).await.unwrap_err();
        assert_eq!(full.reason(), "DiskFull", "14 MiB are a guest's and 4 the host's");
        // The guest writes half of what it was promised: that much less is kept for it, and that much less is free.
        fs::write(images.join("guest"), vec![0; 7 << 20]).unwrap();
        cache.learn(Needs::Unknown, 7 << 20);
        let full = fetch(&cache, &source, &digest, Format::Raw, &watch::Sender::default()).await.unwrap_err();
        assert_eq!(full.reason(), "DiskFull");
        fs::remove_file(images.join("guest")).unwrap();
        fetch(&cache, &source, &digest, Format::Raw, &watch::Sender::default()).await.unwrap();
    });
}

#[test]
fn an_edit_to_more_than_the_node_has_holds_up_no_download() {
    on_a_small_disk("size=24m", 4 << 20, async |cache, _| {
        let body = raw_image(2 << 20);
        let (digest, site) = (digest_of(&body), Site::serving(body.clone()).await);
        let share = |storage| Share { cpu: 1, memory: 1 << 28, storage };
        let made = Claim { has: share(4 << 20), asks: share(64 << 40) };
        let not_made = Claim { asks: share(64 << 40), ..Claim::default() };
        let claims =
            [made, not_made].into_iter().enumerate().map(|(n, one)| (Uuid::from_u128(n as u128), one));
        let node = Share { cpu: 4, memory: 1 << 32, storage: 16 << 20 };
        let granted = room::granted(node, &claims.collect());
        let disks = granted.into_values().map(|one| room::Disks { promised: one.storage, written: 0 });
        let promised = room::unwritten(disks, 1.0);
        assert_eq!(promised, 4 << 20, "what the guest has stays its own");
        cache.learn(Needs::Unknown, promised);
        let source = Source::Http(site.url("/disk"));
        fetch(&cache, &source, &digest, Format::Raw, &watch::Sender::default()).await.unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_keeps_to_its_share_while_nobody_knows_who_needs_what() {
    let bench = Bench::with(|rules| rules.budget = Budget { bytes: 1_600_000, namespace_percent: 50 });
    let mut sites = Vec::new();
    for first in 1..=4 {
        let mut body = raw_image(500_000);
        body[0] = first;
        sites.push((digest_of(&body), Site::serving(body).await));
    }
    let (shop, bank) = (tenant("shop", Privacy::Shared), tenant("bank", Privacy::Shared));
    let again = |bench: &Bench| {
        let cache = Cache::open(&bench.dir.path().join("images"), bench.cache.rules.clone()).unwrap();
        cache.learn(Needs::Unknown, 0);
        Bench { cache, dir: tempfile::tempdir().unwrap() }
    };
    deliver(&bench, &sites[0].1, &sites[0].0, &shop).await.unwrap();
    for bench in [&bench, &again(&bench)] {
        let full = deliver(bench, &sites[1].1, &sites[1].0, &shop).await.unwrap_err();
        assert!(matches!(full, Error::ShareFull { .. }), "{full}");
    }
    deliver(&bench, &sites[2].1, &sites[2].0, &bank).await.unwrap();
    bench.cache.learn(Needs::Known(HashMap::new()), 0);
    bench.cache.ledger.age(&sites[0].0, Duration::from_secs(400));
    deliver(&bench, &sites[1].1, &sites[1].0, &shop).await.unwrap();
    assert_eq!(
        bench.cache.list().unwrap().len(),
        3,
        "and once it is known that nobody needs the first, it goes on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_forgets_its_images_gets_no_more_than_its_share_before_they_can_go() {
    let bench = Bench::with(|rules| rules.budget = Budget { bytes: 1_600_000, namespace_percent: 50 });
    let (shop, bank) = (tenant("shop", Privacy::Shared), tenant("bank", Privacy::Shared));
    let mut sites = Vec::new();
    for first in 1..=3 {
        let mut body = raw_image(700_000);
        body[0] = first;
        sites.push((digest_of(&body), Site::serving(body).await));
    }
    let first = deliver(&bench, &sites[0].1, &sites[0].0, &shop).await.unwrap();
    bench.cache.learn(needed(&first), 0);
    bench.cache.collect().unwrap();
    bench.cache.learn(Needs::Known(HashMap::new()), 0);
    let full = deliver(&bench, &sites[1].1, &sites[1].0, &shop).await.unwrap_err();
    assert!(matches!(full, Error::ShareFull { .. }), "{full}");
    deliver(&bench, &sites[2].1, &sites[2].0, &bank).await.expect("the bank has its share");
    bench.cache.ledger.age(&first.digest, Duration::from_secs(400));
    deliver(&bench, &sites[1].1, &sites[1].0, &shop).await.expect("the first one can go now");
    assert_eq!(bench.cache.lookup(&first.digest), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_counts_on_for_who_needed_it_last_and_not_for_who_brought_it() {
    let bench = Bench::with(|rules| rules.budget = Budget { bytes: 1_600_000, namespace_percent: 50 });
    let first = bring(&bench, 700_000, 1).await.unwrap();
    let bank = Need { machines: ["bank".to_owned()].into(), ..Need::default() };
    bench.cache.learn(Needs::Known(HashMap::from([(first.digest, bank)])), 0);
    bench.cache.collect().unwrap();
    bench.cache.learn(Needs::Known(HashMap::new()), 0);
    bring(&bench, 700_000, 2).await.expect("what the bank did moves nothing for the shop");
}

async fn deliver(bench: &Bench, site: &Site, digest: &Digest, tenant: &Tenant) -> Result<Image, Error> {
    let source = Source::Http(site.url("/disk"));
    let order = Order { source: &source, digest, format: Format::Raw, tenant, purpose: Purpose::Machine };
    bench.cache.fetch(order, &watch::Sender::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_image_serves_only_namespaces_whose_own_source_delivered_it() {
    let (bench, body) = (Bench::new(), raw_image(300_000));
    let (digest, site) = (digest_of(&body), Site::serving(body).await);
    let (shop, bank) = (tenant("shop", Privacy::Private), tenant("bank", Privacy::Shared));
    let image = deliver(&bench, &site, &digest, &shop).await.unwrap();
    assert_eq!(bench.cache.lookup_for(&digest, &shop), Some(image.clone()));
    assert_eq!(bench.cache.lookup_for(&digest, &bank), None, "to know the digest is not enough");
    let other = Site::serving(raw_image(400_000)).await;
    assert_eq!(deliver(&bench, &other, &digest, &bank).await.unwrap_err().reason(), "DigestMismatch");
    assert_eq!(bench.cache.lookup_for(&digest, &bank), None);
    assert_eq!(deliver(&bench, &site, &digest, &bank).await.unwrap(), image);
    assert_eq!(bench.cache.lookup_for(&digest, &bank), Some(image.clone()));
    assert_eq!(site.requests().len(), 2, "both fetched it for themselves");
    assert_eq!(fs::metadata(&image.path).unwrap().len(), 300_000);
    let reopened = Cache::open(&bench.dir.path().join("images"), bench.cache.rules.clone()).unwrap();
    assert_eq!(reopened.lookup_for(&digest, &tenant("desk", Privacy::Shared)), None, "after a restart too");
    assert_eq!(reopened.lookup_for(&digest, &bank), Some(image));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_a_capability_until_who_delivered_the_bytes_calls_them_private() {
    let (bench, body) = (Bench::new(), raw_image(300_000));
    let (digest, site) = (digest_of(&body), Site::serving(body).await);
    let bank = tenant("bank", Privacy::Shared);
    deliver(&bench, &site, &digest, &tenant("shop", Privacy::Shared)).await.unwrap();
    assert!(deliver(&bench, &site, &digest, &bank).await.is_ok());
    deliver(&bench, &site, &digest, &tenant("shop", Privacy::Private)).await.unwrap();
    assert_eq!(site.requests().len(), 1, "its own source had delivered them before");
    assert_eq!(bench.cache.lookup_for(&digest, &bank), None);
}
