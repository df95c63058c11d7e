//! Callouts, time, and what runs beside the exchanges.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use portcullis_sdk::shared::Cell as Shared;
use portcullis_sdk::{
    CalloutError, Config, Either, Filter, Host, Next, NoConfig, Notify, Request, Response, StartError, Upstream, join,
    join_all, metric::Counter, ms, race, secs, sleep, start, timeout,
};
use portcullis_testing::{Gateway, Plugin, Reply, Request as Sent};

#[derive(Config)]
struct Settings {
    geo: Upstream,
    other: Upstream,
}

/// What a request's path asks for, with the outcome as a header.
struct Calls {
    settings: Settings,
    refused: Counter,
}

impl Filter for Calls {
    type Config = Settings;

    async fn start(settings: Settings, host: &Host) -> Result<Self, StartError> {
        Ok(Self { settings, refused: host.counter("calls_refused") })
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let Settings { geo, other } = &self.settings;
        let path = request.path();
        let said = match path.as_str() {
            "/one" => shown(geo.get("/ip").timeout(ms(50)).send().await),
            "/two" => {
                let (first, second) = join!(geo.get("/a").send(), other.post("/b", "body").header("x-a", "1").send());
                format!("{} {}", shown(first), shown(second))
            }
            "/many" => {
                let calls = [geo, other, geo].map(|upstream| upstream.get("/").send());
                join_all(calls).await.into_iter().map(shown).collect::<Vec<_>>().join(" ")
            }
            "/race" => match race(geo.get("/").send(), other.get("/").send()).await {
                Either::First(reply) => format!("first {}", shown(reply)),
                Either::Second(reply) => format!("second {}", shown(reply)),
            },
            "/timeout" => match timeout(ms(20), geo.get("/").send()).await {
                Ok(reply) => shown(reply),
                Err(elapsed) => elapsed.to_string(),
            },
            "/unknown" => shown(Upstream::from("nowhere").get("/").send().await),
            "/sleep" => {
                sleep(ms(1500)).await;
                "slept".to_owned()
            }
            "/large" => shown(geo.get("/").limit(3).send().await),
            "/binary" => shown(geo.get("/").header("x-raw", [0xff]).send().await),
            _ => String::new(),
        };
        if said.is_empty() {
            self.refused.increment();
            return Response::problem(404, "no_such_call");
        }
        request.headers_mut().set("x-said", said);
        next.run(request).await
    }
}

fn shown(reply: Result<portcullis_sdk::Reply, CalloutError>) -> String {
    match reply {
        Ok(reply) => reply.text().unwrap_or_default().to_owned(),
        Err(why) => why.to_string(),
    }
}

