//! Checks requests and answers against a provider's published OpenAPI 3.1 document.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::{Map, Value};

/// One request as it came, and the answer that it got.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) body: Option<Value>,
    pub(crate) status: u16,
    /// JSON answers only.
    pub(crate) answer: Option<Value>,
}

pub(crate) struct Document(Value);

impl Document {
    /// The document in `../shared/specs`, or `None`, said aloud.
    pub(crate) fn load(name: &str) -> Option<Self> {
        let text = specs().map(|folder| folder.join(name)).and_then(|path| std::fs::read_to_string(path).ok());
        let Some(text) = text else {
            // Past the test harness, which keeps what tests that pass have printed to itself.
            let _ =
                writeln!(std::io::stderr(), "SKIPPED: {name} is not in shared/specs; nothing is checked against it");
            let named = std::env::var("GLASSHOUSE_NO_SKIPS").unwrap_or_default();
            assert!(!named.split(',').any(|word| word == "shared" || word == "all"), "GLASSHOUSE_NO_SKIPS={named}");
            return None;
        };
        Some(Self(if name.ends_with(".json") {
            serde_json::from_str(&text).unwrap()
        } else {
            super::yaml::read(&text)
        }))
    }

    /// Everything that is wrong with these exchanges, in words; `answers` says whether answers are checked too.
    pub(crate) fn check(&self, exchanges: &[Exchange], answers: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        for exchange in exchanges {
            let before = wrong.len();
            self.check_one(exchange, answers, &mut wrong);
            for text in wrong.iter_mut().skip(before) {
                *text = format!("{} {}: {text}", exchange.method, exchange.path);
            }
        }
        wrong
    }

    fn check_one(&self, exchange: &Exchange, answers: bool, wrong: &mut Vec<String>) {
        let Some((template, item)) = self.path(&exchange.path) else {
            return wrong.push("no such path".into());
        };
        let Some(operation) = item.get(exchange.method.to_lowercase()) else {
            return wrong.push("no such method".into());
        };
        let declared: Vec<&Value> = [item.get("parameters"), operation.get("parameters")]
            .into_iter()
            .flatten()
            .flat_map(|list| list.as_array().unwrap())
            .map(|parameter| self.resolve(parameter))
            .collect();
        self.check_parameters(exchange, template, &declared, wrong);
        let content = operation.get("requestBody").map(|body| self.resolve(body));
        match (&exchange.body, content) {
            (Some(_), None) => wrong.push("it takes no body".into()),
            (None, Some(content)) if content["required"] == true => wrong.push("it must have a body".into()),
            (Some(body), Some(content)) => {
                self.check_value(&content["content"]["application/json"]["schema"], body, "body", wrong);
            }
            _ => {}
        }
        if answers {
            self.check_answer(exchange, operation, wrong);
        }
    }

    fn check_parameters(&self, exchange: &Exchange, template: &str, declared: &[&Value], wrong: &mut Vec<String>) {
        let of = |place: &str| declared.iter().filter(move |p| p["in"] == place).copied().collect::<Vec<_>>();
        for (name, value) in &exchange.query {
            match of("query").into_iter().find(|parameter| parameter["name"] == name.as_str()) {
                Some(parameter) => self.check_text(&parameter["schema"], value, name, wrong),
                None => wrong.push(format!("no query parameter {name}")),
            }
        }
        for parameter in of("query") {
            let name = parameter["name"].as_str().unwrap();
            if parameter["required"] == true && !exchange.query.iter().any(|(given, _)| given == name) {
                wrong.push(format!("query parameter {name} is missing"));
            }
        }
        for (part, value) in segments(template).into_iter().zip(segments(&exchange.path)) {
            let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else { continue };
            let parameter = of("path").into_iter().find(|parameter| parameter["name"] == name).unwrap();
            self.check_text(&parameter["schema"], value, name, wrong);
        }
    }

    fn check_answer(&self, exchange: &Exchange, operation: &Value, wrong: &mut Vec<String>) {
        let responses = &operation["responses"];
        let status = exchange.status.to_string();
        let Some(response) = responses.get(&status).or(responses.get("default")) else {
            return wrong.push(format!("no answer {status} is documented"));
        };
        let content = self.resolve(response).get("content").and_then(Value::as_object);
        let schema = content.and_then(|content| content.iter().find(|(kind, _)| kind.contains("json")));
        if let (Some((_, media)), Some(answer)) = (schema, &exchange.answer) {
            self.check_value(&media["schema"], answer, "answer", wrong);
        }
    }

    /// A parameter's text, read as its schema says: arrays are comma-separated (style `form`, no `explode`).
    fn check_text(&self, schema: &Value, text: &str, at: &str, wrong: &mut Vec<String>) {
        let schema = self.resolve(schema);
        let value = match schema["type"].as_str() {
            Some("integer") => text.parse::<i64>().map(Value::from).unwrap_or(Value::from(text)),
            Some("number") => text.parse::<f64>().map(Value::from).unwrap_or(Value::from(text)),
            Some("boolean") => text.parse::<bool>().map(Value::from).unwrap_or(Value::from(text)),
            Some("array") => text.split(',').map(Value::from).collect(),
            _ => Value::from(text),
        };
        self.check_value(schema, &value, at, wrong);
    }

