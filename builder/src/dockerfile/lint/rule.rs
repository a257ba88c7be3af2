//! The rules, with BuildKit's names.

macro_rules! rules {
    ($($name:ident: $description:literal,)*) => {
        /// A rule of the linter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "each rule's description says what it means")]
        pub enum Rule { $($name,)* }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns its name, as `# check=skip=` has it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Returns what it asks for.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => $description,)* }
            }
        }
    };
}

rules! {
    StageNameCasing: "stage names should be lowercase",
    FromAsCasing: "the `as` keyword should match the case of the `from` keyword",
    NoEmptyContinuation: "an empty line stands inside the instruction",
    ConsistentInstructionCasing: "all instructions should use the same casing",
    DuplicateStageName: "stage names should be unique",
    ReservedStageName: "reserved words should not be used as stage names",
    JSONArgsRecommended: "JSON arguments are recommended for ENTRYPOINT and CMD",
    MaintainerDeprecated: "`MAINTAINER` is deprecated in favor of a label",
    UndefinedArgInFrom: "`FROM` must use declared arguments",
    WorkdirRelativePath: "a relative `WORKDIR` depends on the base image",
    UndefinedVar: "variables should be defined before their use",
    MultipleInstructionsDisallowed: "only the last instruction of this kind is used",
    LegacyKeyValueFormat: "the old key and value format should not be used",
    InvalidBaseImagePlatform: "the base image is not of the expected platform",
    RedundantTargetPlatform: "`$TARGETPLATFORM` is the default platform of `FROM`",
    SecretsUsedInArgOrEnv: "`ARG` and `ENV` are no place for secrets",
    InvalidDefaultArgInFrom: "the default of an argument makes an invalid image name",
    FromPlatformFlagConstDisallowed: "`FROM --platform` should not be constant",
    CopyIgnoredFile: "the copied file is excluded by .dockerignore",
    InvalidDefinitionDescription: "the comment does not describe what stands below it",
    ExposeProtoCasing: "the protocol of `EXPOSE` should be lowercase",
    ExposeInvalidFormat: "`EXPOSE` should not name an address or a port of the host",
}

impl Rule {
    /// Tells whether it must be asked for by `experimental=`.
    #[must_use]
    pub const fn is_experimental(self) -> bool {
        matches!(self, Self::InvalidDefinitionDescription)
    }

    /// Returns how to mend what it finds, where that is not plain.
    #[must_use]
    pub const fn hint(self) -> Option<&'static str> {
        match self {
            Self::NoEmptyContinuation => Some("remove the empty line, or make it a comment"),
            Self::JSONArgsRecommended => Some("write [\"program\", \"argument\"]"),
            Self::MaintainerDeprecated => {
                Some("write `LABEL org.opencontainers.image.authors=\"...\"`")
            }
            Self::SecretsUsedInArgOrEnv => Some("use `RUN --mount=type=secret`"),
            Self::RedundantTargetPlatform => Some("remove the flag"),
            _ => None,
        }
    }
}
