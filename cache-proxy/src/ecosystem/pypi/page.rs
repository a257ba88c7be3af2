//! A project's page in the forms that clients get, each made of the one that the upstream gives.

use std::io::{self, BufRead, BufReader, Read, Write};

use http::HeaderMap;
use http::header::ACCEPT;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::address::is_file;
use super::html::{self, Item, Link};
use crate::ecosystem::json::{self, Members};

/// What is made of a page. Its text is the recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recipe {
    /// How it is written.
    pub(super) form: Form,
    /// Files that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) without: Vec<String>,
}

impl Recipe {
    /// Returns its text.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn shows(&self, file: &str) -> bool {
        is_file(file) && !self.without.iter().any(|without| without == file)
    }
}

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Form {
    /// PEP 691's JSON.
    Json,
    /// PEP 503's HTML, by its new name.
    Html,
    /// The same, by its old name.
    OldHtml,
}

impl Form {
    /// Returns what a client prefers. Who names neither of the new ones gets the old one.
    pub(super) fn of(headers: &HeaderMap) -> Form {
        let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut best = (0.0, Form::OldHtml);
        for accept in accepts.flat_map(|value| value.split(',')) {
            let (kind, parameters) = accept.split_once(';').unwrap_or((accept, ""));
            let quality = parameters.split(';').find_map(|one| one.trim().strip_prefix("q="));
            let quality: f32 = quality.map_or(1.0, |text| text.trim().parse().unwrap_or(0.0));
            let form = match kind.trim() {
                "application/vnd.pypi.simple.v1+json"
                | "application/vnd.pypi.simple.latest+json" => Form::Json,
                "application/vnd.pypi.simple.v1+html"
                | "application/vnd.pypi.simple.latest+html" => Form::Html,
                "text/html" => Form::OldHtml,
                _ => continue,
            };
            if quality > best.0 {
                best = (quality, form);
            }
        }
        best.1
    }

    /// Returns its media type.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Form::Json => "application/vnd.pypi.simple.v1+json",
            Form::Html => "application/vnd.pypi.simple.v1+html",
            Form::OldHtml => "text/html; charset=utf-8",
        }
    }
}

/// Makes a page whose files lie below it, and returns its content type. One that comes as HTML is
/// given as HTML: much of what JSON says it does not.
///
/// # Errors
/// Where the upstream's bytes are no such page.
pub(super) fn render(
    recipe: &Recipe,
    from: &mut dyn Read,
    to: &mut dyn Write,
) -> io::Result<&'static str> {
    let mut from = BufReader::with_capacity(64 * 1024, from);
    let form = recipe.form;
    if !is_json(&mut from)? {
        let mut writer = html::Writer::new(to)?;
        html::read(from, |item| match item {
            Item::Base(_) => Ok(()),
            Item::Meta(name, content) => writer.meta(&name, &content),
            Item::Link(link) => {
                let file = link.file_name();
                if !recipe.shows(&file) {
                    return Ok(());
                }
                writer.link(&Link { url: local(&file), ..link }, &file)
            }
        })?;
        writer.finish()?;
        let form = if form == Form::Html { Form::Html } else { Form::OldHtml };
        return Ok(form.content_type());
    }
    if form == Form::Json {
        let mut rendering = Json { recipe, writer: json::Writer::new(to)? };
        json::read(from, &mut rendering)?;
        rendering.writer.finish()?;
    } else {
        let mut rendering = Html { recipe, writer: html::Writer::new(to)? };
        json::read(from, &mut rendering)?;
        rendering.writer.finish()?;
    }
    Ok(form.content_type())
}

/// Says whether a page is JSON.
pub(super) fn is_json(from: &mut impl BufRead) -> io::Result<bool> {
    Ok(from.fill_buf()?.trim_ascii_start().first() == Some(&b'{'))
}

/// Returns a file's address as its page has it.
fn local(file: &str) -> String {
    format!("files/{}", file.replace('+', "%2B").replace('!', "%21"))
}