    fn path(&self, path: &str) -> Option<(&str, &Value)> {
        let given = segments(path);
        let fits = |template: &str| {
            let parts = segments(template);
            parts.len() == given.len() && parts.iter().zip(&given).all(|(p, g)| p == g || p.starts_with('{'))
        };
        let paths = self.0["paths"].as_object().unwrap();
        let found = paths.iter().filter(|(template, _)| fits(template));
        // A literal segment is closer than a parameter.
        found
            .min_by_key(|(template, _)| template.matches('{').count())
            .map(|(template, item)| (template.as_str(), item))
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.resolve(self.0.pointer(reference.trim_start_matches('#')).unwrap()),
            None => value,
        }
    }

    /// JSON Schema 2020-12, as much of it as these documents use; a keyword that is not known here is a panic, so that
    /// nothing is checked less than it seems.
    fn check_value(&self, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        let Some(rules) = schema.as_object() else {
            if schema == &Value::Bool(false) {
                wrong.push(format!("{at} must not be there"));
            }
            return;
        };
        for (keyword, rule) in rules {
            match keyword.as_str() {
                "$ref" => self.check_value(self.resolve(schema), value, at, wrong),
                "allOf" => rule.as_array().unwrap().iter().for_each(|part| self.check_value(part, value, at, wrong)),
                "anyOf" | "oneOf" => {
                    let fitting = rule.as_array().unwrap().iter().filter(|part| self.fits(part, value)).count();
                    if fitting == 0 || (keyword == "oneOf" && fitting != 1) {
                        wrong.push(format!("{at} fits {fitting} of the alternatives"));
                    }
                }
                "not" if self.fits(rule, value) => wrong.push(format!("{at} is what it must not be")),
                "if" => {
                    let branch = if self.fits(rule, value) { "then" } else { "else" };
                    self.check_value(rules.get(branch).unwrap_or(&Value::Bool(true)), value, at, wrong);
                }
                "type" if !is_of(rule, value) => wrong.push(format!("{at} is {value}, not of type {rule}")),
                "enum" if !rule.as_array().unwrap().contains(value) => {
                    wrong.push(format!("{at}: {value} not in {rule}"))
                }
                "required" => {
                    let there =
                        |name: &&Value| value.as_object().is_none_or(|o| o.contains_key(name.as_str().unwrap()));
                    let missing = rule.as_array().unwrap().iter().filter(|name| !there(name));
                    wrong.extend(missing.map(|name| format!("{at} has no {name}")));
                }
                "properties" => {
                    for (name, part) in rule.as_object().unwrap() {
                        if let Some(field) = value.get(name) {
                            self.check_value(part, field, &format!("{at}/{name}"), wrong);
                        }
                    }
                }
                "additionalProperties" => {
                    let known = rules.get("properties").and_then(Value::as_object);
                    for (name, field) in value.as_object().into_iter().flatten() {
                        if known.is_none_or(|known| !known.contains_key(name)) {
                            self.check_value(rule, field, &format!("{at}/{name}"), wrong);
                        }
                    }
                }
                "unevaluatedProperties" if rule == false => {
                    let mut known = BTreeSet::new();
                    self.known_properties(rules, &mut known);
                    let strange = value.as_object().into_iter().flatten().filter(|(name, _)| !known.contains(*name));
                    wrong.extend(strange.map(|(name, _)| format!("{at} must have no {name}")));
                }
                "items" => {
                    let items = value.as_array().into_iter().flatten().enumerate();
                    items.for_each(|(i, item)| self.check_value(rule, item, &format!("{at}/{i}"), wrong));
                }
                "minItems" | "maxItems" | "minLength" | "maxLength" | "minimum" | "maximum" => {
                    if !within(keyword, rule.as_f64().unwrap(), value) {
                        wrong.push(format!("{at}: {value} breaks {keyword} {rule}"));
                    }
                }
                "pattern" => {
                    let fits =
                        value.as_str().is_none_or(|text| Regex::new(rule.as_str().unwrap()).unwrap().is_match(text));
                    if !fits {
                        wrong.push(format!("{at}: {value} does not match {rule}"));
                    }
                }
                "format" if rule == "date-time" => {
                    if value.as_str().is_some_and(|text| humantime::parse_rfc3339(text).is_err()) {
                        wrong.push(format!("{at}: {value} is no RFC 3339 time"));
                    }
                }
                "not"
                | "type"
                | "enum"
                | "unevaluatedProperties"
                | "then"
                | "else"
                | "format"
                | "description"
                | "title"
                | "default"
                | "example"
                | "examples" => {}
                extension if extension.starts_with("x-") => {}
                other => panic!("{at}: the keyword {other} is not known to this check"),
            }
        }
    }

    fn fits(&self, schema: &Value, value: &Value) -> bool {
        let mut wrong = Vec::new();
        self.check_value(schema, value, "", &mut wrong);
        wrong.is_empty()
    }

    fn known_properties(&self, rules: &Map<String, Value>, known: &mut BTreeSet<String>) {
        known.extend(
            rules.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.clone()),
        );
        let parts = rules.get("allOf").and_then(Value::as_array).into_iter().flatten();
        for part in parts {
            self.known_properties(self.resolve(part).as_object().unwrap(), known);
        }
    }
}

fn segments(path: &str) -> Vec<&str> {
    path.trim_matches('/').split('/').collect()
}

fn is_of(types: &Value, value: &Value) -> bool {
    let one = |name: &Value| match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    };
    types.as_array().map_or_else(|| one(types), |types| types.iter().any(one))
}

fn within(keyword: &str, bound: f64, value: &Value) -> bool {
    let size = match keyword {
        "minItems" | "maxItems" => value.as_array().map(|items| items.len() as f64),
        "minLength" | "maxLength" => value.as_str().map(|text| text.chars().count() as f64),
        _ => value.as_f64(),
    };
    size.is_none_or(|size| if keyword.starts_with("min") { size >= bound } else { size <= bound })
}

/// The folder beside the repository, or beside the repository that this worktree is of.
fn specs() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    [root.join("shared/specs"), root.join("../shared/specs"), root.join("../../shared/specs")]
        .into_iter()
        .find(|folder| folder.is_dir())
}
