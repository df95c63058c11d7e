//! `/v1/tenants`: the tenants there are, and changes of those that are kept in the directory `admin.tenants`.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::access::Via;
use super::{AdminState, Asked, JSON, PROBLEM, Request, problem, response, wrong_method};
use crate::config::directory::{TENANT_FILE, is_module_name, is_tenant_name};
use crate::config::snapshot::{Plugin, Tenant};
use crate::config::{Digest, MAX_TENANT_BYTES, Written as _};
use crate::life::tenants::{Change, ChangeError, Changed, Condition, What, tag};
use crate::modules::fetch::MAX_MODULE;
use crate::modules::lock::{LOCK_FILE, Update};
use crate::regular;

/// The most bytes of what a tenant says or of its lock file, and of a module.
const MOST: [usize; 2] = [MAX_TENANT_BYTES, MAX_MODULE];

const YAML: HeaderValue = HeaderValue::from_static("application/yaml");

/// What a path below `/v1/tenants` names.
enum Named<'p> {
    All,
    Tenant(&'p str),
    Modules(&'p str),
    Module(&'p str, &'p str),
    Lock(&'p str),
}

impl<'p> Named<'p> {
    fn of(path: &'p str) -> Option<Self> {
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
        let named = match (parts.next()?, parts.next(), parts.next()) {
            ("", None, None) => Self::All,
            (tenant, None, None) => Self::Tenant(tenant),
            (tenant, Some("modules"), None) => Self::Modules(tenant),
            (tenant, Some("lock"), None) => Self::Lock(tenant),
            (tenant, Some("modules"), Some(file)) => Self::Module(tenant, file),
            _ => return None,
        };
        parts.next().is_none().then_some(named)
    }
}

/// Which part of a tenant is changed.
#[derive(Clone, Copy)]
enum Part<'p> {
    /// What it says.
    Tenant,
    /// The module in this file.
    Module(&'p str),
    /// What the references of its modules stand for.
    Lock,
}

impl Part<'_> {
    /// What is to be changed of it.
    fn changed(self, content: Option<Bytes>, update: Option<Update>) -> What {
        match (self, content) {
            (Self::Tenant, Some(content)) => What::Put(content, update),
            (Self::Tenant, None) => What::Delete,
            (Self::Module(file), Some(content)) => What::PutModule(file.to_owned(), content),
            (Self::Module(file), None) => What::DeleteModule(file.to_owned()),
            (Self::Lock, Some(content)) => What::PutLock(content),
            (Self::Lock, None) => What::DeleteLock,
        }
    }
}

pub(super) async fn answer(
    request: http::Request<Incoming>,
    path: &str,
    state: &AdminState,
    via: &Via,
) -> Response<Full<Bytes>> {
    let method = request.method().clone();
    let reads = method == Method::GET || method == Method::HEAD;
    match Named::of(path) {
        Some(Named::All) if reads => list(state),
        Some(Named::All) => wrong_method("GET, HEAD"),
        Some(Named::Tenant(name)) if reads => show(name, state),
        Some(Named::Modules(name)) if reads => modules(name, state),
        Some(Named::Modules(_)) => wrong_method("GET, HEAD"),
        Some(Named::Lock(name)) if reads => show_lock(name, state),
        Some(Named::Tenant(name)) => match method {
            Method::PUT | Method::DELETE => change(request, (name, Part::Tenant), state, via).await,
            _ => wrong_method("GET, HEAD, PUT, DELETE"),
        },
        Some(Named::Lock(name)) => match method {
            Method::PUT | Method::DELETE => change(request, (name, Part::Lock), state, via).await,
            _ => wrong_method("GET, HEAD, PUT, DELETE"),
        },
        Some(Named::Module(name, file)) => match method {
            Method::PUT | Method::DELETE => change(request, (name, Part::Module(file)), state, via).await,
            _ => wrong_method("PUT, DELETE"),
        },
        None => problem(StatusCode::NOT_FOUND, "not_found", "There is no such page"),
    }
}

/// Every tenant: what its hosts are, where it is written, and whether that is in use.
fn list(state: &AdminState) -> Response<Full<Bytes>> {
    let shown = state.shown.borrow().clone();
    let folder = shown.admin.as_ref().and_then(|admin| admin.tenants.clone());
    let told = |name: &str, tenant: Option<&Tenant>| {
        let refused = shown.held.get(name);
        let text = folder.as_ref().and_then(|folder| read(&folder.join(name).join(TENANT_FILE)).ok());
        let status = match refused {
            None => "served",
            Some(_) if tenant.is_none_or(|tenant| tenant.unavailable) => "unavailable",
            Some(_) => "refused",
        };
        let hosts: Vec<String> = tenant.iter().flat_map(|tenant| &*tenant.hosts).map(ToString::to_string).collect();
        json!({
            "name": name, "hosts": hosts, "status": status, "why": refused,
            "from": if text.is_some() { "directory" } else { "files" }, "etag": text.map(|text| tag(&text)),
        })
    };
    let known = &shown.snapshot.tenants;
    // Where what says a tenant's hosts has never been good, there is no more of it than its name.
    let unread = shown.held.keys().filter(|name| known.named(name).is_none()).map(|name| told(name, None));
    let tenants: Vec<Value> = known.iter().map(|tenant| told(&tenant.name, Some(tenant))).chain(unread).collect();
    response(StatusCode::OK, JSON, format!("{:#}\n", json!({ "tenants": tenants })))
}

/// What one says: as it was put, or, where it stands in files, as the gateway has read it. Without secrets.
fn show(name: &str, state: &AdminState) -> Response<Full<Bytes>> {
    if let Some(text) = stored(name, TENANT_FILE, state) {
        return text;
    }
    let shown = state.shown.borrow().clone();
    match shown.snapshot.tenants.named(name) {
        Some(tenant) => response(StatusCode::OK, JSON, format!("{:#}\n", tenant.dump())),
        None => problem(StatusCode::NOT_FOUND, "no_tenant", "There is no such tenant"),
    }
}

/// The lock file of one, if it has any.
fn show_lock(name: &str, state: &AdminState) -> Response<Full<Bytes>> {
    let none = || problem(StatusCode::NOT_FOUND, "no_lock", "There is no such tenant, or it has no lock file");
    stored(name, LOCK_FILE, state).unwrap_or_else(none)
}

/// A file of YAML in a tenant's folder.
fn stored(name: &str, file: &str, state: &AdminState) -> Option<Response<Full<Bytes>>> {
    let folder = state.shown.borrow().admin.as_ref()?.tenants.clone().filter(|_| is_tenant_name(name))?;
    let text = read(&folder.join(name).join(file)).ok()?;
    let tag = tag(&text);
    Some(with_tag(response(StatusCode::OK, YAML, text), Some(&tag)))
}

/// The modules that are kept for a tenant, and what the references of its plugins stand for.
fn modules(name: &str, state: &AdminState) -> Response<Full<Bytes>> {
    let shown = state.shown.borrow().clone();
    let folder = shown.admin.as_ref().and_then(|admin| admin.tenants.as_ref()).filter(|_| is_tenant_name(name));
    let stored = folder.and_then(|folder| stored_modules(&folder.join(name)).ok());
    let tenant = shown.snapshot.tenants.named(name);
    if stored.is_none() && tenant.is_none() {
        return problem(StatusCode::NOT_FOUND, "no_tenant", "There is no such tenant");
    }
    let told = json!({ "modules": stored.unwrap_or_default(), "plugins": tenant.map(|tenant| plugins(tenant)) });
    response(StatusCode::OK, JSON, format!("{told:#}\n"))
}

/// What the references of a tenant's plugins stand for, those of next versions too.
fn plugins(tenant: &Tenant) -> Value {
    let all = tenant.share.plugins.iter().flat_map(Plugin::with_candidate);
    let resolved =
        |plugin: &Plugin| json!({ "module": plugin.module.write(), "sha256": Digest(plugin.digest).write() });
    Value::Object(all.map(|plugin| (plugin.name.to_string(), resolved(plugin))).collect())
}

/// What is in a file of a tenant's folder, where others may have put whatever they like.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let [_, most] = MOST;
    regular::read(path, most as u64)
}

