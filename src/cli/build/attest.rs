//! `--provenance`, `--sbom` and `--attest`: what is said of an image beside it.

use std::path::Path;

use boatyard_builder::attest::{self, Attest, Detail};
use boatyard_builder::dockerfile::csv;
use boatyard_builder::form::MediaTypes;
use boatyard_oci::ImageName;

use super::output::Output;
use crate::report::{Failure, Result};

/// The options.
#[derive(Debug, clap::Args)]
pub struct AttestArgs {
    /// Say beside the image where it comes from: min, max (also arguments, the Dockerfile and each
    /// step), false, or keys: mode=min|max, builder-id=URI
    #[arg(
        long,
        value_name = "MODE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "min"
    )]
    provenance: Option<String>,
    /// List beside the image the packages that are in it: true or false
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    sbom: Option<String>,
    /// Say something beside the image: type=provenance with the keys of --provenance, or type=sbom; with
    /// disabled=true do not
    #[arg(long = "attest", value_name = "type=TYPE[,KEY=VALUE]")]
    attest: Vec<String>,
}

/// What one option says.
#[derive(Default)]
struct Wish {
    mode: Option<Detail>,
    builder_id: Option<String>,
    disabled: bool,
}

impl AttestArgs {
    /// Reads the options. Names and context are those of the build.
    pub fn read(&self, context: &Path, names: &[ImageName], outputs: &[Output]) -> Result<Attest> {
        let (mut provenance, mut sbom): (Option<Wish>, Option<Wish>) = (None, None);
        if let Some(text) = &self.provenance {
            provenance = Some(wish(&format!("--provenance={text}"), text, true)?);
        }
        if let Some(text) = &self.sbom {
            sbom = Some(wish(&format!("--sbom={text}"), text, false)?);
        }
        for text in &self.attest {
            let option = format!("--attest {text}");
            let wrong = |problem: &str| Failure::usage(format!("cannot use {option}: {problem}"));
            let fields = csv::fields(text).map_err(|error| wrong(&error.to_string()))?;
            let kind = fields.iter().find_map(|field| field.strip_prefix("type="));
            let kind = kind.ok_or_else(|| wrong("write type=provenance or type=sbom"))?;
            let rest: Vec<&str> =
                fields.iter().filter(|it| !it.starts_with("type=")).map(String::as_str).collect();
            let (slot, is_provenance) = match kind {
                "provenance" => (&mut provenance, true),
                "sbom" => (&mut sbom, false),
                _ => return Err(wrong("there are the types provenance and sbom")),
            };
            if slot.is_some() {
                return Err(wrong("this was said before: say it once"));
            }
            *slot = Some(keys(&option, &rest, is_provenance)?);
        }
        let provenance = provenance.filter(|wish| !wish.disabled);
        let attest = Attest {
            provenance: provenance.as_ref().map(|wish| wish.mode.unwrap_or(Detail::Min)),
            sbom: sbom.is_some_and(|wish| !wish.disabled),
            builder_id: provenance.and_then(|wish| wish.builder_id),
            names: names.to_vec(),
            context: context.to_str().and_then(attest::address),
            ..Attest::default()
        };
        let is_docker =
            |output: &Output| output.is_image() && output.form.media_types == MediaTypes::Docker;
        if attest.is_any() && outputs.iter().any(is_docker) {
            return Err(Failure::usage("Docker's media types have none for attestations")
                .hint("leave out oci-mediatypes=false, or --provenance and --sbom"));
        }
        Ok(attest)
    }
}

/// Reads the value of `--provenance` or `--sbom`.
fn wish(option: &str, text: &str, is_provenance: bool) -> Result<Wish> {
    let with_mode = |mode| Ok(Wish { mode: Some(mode), ..Wish::default() });
    match text {
        "true" | "1" => Ok(Wish::default()),
        "false" | "0" => Ok(Wish { disabled: true, ..Wish::default() }),
        "min" if is_provenance => with_mode(Detail::Min),
        "max" if is_provenance => with_mode(Detail::Max),
        text => {
            let fields = csv::fields(text)
                .map_err(|error| Failure::usage(format!("cannot use {option}: {error}")))?;
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            keys(option, &fields, is_provenance)
        }
    }
}

/// Reads `KEY=VALUE`, as buildx has them.
fn keys(option: &str, fields: &[&str], is_provenance: bool) -> Result<Wish> {
    let wrong = |problem: &str| Failure::usage(format!("cannot use {option}: {problem}"));
    let mut wish = Wish::default();
    for field in fields {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        match (key, value) {
            ("disabled", "true" | "1" | "") => wish.disabled = true,
            ("disabled", "false" | "0") => wish.disabled = false,
            ("mode", "min") if is_provenance => wish.mode = Some(Detail::Min),
            ("mode", "max") if is_provenance => wish.mode = Some(Detail::Max),
            ("mode", _) if is_provenance => return Err(wrong("mode is min or max")),
            ("builder-id", id) if is_provenance && !id.is_empty() => {
                wish.builder_id = Some(id.to_owned());
            }
            ("version", "v1") if is_provenance => {}
            ("version", _) if is_provenance => return Err(wrong("only version=v1 is written")),
            ("generator", _) if !is_provenance => {
                return Err(wrong("Boatyard lists packages itself, without a generator"));
            }
            _ if is_provenance => {
                return Err(wrong("the keys are mode, builder-id, version and disabled"));
            }
            _ => return Err(wrong("it is true or false")),
        }
    }
    Ok(wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(provenance: Option<&str>, sbom: Option<&str>, attest: &[&str]) -> Result<Attest> {
        let args = AttestArgs {
            provenance: provenance.map(str::to_owned),
            sbom: sbom.map(str::to_owned),
            attest: attest.iter().map(|text| (*text).to_owned()).collect(),
        };
        args.read(Path::new("."), &[], &[])
    }

    #[test]
    fn what_buildx_takes() {
        assert!(!read(None, None, &[]).unwrap().is_any(), "nothing unless it is asked for");
        for (provenance, expected) in [
            ("true", Some(Detail::Min)),
            ("max", Some(Detail::Max)),
            ("mode=max", Some(Detail::Max)),
            ("mode=min,version=v1", Some(Detail::Min)),
            ("false", None),
            ("disabled=true", None),
        ] {
            let attest = read(Some(provenance), None, &[]).unwrap();
            assert_eq!(attest.provenance, expected, "{provenance}");
        }
        let both = ["type=sbom", "type=provenance,mode=max,builder-id=https://ci.example/1"];
        let attest = read(None, None, &both).unwrap();
        assert!(attest.sbom);
        assert_eq!(attest.builder_id.as_deref(), Some("https://ci.example/1"));
        for wrong in ["type=other", "mode=max", "type=sbom,generator=x", "type=provenance,x=y"] {
            assert!(read(None, None, &[wrong]).is_err(), "{wrong}");
        }
        assert!(read(None, Some("true"), &["type=sbom"]).is_err(), "twice");
        assert!(read(Some("mode=all"), None, &[]).is_err());
    }
}