struct Json<'w> {
    recipe: &'w Recipe,
    writer: json::Writer<'w>,
}

impl Members for Json<'_> {
    fn enters(&mut self, key: &str) -> bool {
        key == "files"
    }

    fn begin(&mut self, key: &str, is_list: bool) -> io::Result<()> {
        self.writer.begin(key, is_list)
    }

    fn member(&mut self, of: Option<&str>, key: &str, value: &RawValue) -> io::Result<()> {
        if of.is_none() {
            return self.writer.member(key, value.get());
        }
        let Some(members) = json::members(value) else { return Ok(()) };
        let name = members.iter().find(|(key, _)| key == "filename");
        let name = name.and_then(|(_, name)| serde_json::from_str::<String>(name.get()).ok());
        let Some(name) = name.filter(|name| self.recipe.shows(name)) else { return Ok(()) };
        let url = json::string(&local(&name));
        let changed = members.iter().map(|(key, value)| {
            (key.as_str(), if key == "url" { url.as_str() } else { value.get() })
        });
        self.writer.element(&json::object(changed))
    }

    fn end(&mut self, _: &str, is_list: bool) -> io::Result<()> {
        self.writer.end(is_list)
    }
}

struct Html<'w> {
    recipe: &'w Recipe,
    writer: html::Writer<'w>,
}

