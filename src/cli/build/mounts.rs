//! What steps may mount of whoever builds: `--secret` and `--ssh`.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use boatyard_builder::build::MountSources;
use boatyard_builder::execute::Hidden;
use boatyard_builder::secrets::{SecretSource, Secrets};
use boatyard_builder::ssh::{AgentSource, Agents};

use super::options::Args;
use crate::report::{Failure, Result};
use crate::world::World;

/// Reads what was given; files are only looked for. The project is not known yet.
pub fn of(world: &World, args: &Args) -> Result<MountSources> {
    Ok(MountSources {
        secrets: secrets(&args.secrets)?,
        agents: agents(&args.ssh, &world.environment.path)?,
        project: String::new(),
    })
}

fn secrets(given: &[String]) -> Result<Secrets> {
    let mut secrets = Secrets::default();
    for text in given {
        let (id, source) = secret(text, &variable)?;
        if !secrets.add(&id, source) {
            return Err(Failure::usage(format!("--secret gives `{id}` twice")));
        }
    }
    Ok(secrets)
}

#[expect(clippy::disallowed_methods, reason = "this is the command")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads `id=ID[,src=FILE][,env=NAME][,type=file|env]`. Without a source, the variable of that name
/// is taken, or else the file.
fn secret(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<(String, SecretSource)> {
    // A source may be a secret by mistake: it is not shown.
    let wrong = |why: &str| {
        Failure::usage(format!("cannot use a --secret: {why}"))
            .hint("write id=ID,src=FILE or id=ID,env=NAME")
    };
    let (mut id, mut file, mut env, mut kind) = (None, None, None, None);
    for pair in text.split(',') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let place = match key.trim().to_ascii_lowercase().as_str() {
            "id" => &mut id,
            "src" | "source" => &mut file,
            "env" => &mut env,
            "type" => &mut kind,
            _ => return Err(wrong("it has an option that is none")),
        };
        if value.is_empty() || place.replace(value).is_some() {
            return Err(wrong("an option has no value, or stands there twice"));
        }
    }
    let id = id.ok_or_else(|| wrong("it has no id"))?.to_owned();
    match (kind, file) {
        // As in buildx, `src` of this type is the variable.
        (Some("env"), Some(name)) if env.is_none() => (env, file) = (Some(name), None),
        (Some("env" | "file") | None, _) => {}
        (Some(_), _) => return Err(wrong("its type is neither file nor env")),
    }
    if file.is_some() && env.is_some() {
        return Err(wrong(&format!("`{id}` is either in a file or in a variable")));
    }
    let name = env.map_or_else(|| id.clone(), str::to_owned);
    if file.is_none() && kind != Some("file") {
        match variable(&name) {
            Some(value) => return Ok((id, SecretSource::Value(Hidden::new(value)))),
            None if env.is_some() || kind == Some("env") => {
                return Err(wrong(&format!("the variable {name} of `{id}` is not set")));
            }
            None => {}
        }
    }
    let path = PathBuf::from(file.unwrap_or(&id));
    match fs_err::metadata(&path) {
        Ok(found) if found.is_dir() => {
            Err(wrong(&format!("`{id}` would be {}, which is a directory", path.display())))
        }
        Ok(_) => Ok((id, SecretSource::File(path))),
        Err(error) => Err(wrong(&format!("`{id}` cannot be read")).because(error)),
    }
}

fn agents(given: &[String], search: &[PathBuf]) -> Result<Agents> {
    let mut agents = Agents::new(search.to_vec());
    for text in given {
        let (id, source) = agent(text, &variable)?;
        if !agents.add(&id, source) {
            return Err(Failure::usage(format!("--ssh gives `{id}` twice")));
        }
    }
    Ok(agents)
}

