//! Random configurations: every optional attribute absent, null, known, or unknown until the apply, in one spelling or
//! in another. The same seed gives the same text.

use std::fmt::Write;

/// Where the site's part of a configuration comes from.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where the image is fetched from.
    pub image_url: String,
    /// Its digest.
    pub image_digest: String,
    /// A Secret with the keys `user-data` and `network-data`.
    pub secret: String,
    /// A label that all nodes have, and its value.
    pub node_label: (String, String),
    /// A bridge that all hosts have.
    pub bridge: String,
}

/// Which of the texts that mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// The first, in the configuration that is applied.
    Usual,
    /// Another where there is one; a plan with it must be empty.
    Other,
}

/// Before or after a change of what can change in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edition {
    /// What is made.
    First,
    /// What it is changed to.
    Second,
}

/// One configuration: a key, a network, an image and a virtual machine, named by its number.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Of the run.
    pub seed: u64,
    /// In the run.
    pub number: usize,
}

const KINDS: [&str; 4] = ["ssh_key", "network", "image", "virtual_machine"];
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0VQmXWqCwdWxYF3ygdMzyLUOxJ7HpPlHqYUzrDvC4n";
const MAPS: [(&str, &str); 3] =
    [("{ team = \"a\" }", ""), ("{ team = \"a\", \"example.org/stage\" = \"x\" }", ""), ("{}", "")];
const SIZES: [(&str, &str); 2] = [("\"64Mi\"", ""), ("\"1Gi\"", "\"1024Mi\"")];
const TEXT: [(&str, &str); 3] = [
    ("\"#cloud-config\\nhostname: x\\n\"", "join(\"\", [\"#cloud-config\\nhostname: x\", \"\\n\"])"),
    ("\"#!/bin/sh\\necho 'Gr\u{fc}\u{df}e \u{2713}'\\n\\n\"", ""),
    ("\" \\n#cloud-config\\n\\tkeys: [\\\"a\\\"]\"", ""),
];

impl Sample {
    /// The name its objects and resources have.
    pub fn name(self) -> String {
        format!("c{}", self.number)
    }

    /// The addresses of its resources.
    pub fn addresses(self) -> Vec<String> {
        KINDS.iter().map(|kind| format!("holdfast_{kind}.{}", self.name())).collect()
    }

    /// The configuration.
    pub fn text(self, site: &Site, edition: Edition, spelling: Spelling) -> String {
        let mut pen = Pen { sample: self, edition, spelling, later: String::new() };
        let name = self.name();
        let mut text = String::new();
        let bodies = [pen.ssh_key(), pen.network(site), pen.image(site), pen.machine(site)];
        for (kind, body) in KINDS.iter().zip(bodies) {
            let common = pen.common(kind);
            let _ = writeln!(
                text,
                "resource \"holdfast_{kind}\" \"{name}\" {{\n  name = \"{name}\"\n{common}{body}}}"
            );
        }
        text + &pen.later
    }
}

/// Writes one configuration.
struct Pen {
    sample: Sample,
    edition: Edition,
    spelling: Spelling,
    /// What makes values unknown until the apply.
    later: String,
}

