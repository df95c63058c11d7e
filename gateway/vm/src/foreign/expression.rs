//! `expr_create`, `expr_evaluate`, `expr_delete`: CEL over the properties of an exchange.
//!
//! The language always ends, but not always soon. So a text is refused that is long, that nests deeply, or whose worst case, with
//! every loop over as many items as a map can have, is dearer than [`MOST_STEPS`]; then no evaluation needs to be watched.
//! Regular expressions that stand in the text are made ready with it.

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue};
use cel::extractors::This;
use cel::objects::{Key, Map};
use cel::{Context, ExecutionError, Program, Value};
use chrono::{DateTime, TimeDelta};
use portcullis_abi::{Status, pairs};
use portcullis_core::host::Host;

use super::Answer;
use super::pattern::Pattern;

/// The longest text.
const TEXT_BYTES: usize = 4 << 10;
/// The most operators, brackets, dots and commas, those inside strings included: an expression is never deeper than it has of
/// these, and each level takes stack.
const MOST_OPERATORS: usize = 64;
/// The most expressions of one VM.
const MOST_EXPRESSIONS: usize = 256;
/// What evaluating may cost, in steps of a fraction of a microsecond.
const MOST_STEPS: u64 = 50_000;
/// How many items a loop is taken to have: as many as there can be header fields.
const ITEMS: u64 = 256;
/// What joining two texts costs: they may be as large as a message's head.
const JOIN_STEPS: u64 = 64;
/// What looking for a regular expression in such a text costs.
const MATCH_STEPS: u64 = 128;
/// What making a regular expression ready costs, where it is only known when it is looked for.
const PATTERN_STEPS: u64 = 20_000;
/// How much memory the regular expressions of one VM may take.
const PATTERNS_BYTES: usize = 1 << 20;
/// CEL's name for looking for a regular expression.
const MATCHES: &str = "matches";

/// A VM's expressions, by the numbers it knows them by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expressions {
    all: HashMap<u32, Arc<Expression>>,
    last: u32,
}

#[derive(Debug)]
struct Expression {
    program: Program,
    /// Those that stand in its text; nothing where one cannot be used, which is said when it is looked for, as on Envoy.
    patterns: Arc<HashMap<String, Option<Pattern>>>,
}

impl Expression {
    fn new(program: Program) -> Self {
        let mut texts = Vec::new();
        patterns(&program.expression().expr, &mut texts);
        let patterns = texts.into_iter().map(|text| (text.to_owned(), Pattern::new(text))).collect();
        Self { program, patterns: Arc::new(patterns) }
    }

    /// How much memory its regular expressions take.
    fn size(&self) -> usize {
        self.patterns.values().flatten().map(Pattern::size).sum()
    }
}

impl Expressions {
    /// Takes a text in, and gives its number.
    pub(super) fn create(&mut self, text: &[u8]) -> Answer {
        let text = str::from_utf8(text).map_err(|_| Status::BadArgument)?;
        let is_operator = |c: &char| !c.is_alphanumeric() && !matches!(c, ' ' | '_' | '"' | '\'' | '\n' | '\t');
        let is_long = text.len() > TEXT_BYTES || text.chars().filter(is_operator).count() > MOST_OPERATORS;
        if is_long || self.all.len() >= MOST_EXPRESSIONS {
            return Err(Status::BadArgument);
        }
        let program = Program::compile(text).map_err(|_| Status::BadArgument)?;
        if steps(&program.expression().expr) > MOST_STEPS {
            return Err(Status::BadArgument);
        }
        let expression = Expression::new(program);
        let taken: usize = self.all.values().map(|known| known.size()).sum();
        if expression.size() > 0 && taken + expression.size() > PATTERNS_BYTES {
            return Err(Status::BadArgument);
        }
        self.last = self.last.checked_add(1).ok_or(Status::InternalFailure)?;
        self.all.insert(self.last, Arc::new(expression));
        Ok(self.last.to_le_bytes().to_vec())
    }

