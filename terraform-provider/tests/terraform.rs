//! The provider under the real Terraform.

use std::path::Path;

mod cli;

use cli::Workspace;

fn workspace(configuration: &str) -> Workspace {
    let workspace = Workspace::with("holdfast", Path::new(env!("CARGO_BIN_EXE_terraform-provider-holdfast")));
    workspace.configure("holdfast", configuration);
    workspace.succeed(&["init", "-no-color"]);
    workspace
}

#[test]
fn terraform_installs_the_provider_from_a_mirror_and_reads_its_schema() {
    let workspace = workspace("provider \"holdfast\" {\n  config_path = \"/nowhere\"\n}");
    let schemas: serde_json::Value =
        serde_json::from_str(&workspace.succeed(&["providers", "schema", "-json"])).unwrap();
    let provider = &schemas["provider_schemas"]["mirror.example.org/holdfast/holdfast"]["provider"];
    let attributes = &provider["block"]["attributes"];
    assert_eq!(attributes["token"]["sensitive"], true);
    assert_eq!(attributes["exec"]["nested_type"]["attributes"]["command"]["required"], true);
    assert!(workspace.succeed(&["validate", "-no-color"]).contains("The configuration is valid"));
}
