//! The binary as a host meets it: its line, its certificate, its end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in helpers of tests too")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use holdfast_provider::plugin::proto::tfplugin6::provider_client::ProviderClient;
use holdfast_provider::plugin::proto::tfplugin6::{
    DynamicValue, get_provider_schema, validate_provider_config, validate_resource_config,
};
use nix::sys::signal::Signal;
use tokio::net::UnixStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

mod host;

use host::certificate::Identity;
use host::{Plugin, command, connect, connect_plain, holdfast};

/// The host kills a plugin that is still there so long after it was asked to end.
const HOST_WAITS: Duration = Duration::from_secs(2);

async fn refused_to_start(certificate: &str, cookie: Option<&str>) -> Output {
    let mut command = command(&holdfast(), certificate);
    match cookie {
        Some(cookie) => command.env("TF_PLUGIN_MAGIC_COOKIE", cookie),
        None => command.env_remove("TF_PLUGIN_MAGIC_COOKIE"),
    };
    command.output().await.unwrap()
}

async fn answers(plugin: &Plugin) -> bool {
    plugin.provider().await.get_provider_schema(get_provider_schema::Request {}).await.is_ok()
}

#[tokio::test]
async fn the_line_has_six_fields_and_nothing_follows_it() {
    let mut plugin = Plugin::start(&holdfast()).await;
    let socket = plugin.socket();
    let certificate = plugin.field(5).to_owned();
    assert_eq!(plugin.line, format!("1|6|unix|{}|grpc|{certificate}\n", socket.display()));
    assert!(certificate.len() > 50 && !certificate.contains('='), "{certificate}");
    assert!(socket.as_os_str().len() < 108);
    let directory = socket.parent().unwrap();
    assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    plugin.shutdown().await;
    assert!(plugin.ended(HOST_WAITS).await.success());
    assert_eq!(plugin.rest_of_stdout().await, "");
    assert!(!directory.exists());
}

#[tokio::test]
async fn the_socket_lies_where_the_host_wants_it_and_multiplexing_is_answered() {
    let identity = Identity::of_a_host();
    let wanted = tempfile::tempdir().unwrap();
    let mut command = command(&holdfast(), &identity.pem());
    command.env("PLUGIN_UNIX_SOCKET_DIR", wanted.path()).env("PLUGIN_MULTIPLEX_GRPC", "true");
    let plugin = Plugin::spawn(command, identity).await;
    assert!(plugin.socket().starts_with(wanted.path()));
    assert!(plugin.line.ends_with("|false\n"), "{}", plugin.line);
}

#[tokio::test]
async fn started_by_a_person_it_says_what_it_is() {
    for cookie in [None, Some("wrong")] {
        let output = refused_to_start(&Identity::of_a_host().pem(), cookie).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("this program is a plugin"));
        assert!(output.stdout.is_empty());
    }
}

#[tokio::test]
async fn a_host_certificate_that_is_not_exactly_one_stops_the_start() {
    let one = Identity::of_a_host().pem();
    for certificate in ["nonsense".to_owned(), one.repeat(2)] {
        let output = refused_to_start(&certificate, Some(host::COOKIE)).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("PLUGIN_CLIENT_CERT"));
    }
}

/// TLS 1.3 lets a client finish before the server has looked at its certificate, so the proof is a call that fails.
#[tokio::test]
async fn only_the_certificate_and_key_of_the_host_may_ask() {
    let plugin = Plugin::start(&holdfast()).await;
    let (socket, server) = (plugin.socket(), plugin.certificate());
    let again = plugin.identity.signed_again();
    let strangers = [
        ("no certificate", None),
        ("another certificate", Some(Identity::of_a_host().resolver())),
        ("a copy signed again", Some(again.resolver())),
        ("the certificate without its key", Some(plugin.identity.with_another_key().resolver())),
    ];
    for (who, resolver) in strangers {
        let call = async {
            let channel = connect(&socket, &server, resolver).await.ok()?;
            ProviderClient::new(channel).get_provider_schema(get_provider_schema::Request {}).await.ok()
        };
        assert!(call.await.is_none(), "answered {who}");
    }
    let plain = async {
        let channel = connect_plain(&socket).await.ok()?;
        ProviderClient::new(channel).get_provider_schema(get_provider_schema::Request {}).await.ok()
    };
    assert!(plain.await.is_none(), "answered plain text");
    assert!(answers(&plugin).await, "the host itself is served");
}

#[tokio::test]
async fn a_peer_that_never_finishes_its_handshake_holds_up_nobody() {
    let plugin = Plugin::start(&holdfast()).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(UnixStream::connect(plugin.socket()).await.unwrap());
    }
    let asked = Instant::now();
    assert!(answers(&plugin).await);
    assert!(asked.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn shutdown_does_not_wait_for_open_streams() {
    let mut plugin = Plugin::start(&holdfast()).await;
    let mut health = HealthClient::new(plugin.channel().await);
    let mut stream =
        health.watch(HealthCheckRequest { service: "plugin".into() }).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().status, 1, "serving");
    let _silent = UnixStream::connect(plugin.socket()).await.unwrap();
    plugin.shutdown().await;
    assert!(plugin.ended(HOST_WAITS).await.success());
    assert!(!plugin.socket().exists());
}

