//! A Python index of our own making, with its files on another host, and the clients of one.

use std::path::PathBuf;

use boatyard_oci::Digest;
use serde_json::{Value, json};

use super::origin::{Origin, Reply};
use super::{Place, Run};

/// Writes a wheel: project, version, what it requires (or nothing), the file. A wheel is a zip
/// archive, and python has what makes one.
const WHEEL: &str = r#"
import sys, zipfile
name, version, needs, path = sys.argv[1:]
metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
metadata += f"Requires-Dist: {needs}\n" if needs else ""
info = f"{name}-{version}.dist-info"
files = {
    f"{name}.py": f"version = '{name} {version}'\n",
    f"{info}/METADATA": metadata,
    f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
with zipfile.ZipFile(path, "w") as wheel:
    for file, text in {**files, f"{info}/RECORD": record}.items():
        wheel.writestr(zipfile.ZipInfo(file), text)
print(metadata, end="")
"#;

/// A wheel, and what is in it.
pub struct Wheel {
    pub file: String,
    pub bytes: Vec<u8>,
    pub metadata: Vec<u8>,
}

impl Wheel {
    /// Makes one.
    pub fn new(place: &Place, name: &str, version: &str, needs: &str) -> Wheel {
        let file = format!("{name}-{version}-py3-none-any.whl");
        let path = place.path(&file);
        let run = place.run("python3", ["-c", WHEEL, name, version, needs]).arg(&path).ok();
        Wheel { file, bytes: fs_err::read(path).unwrap(), metadata: run.stdout }
    }
}

/// An index and the host of its files.
pub struct Index {
    pub pages: Origin,
    pub files: Origin,
}

impl Index {
    /// Starts an empty one.
    pub fn start() -> Index {
        Index { pages: Origin::start(), files: Origin::start() }
    }

    /// Returns the configuration that knows it as `pypi`.
    pub fn config(&self, more: &str) -> String {
        let files = self.files.url("");
        let port = files.rsplit(':').next().unwrap();
        format!(
            "[proxy]\nlisten = ['127.0.0.1:0']\nallow_private = true\nallow_ports = [{port}]\n\
             [[proxy.upstream]]\nname = 'pypi'\nurl = '{}'\necosystem = 'pypi'\n{more}\n",
            self.pages.url("")
        )
    }

    /// Publishes all wheels of a project, as JSON or as HTML.
    pub fn publish(&self, project: &str, wheels: &[&Wheel], is_json: bool, serial: u64) {
        let files: Vec<Value> = wheels.iter().map(|wheel| self.file(wheel)).collect();
        let (kind, body) = if is_json {
            let page = json!({
                "meta": { "api-version": "1.1" }, "name": project, "files": files,
                "versions": [],
            });
            ("application/vnd.pypi.simple.v1+json", page.to_string())
        } else {
            let links = files.iter().map(|file| {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                let (name, url) = (text(&file["filename"]), text(&file["url"]));
                let digest = text(&file["hashes"]["sha256"]);
                let metadata = text(&file["core-metadata"]["sha256"]);
                format!(
                    "<a href=\"{url}#sha256={digest}\" data-core-metadata=\"sha256={metadata}\" \
                     data-dist-info-metadata=\"sha256={metadata}\">{name}</a><br>"
                )
            });
            let page =
                format!("<!DOCTYPE html><html><body>{}</body></html>", links.collect::<String>());
            ("text/html", page)
        };
        let tag = Digest::sha256(body.as_bytes()).hex()[..16].to_owned();
        let headers = format!(
            "Content-Type: {kind}\r\nCache-Control: max-age=0\r\nX-PyPI-Last-Serial: {serial}\r\n"
        );
        let reply = Reply::stale(body).tagged(&tag).with(&headers);
        self.pages.put(&format!("/simple/{project}/"), reply);
    }

    fn file(&self, wheel: &Wheel) -> Value {
        let digest = Digest::sha256(&wheel.bytes);
        let path = format!("/packages/{}/{}", &digest.hex()[..8], wheel.file);
        self.files.put(&path, Reply::stale(wheel.bytes.clone()));
        self.files.put(&format!("{path}.metadata"), Reply::stale(wheel.metadata.clone()));
        let metadata = json!({ "sha256": Digest::sha256(&wheel.metadata).hex() });
        json!({
            "filename": wheel.file, "url": self.files.url(&path),
            "hashes": { "sha256": digest.hex() }, "requires-python": ">=3",
            // Not by its older name: the pip that wants that cannot read it.
            "core-metadata": metadata,
            "upload-time": "2020-01-01T00:00:00Z", "size": wheel.bytes.len(),
        })
    }

    /// Closes every connection without an answer from now on.
    pub fn go_down(&self) {
        self.pages.go_down();
        self.files.go_down();
    }
}

/// A machine that has never seen an index.
pub struct Machine<'p> {
    place: &'p Place,
    directory: PathBuf,
    index: String,
}

impl<'p> Machine<'p> {
    /// Makes one that knows an index.
    pub fn new(place: &'p Place, name: &str, index: &str) -> Machine<'p> {
        let directory = place.path(name);
        fs_err::create_dir(&directory).unwrap();
        Machine { place, directory, index: index.to_owned() }
    }

    /// Returns a program, ready to run with nothing of this machine around it.
    pub fn run(&self, program: &str, args: &[&str]) -> Run {
        let home = self.directory.display();
        let variables = [
            "PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            format!("HOME={home}"),
            format!("PIP_INDEX_URL={}", self.index),
            "PIP_RETRIES=0".to_owned(),
            "PIP_DISABLE_PIP_VERSION_CHECK=1".to_owned(),
            "PIP_ROOT_USER_ACTION=ignore".to_owned(),
            format!("UV_DEFAULT_INDEX={}", self.index),
            "UV_NO_CONFIG=1".to_owned(),
            "UV_PYTHON_DOWNLOADS=never".to_owned(),
            format!("PYTHONPATH={home}/site"),
        ];
        let run = self.place.run("env", ["-i"]).current_dir(&self.directory);
        run.args(variables).arg(program).args(args)
    }

    /// Installs with pip.
    pub fn pip(&self, args: &[&str]) -> Run {
        self.run("python3", &["-m", "pip", "install", "--target", "site"]).args(args)
    }

    /// Installs with uv.
    pub fn uv(&self, uv: &str, args: &[&str]) -> Run {
        let install = ["pip", "install", "--target", "site", "--python", "/usr/bin/python3"];
        self.run(uv, &install).args(args)
    }

    /// Returns the version of what was installed.
    #[track_caller]
    pub fn version(&self, module: &str) -> String {
        let code = format!("import {module}; print({module}.version)");
        self.run("python3", &["-c", &code]).ok().text().trim().to_owned()
    }
}
