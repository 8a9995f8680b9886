use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::Value;

/// YAML as JSON: what an OpenAPI document may hold has a form in both.
pub(super) fn read(text: &str) -> Value {
    json(&Yaml::load_from_str(text).unwrap()[0])
}

fn json(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => (*value).into(),
        Yaml::Value(Scalar::Integer(value)) => (*value).into(),
        Yaml::Value(Scalar::FloatingPoint(value)) => value.into_inner().into(),
        Yaml::Value(Scalar::String(value)) => value.as_ref().into(),
        Yaml::Sequence(items) => items.iter().map(json).collect(),
        Yaml::Mapping(fields) => fields.iter().map(|(name, field)| (key(name), json(field))).collect(),
        other => panic!("{other:?} has no form in JSON"),
    }
}

fn key(yaml: &Yaml<'_>) -> String {
    match json(yaml) {
        Value::String(text) => text,
        // A status code without quotes.
        other => other.to_string(),
    }
}