    /// What an expression comes to now, encoded as properties are.
    pub(super) fn evaluate(&self, host: &Host<'_>, token: &[u8]) -> Answer {
        let Expression { program, patterns } = &**self.all.get(&number(token)?).ok_or(Status::NotFound)?;
        let mut context = Context::default();
        let patterns = patterns.clone();
        let matches = move |This(text): This<Arc<String>>, pattern: Arc<String>| found(&patterns, &text, &pattern);
        context.add_function(MATCHES, matches).map_err(|_| Status::InternalFailure)?;
        for name in program.references().variables() {
            if let Some(value) = variable(host, name) {
                context.add_variable_from_value(name, value);
            }
        }
        encoded(&program.execute(&context).map_err(|_| Status::InternalFailure)?)
    }

    pub(super) fn delete(&mut self, token: &[u8]) -> Answer {
        self.all.remove(&number(token)?);
        Ok(Vec::new())
    }
}

fn number(token: &[u8]) -> Result<u32, Status> {
    token.first_chunk().filter(|_| token.len() == 4).map(|token| u32::from_le_bytes(*token)).ok_or(Status::BadArgument)
}

/// Whether a text has a part that is as a pattern says.
fn found(patterns: &HashMap<String, Option<Pattern>>, text: &str, pattern: &String) -> Result<bool, ExecutionError> {
    let made;
    let known = match patterns.get(pattern) {
        Some(known) => known,
        None => {
            made = Pattern::new(pattern);
            &made
        }
    };
    let none = || ExecutionError::function_error(MATCHES, "no regular expression, or too large a one");
    known.as_ref().map(|known| known.is_found_in(text)).ok_or_else(none)
}

