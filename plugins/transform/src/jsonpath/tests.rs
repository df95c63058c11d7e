use std::path::Path;

use super::*;
use crate::location;

fn found(query: &str, document: &Value) -> Result<Vec<Value>, String> {
    let query = Query::parse(query)?;
    let locations = query.locations(document).map_err(|why| format!("{why:?}"))?;
    Ok(locations.iter().map(|at| location::get(document, at).unwrap().clone()).collect())
}

/// With numbers as they are written everywhere: 1.0 for 1e0.
fn plain(values: &[Value]) -> String {
    values.iter().map(Value::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_compliance_suite_of_rfc_9535_passes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/jsonpath-compliance.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("SKIPPED: there is no {}", path.display());
        return;
    };
    let suite: Value = serde_json::from_str(&text).unwrap();
    let (mut tried, mut left_out) = (0, 0);
    for case in suite["tests"].as_array().unwrap() {
        let (name, selector) = (case["name"].as_str().unwrap(), case["selector"].as_str().unwrap());
        if selector.contains("\\p{") || selector.contains("\\P{") {
            left_out += 1;
            continue;
        }
        tried += 1;
        let result = found(selector, &case["document"]);
        if case["invalid_selector"] == true {
            assert!(result.is_err(), "{name}: {selector} is accepted");
            continue;
        }
        let result = result.map_err(|why| format!("{name}: {why}")).unwrap();
        let several = case["results"].as_array().cloned().unwrap_or_else(|| vec![case["result"].clone()]);
        assert!(several.contains(&Value::Array(result.clone())), "{name}: {selector}: {}", plain(&result));
    }
    assert!(tried > 600 && left_out < 10, "{tried} tried, {left_out} left out");
}

#[test]
fn queries_find_what_they_name() {
    let document = serde_json::json!({
        "items": [{"id": 1, "price": 5, "tags": ["a"]}, {"id": 2, "price": 15}, {"id": 3, "price": 25, "tags": []}],
        "secret": {"id": "x"}
    });
    for (query, want) in [
        ("$.items[0].id", "1"),
        ("$.items[-1].id", "3"),
        ("$.items[*].id", "1 2 3"),
        ("$..id", "1 2 3 \"x\""),
        ("$.items[?@.price > 10].id", "2 3"),
        ("$.items[?@.price > 10 && !@.tags].id", "2"),
        ("$.items[?length(@.tags) == 0 || @.id == 1].id", "1 3"),
        ("$['items'][1:]['id']", "2 3"),
        ("$.items[::-1].id", "3 2 1"),
        ("$.none.at.all", ""),
        ("$.items[?match(@.tags[0], '[a-c]')].id", "1"),
    ] {
        assert_eq!(plain(&found(query, &document).unwrap()), want, "{query}");
    }
}

#[test]
fn errors_name_the_character() {
    for (query, want) in [
        ("items", "character 1: a query begins with `$`"),
        ("$.", "character 3: expected a name"),
        ("$.a b", "character 4: expected `.` or `[`"),
        ("$[01]", "character 3: not an integer"),
        ("$[?@.a == ]", "character 11: expected a query, a literal or a function"),
        ("$[?@..a == 1]", "character 11: a query that may find several values"),
        ("$[?match(@.a, '(')]", "`^(?:()$`"),
        ("$[?size(@)]", "`size` is no function"),
    ] {
        let why = Query::parse(query).unwrap_err();
        assert!(why.contains(want), "{query}: {why}");
    }
    assert!(Query::parse(&format!("$[?{}", "(".repeat(10_000))).is_err());
}

#[test]
fn a_query_that_visits_too_much_is_given_up() {
    let document = Value::Array(vec![Value::Array(vec![Value::from(1); 500]); 500]);
    assert_eq!(Query::parse("$..*").unwrap().locations(&document), Err(TooCostly));
    assert_eq!(Query::parse("$[?$..*]").unwrap().locations(&document), Err(TooCostly));
}
