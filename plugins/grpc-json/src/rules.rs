//! Which requests are calls: the `google.api.http` annotations of a descriptor set, read once when the filter starts.

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};

use crate::template::Template;

/// `google.api.http`, the extension of method options.
const HTTP: u32 = 72_295_728;

/// What of a message is a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Nothing of it.
    Nothing,
    /// All of it.
    Whole,
    /// This field.
    Field(String),
}

/// One binding of a method.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The HTTP method; `*` is any.
    verb: String,
    pub(crate) template: Template,
    pub(crate) body: Part,
    /// The field of the answer that is the client's body, if not all of it.
    pub(crate) response_body: Option<String>,
    pub(crate) method: MethodDescriptor,
}

/// What a request is.
#[derive(Debug)]
pub(crate) enum Found<'r> {
    /// This call, with the values of the path's variables.
    Call(&'r Rule, Vec<(&'r str, String)>),
    /// A path of ours, with a method that is not; these are.
    OtherVerb(Vec<&'r str>),
    /// None of ours.
    Nothing,
}

/// The rules of a descriptor set.
#[derive(Debug)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    /// The rules of these services; of all without any. With `plain`, methods without annotations are `POST /SERVICE/METHOD`.
    ///
    /// # Errors
    /// What is wrong with the descriptors, for the operator.
    pub(crate) fn of(pool: &DescriptorPool, services: &[String], plain: bool) -> Result<Self, String> {
        for name in services {
            if pool.get_service_by_name(name).is_none() {
                let known: Vec<String> = pool.services().map(|service| service.full_name().to_owned()).collect();
                return Err(format!("`services`: `{name}` is not in `descriptors`, which has {}", known.join(", ")));
            }
        }
        let mut rules = Self(Vec::new());
        for service in pool.services() {
            if !services.is_empty() && !services.iter().any(|name| name == service.full_name()) {
                continue;
            }
            for method in service.methods() {
                rules.add_method(&method, plain).map_err(|why| format!("{}: {why}", method.full_name()))?;
            }
        }
        if rules.0.is_empty() {
            return Err(
                "`descriptors` has no method with a `google.api.http` annotation; write the set with its imports \
                        (`--include_imports`), or set `methods_without_rules: true`"
                    .to_owned(),
            );
        }
        rules.0.sort_by_key(|rule| std::cmp::Reverse(rule.template.closeness()));
        Ok(rules)
    }

    fn add_method(&mut self, method: &MethodDescriptor, plain: bool) -> Result<(), String> {
        let options = method.options();
        match options.extensions().find(|(extension, _)| extension.number() == HTTP) {
            Some((_, Value::Message(http))) => {
                self.add(method, http)?;
                for more in list(http, "additional_bindings") {
                    self.add(method, &more)?;
                }
            }
            _ if plain => self.0.push(Rule {
                verb: "POST".to_owned(),
                template: Template::parse(&path_of(method))?,
                body: Part::Whole,
                response_body: None,
                method: method.clone(),
            }),
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, method: &MethodDescriptor, http: &DynamicMessage) -> Result<(), String> {
        let (verb, path) = verb_and_path(http).ok_or("its annotation has no path")?;
        let template = Template::parse(&path)?;
        let input = method.input();
        for field in template.fields() {
            field_at(&input, field)?;
        }
        let body = match text(http, "body").as_str() {
            "" => Part::Nothing,
            "*" => Part::Whole,
            field => Part::Field(known(&input, field)?.name().to_owned()),
        };
        let response_body = match text(http, "response_body").as_str() {
            "" => None,
            field => Some(known(&method.output(), field)?.name().to_owned()),
        };
        self.0.push(Rule { verb, template, body, response_body, method: method.clone() });
        Ok(())
    }

    /// What the request is; of two rules that match, the one with the closer path.
    pub(crate) fn find(&self, verb: &str, path: &str) -> Found<'_> {
        let mut others = Vec::new();
        for rule in &self.0 {
            let Some(values) = rule.template.matches(path) else { continue };
            if rule.verb == verb || rule.verb == "*" {
                return Found::Call(rule, values);
            }
            others.push(rule.verb.as_str());
        }
        if others.is_empty() { Found::Nothing } else { Found::OtherVerb(others) }
    }
}

/// Where a method is called: `/SERVICE/METHOD`.
pub(crate) fn path_of(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

fn verb_and_path(http: &DynamicMessage) -> Option<(String, String)> {
    for field in ["get", "put", "post", "delete", "patch"] {
        let path = text(http, field);
        if !path.is_empty() {
            return Some((field.to_ascii_uppercase(), path));
        }
    }
    let custom = http.get_field_by_name("custom")?;
    let custom = custom.as_message()?;
    let (kind, path) = (text(custom, "kind"), text(custom, "path"));
    (!path.is_empty()).then_some((kind, path))
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}

fn list(message: &DynamicMessage, field: &str) -> Vec<DynamicMessage> {
    let value = message.get_field_by_name(field);
    let items = value.as_ref().and_then(|value| value.as_list()).unwrap_or_default();
    items.iter().filter_map(|item| item.as_message().cloned()).collect()
}

fn known(message: &MessageDescriptor, field: &str) -> Result<FieldDescriptor, String> {
    let unknown = || format!("`{}` has no field `{field}`", message.full_name());
    message.get_field_by_name(field).ok_or_else(unknown)
}

/// The field at the end of a dotted path, by its names in the `.proto` or in JSON.
///
/// # Errors
/// The name that leads nowhere.
pub(crate) fn field_at(message: &MessageDescriptor, path: &str) -> Result<FieldDescriptor, String> {
    let mut message = message.clone();
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let field = message
            .get_field_by_name(name)
            .or_else(|| message.get_field_by_json_name(name))
            .ok_or_else(|| format!("`{}` has no field `{name}`", message.full_name()))?;
        match (names.peek(), field.kind()) {
            (None, _) => return Ok(field),
            (Some(_), Kind::Message(inner)) if !field.is_list() && !field.is_map() => message = inner,
            _ => return Err(format!("`{name}` in `{}` has no fields", message.full_name())),
        }
    }
    Err("a field without a name".to_owned())
}
