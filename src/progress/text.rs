//! Text for a terminal: how wide it is, where it can be cut, and what of it is safe to print.

use std::time::Duration;

/// The distance between tab stops.
const TAB: usize = 8;

/// Returns a time as BuildKit puts it before a line: four digits, three behind the point at most.
pub fn stamp(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let digits = match seconds {
        ..10.0 => 3,
        10.0..100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.digits$}")
}

/// Returns how long something took, as BuildKit puts it after a step.
pub fn took(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

/// Returns the length of `bytes` without a character of UTF-8 that is cut off at their end.
///
/// Bytes that could not become a character, whatever follows, are no reason to wait.
pub fn whole_chars(bytes: &[u8]) -> usize {
    for (back, &byte) in bytes.iter().rev().take(3).enumerate() {
        let needed = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return bytes.len(),
        };
        let cut = needed > back + 1;
        return if cut { bytes.len() - back - 1 } else { bytes.len() };
    }
    bytes.len()
}

/// Returns a name or a message on one line: control characters become spaces.
pub fn one_line(text: &str) -> String {
    let line: String = (text.trim_end().chars())
        .filter(|&c| !turns(c))
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    line
}

/// Returns a line of output as text that moves nothing on a terminal: without control sequences,
/// with tabs as spaces, and with the replacement character for what is not UTF-8.
pub fn visible(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut shown = String::with_capacity(text.len());
    let mut column = 0;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => skip_sequence(&mut chars),
            '\t' => {
                let spaces = TAB - column % TAB;
                shown.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            c if c.is_control() || turns(c) => {}
            c => {
                shown.push(c);
                column += char_columns(c);
            }
        }
    }
    shown
}

/// Skips what follows an ESC (ECMA-48): a control sequence, a control string, or one character
/// behind any intermediate ones.
fn skip_sequence(chars: &mut std::str::Chars<'_>) {
    match chars.next() {
        // 5.4: parameter and intermediate bytes, then a final one.
        Some('[') => {
            chars.find(|c| ('\x40'..='\x7e').contains(c));
        }
        // 5.6: up to ST, which is ESC \; xterm ends OSC with BEL, too.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            let end = chars.find(|&c| c == '\x07' || c == '\x1b');
            if end == Some('\x1b') {
                chars.next();
            }
        }
        Some('\x20'..='\x2f') => {
            chars.find(|c| !('\x20'..='\x2f').contains(c));
        }
        _ => {}
    }
}

