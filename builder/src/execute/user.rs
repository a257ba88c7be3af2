//! From the words of `USER` to the numbers that the kernel knows.
//!
//! Pure: the caller reads `/etc/passwd` and `/etc/group` of the image, with
//! [`rootfs::read_file`](super::rootfs::read_file) and [`FILE_BYTES_MAX`].

use super::spec::User;

/// The largest `/etc/passwd` or `/etc/group` that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 10 << 20;

/// The largest id that the field's tools accept.
const ID_MAX: u32 = i32::MAX.cast_unsigned();

/// Why a `USER` names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// The user is neither a number nor in the image.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    /// The group is neither a number nor in the image.
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    /// The number is no id.
    #[error("user and group ids must be between 0 and {ID_MAX}, not {0}")]
    OutOfRange(String),
}

/// Resolves `user`, `user:group` or nothing at all, which is root.
///
/// - A number is an id, whether the files know it or not.
/// - A user without a group gets the group of its passwd entry, else 0, and all groups that
///   list it as a member.
/// - With a group given, there are no supplementary groups.
/// - The home directory is that of the first passwd entry with the id, else `/`.
///
/// Lines that cannot be understood are skipped.
///
/// # Errors
///
/// If a name is not found, or a number is not an id.
pub fn resolve(user: &str, passwd: Option<&[u8]>, group: Option<&[u8]>) -> Result<User, UserError> {
    let passwd = String::from_utf8_lossy(passwd.unwrap_or_default());
    let group = String::from_utf8_lossy(group.unwrap_or_default());
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let account = find_account(&passwd, user)?;
    let (gid, groups) = match (wanted_group, account.name) {
        (Some(wanted), _) => (find_group(&group, wanted)?, Vec::new()),
        (None, Some(name)) => (account.gid, memberships(&group, name)),
        (None, None) => (account.gid, Vec::new()),
    };
    let home = accounts(&passwd).find(|known| known.uid == account.uid);
    let home = home.map(|known| known.home).filter(|home| !home.is_empty());
    Ok(User { uid: account.uid, gid, groups, home: home.unwrap_or("/").to_owned() })
}

#[derive(Debug, Clone, Copy)]
struct Account<'a> {
    /// `None` for a number that no entry has.
    name: Option<&'a str>,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// passwd(5): `name:password:UID:GID:comment:home:shell`.
fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let uid = fields.get(2)?.parse().ok()?;
        let gid = fields.get(3)?.parse().ok()?;
        let name = fields.first().copied().filter(|name| !name.is_empty())?;
        Some(Account { name: Some(name), uid, gid, home: fields.get(5).copied().unwrap_or("") })
    })
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// group(5): `name:password:GID:member,member`.
fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().splitn(4, ':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Group { name, gid, members: fields.next().unwrap_or("") })
    })
}

fn find_account<'a>(passwd: &'a str, user: &str) -> Result<Account<'a>, UserError> {
    let number = id(user)?;
    let found = accounts(passwd).find(|account| match number {
        Some(uid) => account.uid == uid,
        None => account.name == Some(user),
    });
    match (found, number) {
        (Some(account), _) => Ok(account),
        (None, Some(uid)) => Ok(Account { name: None, uid, gid: 0, home: "" }),
        (None, None) => Err(UserError::UnknownUser(user.to_owned())),
    }
}

fn find_group(group: &str, wanted: &str) -> Result<u32, UserError> {
    if let Some(gid) = id(wanted)? {
        return Ok(gid);
    }
    let found = groups(group).find(|group| group.name == wanted);
    found.map(|group| group.gid).ok_or_else(|| UserError::UnknownGroup(wanted.to_owned()))
}

fn memberships(group: &str, name: &str) -> Vec<u32> {
    let mut gids: Vec<u32> = Vec::new();
    for group in groups(group) {
        let member = group.members.split(',').any(|member| member.trim() == name);
        if member && !gids.contains(&group.gid) {
            gids.push(group.gid);
        }
    }
    gids
}

/// Returns the number that `text` is; `None` if it is a name.
fn id(text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id <= ID_MAX => Ok(Some(id)),
        _ => Err(UserError::OutOfRange(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        ada:x:1000:1000:Ada,,,:/home/ada:/bin/sh\n\
        broken\n\
        bad:x:nine:9::/:\n\
        twin:x:1000:1001::/home/twin:\n\
        1234:x:77:78::/home/digits:\n\
        homeless:x:50:50:::\n";
    const GROUP: &str = "root:x:0:root\nwheel:x:10:root,ada\nada:x:1000:\nbroken:x\n\
        audio:x:29:ada , bob\nwheel2:x:10:ada\n2000:x:5:\n";

    fn resolved(user: &str) -> String {
        match resolve(user, Some(PASSWD.as_bytes()), Some(GROUP.as_bytes())) {
            Ok(User { uid, gid, groups, home }) => format!("{uid}:{gid} {groups:?} {home}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn names_and_numbers() {
        for (user, expected) in [
            ("", "0:0 [0, 10] /root"),
            ("root", "0:0 [0, 10] /root"),
            ("0", "0:0 [0, 10] /root"),
            ("ada", "1000:1000 [10, 29] /home/ada"),
            ("1000", "1000:1000 [10, 29] /home/ada"),
            ("twin", "1000:1001 [] /home/ada"),
            ("ada:wheel", "1000:10 [] /home/ada"),
            ("ada:", "1000:1000 [10, 29] /home/ada"),
            (":wheel", "0:10 [] /root"),
            ("ada:29", "1000:29 [] /home/ada"),
            ("ada:4000", "1000:4000 [] /home/ada"),
            ("5000", "5000:0 [] /"),
            ("5000:5001", "5000:5001 [] /"),
            ("1234", "1234:0 [] /"),
            ("ada:2000", "1000:2000 [] /home/ada"),
            ("homeless", "50:50 [] /"),
            ("bad", "unable to find user bad: no matching entries in passwd file"),
            ("broken", "unable to find user broken: no matching entries in passwd file"),
            ("ada:nobody", "unable to find group nobody: no matching entries in group file"),
            ("4294967295", "user and group ids must be between 0 and 2147483647, not 4294967295"),
            ("-1", "user and group ids must be between 0 and 2147483647, not -1"),
            (
                "ada:99999999999999999999",
                "user and group ids must be between 0 and 2147483647, not 99999999999999999999",
            ),
        ] {
            assert_eq!(resolved(user), expected, "USER {user}");
        }
    }

    #[test]
    fn an_image_without_the_files_knows_numbers_only() {
        let nowhere = |user| resolve(user, None, None);
        assert_eq!(nowhere(""), Ok(User::root()));
        assert_eq!(nowhere("7:8").map(|user| (user.uid, user.gid)), Ok((7, 8)));
        assert_eq!(nowhere("root"), Err(UserError::UnknownUser("root".to_owned())));
    }

    #[test]
    fn bytes_that_are_not_text_are_skipped() {
        let passwd = b"\xff\xfe:x:1:1::/:\nada:x:7:7::/home/ada:\n";
        assert_eq!(resolve("ada", Some(passwd), None).map(|user| user.uid), Ok(7));
    }
}