/// Reads `ID`, `ID=SOCKET` or `ID=KEY[,KEY]`.
fn agent(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<(String, AgentSource)> {
    let wrong = |why: String| Failure::usage(format!("cannot use --ssh {text}: {why}"));
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    if id.is_empty() {
        return Err(wrong("it has no id".to_owned()));
    }
    if paths.is_empty() {
        let socket = variable("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
        let socket = socket.ok_or_else(|| {
            wrong("SSH_AUTH_SOCK is not set: no agent runs".to_owned())
                .hint("name a key: --ssh default=$HOME/.ssh/id_ed25519")
        })?;
        return Ok((id.to_owned(), AgentSource::Socket(PathBuf::from(socket))));
    }
    let paths: Vec<PathBuf> = paths.split(',').map(PathBuf::from).collect();
    let is_socket = |path: &Path| -> Result<bool> {
        let found =
            fs_err::metadata(path).map_err(|error| wrong("it is not there".into()).because(error));
        Ok(found?.file_type().is_socket())
    };
    let sockets = paths.iter().map(|path| is_socket(path)).collect::<Result<Vec<_>>>()?;
    match (&paths[..], &sockets[..]) {
        ([socket], [true]) => Ok((id.to_owned(), AgentSource::Socket(socket.clone()))),
        (_, sockets) if sockets.contains(&true) => {
            Err(wrong("it is either one socket, or keys".to_owned()))
        }
        _ => Ok((id.to_owned(), AgentSource::Keys(paths))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_value(source: &SecretSource, expected: &str) -> bool {
        matches!(source, SecretSource::Value(value) if value.reveal() == expected)
    }

    #[test]
    fn secrets_in_every_form() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs_err::write(&file, "x").unwrap();
        let file = file.to_str().unwrap();
        let variable = |name: &str| (name == "TOKEN").then(|| "hunter2".to_owned());
        let read = |text: &str| secret(text, &variable);
        for text in
            ["id=a,env=TOKEN", "id=TOKEN", "type=env,id=a,src=TOKEN", "TYPE=env,id=a,env=TOKEN"]
        {
            let (_, source) = read(text).unwrap();
            assert!(is_value(&source, "hunter2"), "{text}");
            assert!(!format!("{source:?}").contains("hunter2"));
        }
        for text in [
            format!("id=a,src={file}"),
            format!("id={file}"),
            format!("type=file,id=a,source={file}"),
        ] {
            let (_, source) = read(&text).unwrap();
            assert!(
                matches!(source, SecretSource::File(found) if found == Path::new(file)),
                "{text}"
            );
        }
        let both = format!("id=a,src={file},env=TOKEN");
        for bad in ["src=x", "id=", "id=a,env=NONE", "id=a,id=b", "id=a,src=/nonexistent", &both] {
            assert!(read(bad).is_err(), "{bad}");
        }
        for bad in ["id=a,type=vault", "id=a,what=hunter2", "hunter2", "id=a,src=/"] {
            let text = read(bad).unwrap_err().to_string();
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn agents_are_sockets_or_keys() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let _listener = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        fs_err::write(path("key"), "").unwrap();
        let (socket, key) = (path("socket"), path("key"));
        let none = |_: &str| None;
        let given = |name: &str| (name == "SSH_AUTH_SOCK").then(|| "/run/agent".to_owned());
        let default = ("default".to_owned(), AgentSource::Socket("/run/agent".into()));
        assert_eq!(agent("default", &given).unwrap(), default);
        let read = |text: String| agent(&text, &none);
        let expected = ("a".to_owned(), AgentSource::Socket(socket.clone()));
        assert_eq!(read(format!("a={}", socket.display())).unwrap(), expected);
        let expected = ("a".to_owned(), AgentSource::Keys(vec![key.clone(), key.clone()]));
        assert_eq!(read(format!("a={0},{0}", key.display())).unwrap(), expected);
        assert!(read("default".to_owned()).is_err());
        assert!(read("=x".to_owned()).is_err());
        assert!(read("a=/nonexistent".to_owned()).is_err());
        assert!(read(format!("a={},{}", socket.display(), key.display())).is_err());
    }
}