/// Returns whether a character turns the direction of others, which hides what a text says.
fn turns(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns how many columns a text takes.
pub fn columns(text: &str) -> usize {
    text.chars().map(char_columns).sum()
}

/// Returns the longest beginning of a text that fits.
pub fn cut(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    for (at, c) in text.char_indices() {
        taken += char_columns(c);
        if taken > columns {
            return &text[..at];
        }
    }
    text
}

/// Returns how many columns a character takes, after Unicode's East Asian Width.
///
/// Where terminals disagree it errs to the wider side, which costs a blank and not a broken line.
fn char_columns(c: char) -> usize {
    if c.is_ascii() {
        return 1;
    }
    let is_in = |ranges: &[(u32, u32)]| {
        let c = u32::from(c);
        let after = ranges.partition_point(|&(first, _)| first <= c);
        after > 0 && c <= ranges[after - 1].1
    };
    match () {
        () if is_in(ZERO_COLUMNS) => 0,
        () if is_in(TWO_COLUMNS) => 2,
        () => 1,
    }
}

/// Characters that stand on the one before them, or are not seen; sorted.
const ZERO_COLUMNS: &[(u32, u32)] = &[
    (0x0300, 0x036f),
    (0x0483, 0x0489),
    (0x0591, 0x05bd),
    (0x0610, 0x061a),
    (0x064b, 0x065f),
    (0x0e31, 0x0e31),
    (0x0e34, 0x0e3a),
    (0x0e47, 0x0e4e),
    (0x1ab0, 0x1aff),
    (0x1dc0, 0x1dff),
    (0x200b, 0x200f),
    (0x2060, 0x2064),
    (0x20d0, 0x20ff),
    (0xfe00, 0xfe0f),
    (0xfe20, 0xfe2f),
    (0xfeff, 0xfeff),
    (0xe0100, 0xe01ef),
];

/// Characters of East Asian Width W or F, and the blocks of emoji; sorted.
const TWO_COLUMNS: &[(u32, u32)] = &[
    (0x1100, 0x115f),
    (0x231a, 0x231b),
    (0x2329, 0x232a),
    (0x23e9, 0x23ec),
    (0x23f0, 0x23f0),
    (0x23f3, 0x23f3),
    (0x25fd, 0x25fe),
    (0x2614, 0x2615),
    (0x2630, 0x2637),
    (0x2648, 0x2653),
    (0x267f, 0x267f),
    (0x268a, 0x268f),
    (0x2693, 0x2693),
    (0x26a1, 0x26a1),
    (0x26aa, 0x26ab),
    (0x26bd, 0x26be),
    (0x26c4, 0x26c5),
    (0x26ce, 0x26ce),
    (0x26d4, 0x26d4),
    (0x26ea, 0x26ea),
    (0x26f2, 0x26f3),
    (0x26f5, 0x26f5),
    (0x26fa, 0x26fa),
    (0x26fd, 0x26fd),
    (0x2705, 0x2705),
    (0x270a, 0x270b),
    (0x2728, 0x2728),
    (0x274c, 0x274c),
    (0x274e, 0x274e),
    (0x2753, 0x2755),
    (0x2757, 0x2757),
    (0x2795, 0x2797),
    (0x27b0, 0x27b0),
    (0x27bf, 0x27bf),
    (0x2b1b, 0x2b1c),
    (0x2b50, 0x2b50),
    (0x2b55, 0x2b55),
    (0x2e80, 0x303e),
    (0x3041, 0x4dbf),
    (0x4dc0, 0xa4cf),
    (0xa960, 0xa97f),
    (0xac00, 0xd7a3),
    (0xf900, 0xfaff),
    (0xfe10, 0xfe19),
    (0xfe30, 0xfe6f),
    (0xff00, 0xff60),
    (0xffe0, 0xffe6),
    (0x16fe0, 0x18aff),
    (0x1aff0, 0x1b2ff),
    (0x1d300, 0x1d37f),
    (0x1f000, 0x1faff),
    (0x20000, 0x3fffd),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_have_four_digits() {
        for (ms, expected) in [(0, "0.000"), (123, "0.123"), (12_345, "12.35"), (120_040, "120.0")]
        {
            assert_eq!(stamp(Duration::from_millis(ms)), expected);
        }
        assert_eq!(took(Duration::from_millis(83_449)), "83.4s");
    }

    #[test]
    fn finds_characters_that_are_cut_off() {
        let table: &[(&[u8], usize)] = &[
            (b"", 0),
            (b"abc", 3),
            ("é".as_bytes(), 2),
            (&"aé".as_bytes()[..2], 1),
            (&"a語".as_bytes()[..3], 1),
            (&"a🐳".as_bytes()[..4], 1),
            ("a🐳".as_bytes(), 5),
            (b"a\xff", 2),
            (b"a\x80\x80\x80\x80", 5),
        ];
        for (bytes, expected) in table {
            assert_eq!(whole_chars(bytes), *expected, "{bytes:?}");
        }
    }

    #[test]
    fn nothing_visible_moves_the_cursor() {
        let table: &[(&[u8], &str)] = &[
            (b"\x1b[1;31merror\x1b[0m: no", "error: no"),
            (b"\x1b]0;title\x07text", "text"),
            (b"\x1b]8;;http://example.com\x1b\\link\x1b]8;;\x1b\\", "link"),
            (b"\x1b(Btext\x1bctext", "texttext"),
            (b"a\tb\x08\x00c", "a       bc"),
            (b"\x1b[2J\x1b[", ""),
            (b"\x1b", ""),
            (b"caf\xe9", "caf\u{fffd}"),
            ("a\u{202e}b".as_bytes(), "ab"),
        ];
        for (bytes, expected) in table {
            assert_eq!(visible(bytes), *expected, "{bytes:?}");
        }
        assert_eq!(one_line("RUN <<EOF\n\tmake\nEOF\n"), "RUN <<EOF  make EOF");
    }

    #[test]
    fn wide_characters_are_not_cut_in_two() {
        assert_eq!(columns("a語é\u{301}🐳✓"), 7);
        for (room, expected) in [(0, ""), (1, "a"), (2, "a"), (3, "a語"), (4, "a語b"), (9, "a語b")]
        {
            assert_eq!(cut("a語b", room), expected);
        }
    }

    #[test]
    fn the_tables_are_sorted() {
        for table in [ZERO_COLUMNS, TWO_COLUMNS] {
            assert!(table.iter().all(|(first, last)| first <= last));
            assert!(table.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
