use proptest::prelude::*;

use super::*;
use crate::image::{Format, Privacy, Source, Tenant};

fn wanted(digest: u8, namespace: &str) -> Wanted {
    Wanted {
        source: Source::File(format!("/images/{digest}").into()),
        digest: Digest::new([digest; 32]),
        format: Format::Raw,
        tenant: Tenant { namespace: namespace.to_owned(), privacy: Privacy::Shared },
    }
}

/// What is wanted, what for, since when it stands as it does, and how often it gave way.
type Entry = (Wanted, Purpose, Instant, u32);

/// A site on which time moves by hand.
struct Site {
    now: Instant,
    running: Vec<Entry>,
    waiting: Vec<Entry>,
    served: HashMap<String, Instant>,
}

impl Site {
    fn new() -> Self {
        Self { now: Instant::now(), running: Vec::new(), waiting: Vec::new(), served: HashMap::new() }
    }

    fn ask(&mut self, digest: u8, namespace: &str, purpose: Purpose) {
        self.now += Duration::from_millis(1);
        self.waiting.push((wanted(digest, namespace), purpose, self.now, 0));
    }

    fn turns(&self) -> Turns<'_> {
        Turns { running: list(&self.running), waiting: list(&self.waiting), served: &self.served }
    }

    /// Fills the places; returns the namespaces that got one, in order.
    fn admit(&mut self) -> Vec<String> {
        let mut admitted = Vec::new();
        while let Some(next) = self.turns().next().cloned() {
            let at = self.waiting.iter().position(|one| one.0 == next).unwrap();
            let (wanted, purpose, _, yielded) = self.waiting.remove(at);
            self.now += Duration::from_millis(1);
            self.served.insert(wanted.tenant.namespace.clone(), self.now);
            admitted.push(wanted.tenant.namespace.clone());
            self.running.push((wanted, purpose, self.now, yielded));
        }
        admitted
    }

    /// Those that have to leave give way, as the downloads do that look every two seconds.
    fn look(&mut self) {
        self.now += Duration::from_secs(2);
        let all: Vec<Wanted> = self.running.iter().map(|one| one.0.clone()).collect();
        for place in all {
            if self.turns().gives_way(&place, self.now) {
                let at = self.running.iter().position(|one| one.0 == place).unwrap();
                let (wanted, purpose, _, yielded) = self.running.remove(at);
                self.served.insert(wanted.tenant.namespace.clone(), self.now);
                self.waiting.push((wanted, purpose, self.now, yielded + 1));
                self.admit();
            }
        }
    }

    fn places_of(&self, namespace: &str) -> usize {
        self.running.iter().filter(|one| one.0.tenant.namespace == namespace).count()
    }
}

fn list(all: &[Entry]) -> Vec<Standing<'_>> {
    all.iter().map(standing).collect()
}

fn standing(entry: &Entry) -> Standing<'_> {
    Standing { wanted: &entry.0, purpose: entry.1, since: entry.2, yielded: entry.3 }
}

#[test]
fn turns_go_round_by_namespace_however_much_one_asks_for() {
    let mut site = Site::new();
    for digest in 0..8 {
        site.ask(digest, "flood", Purpose::Machine);
    }
    for (digest, namespace) in [(20, "bank"), (21, "desk"), (22, "shop"), (23, "club")] {
        site.ask(digest, namespace, Purpose::Machine);
    }
    assert_eq!(site.admit(), ["flood", "bank", "desk", "shop"]);
    site.running.remove(0);
    assert_eq!(site.admit(), ["club"], "the flood was served already");
}

#[test]
fn a_vm_that_wants_to_start_comes_before_prefetch() {
    let mut site = Site::new();
    for digest in 0..5 {
        site.ask(digest, "bank", Purpose::Ahead);
    }
    site.admit();
    site.ask(9, "shop", Purpose::Machine);
    site.look();
    assert_eq!(site.places_of("shop"), 1, "one that fetches ahead gave way at once");
    assert_eq!(site.places_of("bank"), AT_ONCE - 1);
}

