//! A gateway as a process of its own, started from files, told by signals.

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use crate::client::{Client, request};
use crate::gateway::filled_in;
use crate::guests;
use crate::tls::Dialer;
use crate::wire::Message;
use crate::{PATIENCE_AT_START, eventually, within};

/// A process with its files. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    folder: TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where its own pages are.
    pub admin: SocketAddr,
    /// Who asks for them, where they are encrypted, and by which name.
    operator: Option<(Dialer, String)>,
}

/// How a process is started.
#[derive(Debug)]
pub struct Start {
    program: PathBuf,
    folder: TempDir,
    address: SocketAddr,
    admin: SocketAddr,
    cache: PathBuf,
    more: Vec<String>,
    variables: Vec<(String, String)>,
    stdout: Option<PathBuf>,
    stderr: Option<PathBuf>,
    operator: Option<(Dialer, String)>,
}

/// An address that nobody has, and that nobody is given meanwhile: its port lies below those that the system gives, in a range that
/// this process has for itself for as long as it lives.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static OWN: LazyLock<Ports> = LazyLock::new(Ports::claim);
    (0..Ports::OF_EACH)
        .map(|_| OWN.first + NEXT.fetch_add(1, Ordering::Relaxed) % Ports::OF_EACH)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("a port that nobody has")
}

/// A range of ports that no other process of any tests on this machine has.
struct Ports {
    first: u16,
    /// Locked; the system lets go of it when the process ends, however it does.
    _lock: File,
}

impl Ports {
    const FIRST: u16 = 12_000;
    const OF_EACH: u16 = 32;
    const RANGES: u16 = 625;

    fn claim() -> Self {
        let folder = std::env::temp_dir().join("portcullis-test-ports");
        fs::create_dir_all(&folder).unwrap();
        // Not all begin with the same one, so that few have to look for long.
        let begin = u16::try_from(std::process::id() % u32::from(Self::RANGES)).unwrap();
        (0..Self::RANGES)
            .map(|more| (begin + more) % Self::RANGES)
            .find_map(|range| {
                let lock = File::options().create(true).append(true).open(folder.join(range.to_string())).ok()?;
                lock.try_lock().ok()?;
                Some(Self { first: Self::FIRST + range * Self::OF_EACH, _lock: lock })
            })
            .expect("a range of ports that nobody has")
    }
}

/// The cache for modules that all tests share.
fn cache() -> PathBuf {
    guests::target().join("tmp").join("test-modules")
}

impl Start {
    /// With this program, the gateway's, and this configuration.
    ///
    /// # Panics
    /// When there is no folder to be had.
    #[must_use]
    pub fn new(program: &str, text: &str, places: &[(&str, &dyn Display)]) -> Self {
        let start = Self {
            program: program.into(),
            folder: tempfile::tempdir().unwrap(),
            address: free_address(),
            admin: free_address(),
            cache: cache(),
            more: Vec::new(),
            variables: Vec::new(),
            stdout: None,
            stderr: None,
            operator: None,
        };
        write(start.folder.path(), "portcullis.yaml", &start.configuration(text, places));
        start
    }

    fn configuration(&self, text: &str, places: &[(&str, &dyn Display)]) -> String {
        configuration(text, places, self.address, self.admin)
    }

    /// With another file beside the configuration.
    #[must_use]
    pub fn file(self, name: &str, text: &str) -> Self {
        write(self.folder.path(), name, text);
        self
    }

    /// With another argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.more.push(argument.to_owned());
        self
    }

    /// With a cache for modules of its own.
    #[must_use]
    pub fn cache(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.cache);
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With its outputs here instead of in files of its own.
    #[must_use]
    pub fn outputs(mut self, stdout: &Path, stderr: &Path) -> Self {
        (self.stdout, self.stderr) = (Some(stdout.to_owned()), Some(stderr.to_owned()));
        self
    }

    /// With its own pages where the text says, which then must.
    #[must_use]
    pub fn admin_at(mut self, admin: SocketAddr) -> Self {
        self.admin = admin;
        self
    }

    /// With its own pages encrypted, as the text says: this one asks for them, by this name.
    #[must_use]
    pub fn operated_by(mut self, dialer: Dialer, name: &str) -> Self {
        self.operator = Some((dialer, name.to_owned()));
        self
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn spawn(&self) -> Child {
        let open = |path: &Option<PathBuf>, name: &str| {
            let path = path.clone().unwrap_or_else(|| self.folder.path().join(name));
            File::options().create(true).append(true).open(path).unwrap()
        };
        Command::new(&self.program)
            .arg("run")
            .arg(self.folder.path().join("portcullis.yaml"))
            .arg("--cache")
            .arg(&self.cache)
            .args(&self.more)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(open(&self.stdout, "stdout"))
            .stderr(open(&self.stderr, "stderr"))
            .spawn()
            .unwrap()
    }

    fn into_process(self, child: Child) -> Process {
        let Self { folder, address, admin, operator, .. } = self;
        Process { child, folder, address, admin, operator }
    }

    /// Starts it, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready; with what it said.
    #[must_use]
    pub fn start(self) -> Process {
        let child = self.spawn();
        let mut process = self.into_process(child);
        within(PATIENCE_AT_START, "the gateway is ready", || {
            let ended = process.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", process.log());
            process.is_ready()
        });
        process
    }

    /// Runs it to its end, which is expected to come at once.
    ///
    /// # Panics
    /// When it goes on.
    #[must_use]
    pub fn run_to_end(self) -> (ExitStatus, String) {
        let child = self.spawn();
        let mut process = self.into_process(child);
        let status = process.wait();
        (status, process.log())
    }
}

