//! Reads back the few fields we need from libvirt's XML, by pulling events. Pure.
//!
//! Foreign networks come through here as well, so nothing is assumed of the text but that it is text.

use std::net::Ipv4Addr;

use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::network_xml::{NAMESPACE, PREFIX, Subnet};

/// What a network's XML says that no call answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct NetworkFields {
    pub(super) bridge: Option<String>,
    /// `nat`, `route`, `bridge`, …; `None` is an isolated network.
    pub(super) forward: Option<String>,
    pub(super) subnets: Vec<Subnet>,
    /// The text of our metadata element; `None` is foreign.
    pub(super) record: Option<String>,
}

/// The text of the outermost element, with references resolved; `None` if it is not XML.
pub(super) fn first_text(xml: &str) -> Option<String> {
    let mut reader = Reader::from_str(xml);
    loop {
        match reader.read_event().ok()? {
            Event::Start(_) => return text(&mut reader),
            Event::Empty(_) => return Some(String::new()),
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// The fields of a network; what cannot be read is left out.
pub(super) fn network(xml: &str) -> NetworkFields {
    let mut reader = Reader::from_str(xml);
    let mut fields = NetworkFields::default();
    let mut depth = 0_u32;
    loop {
        match reader.read_event() {
            Ok(Event::Start(element)) => {
                if is_our_record(&element) {
                    // The end tag is consumed with the text, so the depth stays.
                    fields.record = text(&mut reader);
                } else {
                    depth += 1;
                    fields.take(depth, &element);
                }
            }
            Ok(Event::Empty(element)) => fields.take(depth + 1, &element),
            Ok(Event::End(_)) => depth = depth.saturating_sub(1),
            Ok(Event::Eof) | Err(_) => return fields,
            Ok(_) => {}
        }
    }
}

/// The security drivers that the XML of the host's capabilities names; `none` is libvirt's word for nothing.
pub(super) fn security_drivers(xml: &str) -> Vec<String> {
    let mut reader = Reader::from_str(xml);
    let (mut drivers, mut inside) = (Vec::new(), false);
    loop {
        match reader.read_event() {
            Ok(Event::Start(element)) if element.name().as_ref() == "secmodel" => inside = true,
            // The processor has a model, too.
            Ok(Event::Start(element)) if inside && element.name().as_ref() == "model" => {
                drivers.extend(text(&mut reader).filter(|driver| driver != "none"));
            }
            Ok(Event::End(element)) if element.name().as_ref() == "secmodel" => inside = false,
            Ok(Event::Eof) | Err(_) => return drivers,
            Ok(_) => {}
        }
    }
}

impl NetworkFields {
    /// Children of `<network>` only: routes and portgroups further down carry the same names.
    fn take(&mut self, depth: u32, element: &BytesStart<'_>) {
        const CHILD: u32 = 2;
        if depth != CHILD {
            return;
        }
        match element.name().as_ref() {
            "bridge" => self.bridge = attribute(element, "name"),
            "forward" => self.forward = Some(attribute(element, "mode").unwrap_or_else(|| "nat".to_owned())),
            "ip" => self.subnets.extend(subnet(element)),
            _ => {}
        }
    }
}

fn is_our_record(element: &BytesStart<'_>) -> bool {
    let (prefix, local) = (format!("xmlns:{PREFIX}"), format!("{PREFIX}:network"));
    element.name().as_ref() == local && attribute(element, &prefix).as_deref() == Some(NAMESPACE)
}

fn subnet(element: &BytesStart<'_>) -> Option<Subnet> {
    let address = attribute(element, "address")?.parse::<Ipv4Addr>().ok()?;
    let prefix = attribute(element, "prefix").and_then(|text| text.parse::<u8>().ok());
    let prefix = prefix.or_else(|| {
        let mask = attribute(element, "netmask")?.parse::<Ipv4Addr>().ok()?;
        u8::try_from(mask.to_bits().leading_ones()).ok()
    });
    // Without either, libvirt goes by the old address classes; nobody writes such networks, /24 is the safe guess.
    Some(Subnet { address, prefix: prefix.filter(|&bits| bits <= 32).unwrap_or(24) })
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let found = element.try_get_attribute(name).ok()??;
    Some(found.normalized_value(XmlVersion::Implicit1_0).ok()?.into_owned())
}

/// Text up to the end of the element just opened; nested elements are skipped.
fn text(reader: &mut Reader<&[u8]>) -> Option<String> {
    let (mut found, mut depth) = (String::new(), 0_u32);
    loop {
        match reader.read_event().ok()? {
            Event::Text(text) if depth == 0 => found.push_str(&text),
            Event::CData(text) if depth == 0 => found.push_str(&text),
            Event::GeneralRef(reference) if depth == 0 => found.push_str(&resolved(&reference)?),
            Event::Start(_) => depth += 1,
            Event::End(_) if depth == 0 => return Some(found),
            Event::End(_) => depth -= 1,
            Event::Eof => return None,
            _ => {}
        }
    }
}

fn resolved(reference: &BytesRef<'_>) -> Option<String> {
    if let Some(character) = reference.resolve_char_ref().ok()? {
        return Some(character.to_string());
    }
    resolve_predefined_entity(reference).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_security_drivers_are_those_in_use() {
        let one = |name: &str| format!("<secmodel><model>{name}</model><doi>0</doi></secmodel>");
        let host = |models: &str| {
            let cpu = "<cpu><model>EPYC</model></cpu>";
            format!(
                "<capabilities><host>{cpu}{models}</host><guest><os_type>hvm</os_type></guest></capabilities>"
            )
        };
        assert_eq!(security_drivers(&host(&(one("apparmor") + &one("dac")))), ["apparmor", "dac"]);
        assert_eq!(security_drivers(&host(&(one("none") + &one("dac")))), ["dac"]);
        assert_eq!(security_drivers("no XML <"), Vec::<String>::new());
    }

    #[test]
    fn references_in_a_record_are_resolved() {
        let xml = "<vm>{\"a\":\"&lt;b&gt; &amp; &#x20ac;&#65;\"}</vm>";
        assert_eq!(first_text(xml).as_deref(), Some("{\"a\":\"<b> & €A\"}"));
    }

    #[test]
    fn an_empty_record_is_a_record() {
        assert_eq!(first_text("<vm/>").as_deref(), Some(""));
        assert_eq!(first_text("<vm></vm>").as_deref(), Some(""));
    }

    #[test]
    fn what_is_not_xml_has_no_text() {
        for junk in ["", "<vm", "<vm>a", "no element", "<vm>&unknown;</vm>"] {
            assert_eq!(first_text(junk), None, "{junk:?}");
        }
    }

    #[test]
    fn the_default_network_of_a_distribution_is_read_and_foreign() {
        let xml = "<network><name>default</name><forward mode='nat'><nat><port start='1024' end='65535'/></nat></forward>\
                   <bridge name='virbr0' stp='on'/><ip address='192.168.122.1' netmask='255.255.255.0'>\
                   <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip>\
                   <route address='10.0.0.0' prefix='8' gateway='192.168.122.9'/></network>";
        let fields = network(xml);
        assert_eq!(fields.bridge.as_deref(), Some("virbr0"));
        assert_eq!(fields.forward.as_deref(), Some("nat"));
        assert_eq!(fields.subnets, [Subnet { address: Ipv4Addr::new(192, 168, 122, 1), prefix: 24 }]);
        assert_eq!(fields.record, None);
    }

    #[test]
    fn our_element_in_another_namespace_is_foreign() {
        let xml = "<network><metadata><holdfast:network xmlns:holdfast='urn:x'>r</holdfast:network></metadata></network>";
        assert_eq!(network(xml).record, None);
    }
}
