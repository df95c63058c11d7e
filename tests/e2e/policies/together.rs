//! The page on which four policies make an API of two services, over real sockets.

use portcullis_tests::docs;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin, Seen};

use crate::plugins::code;

fn json(body: String) -> Answer {
    Answer::ok(body).header("content-type", "application/json")
}

/// As the page's `shop.py` answers.
fn shop(seen: &Seen) -> Answer {
    let whom = seen.get("x-user").map_or("null".to_owned(), |user| format!("{user:?}"));
    match seen.uri.path() {
        "/orders/7" => {
            json(format!(r#"{{"id":"7","customer_id":"c7","total":12.5,"internal":{{"margin":3}},"for":{whom}}}"#))
        }
        "/customers/c7" => json(r#"{"id":"c7","name":"Ann","born":1990}"#.to_owned()),
        _ => Answer::status(404),
    }
}

#[test]
fn the_page_about_all_four_says_what_clients_get() {
    let origins = [Origin::start(shop), Origin::start(shop)];
    let at = origins.each_ref().map(Origin::to_string);
    let page = docs::page("docs/policies/together.md");
    let printed = docs::configurations(&page).remove(0);
    let places = [("127.0.0.1:9001", at[0].as_str()), ("127.0.0.1:9002", &at[1])];
    let gateway = Gateway::start(&docs::here(&printed, &places), &[]);
    let ask = |method: &str, path: &str, fields: &[(&str, &str)]| gateway.ask(method, path, fields, "");
    // What is printed after the prompt of a command that ends so.
    let shown = |command: &str| {
        let rest = page.split_once(command).unwrap_or_else(|| panic!("no {command}")).1;
        rest.trim_start_matches('\n').lines().next().unwrap_or_default()
    };

    let ann = ("x-api-key", "key-of-ann");
    assert_eq!(code(&ask("GET", "/v1/orders/7", &[])), (401, "token_missing".to_owned()));
    assert_eq!(code(&ask("POST", "/v1/orders/7", &[ann])), (403, "scope_missing".to_owned()));
    let order = ask("GET", "/v1/orders/7", &[ann, ("x-user", "mallory")]);
    assert_eq!((order.status(), order.text().as_str()), (200, shown("ann' localhost:8080/v1/orders/7")));
    assert_eq!(origins[0].last().get("x-api-key"), None, "it is not the services' to know");
    let overview = ask("GET", "/v1/overview/7", &[ann]);
    assert_eq!((overview.status(), overview.text().trim_end()), (200, shown("ann' localhost:8080/v1/overview/7")));
    let missing = ask("GET", "/v1/overview/8", &[ann]);
    assert_eq!(code(&missing), (404, "call_refused".to_owned()));

    // One more passes every twelve seconds, however long a request takes.
    let refused = (0..30).map(|_| ask("GET", "/v1/overview/7", &[ann])).find(|answer| answer.status() != 200);
    assert_eq!(code(&refused.expect("a limit")), (429, "rate_limited".to_owned()));
    for _ in 0..10 {
        assert_eq!(ask("GET", "/v1/overview/7", &[("x-api-key", "key-of-ben")]).status(), 200, "another plan");
    }
}