/// What an expression is made of.
fn parts(expression: &Expr) -> Vec<&IdedExpr> {
    match expression {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(loops) => {
            vec![&loops.iter_range, &loops.accu_init, &loops.result, &loops.loop_cond, &loops.loop_step]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(values).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Struct(message) => message.entries.iter().flat_map(values).collect(),
    }
}

/// What an entry of a map, or of a message, is made of.
fn values(entry: &IdedEntryExpr) -> Vec<&IdedExpr> {
    match &entry.expr {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

/// The regular expressions that stand in it.
fn patterns<'e>(expression: &'e Expr, found: &mut Vec<&'e str>) {
    if let Expr::Call(call) = expression {
        found.extend(pattern(call));
    }
    parts(expression).into_iter().for_each(|part| patterns(&part.expr, found));
}

/// The regular expression that a call looks for, where it stands there.
fn pattern(call: &CallExpr) -> Option<&str> {
    let at = usize::from(call.target.is_none());
    match call.args.get(at).filter(|_| call.func_name == MATCHES).map(|argument| &argument.expr) {
        Some(Expr::Literal(LiteralValue::String(text))) => Some(text.inner()),
        _ => None,
    }
}

/// The most steps that evaluating takes.
fn steps(expression: &Expr) -> u64 {
    let all = |parts: &[&IdedExpr]| parts.iter().map(|part| steps(&part.expr)).fold(0, u64::saturating_add);
    let (parts, own) = (parts(expression), own_steps(expression));
    let within = match (expression, parts.as_slice()) {
        (Expr::Comprehension(loops), [once @ .., condition, step]) => {
            let items = if let Expr::List(list) = &loops.iter_range.expr { list.elements.len() as u64 } else { ITEMS };
            all(once).saturating_add(all(&[condition, step]).saturating_mul(items))
        }
        (_, parts) => all(parts),
    };
    within.saturating_add(own)
}

/// What it takes beyond its parts.
fn own_steps(expression: &Expr) -> u64 {
    let Expr::Call(call) = expression else { return 1 };
    match call.func_name.as_str() {
        "_+_" => 1 + JOIN_STEPS,
        MATCHES if pattern(call).is_none() => 1 + MATCH_STEPS + PATTERN_STEPS,
        MATCHES => 1 + MATCH_STEPS,
        _ => 1,
    }
}

/// How the bytes of a property are to be read.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Time,
    Span,
    Truth,
    Texts,
}

/// What there is to be read of each object (ABI reference §8.2).
const OBJECTS: &[(&str, &[(&str, Kind)])] = &[
    (
        "request",
        &[
            ("path", Kind::Text),
            ("url_path", Kind::Text),
            ("query", Kind::Text),
            ("host", Kind::Text),
            ("scheme", Kind::Text),
            ("method", Kind::Text),
            ("headers", Kind::Texts),
            ("referer", Kind::Text),
            ("useragent", Kind::Text),
            ("id", Kind::Text),
            ("protocol", Kind::Text),
            ("size", Kind::Number),
            ("total_size", Kind::Number),
            ("headers_bytes", Kind::Number),
            ("time", Kind::Time),
            ("duration", Kind::Span),
        ],
    ),
    (
        "response",
        &[
            ("code", Kind::Number),
            ("code_details", Kind::Text),
            ("flags", Kind::Number),
            ("grpc_status", Kind::Number),
            ("headers", Kind::Texts),
            ("trailers", Kind::Texts),
            ("size", Kind::Number),
            ("total_size", Kind::Number),
            ("backend_latency", Kind::Span),
        ],
    ),
    ("source", &[("address", Kind::Text), ("port", Kind::Number)]),
    ("destination", &[("address", Kind::Text), ("port", Kind::Number)]),
    ("upstream", &[("address", Kind::Text), ("port", Kind::Number)]),
    (
        "connection",
        &[
            ("id", Kind::Number),
            ("mtls", Kind::Truth),
            ("requested_server_name", Kind::Text),
            ("tls_version", Kind::Text),
            ("subject_peer_certificate", Kind::Text),
            ("dns_san_peer_certificate", Kind::Text),
            ("uri_san_peer_certificate", Kind::Text),
            ("sha256_peer_certificate_digest", Kind::Text),
        ],
    ),
    ("xds", &[("cluster_name", Kind::Text), ("route_name", Kind::Text), ("virtual_host_name", Kind::Text)]),
];

/// An object with all that can be read of it now; or a value that a plugin has set, or the plugin's name.
fn variable(host: &Host<'_>, name: &str) -> Option<Value> {
    let Some((_, fields)) = OBJECTS.iter().find(|(object, _)| *object == name) else {
        return read(host, name.as_bytes(), Kind::Text);
    };
    let field = |(field, kind): &(&str, Kind)| {
        let value = read(host, format!("{name}\0{field}").as_bytes(), *kind)?;
        Some((text_key(field), value))
    };
    Some(Value::Map(Map { map: Arc::new(fields.iter().filter_map(field).collect()) }))
}

fn read(host: &Host<'_>, path: &[u8], kind: Kind) -> Option<Value> {
    let bytes = host.property(path).ok()?;
    Some(match kind {
        Kind::Text => Value::String(Arc::new(String::from_utf8_lossy(&bytes).into_owned())),
        Kind::Number => Value::Int(i64::from_le_bytes(*bytes.first_chunk()?)),
        Kind::Time => {
            Value::Timestamp(DateTime::from_timestamp_nanos(i64::from_le_bytes(*bytes.first_chunk()?)).into())
        }
        Kind::Span => Value::Duration(TimeDelta::nanoseconds(i64::from_le_bytes(*bytes.first_chunk()?))),
        Kind::Truth => Value::Bool(bytes.first() == Some(&1)),
        Kind::Texts => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let entry = |(name, value): (&[u8], &[u8])| (text_key(&text(name)), Value::String(Arc::new(text(value))));
            Value::Map(Map { map: Arc::new(pairs::Pairs::parse(&bytes).ok()?.map(entry).collect()) })
        }
    })
}

fn text_key(text: &str) -> Key {
    Key::String(Arc::new(text.to_owned()))
}

/// A value in the form of ABI reference §8.1.
fn encoded(value: &Value) -> Answer {
    let whole = |entries: &[(Vec<u8>, Vec<u8>)]| {
        let mut out = Vec::new();
        pairs::write(
            || entries.iter().map(|(key, value)| (&key[..], &value[..])),
            |piece| out.extend_from_slice(piece),
        );
        out
    };
    Ok(match value {
        Value::Int(number) => number.to_le_bytes().to_vec(),
        Value::UInt(number) => number.to_le_bytes().to_vec(),
        Value::Float(number) => number.to_le_bytes().to_vec(),
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Bytes(bytes) => bytes.to_vec(),
        Value::Bool(truth) => vec![u8::from(*truth)],
        Value::Timestamp(time) => nanoseconds(time.timestamp_nanos_opt(), time.timestamp()),
        Value::Duration(span) => nanoseconds(span.num_nanoseconds(), span.num_seconds()),
        Value::List(items) => {
            let items: Result<Vec<_>, Status> = items.iter().map(|item| Ok((encoded(item)?, Vec::new()))).collect();
            whole(&items?)
        }
        Value::Map(map) => {
            let entry = |(key, value): (&Key, &Value)| {
                let key = match key {
                    Key::Int(number) => number.to_le_bytes().to_vec(),
                    Key::Uint(number) => number.to_le_bytes().to_vec(),
                    Key::Bool(truth) => vec![u8::from(*truth)],
                    Key::String(text) => text.as_bytes().to_vec(),
                };
                Ok((key, encoded(value)?))
            };
            let entries: Result<Vec<_>, Status> = map.map.iter().map(entry).collect();
            whole(&entries?)
        }
        Value::Function(..) | Value::Opaque(_) | Value::Struct(_) | Value::Null => {
            return Err(Status::SerializationFailure);
        }
    })
}

