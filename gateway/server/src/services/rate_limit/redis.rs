//! States in Redis or Valkey: one server, a Cluster, or whoever Sentinel says is the master.
//!
//! A decision is one script (`take.lua`), so it is atomic, and the time is the server's own. All keys of a domain have one hash tag,
//! since a decision may take from any of them together. One connection carries all decisions at once; [`Redis::keep`] makes it,
//! looks after it and makes it anew. **Invariants:** a decision takes no longer than `timeout`, and none while there is no
//! connection; what was lost is tried again with growing pauses; the log hears of a change, not of every decision.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use portcullis_abi::limit::{Limit, MOST_BURSTS, Order, SECOND, Verdict};
use portcullis_core::throttle::Throttle;
use portcullis_core::time::Time;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo as _, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, TlsCertificates, TlsMode,
};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::store::{Amount, Part};
use crate::config::private::Configuration;
use crate::config::snapshot::Endpoint;
use crate::telemetry::{RateLimitCounts, StoreError};

const SCRIPT: &str = include_str!("take.lua");
/// For a connection to be made, Sentinel's and Cluster's questions included.
const CONNECT: Duration = Duration::from_secs(2);
/// Between two looks at whether an unused connection is alive.
const LOOK: Duration = Duration::from_secs(1);
/// The first pause before another attempt, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A connection that held for so long was a good one.
const STEADY: Duration = Duration::from_secs(5);
/// So many failures in a row end a connection; of a Cluster more, since one node may fail while the others serve.
const STRIKES: u32 = 3;
const CLUSTER_STRIKES: u32 = 30;
/// How often a failure is logged at most.
const FAILURES: Duration = Duration::from_secs(10);
/// Longer keys are kept as their digest.
const MAX_KEY: usize = 256;

/// Where the store is, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) topology: Topology,
    pub(crate) login: Login,
    pub(crate) tls: Option<Box<Tls>>,
    /// What every key begins with.
    pub(crate) prefix: String,
    /// How long a decision may take.
    pub(crate) timeout: Duration,
}

/// How several servers make one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    /// They do not: any of the endpoints will do.
    Single,
    Cluster,
    /// The endpoints are Sentinels, who know the master of this name.
    Sentinel {
        master: String,
        login: Login,
    },
}

/// Who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Configuration>,
}

impl Login {
    fn password(&self) -> Option<&str> {
        self.password.as_deref().and_then(|password| std::str::from_utf8(password).ok())
    }

    fn info(&self) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default();
        if let Some(username) = &self.username {
            info = info.set_username(username);
        }
        if let Some(password) = self.password() {
            info = info.set_password(password);
        }
        info
    }
}

/// How connections are encrypted. PEM.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    /// The authorities that are trusted; those of the machine where it is absent.
    pub(crate) ca: Option<Vec<u8>>,
    /// Our own certificate and its key, for servers that ask for one.
    pub(crate) own: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    fn certificates(&self) -> TlsCertificates {
        let own = self.own.clone();
        let client_tls = own.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        TlsCertificates { client_tls, root_cert: self.ca.clone() }
    }
}

/// No verdict: the store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Away;

/// A connection, shared by all who decide.
#[derive(Clone)]
enum Link {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    async fn ask(&self, command: &Cmd) -> RedisResult<Vec<i64>> {
        match self {
            Self::One(connection) => command.query_async(&mut connection.clone()).await,
            Self::Cluster(connection) => command.query_async(&mut connection.clone()).await,
        }
    }
}

