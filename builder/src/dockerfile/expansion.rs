//! Variables in words: `$a`, `${a:-b}`, quotes and escapes, as BuildKit's shell lexer has them.
//!
//! An [`Expander`] walks a word once, from left to right, and never looks at its own output again,
//! so a value that holds a `$` stays as it is. It is a shell's expansion without the shell:
//!
//! | form | meaning |
//! |---|---|
//! | `$v` `${v}` | the value, empty if unset |
//! | `${v:-w}` `${v-w}` | `w` if unset (with the colon: or empty) |
//! | `${v:+w}` `${v+w}` | `w` if set (with the colon: and not empty) |
//! | `${v:?m}` `${v?m}` | an error with the message `m` if unset (with the colon: or empty) |
//! | `${v#p}` `${v##p}` | without the shortest, longest prefix that matches `p` |
//! | `${v%p}` `${v%%p}` | without the shortest, longest suffix |
//! | `${v/p/r}` `${v//p/r}` | the first match, every match replaced |
//! | `'..'` `".."` `\x` | literal text; text with `$` and `\" \$ \\`; the character itself |
//!
//! What an instruction leaves unexpanded (RUN's text, for one) is decided by who calls this, not
//! here. Nesting and the size of a result are limited, for words come from strangers.

mod pattern;
mod variables;
mod walk;

use std::collections::BTreeSet;

pub use variables::Variables;

use walk::Walk;

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpansionError {
    /// A quote is opened and never closed.
    #[error("missing closing {0}")]
    UnbalancedQuote(char),
    /// `${` without `}`.
    #[error("missing `}}` after `${{`")]
    MissingBrace,
    /// `${v/p` without its second slash.
    #[error("missing second `/` in `${{{0}/...}}`")]
    MissingSlash(String),
    /// `${}`, `${:...}` or `${{`.
    #[error("bad substitution: `${{` needs a variable's name")]
    BadSubstitution,
    /// `${v` followed by something that is no operator.
    #[error("unsupported modifier `{modifier}` in `${{{name}{modifier}...}}`")]
    UnsupportedModifier {
        /// The variable.
        name: String,
        /// What stands where the operator should.
        modifier: String,
    },
    /// `${v?m}` or `${v:?m}`, and the variable has no value.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message of the Dockerfile's author, or the default one.
        message: String,
    },
    /// The pattern of `#`, `%` or `/` cannot be read.
    #[error("invalid pattern `{pattern}`: {reason}")]
    InvalidPattern {
        /// The pattern after its own expansion.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `${a:-${b:-${c:-...`: more levels than anyone writes by hand.
    #[error("variables are nested more than {} levels deep", walk::DEPTH_MAX)]
    TooDeep,
    /// The result grows without measure (`ENV a=$a$a` repeated).
    #[error("the expanded text is larger than {} MiB", walk::GROWTH_MAX >> 20)]
    TooLarge,
}

/// The result of an expansion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// The text with every variable replaced.
    pub text: String,
    /// Names that were looked up and found, without repetition, in order.
    pub used: BTreeSet<String>,
    /// Names that were looked up and are unset: what the rule `UndefinedVar` reports.
    pub unset: BTreeSet<String>,
}

/// The same for an expansion that splits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExpandedWords {
    /// The words; unquoted blanks separate them, those in values too.
    pub words: Vec<String>,
    /// Names that were looked up and found.
    pub used: BTreeSet<String>,
    /// Names that were looked up and are unset.
    pub unset: BTreeSet<String>,
}

/// Expands variables, with one escape character for all its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expander {
    options: Options,
}

/// What the walk keeps or skips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Options {
    /// The character that takes away the meaning of the next one.
    pub(super) escape: char,
    /// Quotes stay in the result.
    pub(super) keep_quotes: bool,
    /// Escape characters stay in the result.
    pub(super) keep_escapes: bool,
    /// Quotes mean nothing and are copied.
    pub(super) ignore_quotes: bool,
    /// An unset variable stays as it was written.
    pub(super) keep_unset: bool,
}

impl Expander {
    /// Returns an expander with the escape character of a Dockerfile (`\` or `` ` ``).
    #[must_use]
    pub const fn new(escape: char) -> Self {
        let options = Options {
            escape,
            keep_quotes: false,
            keep_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
        };
        Self { options }
    }

    /// Returns the same expander, for which quotes are ordinary characters.
    #[must_use]
    pub const fn ignoring_quotes(mut self) -> Self {
        self.options.ignore_quotes = true;
        self
    }

    pub(super) const fn with_options(options: Options) -> Self {
        Self { options }
    }

    /// Expands a word into one text; blanks in it stay.
    ///
    /// # Errors
    ///
    /// On malformed substitutions, unbalanced quotes, and `${v?}` of an unset variable.
    pub fn expand(&self, word: &str, vars: &dyn Variables) -> Result<Expanded, ExpansionError> {
        let mut walk = Walk::new(word, vars, self.options);
        let text = walk.whole(None)?;
        Ok(Expanded { text, used: walk.used, unset: walk.unset })
    }

    /// Expands a word and splits the result at unquoted blanks, as EXPOSE does.
    ///
    /// Words that come out empty are left out, even quoted ones.
    ///
    /// # Errors
    ///
    /// As for [`Expander::expand`].
    pub fn expand_words(
        &self,
        word: &str,
        vars: &dyn Variables,
    ) -> Result<ExpandedWords, ExpansionError> {
        let mut walk = Walk::new(word, vars, self.options);
        let mut words = walk::Words::default();
        walk.whole(Some(&mut words))?;
        Ok(ExpandedWords { words: words.finish(), used: walk.used, unset: walk.unset })
    }

    /// Expands the body of a heredoc file of COPY or ADD.
    ///
    /// Its escape is `\` whatever the Dockerfile's, and quotes are ordinary characters.
    ///
    /// # Errors
    ///
    /// As for [`Expander::expand`].
    pub fn expand_raw(&self, body: &str, vars: &dyn Variables) -> Result<Expanded, ExpansionError> {
        Self::new('\\').ignoring_quotes().expand(body, vars)
    }
}

#[cfg(test)]
mod tests;
