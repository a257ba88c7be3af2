//! Settings that stand in a file with others: one to a line, perhaps in sections.
//!
//! What is there stays, comments and order too; a key that is there already gets its new value in its
//! place. That is as much as INI files, `.npmrc`, flat YAML and the tables of TOML have in common.

use std::fmt::Write as _;

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The section: `global` for `[global]`. What has none stands before the first.
    pub section: Option<&'static str>,
    /// The key.
    pub key: String,
    /// What stands between key and value: `=`, ` = `, `: ` or a space.
    pub between: &'static str,
    /// The value, as it is written.
    pub value: String,
}

impl Setting {
    fn line(&self) -> String {
        format!("{}{}{}", self.key, self.between, self.value)
    }

    /// Says whether a line sets this key.
    fn is_set_by(&self, line: &str) -> bool {
        let Some(rest) = line.strip_prefix(self.key.as_str()) else { return false };
        match self.between.trim() {
            "" => rest.starts_with([' ', '\t']),
            between => rest.trim_start().starts_with(between),
        }
    }

    /// Says whether a line belongs to the value that a line before it begins: a list of YAML, or
    /// what is indented.
    fn goes_on(&self, line: &str) -> bool {
        line.starts_with([' ', '\t']) && !line.trim().is_empty()
            || (self.between == ": " && line.starts_with("- "))
    }
}

/// Returns a text with the settings in it.
pub fn set(text: &str, settings: &[Setting]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for setting in settings {
        put(&mut lines, setting);
    }
    let mut text = String::new();
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    text
}

fn put(lines: &mut Vec<String>, setting: &Setting) {
    let is_header = |line: &String| line.starts_with('[');
    let (start, end) = match setting.section {
        None => (0, lines.iter().position(is_header).unwrap_or(lines.len())),
        Some(section) => {
            let header = format!("[{section}]");
            let Some(at) = lines.iter().position(|line| line.trim_end() == header) else {
                if lines.last().is_some_and(|last| !last.is_empty()) {
                    lines.push(String::new());
                }
                lines.extend([header, setting.line()]);
                return;
            };
            let len = lines[at + 1..].iter().position(is_header);
            (at + 1, len.map_or(lines.len(), |len| at + 1 + len))
        }
    };
    let within = lines[start..end].iter().position(|line| setting.is_set_by(line));
    match within.map(|at| start + at) {
        Some(at) => {
            let more = lines[at + 1..end].iter().take_while(|line| setting.goes_on(line)).count();
            lines.splice(at..=at + more, [setting.line()]);
        }
        None => {
            // Behind the last line of the section that says something.
            let last = lines[start..end].iter().rposition(|line| !line.trim().is_empty());
            lines.insert(last.map_or(start, |last| start + last + 1), setting.line());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(section: Option<&'static str>, key: &str, between: &'static str) -> Setting {
        Setting { section, key: key.to_owned(), between, value: "new".to_owned() }
    }

    #[test]
    fn what_is_there_stays() {
        let ini = setting(Some("global"), "index-url", " = ");
        for (before, after) in [
            ("", "[global]\nindex-url = new\n"),
            ("[install]\nx = 1\n", "[install]\nx = 1\n\n[global]\nindex-url = new\n"),
            (
                "# a\n[global]\nindex-url=old\ntimeout = 9\n\n[install]\nindex-url = other\n",
                "# a\n[global]\nindex-url = new\ntimeout = 9\n\n[install]\nindex-url = other\n",
            ),
            (
                "[global]\ntimeout = 9\n\n[install]\n",
                "[global]\ntimeout = 9\nindex-url = new\n\n[install]\n",
            ),
            (
                "[global]\nindex-url =\n    one\n    two\nextra-index-url = x\n",
                "[global]\nindex-url = new\nextra-index-url = x\n",
            ),
        ] {
            let set_once = set(before, std::slice::from_ref(&ini));
            assert_eq!(set_once, after);
            assert_eq!(set(after, std::slice::from_ref(&ini)), after);
        }
        let yaml = setting(None, ":sources", ": ");
        let gemrc = "---\n:sources:\n- https://a.example/\n- b\n:verbose: true\n";
        assert_eq!(set(gemrc, &[yaml]), "---\n:sources: new\n:verbose: true\n");
        let npm = setting(None, "registry", "=");
        let npmrc = "registryx=1\n@a:registry=b\nregistry = old\n";
        assert_eq!(set(npmrc, &[npm]), "registryx=1\n@a:registry=b\nregistry=new\n");
        let yarn = setting(None, "registry", " ");
        assert_eq!(set("registry \"old\"\n", &[yarn]), "registry new\n");
    }
}
