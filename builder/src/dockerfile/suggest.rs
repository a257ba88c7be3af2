//! "Did you mean ...?": the known word nearest to a mistyped one.

/// Words that differ by this many edits or more are not suggested.
const DISTANCE_MAX: usize = 3;
/// Longer words are not compared: the distance costs the product of both lengths.
const WORD_LEN_MAX: usize = 64;

/// Returns the option nearest to `word`, if it is fewer than three edits away.
///
/// Letter case is ignored unless `case_sensitive`; an option that equals the word means that the
/// mistake lies elsewhere, so then nothing is suggested. Of equally near ones the first wins.
pub fn nearest<'a>(
    word: &str,
    options: impl IntoIterator<Item = &'a str>,
    case_sensitive: bool,
) -> Option<&'a str> {
    if word.len() > WORD_LEN_MAX {
        return None;
    }
    let fold = |text: &str| if case_sensitive { text.to_owned() } else { text.to_lowercase() };
    let word = fold(word);
    let mut best = None;
    let mut best_distance = DISTANCE_MAX;
    for option in options.into_iter().filter(|option| option.len() <= WORD_LEN_MAX) {
        let folded = fold(option);
        if folded == word {
            return None;
        }
        let distance = edit_distance(&word, &folded);
        // Replacing every letter is no mistyping: `x` does not mean `a`.
        if distance < best_distance && distance < folded.chars().count() {
            best = Some(option);
            best_distance = distance;
        }
    }
    best
}

/// Returns Levenshtein's distance: insertions, deletions and replacements each cost one.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, left) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, right) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_if_it_is_near() {
        let cases = [
            ("RUNN", false, Some("RUN")),
            ("runn", false, Some("RUN")),
            ("cpy", false, Some("COPY")),
            ("entrpoint", false, Some("ENTRYPOINT")),
            ("run", false, None),
            ("nothing-alike", false, None),
            ("x", false, None),
            ("run", true, None),
        ];
        for (word, case_sensitive, expected) in cases {
            let options = ["RUN", "COPY", "ENTRYPOINT", "FROM"];
            assert_eq!(nearest(word, options, case_sensitive), expected, "{word}");
        }
        assert_eq!(nearest(&"R".repeat(70_000), ["RUN"], false), None);
    }
}