#[test]
fn prefetch_does_not_push_out_a_vm() {
    let mut site = Site::new();
    for digest in 0..4 {
        site.ask(digest, "bank", Purpose::Machine);
    }
    site.admit();
    site.ask(9, "shop", Purpose::Ahead);
    for _ in 0..1000 {
        site.look();
    }
    assert_eq!(site.places_of("bank"), AT_ONCE);
}

#[test]
fn a_place_is_held_for_a_bounded_time_while_others_wait() {
    let mut site = Site::new();
    for digest in 0..4 {
        site.ask(digest, "flood", Purpose::Machine);
    }
    site.admit();
    for _ in 0..1000 {
        site.look();
    }
    assert_eq!(site.places_of("flood"), AT_ONCE, "nobody waits");
    site.ask(9, "shop", Purpose::Machine);
    let asked = site.now;
    while site.places_of("shop") == 0 {
        site.look();
    }
    assert!(site.now - asked <= TERM + Duration::from_secs(4), "{:?}", site.now - asked);
    assert_eq!(site.places_of("flood"), AT_ONCE - 1, "one of them gave way, not all");
}

#[test]
fn a_place_is_held_for_a_bounded_time_while_another_source_of_the_same_bytes_waits() {
    let mut site = Site::new();
    site.ask(1, "flood", Purpose::Machine);
    site.admit();
    site.ask(1, "shop", Purpose::Machine);
    let asked = site.now;
    assert!(site.admit().is_empty(), "one source at a time");
    while site.places_of("shop") == 0 {
        site.look();
        assert!(site.now - asked <= TERM + Duration::from_secs(4), "three places are free, and none helps");
    }
    assert_eq!(site.places_of("flood"), 0);
}

#[test]
fn a_vm_comes_before_a_prefetch_of_the_same_bytes() {
    let mut site = Site::new();
    site.ask(1, "flood", Purpose::Ahead);
    site.ask(2, "bank", Purpose::Ahead);
    site.admit();
    site.ask(1, "shop", Purpose::Machine);
    site.look();
    assert_eq!(site.places_of("shop"), 1);
    assert_eq!((site.places_of("flood"), site.places_of("bank")), (0, 1));
}

#[test]
fn a_prefetch_does_not_push_out_a_vm_that_fetches_the_same_bytes() {
    let mut site = Site::new();
    site.ask(1, "shop", Purpose::Machine);
    site.admit();
    site.ask(1, "flood", Purpose::Ahead);
    for _ in 0..1000 {
        site.look();
    }
    assert_eq!((site.places_of("shop"), site.places_of("flood")), (1, 0));
}

#[test]
fn who_gave_way_often_may_stay_long_enough_to_end() {
    let mut site = Site::new();
    for (digest, namespace) in ["bank", "club", "desk", "shop", "yard"].into_iter().enumerate() {
        site.ask(u8::try_from(digest).unwrap(), namespace, Purpose::Machine);
    }
    site.admit();
    let mut longest = Duration::ZERO;
    for _ in 0..40_000 {
        site.look();
        let held = site.running.iter().map(|one| site.now - one.2).max().unwrap();
        longest = longest.max(held);
    }
    assert!(longest >= TERM * 2_u32.pow(LONGER), "{longest:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Downloads that never end by themselves are the worst there is.
    #[test]
    fn every_namespace_has_its_turn_within_a_bounded_time(
        flood in 1..30_u8, others in 1..4_u8, ahead in 0..10_u8
    ) {
        let mut site = Site::new();
        (0..flood).for_each(|digest| site.ask(digest, "flood", Purpose::Machine));
        (0..ahead).for_each(|digest| site.ask(100 + digest, "prefetch", Purpose::Ahead));
        site.admit();
        let names: Vec<String> = (0..others).map(|one| format!("late-{one}")).collect();
        names.iter().zip(200..).for_each(|(name, digest)| site.ask(digest, name, Purpose::Machine));
        let asked = site.now;
        site.admit();
        let mut served: HashSet<String> = HashSet::new();
        while served.len() < names.len() {
            site.look();
            served.extend(names.iter().filter(|name| site.places_of(name) > 0).cloned());
            prop_assert!(site.now - asked < TERM * 2 + Duration::from_secs(60), "{served:?}");
            prop_assert!(site.running.len() <= AT_ONCE);
        }
    }
}
