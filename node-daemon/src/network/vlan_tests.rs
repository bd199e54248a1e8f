use proptest::prelude::*;

use super::*;

fn tagged() -> Tagged {
    Tagged { trunk: "br0".to_owned().try_into().unwrap(), vlan: 120.try_into().unwrap() }
}

fn link(index: u32, name: &str, kind: LinkKind) -> Link {
    Link { index, name: name.to_owned(), kind, master: None, alias: String::new(), up: true }
}

const BRIDGE: LinkKind = LinkKind::Bridge { filters_vlans: false };
const PORT: LinkKind = LinkKind::Vlan { id: 120, parent: 1 };

/// What the kernel would make of a step.
fn apply(links: &mut Vec<Link>, step: Step) {
    let fresh = links.iter().map(|link| link.index).max().unwrap_or(0) + 1;
    let at = |links: &mut Vec<Link>, index| links.iter().position(|link| link.index == index).unwrap();
    match step {
        Step::CreateBridge => links.push(Link { up: false, ..link(fresh, &tagged().bridge(), BRIDGE) }),
        Step::CreatePort { trunk, .. } => {
            let kind = LinkKind::Vlan { id: 120, parent: trunk };
            links.push(Link { up: false, ..link(fresh, &tagged().port(), kind) });
        }
        Step::Adopt { index } => {
            let at = at(links, index);
            links[at].alias = tagged().alias();
        }
        Step::Attach { port, bridge } => {
            let at = at(links, port);
            links[at].master = Some(bridge);
        }
        Step::Raise { index } => {
            let at = at(links, index);
            links[at].up = true;
        }
    }
}

/// All states from a host with only its bridge to the whole VLAN bridge.
fn states() -> Vec<Vec<Link>> {
    let mut states = vec![vec![link(1, "br0", BRIDGE)]];
    while let Some(step) = next(&tagged(), states.last().unwrap()).unwrap() {
        let mut links = states.last().unwrap().clone();
        apply(&mut links, step);
        states.push(links);
        assert!(states.len() <= MOST_STEPS);
    }
    states
}

fn built() -> Vec<Link> {
    states().pop().unwrap()
}

#[test]
fn the_vlan_bridge_is_made_from_nothing_and_then_left_alone() {
    let links = built();
    let (bridge, port) = (find(&links, &tagged().bridge()).unwrap(), find(&links, &tagged().port()).unwrap());
    assert_eq!((port.kind, port.master), (PORT, Some(bridge.index)));
    assert!(bridge.up && port.up && names::is_ours(&bridge.alias) && names::is_ours(&port.alias));
    assert_eq!(next(&tagged(), &links), Ok(None));
}

#[test]
fn without_the_hosts_bridge_there_is_nothing_to_do() {
    for links in [vec![], vec![link(1, "br0", LinkKind::Other)]] {
        assert_eq!(next(&tagged(), &links), Err(Obstacle::BridgeMissing));
    }
}

#[test]
fn a_bridge_that_filters_vlans_is_told_to_admit_ours() {
    let mut links = vec![link(1, "br0", LinkKind::Bridge { filters_vlans: true })];
    apply(&mut links, Step::CreateBridge);
    assert_eq!(next(&tagged(), &links), Ok(Some(Step::CreatePort { trunk: 1, filters_vlans: true })));
}

#[test]
fn the_port_stays_off_while_the_hosts_bridge_is_off() {
    let mut links = built();
    for link in &mut links {
        link.up = link.name == tagged().bridge();
    }
    assert_eq!(next(&tagged(), &links), Ok(None));
    links[0].up = true;
    assert!(matches!(next(&tagged(), &links), Ok(Some(Step::Raise { .. }))));
}

#[test]
fn somebody_elses_device_of_the_same_vlan_is_named_with_a_way_out() {
    let mut links = vec![link(1, "br0", BRIDGE), link(2, "br0.120", PORT)];
    apply(&mut links, Step::CreateBridge);
    let obstacle = next(&tagged(), &links).unwrap_err();
    let sentence = obstacle.into_error("shop/lan", &tagged()).to_string();
    assert!(sentence.contains("device br0.120") && sentence.contains("without vlan"), "{sentence}");
}

#[test]
fn a_device_with_another_alias_or_kind_is_not_taken_over() {
    for (name, kind) in [(tagged().bridge(), BRIDGE), (tagged().port(), PORT)] {
        let mut foreign = built();
        for link in foreign.iter_mut().filter(|link| link.name == name) {
            "somebody else's".clone_into(&mut link.alias);
        }
        assert!(matches!(next(&tagged(), &foreign), Err(Obstacle::Foreign { .. })), "{kind:?}");
        for link in foreign.iter_mut().filter(|link| link.name == name) {
            link.kind = LinkKind::Other;
        }
        assert!(matches!(next(&tagged(), &foreign), Err(Obstacle::Foreign { .. })), "{kind:?}");
    }
}

#[test]
fn a_vlan_bridge_without_guests_is_unused_port_first() {
    let links = built();
    let gone: Vec<&str> = unused(&links, &[])
        .iter()
        .map(|index| links.iter().find(|link| link.index == *index).unwrap().name.as_str())
        .collect();
    assert_eq!(gone, [tagged().port(), tagged().bridge()]);
    assert!(unused(&links, &[tagged()]).is_empty());
}

#[test]
fn a_vlan_bridge_with_a_guest_is_never_unused() {
    let mut links = built();
    let master = find(&links, &tagged().bridge()).map(|bridge| bridge.index);
    links.push(Link { master, ..link(99, "hft0102030405", LinkKind::Other) });
    assert!(unused(&links, &[]).is_empty());
}

#[test]
fn devices_that_only_look_like_ours_are_never_unused() {
    let looks =
        [link(1, "br0", BRIDGE), link(2, &tagged().bridge(), BRIDGE), link(3, &tagged().port(), PORT)];
    assert!(unused(&looks, &[]).is_empty());
}

proptest! {
    /// The daemon may be killed between any two steps, and an administrator may switch things off meanwhile.
    #[test]
    fn from_any_state_of_ours_the_steps_reach_the_goal(
        from in any::<proptest::sample::Index>(), down: [bool; 3], apart: bool,
    ) {
        let states = states();
        let mut links = states[from.index(states.len())].clone();
        for (link, down) in links.iter_mut().zip(down) {
            link.up &= !down || link.name == "br0";
        }
        if apart {
            for link in &mut links {
                link.master = None;
            }
        }
        let mut steps = 0;
        while let Some(step) = next(&tagged(), &links).unwrap() {
            apply(&mut links, step);
            steps += 1;
            prop_assert!(steps < MOST_STEPS, "{:?}", links);
        }
    }
}
