//! The form of what a command lists.

/// The form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// The options that choose it.
#[derive(Debug, clap::Args)]
pub struct FormatArgs {
    /// Print a table for people, or an object on each line for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl FormatArgs {
    /// Says whether programs read it.
    pub fn is_json(&self) -> bool {
        self.json || self.format == Format::Json
    }
}