impl Pen {
    /// A number below the limit that depends on what it is for alone.
    fn roll(&self, what: &str, edition: Edition, limit: usize) -> usize {
        let start = self.sample.seed
            ^ (self.sample.number as u64) << 20
            ^ u64::from(edition == Edition::Second) << 60;
        // FNV-1a, then the end of SplitMix64 so that near inputs give far outputs.
        let mixed = what.bytes().fold(start ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap_or_default()
    }

    /// One of the values, as it is written this time.
    fn value(&self, what: &str, edition: Edition, options: &[(&str, &str)]) -> String {
        let (usual, other) = options[self.roll(&format!("{what} value"), edition, options.len())];
        if self.spelling == Spelling::Other && !other.is_empty() {
            other.to_owned()
        } else {
            usual.to_owned()
        }
    }

    /// A value that is not known before the apply. Its spelling stays, since another would change what makes it.
    fn unknown(&mut self, what: &str, edition: Edition, options: &[(&str, &str)]) -> String {
        let (value, _) = options[self.roll(&format!("{what} value"), edition, options.len())];
        let label = format!("{}_{}", self.sample.name(), what.replace([' ', '.'], "_"));
        let _ = writeln!(self.later, "resource \"terraform_data\" \"{label}\" {{\n  input = {value}\n}}");
        format!("terraform_data.{label}.output")
    }

    /// An attribute that must be there.
    fn must(&mut self, what: &str, name: &str, edition: Edition, options: &[(&str, &str)]) -> String {
        let value = if self.roll(what, edition, 6) == 0 {
            self.unknown(what, edition, options)
        } else {
            self.value(what, edition, options)
        };
        format!("  {name} = {value}\n")
    }

    /// An attribute that may be there.
    fn may(&mut self, what: &str, name: &str, edition: Edition, options: &[(&str, &str)]) -> String {
        match self.roll(what, edition, 10) {
            0..=3 => String::new(),
            4 => format!("  {name} = null\n"),
            5 => {
                let value = self.unknown(what, edition, options);
                format!("  {name} = {value}\n")
            }
            _ => format!("  {name} = {}\n", self.value(what, edition, options)),
        }
    }

    /// The same for what can change in place.
    fn free(&mut self, what: &str, name: &str, options: &[(&str, &str)]) -> String {
        self.may(what, name, self.edition, options)
    }

    /// The same for what cannot.
    fn fixed(&mut self, what: &str, name: &str, options: &[(&str, &str)]) -> String {
        self.may(what, name, Edition::First, options)
    }

    fn common(&mut self, kind: &str) -> String {
        let timeouts = [
            ("{ create = \"10m\" }", ""),
            ("{ update = \"10m\", delete = \"10m\", read = \"1m\" }", ""),
            ("{}", ""),
        ];
        self.free(&format!("{kind} labels"), "labels", &MAPS)
            + &self.free(&format!("{kind} annotations"), "annotations", &MAPS)
            + &self.fixed(&format!("{kind} namespace"), "namespace", &[("\"default\"", "")])
            + &self.free(&format!("{kind} timeouts"), "timeouts", &timeouts)
    }

    fn ssh_key(&mut self) -> String {
        let (plain, named) = (format!("\"{KEY}\""), format!("\"{KEY} alice@example.org\""));
        self.must("public_key", "public_key", self.edition, &[(&plain, ""), (&named, "")])
    }

    fn network(&mut self, site: &Site) -> String {
        let subnet =
            format!("\"10.{}.{}.0/24\"", 64 + self.sample.number / 250 % 64, self.sample.number % 250);
        let options = [(subnet.as_str(), "")];
        match self.roll("network", Edition::First, 3) {
            0 => format!("  nat = {{\n{}}}\n", self.fixed("nat.subnet", "subnet", &options)),
            1 => format!("  isolated = {{\n{}}}\n", self.fixed("isolated.subnet", "subnet", &options)),
            _ => format!("  bridge = {{\n  name = \"{}\"\n}}\n", site.bridge),
        }
    }

    fn image(&mut self, site: &Site) -> String {
        let (url, digest) = (format!("\"{}\"", site.image_url), format!("\"{}\"", site.image_digest));
        let (label, value) = &site.node_label;
        let prefetch = [
            ("{}".to_owned(), String::new()),
            (format!("{{ node_selector = {{ {label} = \"{value}\" }} }}"), String::new()),
        ];
        let prefetch: Vec<_> = prefetch.iter().map(|(one, other)| (one.as_str(), other.as_str())).collect();
        let source = format!("{{ http = {{ url = {url} }} }}");
        self.must("source", "source", Edition::First, &[(&source, "")])
            + &self.must("digest", "digest", Edition::First, &[(&digest, "")])
            + "  format = \"qcow2\"\n"
            + &self.fixed("prefetch", "prefetch", &prefetch)
            + &self.fixed("private", "private", &[("true", ""), ("false", "")])
    }

    fn machine(&mut self, site: &Site) -> String {
        let words = |words: [&'static str; 3]| words.map(|word| (word, ""));
        let mut text = self.must("cpu", "cpu", self.edition, &[("1", ""), ("2", "1 + 1")])
            + &self.must("memory", "memory", self.edition, &[("\"128Mi\"", ""), ("\"1Gi\"", "\"1024Mi\"")])
            + &self.free(
                "run_strategy",
                "run_strategy",
                &words(["\"Always\"", "\"RerunOnFailure\"", "\"Halted\""]),
            )
            + &self.free("paused", "paused", &[("true", ""), ("false", "")])
            + &self.free("restart_request", "restart_request", &words(["\"one\"", "\"two\"", "\"three\""]))
            + &self.fixed("firmware", "firmware", &[("\"BIOS\"", ""), ("\"UEFI\"", "")])
            + &self.free(
                "grace",
                "termination_grace_period_seconds",
                &[("0", ""), ("30", "60 / 2"), ("3600", "")],
            )
            + &self.free("deletion_protection", "deletion_protection", &[("false", "1 == 2")])
            + &self.on_user_data_change();
        text += &self.placement(site);
        text += &self.cloud_init(site);
        text += &self.disks();
        text + &self.interfaces()
    }

    /// What a change of user data does must be known when it changes.
    fn on_user_data_change(&mut self) -> String {
        let (name, options) = ("on_user_data_change", [("\"ignore\"", ""), ("\"reboot\"", "")]);
        match self.edition {
            Edition::First => self.free(name, name, &options),
            Edition::Second => format!("  {name} = {}\n", self.value(name, Edition::Second, &options)),
        }
    }

    fn placement(&mut self, site: &Site) -> String {
        let (label, value) = &site.node_label;
        let selector = format!("{{ {label} = \"{value}\" }}");
        match self.roll("placement", Edition::First, 4) {
            0 => "  placement = null\n".to_owned(),
            1 => String::new(),
            _ => {
                let inner = self.fixed("placement.node_name", "node_name", &[("\"a\"", "")])
                    + &self.fixed("placement.node_selector", "node_selector", &[(&selector, ""), ("{}", "")]);
                format!("  placement = {{\n{inner}}}\n")
            }
        }
    }

    fn cloud_init(&mut self, site: &Site) -> String {
        match self.roll("cloud_init", self.edition, 6) {
            0 => return "  cloud_init = null\n".to_owned(),
            1 => return String::new(),
            _ => {}
        }
        let keys = format!("[\"{}\"]", self.sample.name());
        let inner = self.free("hostname", "hostname", &[("\"web\"", ""), ("\"shop-1\"", "")])
            + &self.free("ssh_keys", "ssh_keys", &[(&keys, ""), ("[]", "")])
            + &self.free("reseed", "reseed", &[("\"r1\"", ""), ("\"r2\"", "")])
            + &self.data(site, "user_data", "user-data")
            + &self.data(site, "network_data", "network-data");
        // A key that is named must be there first.
        let after = format!("  depends_on = [holdfast_ssh_key.{}]\n", self.sample.name());
        format!("  cloud_init = {{\n{inner}}}\n{after}")
    }

    fn data(&mut self, site: &Site, what: &str, key: &str) -> String {
        match self.roll(what, self.edition, 5) {
            0 => String::new(),
            1 => format!("  {what} = null\n  {what}_secret = null\n"),
            2 => self.must(&format!("{what} text"), what, self.edition, &TEXT),
            3 => format!("  {what}_secret = {{ name = \"{}\", key = \"{key}\" }}\n", site.secret),
            _ => {
                let version = format!("{what}_wo_version");
                let hidden = self.value(&format!("{what} hidden"), self.edition, &TEXT);
                let versions = [("1", ""), ("2", "")];
                format!("  {what}_wo = {hidden}\n{}", self.must(&version, &version, self.edition, &versions))
            }
        }
    }

    fn disks(&mut self) -> String {
        let size = if self.edition == Edition::Second && self.roll("root grows", Edition::First, 3) == 0 {
            self.must("root.size", "size", Edition::First, &SIZES[1..])
        } else {
            self.must("root.size", "size", Edition::First, &SIZES)
        };
        let blank = self.fixed("root.blank", "blank", &[("false", "")]);
        let image = format!("image = holdfast_image.{}.name", self.sample.name());
        let mut disks = format!("  {{\n  name = \"root\"\n  {image}\n{size}{blank}}},\n");
        for number in 1..=self.roll("disks", self.edition, 3) {
            let what = format!("disk{number}.size");
            let size = self.must(&what, "size", Edition::First, &SIZES);
            let image = self.fixed(&format!("disk{number}.image"), "image", &[("null", "")]);
            let _ = writeln!(disks, "  {{\n  name = \"d{number}\"\n  blank = true\n{size}{image}}},");
        }
        format!("  disks = [\n{disks}]\n")
    }

    fn interfaces(&mut self) -> String {
        let count = match self.roll("interfaces", self.edition, 5) {
            0 => return "  interfaces = null\n".to_owned(),
            1 => return String::new(),
            2 => return "  interfaces = []\n".to_owned(),
            3 => 1,
            _ => 2,
        };
        let mut all = String::new();
        for number in 0..count {
            let end = format!(
                "{:02x}:{:02x}:{number:02x}",
                self.sample.number / 256 % 256,
                self.sample.number % 256
            );
            let address = format!("\"52:54:00:{end}\"");
            let mac = self.fixed(&format!("mac{number}"), "mac_address", &[(&address, "")]);
            let (last, third) = (number + 1, self.sample.number % 256);
            let given = format!("[\"10.20.{third}.{last}\", \"2001:db8::{last}:5\"]");
            let addresses =
                self.free(&format!("addresses{number}"), "addresses", &[(&given, ""), ("[]", "")]);
            let wait = self.free(&format!("wait{number}"), "wait_for_address", &[("false", "")]);
            let network = format!("network = holdfast_network.{}.name", self.sample.name());
            let _ = writeln!(all, "  {{\n  name = \"n{number}\"\n  {network}\n{mac}{addresses}{wait}}},");
        }
        format!("  interfaces = [\n{all}]\n")
    }
}
