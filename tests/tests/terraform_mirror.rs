//! The folder that `make provider-mirror` fills, served over https: `init` installs from it, and locks what it lists.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use holdfast_api::names::PROVIDER_SOURCE;
use holdfast_tests::image_server::{Behaviour, ImageServer};
use holdfast_tests::pki::Pki;
use holdfast_tests::terraform::{Cli, Workspace};
use holdfast_tests::tls_front::TlsFront;
use holdfast_tests::{peer, site_folder};
use serde_json::Value;

/// A mirror on a web server, with an authority of its own.
struct Mirror {
    folder: PathBuf,
    /// Below the folder.
    files: Vec<String>,
    server: ImageServer,
    front: TlsFront,
    pki: Pki,
}

impl Mirror {
    async fn open(name: &str) -> Result<Self> {
        let folder = site_folder::fresh(&format!("terraform_mirror/{name}"))?;
        let root = folder.join("mirror");
        // What `make provider-mirror` does with the program it has built.
        let provider = peer::ours("terraform-provider-holdfast")?;
        let packed = std::process::Command::new(provider).args(["mirror", "--dir"]).arg(&root).status();
        ensure!(packed.context("could not pack the provider")?.success(), "the provider did not pack itself");
        let mut files = Vec::new();
        below(&root, "", &mut files)?;
        let server = ImageServer::start().await?;
        for file in &files {
            server.serve(&format!("providers/{file}"), &root.join(file), Behaviour::Good);
        }
        let pki = Pki::open(&folder.join("pki"))?;
        let front = TlsFront::before(server.port(), &pki).await?;
        Ok(Self { folder, files, server, front, pki })
    }

    /// A workspace that installs from it, and from nowhere else. It trusts the mirror's authority alone.
    fn workspace(&self, cli: Cli, name: &str) -> Result<Workspace> {
        let url = self.front.url("providers/");
        let installation = format!("network_mirror {{ url = \"{url}\" }}");
        let mut workspace = Workspace::empty(cli, self.folder.join(name), &installation)?;
        workspace.set("SSL_CERT_FILE", &self.pki.file("ca.crt").display().to_string());
        workspace.configure("")?;
        Ok(workspace)
    }

    /// The hashes it lists for what it has.
    fn hashes(&self) -> Result<Vec<String>> {
        let version = format!("mirror/{PROVIDER_SOURCE}/{}.json", env!("CARGO_PKG_VERSION"));
        let text = fs::read_to_string(self.folder.join(version)).context("no listing")?;
        let listing: Value = serde_json::from_str(&text).context("the listing is no JSON")?;
        let archives = listing["archives"].as_object().context("the listing has no archives")?;
        let hashes = archives.values().flat_map(|it| it["hashes"].as_array().into_iter().flatten());
        Ok(hashes.filter_map(Value::as_str).map(str::to_owned).collect())
    }
}

/// The files below a folder, by their paths from the first one.
fn below(folder: &Path, at: &str, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).context("could not list the mirror")? {
        let entry = entry.context("could not list the mirror")?;
        let path = format!("{at}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            below(&entry.path(), &format!("{path}/"), files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// The hashes of a lock file.
fn locked(workspace: &Workspace) -> Result<Vec<String>> {
    let lock = fs::read_to_string(workspace.work().join(".terraform.lock.hcl")).context("no lock file")?;
    let hashes = lock.lines().filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\","));
    Ok(hashes.map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_over_https_installs_the_provider_and_the_lock_has_its_hashes() -> Result<()> {
    let mirror = Mirror::open("good").await?;
    let listed = mirror.hashes()?;
    assert_eq!(listed.len(), 2, "one of the content, one of the archive: {listed:?}");
    for cli in Cli::here() {
        let workspace = mirror.workspace(cli, cli.word())?;
        workspace.succeed(&["init"]).with_context(|| cli.word())?;
        let schema: Value = serde_json::from_str(&workspace.succeed(&["providers", "schema", "-json"])?)?;
        assert!(schema["provider_schemas"][PROVIDER_SOURCE].is_object(), "what was installed answers");
        let first = locked(&workspace)?;
        assert!(!first.is_empty() && first.iter().all(|it| listed.contains(it)), "{first:?} of {listed:?}");
        assert!(first.iter().any(|it| it.starts_with("h1:")), "{first:?}");

        // Whoever has the lock file installs the same, and nothing needs to be added to it.
        let other = mirror.workspace(cli, &format!("{}-again", cli.word()))?;
        fs::copy(workspace.work().join(".terraform.lock.hcl"), other.work().join(".terraform.lock.hcl"))?;
        other.succeed(&["init", "-lockfile=readonly"]).with_context(|| cli.word())?;

        // The lock for machines that do not run this.
        let url = format!("-net-mirror={}", mirror.front.url("providers/"));
        other.succeed(&["providers", "lock", &url])?;
        let all = locked(&other)?;
        assert!(all.iter().all(|it| listed.contains(it)), "{all:?} of {listed:?}");
    }
    for file in &mirror.files {
        assert!(!mirror.server.seen(&format!("providers/{file}")).is_empty(), "nobody asked for {file}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_nobody_vouches_for_or_whose_archive_was_bent_installs_nothing() -> Result<()> {
    let mirror = Mirror::open("bad").await?;
    for cli in Cli::here() {
        let mut stranger = mirror.workspace(cli, &format!("{}-stranger", cli.word()))?;
        let nobody = mirror.folder.join("nobody.crt");
        fs::write(&nobody, "")?;
        stranger.set("SSL_CERT_FILE", &nobody.display().to_string());
        stranger.set("SSL_CERT_DIR", "/nowhere");
        let refused = stranger.fail(&["init"])?;
        assert!(refused.contains("certificate signed by unknown authority"), "{refused}");
    }
    let archive = mirror.files.iter().find(|it| it.contains(".zip")).context("no archive")?;
    let file = mirror.folder.join("mirror").join(archive);
    mirror.server.serve(&format!("providers/{archive}"), &file, Behaviour::WrongBytes);
    for cli in Cli::here() {
        let workspace = mirror.workspace(cli, &format!("{}-bent", cli.word()))?;
        let refused = workspace.fail(&["init"])?;
        assert!(refused.contains("checksum") || refused.contains("hash"), "{refused}");
        assert!(locked(&workspace).is_err(), "something was locked");
    }
    Ok(())
}
