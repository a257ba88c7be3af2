//! A small HTTP client that can also lie: requests are written as they are asked for, answers are
//! read whole. One connection per request.

use std::io::{Read as _, Write};
use std::net::TcpStream;
use std::time::Duration;

use boatyard_oci::Digest;

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Http {
    address: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status; 0 if the connection ended without one.
    pub status: u16,
    /// The header lines.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Http {
    /// Returns a client of the server at this host and port.
    pub fn new(address: &str) -> Http {
        Http { address: address.to_owned() }
    }

    /// Sends a request without a body.
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", &[])
    }

    /// Sends a request with an honest length.
    pub fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.send_claiming(method, path, headers, body, body.len() as u64)
    }

    /// Sends a request that claims to have this many bytes, and hangs up where they
    /// end too early.
    pub fn send_claiming(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
        claimed: u64,
    ) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Length: {claimed}\r\n{headers}\r\n",
            self.address
        );
        self.exchange(head.as_bytes(), body, claimed > body.len() as u64)
    }

    fn exchange(&self, head: &[u8], body: &[u8], hang_up: bool) -> Answer {
        let mut answer = Vec::new();
        // A server that dies, or refuses in the middle of a body, cuts the connection: what it
        // said until then is the answer.
        if let Ok(mut connection) = TcpStream::connect(&self.address) {
            connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let _ = connection.write_all(head).and_then(|()| connection.write_all(body));
            if hang_up {
                let _ = connection.shutdown(std::net::Shutdown::Write);
            }
            let _ = connection.read_to_end(&mut answer);
        }
        Answer::parse(&answer)
    }

    /// Pushes a blob in two requests; returns the last answer.
    pub fn push_blob(&self, repository: &str, bytes: &[u8]) -> Answer {
        self.push_blob_as(repository, bytes, &Digest::sha256(bytes).to_string())
    }

    /// Pushes a blob under a digest that may not be its own.
    pub fn push_blob_as(&self, repository: &str, bytes: &[u8], digest: &str) -> Answer {
        let begun = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]);
        let Some(location) = begun.header("location") else { return begun };
        let mark = if location.contains('?') { '&' } else { '?' };
        let headers = "Content-Type: application/octet-stream\r\n";
        self.send("PUT", &format!("{location}{mark}digest={digest}"), headers, bytes)
    }

    /// Pushes a manifest; returns the answer.
    pub fn push_manifest(&self, repository: &str, reference: &str, manifest: &[u8]) -> Answer {
        let value: serde_json::Value = serde_json::from_slice(manifest).unwrap();
        let media_type = value["mediaType"].as_str().unwrap();
        self.send(
            "PUT",
            &format!("/v2/{repository}/manifests/{reference}"),
            &format!("Content-Type: {media_type}\r\n"),
            manifest,
        )
    }

    /// Returns a manifest's bytes, whatever its type.
    pub fn manifest(&self, repository: &str, reference: &str) -> Answer {
        let accept = "Accept: application/vnd.oci.image.manifest.v1+json, \
            application/vnd.oci.image.index.v1+json, \
            application/vnd.docker.distribution.manifest.v2+json, \
            application/vnd.docker.distribution.manifest.list.v2+json\r\n";
        self.send("GET", &format!("/v2/{repository}/manifests/{reference}"), accept, &[])
    }

    /// Reads a tagged image whole, checks every byte of it, and returns the manifest's digest.
    #[track_caller]
    pub fn check_image(&self, repository: &str, reference: &str) -> Digest {
        let answer = self.manifest(repository, reference);
        assert_eq!(answer.status, 200, "{repository}:{reference}: {answer:?}");
        let digest = Digest::sha256(&answer.body);
        assert_eq!(answer.header("docker-content-digest"), Some(&*digest.to_string()));
        for blob in needs(&answer.body) {
            self.check_blob(repository, &blob);
        }
        digest
    }

    /// Reads a blob whole and checks that its bytes are those of its name.
    #[track_caller]
    pub fn check_blob(&self, repository: &str, digest: &str) {
        let answer = self.get(&format!("/v2/{repository}/blobs/{digest}"));
        assert_eq!(answer.status, 200, "{repository}@{digest}: {}", answer.text());
        assert_eq!(Digest::sha256(&answer.body).to_string(), digest, "{} bytes", answer.body.len());
    }
}

/// Returns the digests of an image manifest's config and layers.
pub fn needs(manifest: &[u8]) -> Vec<String> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let all = std::iter::once(&manifest["config"]).chain(layers);
    all.map(|descriptor| descriptor["digest"].as_str().unwrap().to_owned()).collect()
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, body) =
            end.map_or((bytes, &bytes[..0]), |end| (&bytes[..end], &bytes[end + 4..]));
        let head = String::from_utf8_lossy(head).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Answer { status, head, body: body.to_vec() }
    }

    /// Returns a header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