fn stored_modules(folder: &Path) -> std::io::Result<serde_json::Map<String, Value>> {
    let mut modules = serde_json::Map::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if is_module_name(&name) {
            let module = read(&folder.join(&name))?;
            modules.insert(name, json!({ "bytes": module.len(), "etag": tag(&module) }));
        }
    }
    Ok(modules)
}

/// Has a tenant changed, or one of its files.
async fn change(
    request: http::Request<Incoming>,
    (tenant, part): (&str, Part<'_>),
    state: &AdminState,
    via: &Via,
) -> Response<Full<Bytes>> {
    if !is_tenant_name(tenant) || matches!(part, Part::Module(file) if !is_module_name(file)) {
        let rule = "Tenants have lower-case letters, digits and -_. in their names, modules letters, digits and -_. before .wasm or .wasm.sig";
        return problem(StatusCode::BAD_REQUEST, "bad_name", rule);
    }
    let (head, body) = request.into_parts();
    let is_put = head.method == Method::PUT;
    let wishes = Wishes::of(head.uri.query().unwrap_or_default());
    let can_lock = is_put && matches!(part, Part::Tenant);
    let Some(Wishes { dry_run, update }) = wishes.filter(|wishes| can_lock || wishes.update.is_none()) else {
        let title = "Ask for ?dry_run=true, of a tenant that is put for lock=missing or lock=all, and for nothing else";
        return problem(StatusCode::BAD_REQUEST, "bad_query", title);
    };
    let [text_bytes, module_bytes] = MOST;
    let most = if matches!(part, Part::Module(_)) { module_bytes } else { text_bytes };
    let body = match Limited::new(body, most).collect().await {
        Ok(body) => body,
        Err(error) if error.is::<LengthLimitError>() => {
            let title = "It is larger than 1 MiB, or a module than 64 MiB";
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "too_large", title);
        }
        Err(_) => return problem(StatusCode::BAD_REQUEST, "incomplete", "The request ended before its body had"),
    };
    let what = part.changed(is_put.then(|| body.to_bytes()), update);
    let (tenant, condition, who) = (tenant.to_owned(), condition(&head.headers), via.who.clone());
    let change = Box::new(Change { tenant, what, condition, dry_run, who });
    let (answer, answered) = oneshot::channel();
    let asked = state.reloads.as_ref().is_some_and(|asks| asks.send(Request(Asked::Change(change, answer))).is_ok());
    match answered.await {
        Ok(Ok(changed)) => told(&changed, dry_run),
        Ok(Err(why)) => not_changed(&why),
        Err(_) if asked => problem(StatusCode::SERVICE_UNAVAILABLE, "draining", "The gateway is draining"),
        Err(_) => problem(StatusCode::NOT_IMPLEMENTED, "no_files", "This gateway was not started from files"),
    }
}

