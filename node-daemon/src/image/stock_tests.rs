use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn digest(number: u8) -> Digest {
    Digest::new([number; 32])
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn piece(number: u8, bytes: u64, machines: &[&str], ahead: &[&str]) -> Piece {
    let need = Need { machines: names(machines), ahead: names(ahead) };
    let idle = machines.is_empty().then_some(SETTLED);
    Piece { digest: digest(number), bytes, present: bytes, need, idle }
}

fn idle_for(number: u8, bytes: u64, seconds: u64) -> Piece {
    Piece { idle: Some(Duration::from_secs(seconds)), ..piece(number, bytes, &[], &[]) }
}

fn ask(namespace: &str, purpose: Purpose, bytes: u64) -> Ask<'_> {
    Ask { digest: digest(255), namespace, purpose, bytes, more: bytes }
}

const LIMITS: Limits = Limits { budget: 100 * MIB, share: 50 * MIB, spare: u64::MAX };

fn granted(pieces: &[Piece], limits: Limits, ask: Ask<'_>) -> Result<Vec<Digest>, Lack> {
    admit(pieces, &HashSet::new(), limits, ask)
}

#[test]
fn what_no_vm_and_no_prefetch_needs_goes_first_and_the_longest_idle_before_the_others() {
    let pieces = [
        piece(1, 20 * MIB, &["shop"], &[]),
        piece(2, 20 * MIB, &[], &["bank"]),
        idle_for(3, 20 * MIB, 400),
        idle_for(4, 20 * MIB, 500),
    ];
    assert_eq!(granted(&pieces, LIMITS, ask("desk", Purpose::Ahead, 30 * MIB)), Ok(vec![digest(4)]));
    let both = granted(&pieces, LIMITS, ask("desk", Purpose::Machine, 50 * MIB));
    assert_eq!(both, Ok(vec![digest(4), digest(3)]));
}

#[test]
fn a_namespace_has_a_share_of_the_cache_and_keeps_out_of_that_of_others() {
    let pieces = [piece(1, 40 * MIB, &["shop"], &[]), piece(2, 10 * MIB, &["bank"], &[])];
    let shop = granted(&pieces, LIMITS, ask("shop", Purpose::Machine, 20 * MIB));
    assert_eq!(shop, Err(Lack::Share));
    assert_eq!(granted(&pieces, LIMITS, ask("bank", Purpose::Machine, 20 * MIB)), Ok(vec![]));
    assert_eq!(granted(&pieces, LIMITS, ask("desk", Purpose::Machine, 50 * MIB)), Ok(vec![]));
}

#[test]
fn for_a_virtual_machine_the_namespace_that_fetched_most_ahead_gives_way_first() {
    let pieces = [
        piece(1, 10 * MIB, &[], &["bank"]),
        piece(2, 40 * MIB, &[], &["shop"]),
        piece(3, 40 * MIB, &["shop"], &["shop"]),
    ];
    assert_eq!(granted(&pieces, LIMITS, ask("desk", Purpose::Ahead, 20 * MIB)), Err(Lack::Budget));
    assert_eq!(granted(&pieces, LIMITS, ask("desk", Purpose::Machine, 20 * MIB)), Ok(vec![digest(2)]));
}

#[test]
fn a_virtual_machine_takes_the_room_that_its_own_namespace_fetched_ahead() {
    let pieces = [piece(1, 30 * MIB, &[], &["shop"]), piece(2, 30 * MIB, &[], &["bank"])];
    assert_eq!(granted(&pieces, LIMITS, ask("shop", Purpose::Machine, 30 * MIB)), Ok(vec![digest(1)]));
}

#[test]
fn what_is_announced_by_others_is_not_given_twice() {
    let mut coming = piece(1, 40 * MIB, &["shop"], &[]);
    coming.present = 0;
    let limits = Limits { spare: 60 * MIB, ..LIMITS };
    assert_eq!(granted(&[coming], limits, ask("bank", Purpose::Machine, 30 * MIB)), Err(Lack::Disk));
}

#[test]
fn an_image_that_was_looked_at_a_moment_ago_stays_whatever_the_want() {
    let pieces = [idle_for(1, 90 * MIB, 60)];
    assert_eq!(granted(&pieces, LIMITS, ask("shop", Purpose::Machine, 20 * MIB)), Err(Lack::Budget));
    assert_eq!(collect(&pieces, 0), []);
}

