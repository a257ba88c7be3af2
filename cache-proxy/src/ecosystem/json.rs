//! A large JSON object, member by member: one member is in memory at a time.

use std::fmt;
use std::io::{self, BufReader, Read, Write};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The longest document that is read.
const LENGTH_MAX: u64 = 512 * 1024 * 1024;

/// Who takes the members of an object, in their order.
pub(super) trait Members {
    /// Says whether the members of a member are wanted one by one.
    fn enters(&mut self, key: &str) -> bool;

    /// Hears that the members of such a one begin: it is a list, or an object.
    fn begin(&mut self, key: &str, is_list: bool) -> io::Result<()>;

    /// Takes a member of the object, or of the member `of`; those of a list have no key.
    fn member(&mut self, of: Option<&str>, key: &str, value: &RawValue) -> io::Result<()>;

    /// Hears that those of a member end.
    fn end(&mut self, key: &str, is_list: bool) -> io::Result<()>;
}

/// Reads an object.
///
/// # Errors
/// Where it is none, is too long, or whoever takes its members fails.
pub(super) fn read(from: impl Read, members: &mut dyn Members) -> io::Result<()> {
    let reader = BufReader::with_capacity(64 * 1024, from.take(LENGTH_MAX));
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    Object(members).deserialize(&mut deserializer)?;
    Ok(deserializer.end()?)
}

/// Returns the members of an object that is in memory, their values as they are written.
pub(super) fn members(object: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    struct All;
    impl<'de> Visitor<'de> for All {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(member) = map.next_entry()? {
                all.push(member);
            }
            Ok(all)
        }
    }
    serde_json::Deserializer::from_str(object.get()).deserialize_map(All).ok()
}

struct Object<'m>(&'m mut dyn Members);

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if self.0.enters(&key) {
                map.next_value_seed(Inner { members: self.0, key: &key })?;
            } else {
                let value: Box<RawValue> = map.next_value()?;
                self.0.member(None, &key, &value).map_err(A::Error::custom)?;
            }
        }
        Ok(())
    }
}

struct Inner<'m> {
    members: &'m mut dyn Members,
    key: &'m str,
}

impl<'de> DeserializeSeed<'de> for Inner<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inner<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object or a list as `{}`", self.key)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Inner { members, key: of } = self;
        members.begin(of, false).map_err(A::Error::custom)?;
        while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
            members.member(Some(of), &key, &value).map_err(A::Error::custom)?;
        }
        members.end(of, false).map_err(A::Error::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Inner { members, key: of } = self;
        members.begin(of, true).map_err(A::Error::custom)?;
        while let Some(value) = list.next_element::<Box<RawValue>>()? {
            members.member(Some(of), "", &value).map_err(A::Error::custom)?;
        }
        members.end(of, true).map_err(A::Error::custom)
    }
}

/// Writes an object, member by member.
pub(super) struct Writer<'w> {
    to: io::BufWriter<&'w mut dyn Write>,
    is_first: bool,
}

impl<'w> Writer<'w> {
    /// Begins an object.
    pub(super) fn new(to: &'w mut dyn Write) -> io::Result<Writer<'w>> {
        let mut to = io::BufWriter::with_capacity(256 * 1024, to);
        to.write_all(b"{")?;
        Ok(Writer { to, is_first: true })
    }

    /// Begins an object or a list within it.
    pub(super) fn begin(&mut self, key: &str, is_list: bool) -> io::Result<()> {
        self.member(key, if is_list { "[" } else { "{" })?;
        self.is_first = true;
        Ok(())
    }

    /// Ends it.
    pub(super) fn end(&mut self, is_list: bool) -> io::Result<()> {
        self.is_first = false;
        self.to.write_all(if is_list { b"]" } else { b"}" })
    }

    /// Writes a member, whose value is JSON.
    pub(super) fn member(&mut self, key: &str, value: &str) -> io::Result<()> {
        self.separate()?;
        serde_json::to_writer(&mut self.to, key)?;
        self.to.write_all(b":")?;
        self.to.write_all(value.as_bytes())
    }

    /// Writes an element of a list, which is JSON.
    pub(super) fn element(&mut self, value: &str) -> io::Result<()> {
        self.separate()?;
        self.to.write_all(value.as_bytes())
    }

    /// Ends the object.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.to.write_all(b"}")?;
        self.to.flush()
    }

    fn separate(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_first, false) {
            self.to.write_all(b",")?;
        }
        Ok(())
    }
}

/// Writes members as an object that is in memory.
pub(super) fn object<'a>(members: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::from("{");
    for (key, value) in members {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&string(key));
        text.push(':');
        text.push_str(value);
    }
    text.push('}');
    text
}

/// Writes a text as JSON.
pub(super) fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