fn configuration(text: &str, places: &[(&str, &dyn Display)], address: SocketAddr, admin: SocketAddr) -> String {
    let usual = [
        ("listeners:", format!("listeners: {{ main: {{ bind: \"{address}\" }} }}\n")),
        ("admin:", format!("admin: {{ bind: \"{admin}\" }}\n")),
    ];
    let missing = |key: &str| !text.lines().any(|line| line.starts_with(key));
    let added: String = usual.iter().filter(|(key, _)| missing(key)).map(|(_, line)| line.as_str()).collect();
    filled_in(&format!("{added}{text}"), places)
}

/// Writes a file as careful programs do: under another name, then renamed.
fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

impl Process {
    /// Replaces the configuration. In the text, names in braces are filled in as by [`crate::gateway::Gateway::start`].
    pub fn configure(&self, text: &str, places: &[(&str, &dyn Display)]) {
        self.write("portcullis.yaml", &configuration(text, places, self.address, self.admin));
    }

    /// Replaces a file beside the configuration.
    pub fn write(&self, name: &str, text: &str) {
        write(self.folder.path(), name, text);
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal: `HUP`, `TERM`.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Whether it says that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        // Where it starts with its last good configuration, what answers first goes away again.
        self.try_to_tell_admin("GET", "/ready", &[], "").is_ok_and(|answer| answer.status() == 200)
    }

    /// A new connection to it.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// One of its own pages.
    #[must_use]
    pub fn page(&self, path: &str) -> Message {
        self.ask_admin("GET", path, &[])
    }

    /// A request to its admin listener.
    #[must_use]
    pub fn ask_admin(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Message {
        self.tell_admin(method, path, fields, "")
    }

    /// The same, with a body.
    #[must_use]
    pub fn tell_admin(&self, method: &str, path: &str, fields: &[(&str, &str)], body: impl AsRef<[u8]>) -> Message {
        self.try_to_tell_admin(method, path, fields, body).expect("a response")
    }

    fn try_to_tell_admin(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> io::Result<Message> {
        let host = self.admin.to_string();
        let body = body.as_ref();
        let length = body.len().to_string();
        let own = [("host", host.as_str()), ("content-length", &length)];
        let fields: Vec<(&str, &str)> = own.iter().chain(fields).copied().collect();
        let mut client = match &self.operator {
            Some((dialer, name)) => dialer.try_connect(self.admin, name)?,
            None => Client::try_connect(self.admin)?,
        };
        client.0.write([request(method, path, &fields, "").as_bytes(), body].concat())?;
        client.0.message()
    }

    /// Has it read its configuration anew, and returns what it answers.
    #[must_use]
    pub fn reload(&self) -> Message {
        self.ask_admin("POST", "/reload", &[])
    }

    /// The value of a metric's only sample.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let page = self.page("/metrics").text();
        page.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix([' ', '{'])?.rsplit(' ').next()?.parse().ok())
    }

    /// What it wrote to standard error, if that went to a file of its own.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// What it wrote to standard output, if that went to a file of its own.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("stdout")).unwrap_or_default()
    }

    /// The one line of its access log that has all of these, once it is there.
    ///
    /// # Panics
    /// When it does not come to be there, or not alone.
    #[must_use]
    pub fn logged(&self, with: &[&str]) -> String {
        let mut lines = Vec::new();
        eventually("the line is in the access log", || {
            let output = self.output();
            let fits = |line: &&str| with.iter().all(|word| line.contains(word));
            lines = output.lines().filter(fits).map(str::to_owned).collect();
            !lines.is_empty()
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually("the gateway ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// Whether it runs.
    ///
    /// # Panics
    /// When the system does not tell.
    #[must_use]
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// To be started again with the same files, once it has ended.
    #[must_use]
    pub fn again(mut self, program: &str) -> Start {
        let _ended = self.wait();
        let Self { folder, address, admin, .. } = &mut self;
        let folder = std::mem::replace(folder, tempfile::tempdir().unwrap());
        Start {
            program: program.into(),
            folder,
            address: *address,
            admin: *admin,
            cache: cache(),
            more: Vec::new(),
            variables: Vec::new(),
            stdout: None,
            stderr: None,
            operator: None,
        }
    }
}

/// Sends a signal to a process.
///
/// # Panics
/// When it is gone.
pub fn signal(id: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &id.to_string()]).status().unwrap();
    assert!(sent.success(), "{id} is gone");
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}
