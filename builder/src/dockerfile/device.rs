//! `RUN --device=`: a device of the container device interface.

use super::csv::{self, CsvError};
use super::mount::parse_bool;
use super::suggest;

/// A device that a step asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name, such as `vendor.com/class=device`.
    pub name: String,
    /// The build fails without it.
    pub required: bool,
}

/// Why a device cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum DeviceError {
    #[error("{0}")]
    Csv(CsvError),
    #[error("the name is already set to `{0}`")]
    NameTwice(String),
    #[error("`{field}` is neither a name nor `required`{}", did_you_mean(.near.as_deref()))]
    Field { field: String, near: Option<String> },
    #[error("`required` is either true or false, not `{0}`")]
    NotBoolean(String),
}

fn did_you_mean(near: Option<&str>) -> String {
    near.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default()
}

/// Reads the value of `--device`.
///
/// # Errors
///
/// On malformed lists and unknown fields.
pub fn parse(text: &str) -> Result<Device, DeviceError> {
    let mut name: Option<String> = None;
    let mut required = false;
    for field in csv::fields(text).map_err(DeviceError::Csv)? {
        let (key, value) = field.split_once('=').map_or((&*field, None), |(k, v)| (k, Some(v)));
        match (key.to_ascii_lowercase().as_str(), value) {
            ("required", None) => required = true,
            ("required", Some(value)) => {
                let parsed = parse_bool(value);
                required = parsed.ok_or_else(|| DeviceError::NotBoolean(value.to_owned()))?;
            }
            ("name", Some(value)) => match name {
                Some(name) => return Err(DeviceError::NameTwice(name)),
                None => name = Some(value.to_owned()),
            },
            // A qualified name holds an `=` of its own: `vendor.com/class=device`.
            _ if name.is_none() => name = Some(field.clone()),
            _ => {
                let near = suggest::nearest(key, ["name", "required"], true).map(str::to_owned);
                return Err(DeviceError::Field { field, near });
            }
        }
    }
    Ok(Device { name: name.unwrap_or_default(), required })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_names_that_may_be_required() {
        let of = |name: &str, required| Ok(Device { name: name.to_owned(), required });
        assert_eq!(parse("vendor.com/gpu=all"), of("vendor.com/gpu=all", false));
        assert_eq!(parse("vendor.com/gpu=all,required"), of("vendor.com/gpu=all", true));
        assert_eq!(parse("name=v/g,required=false"), of("v/g", false));
        assert_eq!(parse("required=maybe"), Err(DeviceError::NotBoolean("maybe".into())));
        assert_eq!(parse("a,name=b"), Err(DeviceError::NameTwice("a".into())));
        let error = parse("a,requird=true").unwrap_err().to_string();
        assert!(error.contains("did you mean `required`?"), "{error}");
    }
}
