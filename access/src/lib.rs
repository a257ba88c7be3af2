//! Who may do what: users, tokens, certificates, rules.
//!
//! Empty: until there are rules, the registry lets everybody do everything.

#![forbid(unsafe_code)]
