use proptest::prelude::*;

use super::*;

fn reach(allow: &[&str], deny: &[&str]) -> Reach {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Reach { allow: nets(allow), deny: nets(deny), ..Reach::default() }
}

fn both() -> Reach {
    Reach { loopback: true, link_local: true, ..Reach::default() }
}

#[track_caller]
fn kind(reach: &Reach, text: &str) -> Option<&'static str> {
    reach.check(text.parse().unwrap()).err().map(|refused| refused.kind)
}

/// The address in every clothes an IPv6 address has for it.
fn clothes(v4: Ipv4Addr) -> Vec<IpAddr> {
    let [a, b, c, d] = v4.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let six = |octets: [u8; 16]| IpAddr::V6(octets.into());
    let local = |place: [usize; 4], rest: u8| {
        let mut octets = [rest; 16];
        octets[..6].copy_from_slice(&[0, 0x64, 0xff, 0x9b, 0, 1]);
        place.iter().zip([a, b, c, d]).for_each(|(at, byte)| octets[*at] = byte);
        six(octets)
    };
    vec![
        v4.into(),
        v4.to_ipv6_mapped().into(),
        v4.to_ipv6_compatible().into(),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into(),
        Ipv6Addr::new(0x2002, high, low, 7, 0, 0, 0, 1).into(),
        Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !0x0a01, !0x0203).into(),
        Ipv6Addr::new(0x2001, 0, 0x0a01, 0x0203, 0, 0, !high, !low).into(),
        local([6, 7, 9, 10], 0),
        local([7, 9, 10, 11], 0),
        local([9, 10, 11, 12], 0),
        local([12, 13, 14, 15], 0),
        local([6, 7, 9, 10], 7),
    ]
}

#[test]
fn loopback_and_link_local_are_refused_in_every_spelling() {
    for v4 in ["127.0.0.1", "127.255.0.3", "169.254.1.1"] {
        for address in clothes(v4.parse().unwrap()) {
            assert!(Reach::default().check(address).is_err(), "{address}");
            assert!(both().check(address).is_ok(), "{address} once configured");
        }
    }
    for v6 in ["::1", "fe80::1", "febf::1"] {
        assert!(kind(&Reach::default(), v6).is_some() && kind(&both(), v6).is_none(), "{v6}");
    }
}

#[test]
fn metadata_services_are_refused_in_every_spelling_unless_they_are_named_exactly() {
    let metadata = Some("the metadata service of a cloud");
    for v4 in ["169.254.169.254", "100.100.100.200", "168.63.129.16"] {
        for address in clothes(v4.parse().unwrap()) {
            for near in [both(), reach(&["0.0.0.0/0", "::/0", &format!("{v4}/31")], &[])] {
                assert_eq!(near.check(address).err().map(|refused| refused.kind), metadata, "{address}");
            }
        }
        // A site's own NAT64 prefix leaves several readings, of which each must be opened.
        let exact = reach(&[&format!("{v4}/32")], &[]);
        for address in clothes(v4.parse().unwrap()).into_iter().take(7) {
            assert!(exact.check(address).is_ok(), "{address}");
        }
    }
    assert_eq!(kind(&reach(&["fd00:ec2::/32"], &[]), "fd00:ec2::254"), metadata);
    assert_eq!(kind(&reach(&["fd00:ec2::254/128"], &[]), "fd00:ec2::254"), None);
}

#[test]
fn addresses_that_name_no_host_are_refused_even_when_all_is_configured() {
    let all = Reach { loopback: true, link_local: true, ..reach(&["0.0.0.0/0", "::/0", "0.0.0.0/32"], &[]) };
    for text in ["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1"] {
        assert!(kind(&all, text).is_some(), "{text}");
    }
}

#[test]
fn site_addresses_are_reachable() {
    let site = ["10.1.2.3", "192.168.0.9", "172.16.0.1", "203.0.113.9", "fd00::1", "2001:db8::1"];
    let translated = ["64:ff9b::a01:203", "64:ff9b:1::a01:203", "64:ff9b:1:a01:2:300::", "2002:a01:203::1"];
    for text in site.into_iter().chain(translated) {
        assert_eq!(kind(&Reach::default(), text), None, "{text}");
    }
}

#[test]
fn an_entry_opens_loopback_and_link_local_only_from_within_them() {
    let wide = reach(&["0.0.0.0/0", "::/0", "126.0.0.0/7", "169.0.0.0/8", "fe00::/9"], &[]);
    for text in ["127.0.0.1", "::1", "169.254.1.1", "fe80::1"] {
        assert!(kind(&wide, text).is_some(), "{text}");
    }
    let within = reach(&["127.0.0.0/8", "::1/128", "169.254.1.0/24", "fe80::/10"], &[]);
    for text in ["127.0.0.1", "::1", "169.254.1.1", "fe80::1"] {
        assert_eq!(kind(&within, text), None, "{text}");
    }
    assert!(kind(&within, "169.254.2.1").is_some());
}

#[test]
fn of_the_entries_around_an_address_the_longest_decides_and_a_denial_wins_a_tie() {
    let denied = Some("in a network that imageSources.deny lists");
    let mirrors_only = reach(&["10.1.0.0/16", "2001:db8:7::/48"], &["0.0.0.0/0", "::/0", "10.1.9.0/24"]);
    for open in ["10.1.2.3", "2001:db8:7::1"] {
        assert_eq!(kind(&mirrors_only, open), None, "{open}");
    }
    for closed in ["10.2.2.3", "10.1.9.3", "8.8.8.8", "2001:db8:8::1"] {
        assert_eq!(kind(&mirrors_only, closed), denied, "{closed}");
    }
    assert_eq!(kind(&reach(&["10.0.0.0/8"], &["10.0.0.0/8"]), "10.1.2.3"), denied);
    for address in clothes(Ipv4Addr::new(10, 9, 9, 9)) {
        assert!(reach(&[], &["10.9.0.0/16"]).check(address).is_err(), "{address}");
    }
}

proptest! {
    #[test]
    fn what_is_refused_is_refused_in_every_clothes(bits: u32, denied: bool) {
        let v4 = Ipv4Addr::from(bits);
        let deny = if denied { vec![format!("{v4}/32")] } else { Vec::new() };
        let deny: Vec<&str> = deny.iter().map(String::as_str).collect();
        // Zeros at an unused place are no address.
        if reach(&[], &deny).check(v4.into()).is_err() && v4.octets()[0] != 0 {
            for address in clothes(v4) {
                prop_assert!(reach(&[], &deny).check(address).is_err(), "{}", address);
            }
        }
    }

    #[test]
    fn no_address_makes_the_judgement_panic(bits: u128) {
        let _ = Reach::default().check(Ipv6Addr::from(bits).into());
    }
}
