//! Variables in words: the first line is the value of `a`, the second of `b`, the rest is the word.
#![no_main]

use boatyard_builder::dockerfile::expansion::Expander;

libfuzzer_sys::fuzz_target!(|data: &str| {
    let mut lines = data.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default().to_owned();
    let variables = vec![("a".to_owned(), line()), ("b".to_owned(), line())];
    let word = line();
    for escape in ['\\', '`'] {
        let expander = Expander::new(escape);
        let _ = expander.expand(&word, &variables);
        let _ = expander.expand_words(&word, &variables);
        let _ = expander.ignoring_quotes().expand(&word, &variables);
        let _ = expander.expand_raw(&word, &variables);
    }
    // What holds neither variables nor quotes nor escapes is itself.
    if !word.contains(['$', '\'', '"', '\\']) {
        let expanded = Expander::new('\\').expand(&word, &variables);
        assert_eq!(expanded.map(|expanded| expanded.text).as_deref(), Ok(word.as_str()));
    }
});
