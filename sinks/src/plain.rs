//! Text of unknown origin for places where characters do more than show: terminals, mails, logs.

use std::borrow::Cow;

/// The text with control characters, line breaks among them, and characters that reorder or hide
/// others written out: nothing in it colours a terminal, begins a line or reads backwards.
pub fn plain(text: &str) -> Cow<'_, str> {
    written_out(text, |_| false)
}

/// The same for text of several lines: line breaks and tabulators stay.
pub fn plain_lines(text: &str) -> Cow<'_, str> {
    written_out(text, |character| matches!(character, '\n' | '\t'))
}

/// JSON with these characters as its own escapes, so that it stays the same value.
pub fn plain_json(json: &str) -> Cow<'_, str> {
    let acts = |character: char| character != '\n' && acts(character);
    if !json.contains(acts) {
        return Cow::Borrowed(json);
    }
    let mut plain = String::with_capacity(json.len() + 8);
    for character in json.chars() {
        if !acts(character) {
            plain.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            plain += &format!("\\u{unit:04x}");
        }
    }
    Cow::Owned(plain)
}

fn written_out(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let acts = |character: char| !stays(character) && acts(character);
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match acts(character) {
            true => plain.extend(character.escape_default()),
            false => plain.push(character),
        }
    }
    Cow::Owned(plain)
}

fn acts(character: char) -> bool {
    let is_format = matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    character.is_control() || is_format
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts() {
        for (text, expected) in [
            ("größe 😀 \"x\" \\", "größe 😀 \"x\" \\"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{9b}2J\u{7f}\0", "\\u{9b}2J\\u{7f}\\u{0}"),
            ("exe.\u{202e}gpj", "exe.\\u{202e}gpj"),
            ("a\u{200b}b\u{2028}c", "a\\u{200b}b\\u{2028}c"),
        ] {
            assert_eq!(plain(text), expected);
        }
        let value = serde_json::json!({ "a": "\u{9b}x\u{202e}\u{e0041}\n" });
        let json = serde_json::to_string_pretty(&value).unwrap();
        assert!(
            json.contains('\u{202e}')
                && !plain_json(&json).contains(|character| character != '\n' && acts(character))
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(&plain_json(&json)).unwrap(), value);
        assert_eq!(plain_lines("a\n\tb\u{1b}\r\n"), "a\n\tb\\u{1b}\\r\n");
    }
}
