//! Text that may come from a guest, made fit for a terminal or a page.

/// The text on one line, with control characters and those that reorder text escaped.
pub fn printable(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        let reorders = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if matches!(character, '\t' | '\n') {
            shown.push(' ');
        } else if character.is_control() || reorders {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Bytes of the kernel as text, up to the first NUL: what is no UTF-8, and what would steer a terminal, is replaced.
pub fn name(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let lossy = String::from_utf8_lossy(&bytes[..end]);
    lossy.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_steers_the_terminal() {
        assert_eq!(printable("a \u{1b}[2J\n\tb\u{202e}c é"), "a \\u{1b}[2J  b\\u{202e}c é");
    }
}