fn gateway(geo: Reply, other: Reply) -> portcullis_testing::Running {
    let plugin = Plugin::new("calls", start::<Calls>).config(r#"{"geo":"geo","other":"other"}"#);
    Gateway::new()
        .upstream("geo", move |_| geo.clone())
        .upstream("other", move |_| other.clone())
        .plugin(plugin)
        .start()
}

#[test]
fn calls_are_awaited_and_say_how_they_went() {
    let slow = |time| Reply::ok("NL").after(ms(time));
    for (path, geo, other, want, took) in [
        ("/one", slow(10), slow(0), "NL", 10),
        ("/one", slow(60), slow(0), "the answer's status is 504", 50),
        ("/one", Reply::status(500), slow(0), "the answer's status is 500", 0),
        ("/one", Reply::broken(), slow(0), "the connection broke while the answer came", 0),
        ("/two", slow(30), slow(20), "NL NL", 30),
        ("/many", slow(1), Reply::ok("b").after(ms(7)), "NL b NL", 7),
        ("/race", slow(30), Reply::ok("b").after(ms(20)), "second b", 20),
        ("/race", slow(30), Reply::ok("b").after(ms(40)), "first NL", 30),
        ("/timeout", slow(19), slow(0), "NL", 19),
        ("/timeout", slow(21), slow(0), "the time is up", 20),
        ("/sleep", slow(0), slow(0), "slept", 1500),
        ("/large", Reply::ok("four"), slow(0), "the answer is longer than the limit of the call", 0),
        ("/binary", slow(0), slow(0), "the value of the header `x-raw` is not text, and callouts take no other", 0),
    ] {
        let outcome = gateway(geo, other).send(Sent::get(path));
        assert_eq!(outcome.at_upstream().header("x-said"), Some(want), "{path}");
        assert_eq!(outcome.took, ms(took), "{path} {want}");
    }
}

#[test]
fn an_upstream_that_the_gateway_does_not_know_is_named_with_the_remedy() {
    let outcome = gateway(Reply::ok(""), Reply::ok("")).send(Sent::get("/unknown"));
    let said = outcome.at_upstream().header("x-said").unwrap();
    assert!(said.starts_with("the gateway knows no upstream `nowhere` that this filter may call; define it under"));
}

#[test]
fn a_call_carries_what_was_asked_for() {
    let mut gateway = gateway(Reply::ok("a"), Reply::ok("b"));
    gateway.send(Sent::get("/two"));
    let calls = gateway.calls();
    let [first, second] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!((first.upstream.as_str(), first.request.method(), first.request.target()), ("geo", "GET", "/a"));
    assert_eq!(
        (second.upstream.as_str(), second.request.method(), second.request.text().as_str()),
        ("other", "POST", "body")
    );
    assert_eq!(second.request.header("x-a"), Some("1"));
    assert_eq!(second.request.header(":authority"), Some("other"));
}

#[test]
fn a_client_that_leaves_takes_the_filters_future_with_it() {
    let mut gateway = gateway(Reply::ok("late").after(secs(2)), Reply::ok(""));
    let outcome = gateway.send(Sent::get("/two").gone_after(ms(500)));
    assert_eq!((outcome.status(), outcome.took), (0, ms(500)));
    gateway.advance(secs(3));
    assert_eq!(gateway.send(Sent::get("/sleep")).at_upstream().header("x-said"), Some("slept"));
}

#[test]
fn metrics_are_published() {
    let mut gateway = gateway(Reply::ok(""), Reply::ok(""));
    for _ in 0..3 {
        gateway.send(Sent::get("/"));
    }
    assert_eq!(gateway.metric("calls_refused"), Some(3));
}

/// Knows a key that it fetches at its start and every minute; a request that comes before the first waits.
struct Keys {
    key: Rc<RefCell<Option<String>>>,
    fetched: Rc<Notify>,
}

#[derive(Config)]
struct From {
    idp: Upstream,
}

impl Filter for Keys {
    type Config = From;

    async fn start(from: From, host: &Host) -> Result<Self, StartError> {
        let (key, fetched) = (Rc::new(RefCell::new(None)), Rc::new(Notify::default()));
        let (known, tell) = (Rc::clone(&key), Rc::clone(&fetched));
        host.every(secs(60), move || {
            let (known, tell, idp) = (Rc::clone(&known), Rc::clone(&tell), from.idp.clone());
            async move {
                if let Ok(reply) = idp.get("/key").send().await {
                    known.replace(reply.text().map(str::to_owned));
                }
                tell.notify_all();
            }
        });
        Ok(Self { key, fetched })
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let known = self.key.borrow().clone();
        let key = match known {
            Some(key) => key,
            None => {
                self.fetched.notified().await;
                let fetched = self.key.borrow().clone();
                match fetched {
                    Some(key) => key,
                    None => return Response::problem(503, "keys_unavailable"),
                }
            }
        };
        request.headers_mut().set("x-key", key);
        next.run(request).await
    }
}

fn keys(answer: impl FnMut() -> Reply + 'static) -> portcullis_testing::Running {
    let answer = RefCell::new(answer);
    let plugin = Plugin::new("keys", start::<Keys>).config(r#"{"idp":"idp"}"#);
    Gateway::new().upstream("idp", move |_| answer.borrow_mut()()).plugin(plugin).start()
}

#[test]
fn what_runs_in_the_background_shares_its_state_with_exchanges() {
    let round = Cell::new(0);
    let mut gateway = keys(move || {
        round.set(round.get() + 1);
        Reply::ok(format!("key {}", round.get())).after(ms(100))
    });
    let outcomes = gateway.send_all([Sent::get("/a"), Sent::get("/b")]);
    for outcome in &outcomes {
        assert_eq!(outcome.at_upstream().header("x-key"), Some("key 1"));
    }
    assert!((ms(100)..ms(110)).contains(&outcomes[0].took), "{:?}", outcomes[0].took);
    gateway.advance(secs(61));
    let outcome = gateway.send(Sent::get("/c"));
    assert_eq!((outcome.at_upstream().header("x-key"), outcome.took), (Some("key 2"), Duration::ZERO));
}

#[test]
fn those_who_wait_in_vain_are_told() {
    let outcomes = keys(|| Reply::status(500).after(ms(10))).send_all([Sent::get("/a"), Sent::get("/b")]);
    assert_eq!([outcomes[0].status(), outcomes[1].status()], [503, 503]);
}

/// Starts only when its upstream says so.
struct Slow(String);

impl Filter for Slow {
    type Config = From;

    async fn start(from: From, _: &Host) -> Result<Self, StartError> {
        let reply = from.idp.get("/ready").send().await?;
        Ok(Self(reply.text().unwrap_or_default().to_owned()))
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        request.headers_mut().set("x-ready", &self.0);
        next.run(request).await
    }
}

#[test]
fn requests_wait_for_a_filter_that_starts_with_a_call() {
    let plugin = || Plugin::new("slow", start::<Slow>).config(r#"{"idp":"idp"}"#);
    let mut gateway = Gateway::new().upstream("idp", |_| Reply::ok("yes").after(ms(40))).plugin(plugin()).start();
    let outcomes = gateway.send_all([Sent::get("/a"), Sent::get("/b")]);
    assert_eq!(outcomes.map_ready(), [Some("yes".to_owned()), Some("yes".to_owned())]);
    let mut gateway = Gateway::new().upstream("idp", |_| Reply::status(500)).plugin(plugin()).start();
    let outcome = gateway.send(Sent::get("/"));
    assert_eq!((outcome.status(), outcome.details.as_str()), (503, "filter_not_started"));
    assert!(outcome.logged("the filter does not start: the answer's status is 500"));
}

trait Ready {
    fn map_ready(&self) -> Vec<Option<String>>;
}

impl Ready for Vec<portcullis_testing::Outcome> {
    fn map_ready(&self) -> Vec<Option<String>> {
        self.iter().map(|outcome| outcome.at_upstream().header("x-ready").map(str::to_owned)).collect()
    }
}

/// Counts visits in the shared data.
struct Visits;

impl Filter for Visits {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: &Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let visits: Shared<u64> = Shared::new("visits");
        match visits.update(|seen| Some(seen.unwrap_or(0) + 1)) {
            Ok(count) => request.headers_mut().set("x-visit", count.unwrap_or(0).to_string()),
            Err(why) => request.headers_mut().set("x-visit", why.to_string()),
        }
        next.run(request).await
    }
}

#[test]
fn shared_data_is_one_value_for_all_and_its_failures_are_values() {
    let plugin = || Plugin::new("visits", start::<Visits>);
    let mut gateway = Gateway::new().plugin(plugin()).plugin(plugin()).start();
    assert_eq!(gateway.send(Sent::get("/")).at_upstream().header("x-visit"), Some("2"));
    assert_eq!(gateway.shared_data("visits"), Some(2_u64.to_le_bytes().to_vec()));
    gateway.fail("proxy_set_shared_data", 8, 31);
    assert_eq!(gateway.send(Sent::get("/")).at_upstream().header("x-visit"), Some("4"));
    for (status, want) in [(8, "others changed the value 32 times in a row"), (10, "the host does not store the value")]
    {
        gateway.fail("proxy_set_shared_data", status, 64);
        assert_eq!(gateway.send(Sent::get("/")).at_upstream().header("x-visit"), Some(want));
    }
}