#[tokio::test]
async fn an_interrupt_is_survived_and_a_termination_is_not() {
    let mut plugin = Plugin::start(&holdfast()).await;
    for _ in 0..3 {
        plugin.signal(Signal::SIGINT);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(answers(&plugin).await);
    plugin.signal(Signal::SIGTERM);
    assert!(plugin.ended(Duration::from_secs(10)).await.success());
    assert!(!plugin.socket().exists());
}

/// go-plugin leaves its plugins behind when it is killed. A shell stands in for the host: it starts us as its child.
#[tokio::test]
async fn a_host_that_is_killed_takes_the_plugin_with_it() {
    let identity = Identity::of_a_host();
    let mut command = command(Path::new("/bin/sh"), &identity.pem());
    command.arg("-c").arg("\"$0\" & wait").arg(holdfast());
    let mut host = Plugin::spawn(command, identity).await;
    assert!(answers(&host).await);
    host.signal(Signal::SIGKILL);
    host.ended(HOST_WAITS).await;
    let killed = Instant::now();
    while host.socket().exists() {
        assert!(killed.elapsed() < Duration::from_secs(20), "the plugin lives on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn bytes_that_are_no_value_give_a_message_and_not_a_broken_connection() {
    let plugin = Plugin::start(&holdfast()).await;
    let mut provider = plugin.provider().await;
    for garbage in
        [vec![0xc1, 0xff, 0x00], vec![0xdd, 0xff, 0xff, 0xff, 0xff], b"\x81\xa5nosuch\xc0".to_vec()]
    {
        let config = Some(DynamicValue { msgpack: garbage, json: Vec::new() });
        let request = validate_provider_config::Request { config };
        let response = provider.validate_provider_config(request).await.unwrap().into_inner();
        assert_eq!(response.diagnostics[0].summary, "Value cannot be read");
    }
    let request =
        validate_resource_config::Request { type_name: "holdfast_nothing".into(), ..Default::default() };
    let response = provider.validate_resource_config(request).await.unwrap().into_inner();
    assert_eq!(response.diagnostics[0].summary, "Unknown kind");
}

#[tokio::test]
async fn host_rule_8_no_identity_is_offered_and_what_is_not_served_is_unimplemented() {
    let plugin = Plugin::start(&holdfast()).await;
    let mut raw = tonic::client::Grpc::new(plugin.channel().await);
    for path in [
        "/tfplugin6.Provider/GetMetadata",
        "/tfplugin6.Provider/GetResourceIdentitySchemas",
        "/plugin.GRPCBroker/StartStream",
        "/plugin.GRPCStdio/StreamStdio",
    ] {
        raw.ready().await.unwrap();
        let codec =
            tonic_prost::ProstCodec::<get_provider_schema::Request, get_provider_schema::Response>::default();
        let request = tonic::Request::new(get_provider_schema::Request {});
        let refusal = raw.unary(request, path.parse().unwrap(), codec).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn without_a_host_certificate_it_serves_plain_text_and_says_so() {
    let identity = Identity::of_a_host();
    let mut plugin = Plugin::spawn(command(&holdfast(), ""), identity).await;
    assert_eq!(plugin.field(5), "");
    let channel = connect_plain(&plugin.socket()).await.unwrap();
    assert!(ProviderClient::new(channel).get_provider_schema(get_provider_schema::Request {}).await.is_ok());
    plugin.signal(Signal::SIGTERM);
    plugin.ended(Duration::from_secs(10)).await;
    assert!(plugin.stderr().await.contains("plain text"));
}

#[tokio::test]
async fn in_debug_mode_it_prints_what_to_set_and_ends_with_an_interrupt() {
    let mut command = tokio::process::Command::new(holdfast());
    command.arg("--debug").env_clear();
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let mut plugin = Plugin::spawn(command, Identity::of_a_host()).await;
    let json = plugin.line.trim_end().strip_prefix("TF_REATTACH_PROVIDERS='").unwrap();
    let json: serde_json::Value = serde_json::from_str(json.strip_suffix('\'').unwrap()).unwrap();
    let provider = &json["mirror.example.org/holdfast/holdfast"];
    assert_eq!((&provider["ProtocolVersion"], &provider["Test"]), (&6.into(), &true.into()));
    let socket = std::path::PathBuf::from(provider["Addr"]["String"].as_str().unwrap());
    let channel = connect_plain(&socket).await.unwrap();
    assert!(ProviderClient::new(channel).get_provider_schema(get_provider_schema::Request {}).await.is_ok());
    plugin.signal(Signal::SIGINT);
    assert!(plugin.ended(Duration::from_secs(10)).await.success());
    assert!(!socket.exists());
}

#[tokio::test]
async fn every_line_of_the_log_is_what_the_host_takes_apart() {
    let identity = Identity::of_a_host();
    let mut command = command(&holdfast(), &identity.pem());
    command.env("TF_LOG", "TRACE");
    let mut plugin = Plugin::spawn(command, identity).await;
    assert!(answers(&plugin).await);
    plugin.shutdown().await;
    plugin.ended(HOST_WAITS).await;
    let log = plugin.stderr().await;
    assert!(log.contains("get_provider_schema"), "{log}");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for field in ["@level", "@message", "@module", "@timestamp"] {
            assert!(line[field].is_string(), "{field} in {line}");
        }
        assert_eq!(line["@timestamp"].as_str().unwrap().len(), "2006-01-02T15:04:05.000000Z".len());
    }
}
