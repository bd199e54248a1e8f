//! XML laid out for snapshots: one element per line.

use quick_xml::events::Event;
use quick_xml::{Reader, Writer};

pub(super) fn pretty(xml: &str) -> String {
    let (mut reader, mut writer) = (Reader::from_str(xml), Writer::new_with_indent(Vec::new(), b' ', 2));
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => break,
            event => writer.write_event(event).unwrap(),
        }
    }
    String::from_utf8(writer.into_inner()).unwrap()
}
