//! What a user namespace of ours can hold: the switches of the kernel, and subordinate ids.

use super::tools::find;
use super::{Finding, Section, read};

/// Examines what an ordinary user's builds need.
pub(super) fn examine() -> Section {
    let uid = rustix::process::geteuid().as_raw();
    let mut findings = vec![limit()];
    if let Some(text) = read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") {
        findings.push(match text.as_str() {
            "1" => Finding::missing("AppArmor", "keeps ordinary users from user namespaces")
                .remedy("sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
            _ => Finding::good("AppArmor", "lets ordinary users make user namespaces"),
        });
    }
    if uid != 0 {
        findings.push(subordinate("/etc/subuid", "subuids"));
        findings.push(subordinate("/etc/subgid", "subgids"));
        findings.push(match (find("newuidmap"), find("newgidmap")) {
            (Some(_), Some(_)) => Finding::good("newuidmap", "there"),
            _ => Finding::missing("newuidmap", "all files of images will be one user's").remedy(
                "install uidmap (Debian, Ubuntu), shadow-utils (Fedora) or shadow-uidmap (Alpine)",
            ),
        });
    }
    Section { name: "User namespaces", findings }
}

fn limit() -> Finding {
    const NAME: &str = "allowed";
    if read("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return Finding::missing(NAME, "to root only")
            .remedy("sysctl kernel.unprivileged_userns_clone=1");
    }
    match read("/proc/sys/user/max_user_namespaces").as_deref() {
        None => Finding::missing(NAME, "this kernel has none"),
        Some("0") => Finding::missing(NAME, "none").remedy("sysctl user.max_user_namespaces=15000"),
        Some(most) => Finding::good(NAME, format!("up to {most} by the kernel")),
    }
}

/// Looks for the line of this user.
fn subordinate(path: &str, name: &'static str) -> Finding {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = read("/etc/passwd").unwrap_or_default();
    let user = user_name(&passwd, &uid).unwrap_or(&uid);
    let text = read(path).unwrap_or_default();
    match count(&text, &[user, &uid]) {
        0 => Finding::missing(name, format!("{path} has no line for {user}"))
            .remedy(format!("usermod --add-{name} 100000-165535 {user}")),
        count @ 1..65536 => Finding::missing(name, format!("{count}; images use 65536"))
            .remedy(format!("usermod --add-{name} 100000-165535 {user}")),
        count => Finding::good(name, count.to_string()),
    }
}

fn user_name<'a>(passwd: &'a str, uid: &str) -> Option<&'a str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    })
}

/// Counts the ids that lines of subuid(5) give to a user, by any of its names.
fn count(text: &str, names: &[&str]) -> u64 {
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        let user = fields.next()?;
        let count = fields.nth(1)?.trim().parse::<u64>().ok()?;
        names.contains(&user).then_some(count)
    };
    text.lines().filter_map(of_line).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_counted_for_one_user() {
        let text = "ada:100000:65536\nbob:200000:10\n1000:300000:5\nbroken\n";
        assert_eq!(count(text, &["ada", "1000"]), 65541);
        assert_eq!(count(text, &["eve"]), 0);
        assert_eq!(
            user_name("root:x:0:0::/:/bin/sh\nada:x:1000:1000::/:/bin/sh", "1000"),
            Some("ada")
        );
    }
}
