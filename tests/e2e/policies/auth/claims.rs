//! What `auth` leaves for the filters after it and for the access log, on Portcullis and on an Envoy.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use portcullis::workshop::envoy::Process;
use portcullis::workshop::envoy::configuration::{Protocol, Wasm, cluster, listener, route};
use portcullis_tests::client::Client;
use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::module;
use portcullis_tests::origin::Origin;
use serde_json::{Value, json};

const TOKEN: &str = include_str!("../../../../plugins/auth/testdata/example.jwt");

/// Who sends a request, and then what becomes of it: the built-in plugins and their settings.
fn chain() -> [(&'static str, Value); 3] {
    let jwks: Value = serde_json::from_str(include_str!("../../../../plugins/auth/testdata/jwks.json")).unwrap();
    let auth = json!({
        "keys": [{ "jwk": jwks["keys"][0] }],
        "api_key_from": { "header": "x-api-key" },
        "consumers": [{ "id": "ann", "plan": "gold", "scopes": ["read"],
            "api_keys": ["ca64daa8b294dc4835d29ca02a6a47427ebc6a225ea3ac2e15f8417fb6601db2"] }],
        "anonymous": true,
        "share_claims": ["sub", "plan", "realm_access.roles"],
    });
    let transform = json!({ "request": [
        { "headers": { "set": {
            "x-user": "${claims.sub | default(\"nobody\")}",
            "x-roles": "${claims.realm_access.roles | default(\"none\")}",
            "x-scope": "${claims.scope | default(\"not shared\")}",
        } } },
        { "when": { "claims": { "plan": "gold" } }, "headers": { "set": { "x-gold": "1" } } },
    ] });
    // A request each, by whom `auth` has let in.
    let limit = json!({ "limits": [
        { "name": "each", "keys": ["consumer", { "claim": "sub" }], "rate": "1/d", "plans": { "claim": "plan", "rates": { "gold": "2/d" } } },
    ] });
    [("auth", auth), ("transform", transform), ("rate-limit", limit)]
}

#[test]
fn filters_after_it_get_the_claims_that_are_shared() {
    let origin = Origin::plain();
    let filters = chain().map(|(name, settings)| json!({ "plugin": name, "config": settings }));
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let text = "access_log: { to: 'file:{log}', properties: {properties} }
upstreams: { origin: { endpoints: ['{origin}'] } }
plugins: { auth: { module: 'builtin:auth' }, transform: { module: 'builtin:transform' }, rate-limit: { module: 'builtin:rate-limit' } }
filters: {filters}
routes: [ { name: all, match: { path: '/*' }, upstream: origin } ]
";
    let (shown, properties) = (log.display(), json!(PROPERTIES));
    let places: [(&str, &dyn std::fmt::Display); 4] =
        [("origin", &origin), ("filters", &json!(filters)), ("log", &shown), ("properties", &properties)];
    let gateway = Gateway::start(text, &places);
    assert_told(gateway.address(), &origin);
    assert_logged(&log);
}

#[test]
fn so_they_do_on_envoy() {
    let Some(envoy) = portcullis_tests::envoy::program() else { return };
    let origin = Origin::plain();
    let filters = chain().map(|(name, settings)| {
        let (module, configuration) = (module(name), settings.to_string());
        let configuration = &configuration;
        let (vm_id, vm_configuration, holds_headers) = ("", "", false);
        Wasm { name, module: &module, configuration, vm_id, vm_configuration, holds_headers }.filter()
    });
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let mut main = listener("main", filters.into(), &[route("all", "/", "origin")]);
    let states = PROPERTIES.map(|name| (name.to_owned(), format!("%FILTER_STATE(wasm.{name}:PLAIN)%").into()));
    let format = json!({ "json_format": { "properties": Value::Object(states.into_iter().collect()) } });
    main["filter_chains"][0]["filters"][0]["typed_config"]["access_log"] = json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": log, "log_format": format,
        },
    }]);
    let resources = json!({
        "listeners": [main],
        "clusters": [cluster("origin", &[origin.address], Protocol::Http1)],
    });
    let mut process =
        Process::start(&envoy, &resources, &["--log-level", "error", "--file-flush-interval-msec", "50"]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listeners = runtime.block_on(process.listeners()).unwrap();
    assert_told(listeners[0].1, &origin);
    assert_logged(&log);
}

/// What the access log is asked for.
const PROPERTIES: [&str; 3] = ["auth.consumer", "rate_limit.remaining.each", "rate_limit.refused"];

/// Whose requests there were, what their limit left them, and which of them it refused.
#[track_caller]
fn assert_logged(log: &Path) {
    let lines = || {
        let text = fs::read_to_string(log).unwrap_or_default();
        let whole = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told =
            |line: Value| PROPERTIES.map(|name| line["properties"][name].as_str().unwrap_or_default().to_owned());
        whole.map(told).collect::<Vec<_>>()
    };
    eventually("all seven are written", || lines().len() == 7);
    let want = [
        ["", "0", ""],
        ["", "0", "each"],
        ["ann", "1", ""],
        ["ann", "0", ""],
        ["ann", "0", "each"],
        ["tom", "0", ""],
        ["tom", "0", "each"],
    ];
    assert_eq!(lines(), want);
}

/// Asks as each of those who may, as often as they may and once more, and looks at what the origin is told of them.
#[track_caller]
fn assert_told(address: SocketAddr, origin: &Origin) {
    let bearer = format!("Bearer {}", TOKEN.trim());
    for (credential, want, passing) in [
        (None, ["nobody", "none", "not shared", ""], 1),
        (Some(("x-api-key", "key-of-ann")), ["ann", "none", "not shared", "1"], 2),
        (Some(("authorization", &*bearer)), ["tom", r#"["admin"]"#, "not shared", ""], 1),
    ] {
        let mut fields = vec![("host", "a.test")];
        fields.extend(credential);
        let mut client = Client::connect(address);
        let statuses: Vec<u16> = (0..=passing).map(|_| client.ask("GET", "/", &fields, "").status()).collect();
        let (refused, passed) = statuses.split_last().unwrap();
        assert_eq!((passed, *refused), (&*vec![200; passing], 429), "{credential:?}");
        let seen = origin.last();
        let told = ["x-user", "x-roles", "x-scope", "x-gold"].map(|name| seen.get(name).unwrap_or_default());
        assert_eq!(told, want);
    }
}
