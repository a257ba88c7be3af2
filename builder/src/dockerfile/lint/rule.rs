//! The rules: BuildKit's with its names, and those of the book's lessons with names of our own.

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
    CleanupFreesNothing: "what a step deletes stays in the layers below it",
    CopyBeforeInstall: "what is copied before an installation makes it run again",
    LargeContextDirectory: "a large directory that no image needs is copied",
    AptListsLeftBehind: "the lists of packages stay in the layer",
    CompilerInFinalStage: "compilers stay in the image",
}

impl Rule {
    /// Tells whether it must be asked for by `experimental=`.
    #[must_use]
    pub const fn is_experimental(self) -> bool {
        matches!(self, Self::InvalidDefinitionDescription)
    }

    /// Tells whether it is one of the book's lessons, which BuildKit does not know: `error=true` does
    /// not make a build fail for it.
    #[must_use]
    pub const fn is_lesson(self) -> bool {
        matches!(
            self,
            Self::CleanupFreesNothing
                | Self::CopyBeforeInstall
                | Self::LargeContextDirectory
                | Self::AptListsLeftBehind
                | Self::CompilerInFinalStage
        )
    }

    /// Returns its name as addresses have it: `json-args-recommended`.
    #[must_use]
    pub fn slug(self) -> String {
        let mut slug = String::new();
        let mut before_lower = false;
        let letters: Vec<char> = self.name().chars().collect();
        for (at, letter) in letters.iter().enumerate() {
            let next_lower = letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
            if letter.is_ascii_uppercase() && at > 0 && (before_lower || next_lower) {
                slug.push('-');
            }
            slug.push(letter.to_ascii_lowercase());
            before_lower = letter.is_ascii_lowercase();
        }
        slug
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
            Self::CleanupFreesNothing => Some(
                "delete in the RUN that makes the files, or copy what is needed from an earlier stage",
            ),
            Self::CopyBeforeInstall => Some(
                "copy the files that list the dependencies, install, and copy the rest after it",
            ),
            Self::LargeContextDirectory => Some("name it in .dockerignore"),
            Self::AptListsLeftBehind => Some(
                "end the RUN with `&& rm -rf /var/lib/apt/lists/*`, or mount a cache on \
                 /var/lib/apt",
            ),
            Self::CompilerInFinalStage => {
                Some("compile in a stage of its own, and copy the result with COPY --from")
            }
            _ => None,
        }
    }
}