/// A store.
pub(super) struct Redis {
    settings: Settings,
    /// The connection, with its number.
    link: watch::Sender<Option<(u64, Link)>>,
    /// The last connection that is no good.
    ill: watch::Sender<u64>,
    strikes: AtomicU32,
    digest: String,
    failures: Throttle,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Redis {
    /// Not connected before [`Self::keep`] runs.
    pub(super) fn new(settings: Settings) -> Self {
        let digest = Sha1::digest(SCRIPT).iter().fold(String::new(), |mut digest, byte| {
            let _in_memory = write!(digest, "{byte:02x}");
            digest
        });
        let (link, ill) = (watch::Sender::new(None), watch::Sender::new(0));
        Self { settings, link, ill, strikes: AtomicU32::new(0), digest, failures: Throttle::new(1, FAILURES) }
    }

    /// Takes from all limits of a domain, or from none; or settles what was taken.
    pub(super) async fn order(
        &self,
        order: Order,
        (domain, parts): (&[u8], &[Part]),
        now: u64,
        counts: &RateLimitCounts,
    ) -> Result<Vec<Verdict>, Away> {
        let Some((number, link)) = self.link.borrow().clone() else {
            counts.store_failed(StoreError::Away);
            return Err(Away);
        };
        let began = Instant::now();
        let answered = timeout(self.settings.timeout, self.decide(&link, order, (domain, parts), now)).await;
        let (error, strikes) = match answered {
            Ok(Ok(numbers)) => match verdicts(&numbers, parts.len()) {
                Some(verdicts) => {
                    self.strikes.store(0, Ordering::Relaxed);
                    counts.store_answered(began.elapsed());
                    return Ok(verdicts);
                }
                None => ("its answer is malformed".to_owned(), self.strike()),
            },
            Ok(Err(error)) if self.is_final(&error) => (error.to_string(), u32::MAX),
            Ok(Err(error)) => (error.to_string(), self.strike()),
            Err(_) => {
                counts.store_failed(StoreError::Timeout);
                self.give_up_after(number, self.strike());
                return Err(Away);
            }
        };
        counts.store_failed(StoreError::Failed);
        self.tell(&error, now);
        self.give_up_after(number, strikes);
        Err(Away)
    }

    async fn decide(
        &self,
        link: &Link,
        order: Order,
        (domain, parts): (&[u8], &[Part]),
        now: u64,
    ) -> RedisResult<Vec<i64>> {
        let order = match order {
            Order::Take => "take",
            Order::Settle => "settle",
        };
        let command = |how: &str, script: &str| {
            let mut command = redis::cmd(how);
            command.arg(script).arg(parts.len());
            for part in parts {
                command.arg(key(&self.settings.prefix, domain, part));
            }
            command.arg(order).arg(MOST_BURSTS);
            parts.iter().for_each(|part| arguments(&mut command, part, now));
            command
        };
        match link.ask(&command("EVALSHA", &self.digest)).await {
            // A server that is new, or was started anew: it keeps the script from now on.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                link.ask(&command("EVAL", SCRIPT)).await
            }
            answered => answered,
        }
    }

