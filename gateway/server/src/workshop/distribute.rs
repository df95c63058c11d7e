//! Modules on their way to gateways: pushed, pulled, signed, verified, locked.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;
use serde_json::Value;

use crate::config::private::Configuration;
use crate::config::{self, Inputs, Written as _};
use crate::diagnostic::{Severity, text};
use crate::modules::fetch::{FetchError, Host, Remedy};
use crate::modules::lock::{Lock, Locking, Update};
use crate::modules::reference::{Remote, SCHEMES};
use crate::modules::signature::{self, PublicKey, Signature};
use crate::modules::{self, Fetched, Fetcher, Settings, Wanted};
use crate::tls::trust;

/// For a module to be on its way. People wait for it.
const PATIENCE: Duration = Duration::from_secs(300);

/// How a registry or a web server is spoken to.
#[derive(Debug, Args)]
pub(crate) struct Access {
    /// Who we are there; by default who `docker login` has made us
    #[arg(long, env = "PORTCULLIS_REGISTRY_USERNAME", requires = "password")]
    username: Option<String>,
    /// Our password or token there. On the command line others could read it: set the variable
    #[arg(long, env = "PORTCULLIS_REGISTRY_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// The authorities whose certificates count there; by default those this machine trusts
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Speak to it in the clear
    #[arg(long)]
    plain_http: bool,
}

impl Access {
    fn settings(&self, host: &str) -> anyhow::Result<Settings> {
        let login = match (&self.username, &self.password) {
            (Some(user), Some(password)) => Some((user.clone(), Configuration::of(&password.as_str().into()))),
            _ => docker_login(host),
        };
        let roots = match &self.ca {
            Some(path) => {
                let pem = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                Some(trust::roots(&pem).map_err(|why| anyhow!("{} cannot be used: {why}", path.display()))?)
            }
            None => None,
        };
        let known = Host { login, roots, plain: self.plain_http };
        let hosts = Arc::new(BTreeMap::from([(host.to_owned(), known)]));
        Ok(Settings { hosts, refresh: None, timeout: PATIENCE })
    }
}

/// Who `docker login` (and `podman`, `oras`, `crane` with the same file) says we are at a host.
fn docker_login(host: &str) -> Option<(String, Configuration)> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    let file: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).ok()?).ok()?;
    login_of(&file, host)
}

fn login_of(file: &Value, host: &str) -> Option<(String, Configuration)> {
    let pair = file.get("auths")?.get(host)?.get("auth")?.as_str()?;
    let pair = String::from_utf8(STANDARD.decode(pair).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), Configuration::of(&password.into())))
}

/// What went wrong, and what would help on a command line.
fn explained(error: &FetchError) -> anyhow::Error {
    let help = match error.remedy() {
        None => return anyhow!("{error}"),
        Some(Remedy::LogIn(_)) => {
            "set PORTCULLIS_REGISTRY_USERNAME and PORTCULLIS_REGISTRY_PASSWORD, or use `docker login`".to_owned()
        }
        Some(Remedy::LogInAnew(host)) => format!("{host} refuses this name and password"),
        Some(Remedy::Authority(_)) => "if it should be trusted, name its authority with `--ca`".to_owned(),
        Some(Remedy::Plain(_)) => "allow that with `--plain-http`".to_owned(),
        Some(Remedy::Time) => format!("more than {PATIENCE:?} is not waited for"),
        Some(Remedy::Words(words)) => words.to_owned(),
    };
    anyhow!("{error}\n  = help: {help}")
}

