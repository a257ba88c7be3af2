//! The manual's page of the configuration, made from the fields and what stands at them.

use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::Config;

/// Returns the JSON schema of the configuration, for editors.
pub fn schema() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

/// Returns the page, in Markdown.
pub fn page() -> String {
    let mut page = String::from(
        "# The configuration file\n\n\
         TOML. An unknown key, or a value of the wrong type, is an error that shows its line.\n\
         `boatyard config check` looks for mistakes, `boatyard config show` prints what is in force, \
         and SIGHUP has\n`boatyard serve` read it again. This page is what `boatyard config reference` \
         prints.\n",
    );
    let schema = schema();
    let top = properties(&schema);
    let plain = top.iter().filter(|(_, schema)| section(schema).is_none());
    table(&mut page, plain.map(|(name, schema)| (name, schema, false)));
    for (name, schema) in &top {
        let Some((is_list, inner)) = section(schema) else { continue };
        let title = if is_list { format!("[[{name}]]") } else { format!("[{name}]") };
        let text = description(inner);
        let about = text.split_once(": ").map_or(text.as_str(), |(_, about)| about);
        let _ = write!(page, "\n## `{title}`\n\n{}\n", capital(about));
        let properties = properties(inner);
        let required = required(inner);
        let rows = properties
            .iter()
            .map(|(name, schema)| (name, schema, required.contains(&Value::String(name.clone()))));
        table(&mut page, rows);
    }
    page
}

fn table<'a>(page: &mut String, rows: impl Iterator<Item = (&'a String, &'a Value, bool)>) {
    page.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
    for (name, schema, is_required) in rows {
        let default = match schema.get("default") {
            _ if is_required => "required".to_owned(),
            None | Some(Value::Null) => String::new(),
            Some(value) => format!("`{}`", toml_of(value)),
        };
        let text = description(schema).replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(page, "| `{name}` | {} | {default} | {text} |", kind(schema));
    }
}

/// Returns the schema of a table, and whether there can be several.
fn section(schema: &Value) -> Option<(bool, &Value)> {
    let is_table = |schema: &Value| schema.get("properties").is_some();
    match schema.get("items") {
        Some(items) if is_table(items) => Some((true, items)),
        _ if is_table(schema) => Some((false, schema)),
        _ => None,
    }
}

fn properties(schema: &Value) -> Map<String, Value> {
    schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
}

fn required(schema: &Value) -> Vec<Value> {
    schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn description(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.to_owned()
}

fn kind(schema: &Value) -> String {
    if let Some(kind) = schema.get("x-kind").and_then(Value::as_str) {
        return kind.to_owned();
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", kind(items));
    }
    if let Some(values) =
        schema.get("enum").or_else(|| schema.get("oneOf")).and_then(Value::as_array)
    {
        let value = |value: &Value| value.get("const").unwrap_or(value).to_string();
        return values.iter().map(value).collect::<Vec<_>>().join(", ");
    }
    let kinds = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().find(|kind| *kind != "null"),
        kind => kind,
    };
    match kinds.and_then(Value::as_str) {
        Some("string") => "text",
        Some("integer" | "number") => "number",
        Some("boolean") => "true or false",
        Some("object") => "table",
        _ => "value",
    }
    .to_owned()
}

fn toml_of(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string())
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_says_what_it_means() {
        fn check(path: &str, schema: &Value) {
            for (name, schema) in &properties(schema) {
                let path = format!("{path}.{name}");
                assert!(!description(schema).is_empty(), "{path} has no description");
                if let Some((_, inner)) = section(schema) {
                    check(&path, inner);
                }
            }
        }
        check("", &schema());
    }
}