/// A time or a span of time; what has too many nanoseconds comes to as many as there can be.
fn nanoseconds(nanoseconds: Option<i64>, seconds: i64) -> Vec<u8> {
    nanoseconds.unwrap_or(if seconds < 0 { i64::MIN } else { i64::MAX }).to_le_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use portcullis_core::context::Contexts;
    use portcullis_core::exchange::Exchanges;
    use portcullis_core::filter::VmIndex;

    use super::*;

    fn evaluate(text: &str) -> Answer {
        let (mut exchanges, mut contexts) =
            (Exchanges::default(), Contexts::new(VmIndex(0), 0, Arc::default(), Bytes::new()));
        let root = contexts.add_root("plugin".into(), Bytes::new());
        contexts.enter(root);
        let host = Host { exchanges: &mut exchanges, contexts: &mut contexts };
        let mut expressions = Expressions::default();
        let token = expressions.create(text.as_bytes())?;
        assert_eq!(token, [1, 0, 0, 0]);
        let value = expressions.evaluate(&host, &token);
        assert_eq!(expressions.delete(&token), Ok(Vec::new()));
        assert_eq!(expressions.evaluate(&host, &token), Err(Status::NotFound));
        value
    }

    #[test]
    fn values_are_encoded_as_properties_are() {
        for (text, want) in [
            ("1 + 2", Ok(3_i64.to_le_bytes().to_vec())),
            ("2u", Ok(2_u64.to_le_bytes().to_vec())),
            ("1.5", Ok(1.5_f64.to_le_bytes().to_vec())),
            ("'a' + \"b\"", Ok(b"ab".to_vec())),
            ("!false && 'x' in ['x', 'y']", Ok(vec![1])),
            ("plugin_name == 'plugin'", Ok(vec![1])),
            ("[1, 2].all(n, n > 0) ? 'yes' : 'no'", Ok(b"yes".to_vec())),
            ("['a', 'b']", Ok(b"\x02\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0a\0\0b\0\0".to_vec())),
            ("{'k': 'v'}", Ok(b"\x01\0\0\0\x01\0\0\0\x01\0\0\0k\0v\0".to_vec())),
            ("'/a/7'.matches('^/a/[0-9]+$')", Ok(vec![1])),
            ("matches('/a/b', '^/a/[0-9]+$')", Ok(vec![0])),
            ("'aaa'.matches('a' + '{3}')", Ok(vec![1])),
            ("'a'.matches('(')", Err(Status::InternalFailure)),
            ("'a'.matches('a{1000}{1000}')", Err(Status::InternalFailure)),
            ("'a'.matches(1)", Err(Status::InternalFailure)),
            ("timestamp('1970-01-01T00:00:01.5Z')", Ok(1_500_000_000_i64.to_le_bytes().to_vec())),
            ("duration('1h1.5s')", Ok(3_601_500_000_000_i64.to_le_bytes().to_vec())),
            (
                "timestamp('2026-11-27T13:00:00Z') + duration('-1h')",
                Ok(1_795_780_800_000_000_000_i64.to_le_bytes().to_vec()),
            ),
            ("timestamp('9999-12-31T23:59:59Z')", Ok(i64::MAX.to_le_bytes().to_vec())),
            ("timestamp('0001-01-01T00:00:00Z')", Ok(i64::MIN.to_le_bytes().to_vec())),
            ("timestamp('2026-11-27T13:00:00Z').getHours('-02:00') == 11", Ok(vec![1])),
            ("timestamp('yesterday')", Err(Status::InternalFailure)),
            ("duration('1y')", Err(Status::InternalFailure)),
            ("duration('--9e300h')", Err(Status::InternalFailure)),
            ("null", Err(Status::SerializationFailure)),
            ("nobody", Err(Status::InternalFailure)),
            ("request.path", Err(Status::InternalFailure)),
            ("1 / 0", Err(Status::InternalFailure)),
            ("1 +", Err(Status::BadArgument)),
            ("", Err(Status::BadArgument)),
        ] {
            assert_eq!(evaluate(text), want, "{text}");
        }
    }

    /// Row 2 of the threat model: deep and dear ones are refused, and the deepest that is taken needs little stack.
    #[test]
    fn what_would_be_deep_or_dear_is_refused() {
        let deep = |levels: usize| format!("1{}", "+1".repeat(levels));
        let nested = |levels: usize| format!("{}1{}", "(".repeat(levels), ")".repeat(levels));
        let loops = |levels: usize| {
            let open: String = (0..levels).map(|n| format!("request.headers.exists(a{n}, ")).collect();
            format!("{open}true{}", ")".repeat(levels))
        };
        let on_little_stack = move |text: String| {
            std::thread::Builder::new().stack_size(1 << 20).spawn(move || evaluate(&text)).unwrap().join().unwrap()
        };
        assert!(on_little_stack(deep(MOST_OPERATORS)).is_ok());
        assert!(on_little_stack("!".repeat(MOST_OPERATORS) + "true").is_ok());
        on_little_stack(nested(MOST_OPERATORS / 2)).ok();
        on_little_stack(format!("a{}", ".b".repeat(MOST_OPERATORS))).ok();
        on_little_stack("[".repeat(MOST_OPERATORS)).ok();
        for text in [deep(MOST_OPERATORS + 1), nested(MOST_OPERATORS), loops(2), loops(5), " ".repeat(TEXT_BYTES + 1)] {
            assert_eq!(on_little_stack(text.clone()), Err(Status::BadArgument), "{text}");
        }
        assert_eq!(
            evaluate(&loops(1)),
            Err(Status::InternalFailure),
            "one loop is no matter; there are no headers here"
        );
        let grows = "request.headers.map(a, a + a + a + a)";
        assert_eq!(evaluate(grows), Err(Status::BadArgument));
        let looks = |patterns: &str| evaluate(&format!("request.headers.exists(a, {patterns})"));
        assert_eq!(looks("a.matches('x')"), Err(Status::InternalFailure), "one in a loop is no matter");
        assert_eq!(looks("a.matches('x') || a.matches('y')"), Err(Status::BadArgument));
        assert_eq!(looks("'x'.matches(a)"), Err(Status::BadArgument), "it is made ready for each");
        let made = "'a'.matches('' + 'a')";
        assert_eq!(evaluate(&[made; 2].join(" && ")), Ok(vec![1]));
        assert_eq!(evaluate(&[made; 3].join(" && ")), Err(Status::BadArgument));
    }

    #[test]
    fn a_vm_has_only_so_many() {
        let mut expressions = Expressions::default();
        for _ in 0..MOST_EXPRESSIONS {
            expressions.create(b"true").unwrap();
        }
        assert_eq!(expressions.create(b"true"), Err(Status::BadArgument));
        expressions.delete(&7_u32.to_le_bytes()).unwrap();
        assert_eq!(expressions.create(b"true"), Ok(257_u32.to_le_bytes().to_vec()));
        assert_eq!(expressions.delete(b"xy"), Err(Status::BadArgument));
    }

    #[test]
    fn regular_expressions_have_only_so_much_memory() {
        let mut expressions = Expressions::default();
        let large = |n: usize| format!("'a'.matches('^[a-f]{{100}}{n}$')");
        let kept = (0..MOST_EXPRESSIONS).take_while(|n| expressions.create(large(*n).as_bytes()).is_ok()).count();
        assert!(kept > 4 && kept < MOST_EXPRESSIONS, "{kept}");
        let taken: usize = expressions.all.values().map(|expression| expression.size()).sum();
        assert!(taken <= PATTERNS_BYTES && taken > PATTERNS_BYTES / 2, "{taken}");
        assert!(expressions.create(b"1").is_ok(), "one without any takes none");
        expressions.delete(&1_u32.to_le_bytes()).unwrap();
        assert!(expressions.create(large(0).as_bytes()).is_ok());
    }
}