    /// Whether nothing good can come of this connection any more: it broke, or its server is no master now.
    fn is_final(&self, error: &RedisError) -> bool {
        let is_over = error.is_unrecoverable_error() || error.is_io_error();
        self.settings.topology != Topology::Cluster
            && (is_over || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly))
    }

    fn strike(&self) -> u32 {
        self.strikes.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    fn give_up_after(&self, number: u64, strikes: u32) {
        let most = if self.settings.topology == Topology::Cluster { CLUSTER_STRIKES } else { STRIKES };
        if strikes >= most {
            self.ill.send_if_modified(|ill| std::mem::replace(ill, number.max(*ill)) < number);
        }
    }

    fn tell(&self, error: &str, now: u64) {
        if self.failures.take(Time::from_nanos(now)).is_some() {
            tracing::warn!(%error, "the store of limits did not decide");
        }
    }

    /// Keeps a connection, until dropped.
    pub(super) async fn keep(&self, counts: &RateLimitCounts) {
        let (mut pause, mut number, mut is_told) = (FIRST_PAUSE, 0, false);
        loop {
            match timeout(CONNECT, connect(&self.settings)).await {
                Ok(Ok(link)) => {
                    number += 1;
                    tracing::info!("the store of limits is connected");
                    let began = Instant::now();
                    self.strikes.store(0, Ordering::Relaxed);
                    self.link.send_replace(Some((number, link.clone())));
                    counts.set_connected(true);
                    self.while_well(number, &link).await;
                    self.link.send_replace(None);
                    counts.set_connected(false);
                    tracing::warn!("the store of limits is away");
                    is_told = true;
                    if began.elapsed() > STEADY {
                        pause = FIRST_PAUSE;
                        continue;
                    }
                }
                failed if !is_told => {
                    is_told = true;
                    let error = match failed {
                        Ok(Err(error)) => error.to_string(),
                        Ok(Ok(_)) | Err(_) => "it does not answer".to_owned(),
                    };
                    tracing::warn!(%error, "the store of limits cannot be connected to");
                }
                _ => {}
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Returns when this connection is no good any more.
    async fn while_well(&self, number: u64, link: &Link) {
        let mut ill = self.ill.subscribe();
        let alive = async {
            loop {
                sleep(LOOK).await;
                // A Cluster's client looks after its own connections.
                if let Link::One(connection) = link {
                    let (ping, mut connection) = (redis::cmd("PING"), connection.clone());
                    let answered = timeout(CONNECT, connection.req_packed_command(&ping)).await;
                    if !matches!(answered, Ok(Ok(_))) {
                        return;
                    }
                }
            }
        };
        tokio::select! {
            _ = ill.wait_for(|ill| *ill >= number) => {}
            () = alive => {}
        }
    }
}

async fn connect(settings: &Settings) -> RedisResult<Link> {
    let certificates = settings.tls.as_deref().map(Tls::certificates);
    match &settings.topology {
        Topology::Single => {
            let mut last = None;
            for address in addresses(settings) {
                let info =
                    address.into_connection_info()?.set_tcp_settings(tcp()).set_redis_settings(settings.login.info());
                match single(info, certificates.as_ref()).await {
                    Ok(connection) => return Ok(Link::One(connection)),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| (ErrorKind::InvalidClientConfig, "there is no endpoint").into()))
        }
        Topology::Cluster => {
            let nodes = addresses(settings)
                .into_iter()
                .map(|address| Ok(address.into_connection_info()?.set_redis_settings(settings.login.info())));
            let builder = ClusterClient::builder(nodes.collect::<RedisResult<Vec<ConnectionInfo>>>()?)
                .connection_timeout(settings.timeout.max(CONNECT / 4))
                .response_timeout(settings.timeout)
                .tcp_settings(tcp())
                .retries(4)
                .min_retry_wait(1)
                .max_retry_wait(10);
            let builder = match certificates {
                Some(certificates) => builder.certs(certificates),
                None => builder,
            };
            Ok(Link::Cluster(builder.build()?.get_async_connection().await?))
        }
        Topology::Sentinel { master, login } => {
            let mut builder = SentinelClientBuilder::new(addresses(settings), master, SentinelServerType::Master)?
                .set_client_to_redis_tcp_settings(tcp())
                .set_client_to_sentinel_tcp_settings(tcp());
            if let Some(username) = &settings.login.username {
                builder = builder.set_client_to_redis_username(username);
            }
            if let Some(password) = settings.login.password() {
                builder = builder.set_client_to_redis_password(password);
            }
            if let Some(username) = &login.username {
                builder = builder.set_client_to_sentinel_username(username);
            }
            if let Some(password) = login.password() {
                builder = builder.set_client_to_sentinel_password(password);
            }
            if let Some(certificates) = certificates {
                builder = builder
                    .set_client_to_redis_tls_mode(TlsMode::Secure)
                    .set_client_to_redis_certificates(certificates.clone())
                    .set_client_to_sentinel_certificates(certificates);
            }
            Ok(Link::One(builder.build()?.get_async_connection_with_config(&patience()).await?))
        }
    }
}

async fn single(info: ConnectionInfo, certificates: Option<&TlsCertificates>) -> RedisResult<MultiplexedConnection> {
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates.clone())?,
        None => Client::open(info)?,
    };
    client.get_multiplexed_async_connection_with_config(&patience()).await
}

/// Decisions have a time of their own.
fn patience() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT / 2)).set_response_timeout(None)
}

fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn addresses(settings: &Settings) -> Vec<ConnectionAddr> {
    let address = |Endpoint { host, port }: &Endpoint| {
        let (host, port) = (host.clone(), *port);
        match settings.tls {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        }
    };
    settings.endpoints.iter().map(address).collect()
}

/// Where a limit's state is: legible, unless it is long.
fn key(prefix: &str, domain: &[u8], part: &Part) -> String {
    let mut key = format!("{prefix}:{{");
    put_escaped(&mut key, domain);
    key.push_str("}:");
    if part.key.len() > MAX_KEY {
        Sha256::digest(&part.key).iter().for_each(|byte| _ = write!(key, "{byte:02x}"));
    } else {
        put_escaped(&mut key, &part.key);
    }
    key
}

/// What could be taken for a hash tag's brace, or would not show, as `%` and two digits.
fn put_escaped(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b'{' | b'}' | b'%' | 0..=b' ' | 127.. => _ = write!(text, "%{byte:02x}"),
            byte => text.push(char::from(*byte)),
        }
    }
}

/// A limit as the script reads it.
fn arguments(command: &mut Cmd, part: &Part, now: u64) {
    match part.amount.limit(now) {
        Limit::Rate(rate) => command.arg("rate").arg(part.cost).arg(rate.interval).arg(rate.burst),
        Limit::Quota(quota) => {
            let ends = match part.amount {
                Amount::Quota { unit, zone, .. } => unit.windows(now, zone),
                Amount::Rate { .. } => [quota.ends; 3],
            };
            command.arg("quota").arg(part.cost).arg(quota.count).arg(&ends.map(|end| end / SECOND))
        }
    };
}

fn verdicts(numbers: &[i64], count: usize) -> Option<Vec<Verdict>> {
    let number = |value: i64| u64::try_from(value).ok();
    let verdict = |four: &[i64]| {
        let &[passes, remaining, reset, retry] = four else { return None };
        let retry = if retry == -1 { u64::MAX } else { number(retry)? };
        Some(Verdict { state: (passes == 1).then_some(0), remaining: number(remaining)?, reset: number(reset)?, retry })
    };
    let verdicts: Option<Vec<Verdict>> = numbers.chunks(4).map(verdict).collect();
    verdicts.filter(|verdicts| verdicts.len() == count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_legible_and_bounded_and_have_their_domain_for_a_tag() {
        let shown = |domain: &str, own: &str| {
            let amount = Amount::Rate { count: 1, period: 1, burst: 1 };
            key("limits", domain.as_bytes(), &Part { key: own.as_bytes().to_vec(), amount, cost: 1 })
        };
        assert_eq!(shown("edge", "limit=api|header=gold"), "limits:{edge}:limit=api|header=gold");
        assert_eq!(shown("a}{b", "x y%{"), "limits:{a%7d%7bb}:x%20y%25%7b");
        assert_eq!(shown("edge", &"a".repeat(10_000)).len(), "limits:{edge}:".len() + 64);
        assert_ne!(shown("edge", &"a".repeat(10_000)), shown("edge", &"a".repeat(10_001)));
    }

    #[test]
    fn answers_are_verdicts_or_none() {
        let read = verdicts(&[1, 7, 3, 0, 0, 0, 9, -1], 2).unwrap();
        assert_eq!(read[0], Verdict { state: Some(0), remaining: 7, reset: 3, retry: 0 });
        assert_eq!(read[1], Verdict { state: None, remaining: 0, reset: 9, retry: u64::MAX });
        for (numbers, count) in [(&[1, 7, 3][..], 1), (&[1, 7, 3, 0], 2), (&[1, -7, 3, 0], 1), (&[0, 0, 0, -2], 1)] {
            assert_eq!(verdicts(numbers, count), None, "{numbers:?}");
        }
    }
}