impl Members for Html<'_> {
    fn enters(&mut self, key: &str) -> bool {
        matches!(key, "files" | "meta" | "project-status")
    }

    fn begin(&mut self, _: &str, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn member(&mut self, of: Option<&str>, key: &str, value: &RawValue) -> io::Result<()> {
        let text = || serde_json::from_str::<String>(value.get()).unwrap_or_default();
        match (of, key) {
            (Some("meta"), "api-version") => self.writer.meta("pypi:repository-version", &text()),
            (Some("project-status"), "status") => self.writer.meta("pypi:project-status", &text()),
            (Some("project-status"), "reason") => {
                self.writer.meta("pypi:project-status-reason", &text())
            }
            (Some("files"), _) => match serde_json::from_str::<Value>(value.get()).ok() {
                Some(file) => self.file(&file),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn end(&mut self, _: &str, _: bool) -> io::Result<()> {
        Ok(())
    }
}

impl Html<'_> {
    fn file(&mut self, file: &Value) -> io::Result<()> {
        let Some(name) = file["filename"].as_str().filter(|name| self.recipe.shows(name)) else {
            return Ok(());
        };
        let mut data = Vec::new();
        let mut add = |key: &str, value: Option<String>| {
            data.extend(value.map(|value| (key.to_owned(), value)));
        };
        add("data-requires-python", file["requires-python"].as_str().map(str::to_owned));
        let metadata = ["core-metadata", "data-dist-info-metadata", "dist-info-metadata"]
            .into_iter()
            .find_map(|key| hash_or_true(&file[key]));
        add("data-dist-info-metadata", metadata.clone());
        add("data-core-metadata", metadata);
        add("data-gpg-sig", file["gpg-sig"].as_bool().map(|has| has.to_string()));
        add("data-provenance", file["provenance"].as_str().map(str::to_owned));
        let yanked = match &file["yanked"] {
            Value::Bool(true) => Some(String::new()),
            Value::String(reason) => Some(reason.clone()),
            _ => None,
        };
        add("data-yanked", yanked);
        data.sort();
        let fragment = hash(&file["hashes"]).unwrap_or_default();
        self.writer.link(&Link { url: local(name), fragment, data }, name)
    }
}

/// Returns the best of several digests: `sha256=...`.
fn hash(hashes: &Value) -> Option<String> {
    let hashes = hashes.as_object()?;
    let one = |(name, value): (&String, &Value)| Some(format!("{name}={}", value.as_str()?));
    hashes.get_key_value("sha256").and_then(one).or_else(|| hashes.iter().find_map(one))
}

fn hash_or_true(value: &Value) -> Option<String> {
    match value {
        Value::Bool(true) => Some("true".to_owned()),
        other => hash(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"meta":{"api-version":"1.1","_last-serial":7},"name":"six","files":[
        {"filename":"six-1+l.whl","url":"https://files.example/p/six-1%2Bl.whl","hashes":{"md5":"0","sha256":"ab"},
         "requires-python":">=3","core-metadata":{"sha256":"cd"},"yanked":"<bad>","upload-time":"2026-01-01T00:00:00Z","size":3},
        {"filename":"../evil.whl","url":"https://files.example/evil.whl","hashes":{}},
        {"filename":"left-out.whl","url":"https://files.example/evil2.whl"},
        {"filename":5},7],"versions":["1"]}"#;

    fn render_as(form: Form, page: &str) -> (String, &'static str) {
        let mut to = Vec::new();
        let recipe = Recipe { form, without: vec!["left-out.whl".to_owned()] };
        let kind = render(&recipe, &mut page.as_bytes(), &mut to).unwrap();
        (String::from_utf8(to).unwrap(), kind)
    }

    #[test]
    fn json_keeps_all_but_addresses() {
        let (text, kind) = render_as(Form::Json, JSON);
        assert_eq!(kind, "application/vnd.pypi.simple.v1+json");
        let page: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(page["files"].as_array().unwrap().len(), 1, "{text}");
        assert_eq!(page["files"][0]["url"], "files/six-1%2Bl.whl");
        assert_eq!(page["files"][0]["upload-time"], "2026-01-01T00:00:00Z");
        assert_eq!((&page["versions"][0], &page["meta"]["_last-serial"]), (&"1".into(), &7.into()));
    }

    #[test]
    fn html_says_what_it_can() {
        let (text, kind) = render_as(Form::OldHtml, JSON);
        assert_eq!(kind, "text/html; charset=utf-8");
        let link = "<a href=\"files/six-1%2Bl.whl#sha256=ab\" data-core-metadata=\"sha256=cd\" \
            data-dist-info-metadata=\"sha256=cd\" data-requires-python=\"&gt;=3\" \
            data-yanked=\"&lt;bad&gt;\">six-1+l.whl</a><br>";
        assert!(text.contains(link), "{text}");
        assert!(text.contains("<meta name=\"pypi:repository-version\" content=\"1.1\">"));
        assert!(!text.contains("evil"), "{text}");
        // From HTML comes the same HTML, whatever is asked for.
        for form in [Form::Json, Form::Html, Form::OldHtml] {
            let (again, kind) = render_as(form, &text);
            assert_eq!(again, text);
            assert!(kind.contains("html"));
        }
    }

    #[test]
    fn clients_get_what_they_prefer() {
        let of =
            |accept: &str| Form::of(&[(ACCEPT, accept.parse().unwrap())].into_iter().collect());
        for (accept, form) in [
            (
                "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01",
                Form::Json,
            ),
            ("application/vnd.pypi.simple.v1+html;q=0.5,text/html;q=0.1", Form::Html),
            ("text/html,*/*", Form::OldHtml),
            ("*/*", Form::OldHtml),
            ("application/vnd.pypi.simple.v1+json;q=0", Form::OldHtml),
            ("application/vnd.pypi.simple.v1+json;q=x", Form::OldHtml),
        ] {
            assert_eq!(of(accept), form, "{accept}");
        }
        assert_eq!(Form::of(&HeaderMap::new()), Form::OldHtml);
    }

    #[test]
    fn what_is_no_page_is_an_error_or_empty() {
        for bad in ["{", "{}x", "{\"files\":5}", "{\"files\":"] {
            let mut to = Vec::new();
            let recipe = Recipe { form: Form::Json, without: Vec::new() };
            assert!(render(&recipe, &mut bad.as_bytes(), &mut to).is_err(), "{bad}");
        }
        for odd in ["", "\u{0}", "<a href", "<a href='x", "[]"] {
            render_as(Form::Html, odd);
        }
    }
}
