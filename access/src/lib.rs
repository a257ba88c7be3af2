//! Who may do what: users, tokens, certificates, rules.
//!
//! A service asks two things of this crate for each request. *Who is it?* An `Authority` turns
//! what came with the request (`Presented`) into a [`Caller`]. *May they?* [`Access::decide`]
//! says so for an [`Action`] on a repository. All else is what these two need: the users' file,
//! the tokens, the signing key, the rules of the configuration, and the log of who did what.
//!
//! ```text
//! Authorization, certificate, address, Host ──> Authority::admit ──> Caller
//!      Caller + Action + repository ──> Access::decide ──> Verdict
//! ```

#![forbid(unsafe_code)]

pub mod action;
pub mod caller;
pub mod identity;
pub mod pattern;
pub mod rules;

pub use action::{Action, Right, Rights};
pub use caller::{Access, Caller, Grant, OpenAccess, Origin, Verdict};
pub use identity::{Identity, Name, NameError};
pub use pattern::{PatternError, RepositoryPattern};
pub use rules::{Groups, Rule, RuleError, Rules, Scope, Who};