/// What the query of a change asks for.
#[derive(Default)]
struct Wishes {
    dry_run: bool,
    /// What is made of the lock file.
    update: Option<Update>,
}

impl Wishes {
    /// Nothing where there is more in it: whoever has misspelt `dry_run` does not want the change.
    fn of(query: &str) -> Option<Self> {
        let mut wishes = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part {
                "dry_run=true" => wishes.dry_run = true,
                "dry_run=false" => wishes.dry_run = false,
                "lock=missing" => wishes.update = Some(Update::Missing),
                "lock=all" => wishes.update = Some(Update::All),
                _ => return None,
            }
        }
        Some(wishes)
    }
}

fn condition(headers: &HeaderMap) -> Condition {
    let tags = |name| {
        let values = headers.get_all(name).iter();
        let tags = values.flat_map(|value| value.to_str().unwrap_or_default().split(','));
        tags.map(|tag| tag.trim().to_owned()).collect::<Vec<_>>()
    };
    Condition {
        matches: headers.contains_key(header::IF_MATCH).then(|| tags(header::IF_MATCH)),
        is_new: tags(header::IF_NONE_MATCH).iter().any(|tag| tag == "*"),
    }
}

fn told(changed: &Changed, dry_run: bool) -> Response<Full<Bytes>> {
    let Changed { revision, is_new, tag, tenant } = changed;
    let status = if *is_new && !dry_run { StatusCode::CREATED } else { StatusCode::OK };
    let plugins = tenant.as_deref().map(plugins);
    let told = json!({ "revision": revision, "dry_run": dry_run, "etag": tag, "plugins": plugins });
    with_tag(response(status, JSON, format!("{told:#}\n")), tag.as_deref())
}

fn with_tag(mut response: Response<Full<Bytes>>, tag: Option<&str>) -> Response<Full<Bytes>> {
    if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(tag).ok()) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn not_changed(why: &ChangeError) -> Response<Full<Bytes>> {
    let (status, code) = match why {
        ChangeError::NoDirectory => (StatusCode::NOT_IMPLEMENTED, "no_directory"),
        ChangeError::NotThere => (StatusCode::NOT_FOUND, "no_tenant"),
        ChangeError::Condition => (StatusCode::PRECONDITION_FAILED, "condition"),
        ChangeError::Refused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
        ChangeError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "not_stored"),
    };
    let title = "Nothing was changed";
    let told = json!({
        "type": "about:blank", "title": title, "status": status.as_u16(), "code": code, "detail": why.to_string(),
    });
    response(status, PROBLEM, format!("{told:#}\n"))
}