fn remote(reference: &str) -> anyhow::Result<Remote> {
    Remote::read(reference).map_err(|why| anyhow!("`{reference}` is no reference to a module: {why}"))
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn signed(file: &Path, module: &[u8], key: &Path) -> anyhow::Result<Signature> {
    signature::sign(module, &read(key)?)
        .map_err(|why| anyhow!("{} cannot be signed with {}: {why}", file.display(), key.display()))
}

/// The file of a module's signature.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// `portcullis plugin push`.
pub(super) fn push(
    file: &Path,
    to: &str,
    key: Option<&Path>,
    access: &Access,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let Remote::Oci(to) = remote(to)? else { bail!("modules are pushed to registries: `oci://HOST/REPOSITORY:TAG`") };
    let module = read(file)?;
    if !module.starts_with(b"\0asm") {
        bail!("{} is no WebAssembly module", file.display());
    }
    let signature = match key {
        Some(key) => Some(signed(file, &module, key)?),
        None => fs::read(beside(file)).ok().and_then(|content| Signature::of_file(&content)),
    };
    let settings = access.settings(&to.host)?;
    let pushed = modules::push(&to, module.into(), signature.as_ref(), &settings).map_err(|error| explained(&error))?;
    let how = if signature.is_some() { "with its signature" } else { "without a signature" };
    Ok(writeln!(out, "pushed {how}: {pushed}")?)
}

fn fetch(remote: &Remote, access: &Access) -> anyhow::Result<Fetched> {
    let wanted = Wanted { remote: remote.clone(), module: None, signed: true, anew: false };
    let mut got = Arc::new(Fetcher::default()).get([wanted.clone()], &access.settings(remote.host())?);
    let fetched = got.remove(&wanted).context("nothing was fetched")?;
    fetched.map_err(|error| explained(&error))
}

/// `portcullis plugin pull`.
pub(super) fn pull(
    reference: &str,
    output: Option<PathBuf>,
    access: &Access,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let remote = remote(reference)?;
    let output = output.unwrap_or_else(|| PathBuf::from(file_name(&remote)));
    let Fetched { module, digest, manifest, signature, .. } = fetch(&remote, access)?;
    let write = |path: &Path, content: &[u8]| {
        fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    write(&output, &module)?;
    writeln!(out, "{}: {} KiB, sha256:{}", output.display(), module.len().div_ceil(1024), digest.write())?;
    if let Some(signature) = signature {
        write(&beside(&output), signature.bytes())?;
        writeln!(out, "{}: its signature", beside(&output).display())?;
    }
    Ok(writeln!(out, "from {}", remote.pinned(manifest))?)
}

/// What a module of this reference is called as a file.
fn file_name(remote: &Remote) -> String {
    let name = match remote {
        Remote::Oci(oci) => oci.repository.as_str(),
        Remote::Web(web) => web.url().split('?').next().unwrap_or_default(),
    };
    let name = name.rsplit('/').next().unwrap_or_default();
    format!("{}.wasm", name.trim_end_matches(".wasm"))
}

/// `portcullis plugin sign`.
pub(super) fn sign(file: &Path, key: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let signature = signed(file, &read(file)?, key)?;
    let to = beside(file);
    fs::write(&to, signature.bytes()).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(writeln!(out, "signed: {}", to.display())?)
}

/// `portcullis plugin verify`: of a file by the signature beside it, or of a reference.
pub(super) fn verify(module: &str, keys: &[PathBuf], access: &Access, out: &mut impl Write) -> anyhow::Result<()> {
    let (content, signature) = if SCHEMES.iter().any(|scheme| module.starts_with(scheme)) {
        let fetched = fetch(&remote(module)?, access)?;
        (fetched.module, fetched.signature)
    } else {
        let file = Path::new(module);
        let signature = fs::read(beside(file)).ok();
        (Bytes::from(read(file)?), signature.and_then(|content| Signature::of_file(&content)))
    };
    let signature = signature.with_context(|| format!("{module} has no signature"))?;
    for path in keys {
        let text = String::from_utf8_lossy(&read(path)?).trim().to_owned();
        let key = PublicKey::read(&text).map_err(|why| anyhow!("{} is no public key: {why}", path.display()))?;
        if key.verifies(&content, &signature) {
            return Ok(writeln!(out, "{module} is signed by {}", path.display())?);
        }
    }
    bail!("{module} is signed by none of these keys, or was changed since")
}

/// `portcullis plugin lock`: writes what the references of a configuration stand for into the lock files beside it.
pub(super) fn lock(
    files: &[PathBuf],
    update: Update,
    cache: Option<&Path>,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let fetcher = Arc::new(Fetcher::keeping(cache).context("the cache for modules cannot be used")?);
    let locking = Arc::new(Locking::all(update));
    let inputs = Inputs::default().locking_anew(locking.clone());
    let (problems, is_good) = match config::load(files, &inputs, &fetcher) {
        Ok((_, warnings)) => (warnings, true),
        Err(problems) => (problems, false),
    };
    let failed: Vec<_> = problems.into_iter().filter(|problem| problem.severity == Severity::Error).collect();
    write!(out, "{}", text(&failed))?;
    if !is_good {
        writeln!(out, "no lock file was written")?;
        return Ok(ExitCode::FAILURE);
    }
    let noted = locking.noted();
    if noted.is_empty() {
        writeln!(out, "no plugin's module is on another machine: there is nothing to lock")?;
    }
    for (path, modules) in noted {
        let count = modules.len();
        let content = Lock::new(modules).write();
        let is_same = fs::read(&path).is_ok_and(|there| there == content.as_bytes());
        if !is_same {
            let new = path.with_extension("lock.new");
            fs::write(&new, content).and_then(|()| fs::rename(&new, &path))?;
        }
        let s = if count == 1 { "" } else { "s" };
        writeln!(out, "{}: {count} reference{s}{}", path.display(), if is_same { ", as before" } else { "" })?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulled_module_is_called_as_its_repository_or_its_file() {
        for (reference, name) in [
            ("oci://r.example/acme/geo:1.4", "geo.wasm"),
            ("https://m.example/a/geo.wasm?v=1", "geo.wasm"),
            ("https://m.example/geo", "geo.wasm"),
        ] {
            assert_eq!(file_name(&Remote::read(reference).unwrap()), name);
        }
    }

    #[test]
    fn who_docker_has_logged_in_is_who_we_are() {
        let file = serde_json::json!({ "auths": { "r.example:5000": { "auth": STANDARD.encode("ci:a:b") } } });
        let (user, password) = login_of(&file, "r.example:5000").unwrap();
        assert_eq!((user.as_str(), &*password), ("ci", &b"a:b"[..]));
        assert!(login_of(&file, "r.example").is_none());
    }
}
