//! Who may do what: users, tokens, certificates, rules.
//!
//! A service asks two things of this crate for each request. *Who is it?* An [`Authority`] turns
//! what came with the request ([`Presented`]) into a [`Caller`]. *May they?* [`Access::decide`]
//! says so for an [`Action`] on a repository. All else is what these two need: the users' file,
//! the tokens, the signing key, the rules of the configuration, and the log of who did what.
//!
//! ```text
//! Authorization, certificate, address, Host ──> Authority::admit ──> Caller
//!      Caller + Action + repository ──> Access::decide ──> Verdict
//! ```

#![forbid(unsafe_code)]

pub mod action;
pub mod audit;
pub mod authority;
pub mod caller;
pub mod certificate;
pub mod identity;
pub mod origin;
pub mod password;
pub mod pattern;
pub mod rules;
pub mod signer;
pub mod tokens;
pub mod users;

mod passwords;
mod private;
mod throttle;
mod watched;

pub use action::{Action, Right, RightError, Rights};
pub use audit::{Audit, Deed, Entry};
pub use authority::{
    Admission, AskedScope, Authority, AuthorityError, Policy, Presented, Refusal, WithoutRules,
};
pub use caller::{Access, Caller, Grant, OpenAccess, Origin, Verdict};
pub use identity::{CertificateName, Identity, Name, NameError};
pub use origin::{Connection, Network, Surroundings, TOKEN_PATH};
pub use password::{Cost, PasswordHash};
pub use pattern::{PatternError, RepositoryPattern};
pub use private::FileError;
pub use rules::{Groups, Rule, RuleError, Rules, Scope, Who};
pub use tokens::{Token, Tokens, TokensError};
pub use users::{UsersError, UsersFile};
