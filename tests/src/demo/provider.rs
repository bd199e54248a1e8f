//! Terraform and OpenTofu in the demo: a mirror with the provider as it was built, and a configuration of their command
//! line that takes it from there. Both lie in the demo's folder and go with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use holdfast_api::names::PROVIDER_SOURCE;

use super::Folder;
use crate::{files, peer};

impl Folder {
    /// What `TF_CLI_CONFIG_FILE` names in the demo's shells.
    pub(super) fn terraform_settings(&self) -> PathBuf {
        self.path().join("terraform/cli.tfrc")
    }
}

/// Makes both anew. A workspace that locked an earlier build has to `init -upgrade`.
pub(super) fn offer(folder: &Folder) -> Result<()> {
    let home = folder.path().join("terraform");
    files::remove_folder(&home)?;
    let mirror = home.join("mirror");
    let program = peer::ours("terraform-provider-holdfast")?;
    let packed = Command::new(&program).args(["mirror", "--dir"]).arg(&mirror).output();
    let packed = packed.with_context(|| format!("could not run {}", program.display()))?;
    let said = String::from_utf8_lossy(&packed.stderr);
    ensure!(packed.status.success(), "could not make the provider's mirror: {}", said.trim());
    files::write(&folder.terraform_settings(), settings(&mirror))
}

/// Our provider from the mirror, every other as ever.
fn settings(mirror: &Path) -> String {
    let host = PROVIDER_SOURCE.split('/').next().unwrap_or_default();
    format!(
        "provider_installation {{\n  filesystem_mirror {{\n    path    = {}\n    include = [\"{host}/*/*\"]\n  }}\n  \
         direct {{\n    exclude = [\"{host}/*/*\"]\n  }}\n}}\n",
        quoted(mirror)
    )
}

/// A string of their configuration language.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string().replace('\\', r"\\").replace('"', r#"\""#);
    format!("\"{}\"", text.replace("${", "$${").replace("%{", "%%{"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_provider_comes_from_the_mirror() {
        let expected = "\
provider_installation {
  filesystem_mirror {
    path    = \"/srv/a \\\"demo\\\" of $${x}\"
    include = [\"mirror.example.org/*/*\"]
  }
  direct {
    exclude = [\"mirror.example.org/*/*\"]
  }
}
";
        assert_eq!(settings(Path::new("/srv/a \"demo\" of ${x}")), expected);
    }
}
