use serde_json::json;

use super::*;

fn table(rules: &Value) -> Result<Table, String> {
    Table::checked(serde_json::from_value(rules.clone()).unwrap())
}

#[test]
fn a_path_means_what_it_means_in_routes() {
    for (pattern, path, want) in [
        ("/orders", "/orders", true),
        ("/orders", "/orders/", false),
        ("/orders/*", "/orders/1/2", true),
        ("/orders/*", "/orders/", true),
        ("/orders/*", "/orders", false),
        ("/orders/*", "/ordersx", false),
        ("/orders/{id}", "/orders/7", true),
        ("/orders/{id}", "/orders/", false),
        ("/orders/{id}", "/orders/7/lines", false),
        ("/*", "/", true),
        ("/", "/", true),
    ] {
        let access = Access { rules: table(&json!([{"path": pattern}])).unwrap(), ..Access::default() };
        assert_eq!(access.needs("GET", path).is_ok(), want, "{pattern} {path}");
    }
}

/// Somebody who writes `/admin/*` may mean `/admin` too; then what the next row says is not what they want.
#[test]
fn a_rest_whose_bare_path_another_row_would_decide_is_refused() {
    let says = |at: usize, path: &str, bare: &str, other: usize| {
        format!(
            "rules[{at}]: `{path}` is not for `{bare}`, which rules[{other}] decides; say in a row for `{bare}` before that what it needs"
        )
    };
    for (rules, want) in [
        (json!([{"path": "/admin/*"}, {}]), says(0, "/admin/*", "/admin", 1)),
        (json!([{"path": "/admin/*"}, {"path": "/*"}]), says(0, "/admin/*", "/admin", 1)),
        (
            json!([{"path": "/a"}, {"path": "/b/{c}/*"}, {"path": "/b/*"}, {"path": "/b"}]),
            says(1, "/b/{c}/*", "/b/{c}", 2),
        ),
        (
            json!([{"methods": ["PUT"], "path": "/a/*"}, {"methods": ["GET"], "path": "/a"}, {}]),
            says(0, "/a/*", "/a", 2),
        ),
        (json!([{"path": "/a/*"}, {"methods": ["GET"], "path": "/a"}, {}]), says(0, "/a/*", "/a", 2)),
        (json!([{"path": "/a/*"}]), String::new()),
        (json!([{"path": "/a/*"}, {"path": "/a"}, {}]), String::new()),
        (json!([{"path": "/a"}, {"path": "/a/*"}, {}]), String::new()),
        (json!([{"path": "/a/{b}"}, {"path": "/a/{c}/*"}, {"path": "/a"}, {"path": "/a/*"}, {}]), String::new()),
        (json!([{"methods": ["PUT"], "path": "/a/*"}, {"methods": ["GET"]}]), String::new()),
        (json!([{"path": "/*"}, {}]), String::new()),
        (json!([{"path": "/a/*"}, {"path": "/b/*"}]), String::new()),
    ] {
        assert_eq!(table(&rules).err().unwrap_or_default(), want, "{rules}");
    }
}