fn any_piece(number: u8) -> impl Strategy<Value = Piece> {
    let some = || prop::sample::subsequence(vec!["bank", "desk", "shop"], 0..=3);
    let idle = prop::option::of((0..8000_u64).prop_map(Duration::from_secs));
    (0..60_u64, 0..=100_u64, some(), some(), idle).prop_map(move |(mib, percent, machines, ahead, idle)| {
        let piece = piece(number, mib * MIB, &machines, &ahead);
        Piece { present: piece.bytes * percent / 100, idle: idle.filter(|_| machines.is_empty()), ..piece }
    })
}

fn any_pieces() -> impl Strategy<Value = Vec<Piece>> {
    (0..12_u8).prop_flat_map(|count| (0..count).map(any_piece).collect::<Vec<_>>())
}

fn any_ask() -> impl Strategy<Value = (&'static str, Purpose, u64)> {
    let purpose = prop::sample::select(vec![Purpose::Machine, Purpose::Ahead]);
    (prop::sample::select(vec!["bank", "desk", "shop"]), purpose, 0..80_u64)
}

fn of<'a>(pieces: &'a [Piece], digest: &Digest) -> &'a Piece {
    pieces.iter().find(|piece| piece.digest == *digest).unwrap()
}

proptest! {
    #[test]
    fn nothing_goes_that_a_virtual_machine_needs_or_that_may_just_be_put_to_use(
        pieces in any_pieces(), budget in 0..200_u64
    ) {
        let gone = collect(&pieces, budget * MIB);
        for digest in &gone {
            let piece = of(&pieces, digest);
            prop_assert_eq!(&piece.need, &Need::default());
            prop_assert!(piece.idle.unwrap() >= SETTLED);
        }
        let left: u64 = pieces.iter().filter(|one| !gone.contains(&one.digest)).map(|one| one.bytes).sum();
        let unneeded = |one: &&Piece| one.need == Need::default() && !gone.contains(&one.digest);
        let could = pieces.iter().filter(unneeded).any(|one| one.idle >= Some(SETTLED));
        prop_assert!(left <= budget * MIB || !could, "over the budget while something could go");
        prop_assert!(pieces.iter().filter(unneeded).all(|one| one.idle < Some(AGED)));
    }

    #[test]
    fn what_a_download_pushes_out_is_never_needed_more_than_it(
        pieces in any_pieces(), (namespace, purpose, mib) in any_ask(), spare in 0..400_u64, busy in 0..12_u8
    ) {
        let limits = Limits { spare: spare * MIB, ..LIMITS };
        let busy = HashSet::from([digest(busy)]);
        let ask = ask(namespace, purpose, mib * MIB);
        let Ok(gone) = admit(&pieces, &busy, limits, ask) else { return Ok(()) };
        for digest in &gone {
            let piece = of(&pieces, digest);
            prop_assert!(piece.need.machines.is_empty() && !busy.contains(digest));
            prop_assert!(purpose == Purpose::Machine || piece.need.ahead.is_empty());
            prop_assert!(piece.idle.unwrap() >= SETTLED);
        }
        let stay: Vec<&Piece> = pieces.iter().filter(|one| !gone.contains(&one.digest)).collect();
        let bytes: u64 = stay.iter().map(|one| one.bytes).sum();
        prop_assert!(bytes + ask.bytes <= limits.budget);
        let machines = stay.iter().filter(|one| one.need.machines.contains(namespace));
        prop_assert!(machines.map(|one| one.bytes).sum::<u64>() + ask.bytes <= limits.share);
        let freed: u64 = gone.iter().map(|digest| of(&pieces, digest).present).sum();
        let announced: u64 = stay.iter().map(|one| one.bytes - one.present).sum();
        prop_assert!(announced + ask.more <= limits.spare + freed);
    }

    #[test]
    fn what_another_namespace_needs_never_counts_against_this_ones_share(
        pieces in any_pieces(), (namespace, purpose, mib) in any_ask()
    ) {
        let ask = ask(namespace, purpose, mib * MIB);
        let mine: Vec<Piece> = pieces.iter().filter(|one| one.is_of(namespace)).cloned().collect();
        let endless = Limits { budget: u64::MAX, ..LIMITS };
        let (alone, among) = (granted(&mine, endless, ask), granted(&pieces, endless, ask));
        prop_assert_eq!(alone.is_err(), among.is_err());
    }
}
