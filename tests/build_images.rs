//! Images that we built, as others unpack and run them: every file is what the Dockerfile says, and
//! so are the configuration and the history.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::json;
use support::clients;
use support::place::text;
use support::{Place, Server, images, tree};

const DOCKERFILE: &str = r#"# syntax=docker/dockerfile:1
ARG GREETING=hello

FROM busybox AS build
ARG GREETING
WORKDIR /src
COPY input.txt .
RUN mkdir /out && printf '#!/bin/sh\necho %s from $(id -u):$(id -g), $(wc -l < /made/input.txt) line\n' "$GREETING" > /out/hello && chmod 755 /out/hello

FROM scratch AS archives
ADD special.tar /special/

FROM busybox AS ground
RUN mkdir -p /made/kept /made/opaque/deep /made/to-file && touch -d @100 /made/removed /made/kept/a /made/opaque/old /made/opaque/deep/older /made/to-file/x /made/to-dir /made/linked && ln /made/linked /made/other-name

FROM ground
RUN rm /made/removed && rm -r /made/opaque /made/to-file && rm /made/to-dir \
    && mkdir /made/opaque /made/to-dir && echo new > /made/opaque/new && echo file > /made/to-file \
    && echo in > /made/to-dir/in && chown 7:8 /made/kept && chmod 2750 /made/kept
RUN cd /made && cp /bin/busybox /tmp/b && rm /tmp/b && echo 0123456789 > setuid && chmod 4755 setuid \
    && ln -s ../no/where dangling && ln setuid setuid-too && mkdir sticky && chmod 1777 sticky \
    && truncate -s 1000000 sparse && : > empty && touch "with space" "$(printf 'caf\351')" \
    && mkfifo pipe && chown 12345:54321 empty && mkdir -m 000 closed && echo x > closed/x
COPY --chown=app:staff --chmod=0640 input.txt /made/
COPY --link --chown=1:2 tree /made/tree/
COPY --chmod=u=rwX,go=rX tree/run.sh /made/run.sh
COPY --from=build --chown=app /out /made/bin
COPY --from=archives /special /made/special
ADD special.tar /made/added/
COPY <<one <<two /made/here/
$PATH expands
one
two
ENV GREETING="hej hej" PATH=/made/bin:$PATH
LABEL org.example.title="An image" plain=yes
EXPOSE 8080 53/udp
VOLUME /data
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=5s --retries=2 CMD ["true"]
WORKDIR /made/yard
WORKDIR sub
USER app:staff
CMD ["hello"]
"#;

/// What must lie in `/made`, one line each as `tree` writes them; sums are of the contents above.
const MADE: &str = include_str!("build_images/made.txt");

/// Makes the context: names, modes and kinds of files that are easily got wrong.
fn context(place: &Place) -> std::path::PathBuf {
    let context = place.context("context", DOCKERFILE);
    place.write("context/input.txt", "one line\n");
    place.write("context/tree/plain", "plain\n");
    place.write("context/tree/run.sh", "#!/bin/sh\n");
    place.write("context/tree/dir/below", "");
    set_mode(&context.join("tree/run.sh"), 0o755);
    set_mode(&context.join("tree/dir"), 0o711);
    set_mode(&context.join("tree/dir/below"), 0o4604);
    let odd = context.join("tree").join(OsStr::from_bytes(b"\xff\xfe odd\n"));
    fs_err::write(odd, "odd").unwrap();
    symlink("/made/tree/plain", context.join("tree/link")).unwrap();
    special_archive(place, &context.join("special.tar"));
    context
}

fn set_mode(path: &Path, mode: u32) {
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Archives what only an archive can bring: owners, hard links, devices, extended attributes.
fn special_archive(place: &Place, archive: &Path) {
    let directory = place.path("special");
    let at = |name: &str| directory.join(name);
    place.write("special/able", "may ping\n");
    place.write("special/first", "shared\n");
    fs_err::hard_link(at("first"), at("second")).unwrap();
    // CAP_NET_RAW, permitted and effective: as `setcap cap_net_raw+ep` writes it.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let no_flags = rustix::fs::XattrFlags::empty();
    std::os::unix::fs::chown(at("able"), Some(3), Some(4)).unwrap();
    rustix::fs::lsetxattr(at("able"), "security.capability", &capability, no_flags).unwrap();
    rustix::fs::lsetxattr(at("first"), "user.note", b"kept", no_flags).unwrap();
    place.run("mknod", [text(&at("null")), "c", "1", "3"]).ok();
    place
        .run("tar", ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--sort=name"])
        .args(["-C", text(&directory), "-cf", text(archive), "."])
        .ok();
}

#[test]
fn what_we_build_is_what_others_unpack_and_run() {
    let place = Place::new();
    images::busybox(&place);
    let server = Server::start(&place);
    let image = server.image("team/app:1");
    let context = context(&place);
    place.boatyard(["build", "--progress=plain", "--push", "-t", &image, text(&context)]).ok();
    let digest = server.http().check_image("team/app", "1");

    let expected: Vec<String> = MADE.lines().map(str::to_owned).collect();
    for client in &clients::all(&place) {
        assert_eq!(client.pull(&image), digest, "{}", client.name());
        let listed = tree::list(&client.unpack(&image));
        tree::assert_same(client.name(), &tree::below(&listed, "made"), &expected);
        if let Some(said) = client.run(&image) {
            assert_eq!(said, "hello from 1000:50, 1 line", "{}", client.name());
        }
    }
    configuration_is_as_written(&server);
    server.stop();
}

fn configuration_is_as_written(server: &Server) {
    let manifest = server.http().manifest("team/app", "1");
    let config = &support::http::needs(&manifest.body)[0];
    let config = server.http().get(&format!("/v2/team/app/blobs/{config}"));
    let config: serde_json::Value = serde_json::from_slice(&config.body).unwrap();
    assert_eq!(
        config["config"],
        json!({
            "User": "app:staff",
            "ExposedPorts": { "53/udp": {}, "8080/tcp": {} },
            "Env": ["PATH=/made/bin:/bin", "GREETING=hej hej"],
            "Cmd": ["hello"],
            "Healthcheck": { "Test": ["CMD", "true"], "Interval": 5_000_000_000_u64, "Retries": 2 },
            "Volumes": { "/data": {} },
            "WorkingDir": "/made/yard/sub",
            "Labels": { "org.example.title": "An image", "plain": "yes" },
            "StopSignal": "SIGUSR1",
            // As BuildKit says it of every CMD.
            "ArgsEscaped": true,
        })
    );
    let history = config["history"].as_array().unwrap();
    let said: Vec<String> = history
        .iter()
        .map(|entry| {
            let empty = if entry["empty_layer"] == true { "(empty) " } else { "" };
            let words = entry["created_by"].as_str().unwrap();
            format!("{empty}{}", words.chars().take(72).collect::<String>())
        })
        .collect();
    assert_eq!(said, include_str!("build_images/history.txt").lines().collect::<Vec<_>>());
    let layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), layers);
}
