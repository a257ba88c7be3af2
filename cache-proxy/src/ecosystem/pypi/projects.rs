//! The names of all projects: the upstream's, and the private ones beside them.

use std::io::{self, BufReader, Read, Write};

use http::header::{ETAG, VARY};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use boatyard_oci::Digest;

use super::address::ProjectName;
use super::html::{self, Item, Link};
use super::page::{Form, is_json};
use crate::ecosystem::json::{self, Members};
use crate::hosted::Hosted;
use crate::reply::Reply;
use crate::request::Request;

/// What is made of the upstream's names. Its text is the recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Projects {
    /// How they are written.
    pub(super) form: Form,
    /// The private projects, in order; the upstream's of these names are left out.
    pub(super) own: Vec<String>,
}

/// Returns the private projects that the client of a request may see.
pub(super) fn of(request: &Request, hosted: &Hosted) -> Vec<String> {
    if !request.admitted.reads {
        return Vec::new();
    }
    let listing = hosted.listing();
    let shown = listing.packages().filter(|package| !package.files.is_empty());
    let mut names: Vec<String> = shown.map(|package| package.name.clone()).collect();
    names.sort();
    names
}

impl Projects {
    /// Returns its text.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Answers with the private projects alone, where there is no upstream.
    pub(super) fn reply(&self) -> Reply {
        let nothing = json!({ "meta": { "api-version": "1.1" }, "projects": [] }).to_string();
        let mut bytes = Vec::new();
        let Ok(kind) = self.render(&mut nothing.as_bytes(), &mut bytes) else {
            return Reply::text(StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be written");
        };
        let tag = format!("\"{}\"", Digest::sha256(&bytes).hex());
        let mut reply = Reply::new(StatusCode::OK, kind, bytes).with(ETAG, &tag);
        reply.headers.insert(VARY, HeaderValue::from_static("Accept"));
        reply
    }

    /// Makes the page of all names, and returns its content type. One that comes as HTML is given as
    /// HTML.
    ///
    /// # Errors
    /// Where the upstream's bytes are no such page.
    pub(super) fn render(
        &self,
        from: &mut dyn Read,
        to: &mut dyn Write,
    ) -> io::Result<&'static str> {
        let mut from = BufReader::with_capacity(64 * 1024, from);
        let is_json = is_json(&mut from)?;
        if is_json && self.form == Form::Json {
            let mut rendering =
                Json { projects: self, writer: json::Writer::new(to)?, is_whole: false };
            json::read(from, &mut rendering)?;
            if !rendering.is_whole {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it lists no projects"));
            }
            rendering.writer.finish()?;
            return Ok(self.form.content_type());
        }
        let mut writer = html::Writer::new(to)?;
        writer.meta("pypi:repository-version", "1.1")?;
        for name in &self.own {
            writer.link(&link(name), name)?;
        }
        if is_json {
            json::read(from, &mut Html { projects: self, writer: &mut writer })?;
        } else {
            html::read(from, |item| match item {
                Item::Link(found) => {
                    let path = found.url.trim_end_matches('/');
                    let name = path.rsplit('/').next().unwrap_or_default();
                    self.public(name).map_or(Ok(()), |to| writer.link(&link(to.as_str()), name))
                }
                Item::Base(_) | Item::Meta(..) => Ok(()),
            })?;
        }
        writer.finish()?;
        let form = if self.form == Form::Html { Form::Html } else { Form::OldHtml };
        Ok(form.content_type())
    }

    /// Returns the normalised name of a project of the upstream that is shown.
    fn public(&self, name: &str) -> Option<ProjectName> {
        let name = ProjectName::parse(name)?;
        let is_own = self.own.binary_search_by(|own| own.as_str().cmp(name.as_str())).is_ok();
        (!is_own).then_some(name)
    }
}

fn link(name: &str) -> Link {
    Link { url: format!("{name}/"), fragment: String::new(), data: Vec::new() }
}

fn name_of(project: &RawValue) -> Option<String> {
    let project: Value = serde_json::from_str(project.get()).ok()?;
    Some(project["name"].as_str()?.to_owned())
}

struct Json<'w> {
    projects: &'w Projects,
    writer: json::Writer<'w>,
    is_whole: bool,
}

impl Members for Json<'_> {
    fn enters(&mut self, key: &str) -> bool {
        key == "projects"
    }

    fn begin(&mut self, key: &str, is_list: bool) -> io::Result<()> {
        self.writer.begin(key, is_list)?;
        self.is_whole = is_list;
        let mut own = self.projects.own.iter().filter(|_| is_list);
        own.try_for_each(|name| self.writer.element(&json!({ "name": name }).to_string()))
    }

    fn member(&mut self, of: Option<&str>, key: &str, value: &RawValue) -> io::Result<()> {
        match of {
            None => self.writer.member(key, value.get()),
            Some(_) if name_of(value).is_some_and(|name| self.projects.public(&name).is_some()) => {
                self.writer.element(value.get())
            }
            Some(_) => Ok(()),
        }
    }

    fn end(&mut self, _: &str, is_list: bool) -> io::Result<()> {
        self.writer.end(is_list)
    }
}

struct Html<'p, 'w> {
    projects: &'p Projects,
    writer: &'p mut html::Writer<'w>,
}

impl Members for Html<'_, '_> {
    fn enters(&mut self, key: &str) -> bool {
        key == "projects"
    }

    fn begin(&mut self, _: &str, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn member(&mut self, of: Option<&str>, _: &str, value: &RawValue) -> io::Result<()> {
        let Some(name) = of.and_then(|_| name_of(value)) else { return Ok(()) };
        match self.projects.public(&name) {
            Some(to) => self.writer.link(&link(to.as_str()), &name),
            None => Ok(()),
        }
    }

    fn end(&mut self, _: &str, _: bool) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(form: Form, page: &str) -> io::Result<(String, &'static str)> {
        let own = ["acme-tool", "acme-x"].map(str::to_owned).to_vec();
        let mut to = Vec::new();
        let kind = Projects { form, own }.render(&mut page.as_bytes(), &mut to)?;
        Ok((String::from_utf8(to).unwrap(), kind))
    }

    #[test]
    fn private_names_come_first_and_once() {
        let page = r#"{"meta":{"api-version":"1.0"},"projects":[{"name":"Six"},{"name":"Acme_Tool"},
            {"name":"../x"},{}]}"#;
        let (json, kind) = render(Form::Json, page).unwrap();
        assert_eq!(kind, "application/vnd.pypi.simple.v1+json");
        let shown: Value = serde_json::from_str(&json).unwrap();
        let names = json!([{ "name": "acme-tool" }, { "name": "acme-x" }, { "name": "Six" }]);
        assert_eq!((&shown["projects"], &shown["meta"]["api-version"]), (&names, &json!("1.0")));
        let (html, kind) = render(Form::OldHtml, page).unwrap();
        assert_eq!(kind, "text/html; charset=utf-8");
        assert!(html.contains("<a href=\"acme-tool/\">acme-tool</a>"), "{html}");
        assert!(html.contains("<a href=\"six/\">Six</a>") && !html.contains("Acme_Tool"), "{html}");

        let page = "<html><body><a href=\"/simple/six/\">Six</a><a href='acme-x/'>x</a></body>";
        let (html, _) = render(Form::Json, page).unwrap();
        assert_eq!(html.matches("<a href").count(), 3, "{html}");
        assert!(html.contains("<a href=\"six/\">"), "{html}");
        for bad in ["{", "{}", "{\"projects\":{}}"] {
            assert!(render(Form::Json, bad).is_err(), "{bad}");
        }
    }
}
