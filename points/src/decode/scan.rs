//! Finds the extent of JSON values in raw bytes: one pass, no recursion, no allocation, no copy.
//!
//! A parser turns text into values, and most of a point's text is needed as it stands: the name and
//! the labels are the key that their series is known by. So this looks no further than strings,
//! brackets, commas and colons. What is inside of a value is checked by its reader, and what nobody
//! reads is not checked: bare words (`NaN`, which some encoders write) and bytes that are not UTF-8
//! spoil the value they are in, not the message.
//!
//! Format: RFC 8259.

use super::rejection::{Fault, Reason, shown};

/// Brackets open at once within one value.
const DEEPEST: u32 = 32;

/// A position in raw JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    pub(super) position: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// The next byte that is no white space, which is not consumed.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.bytes.get(self.position) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.position += 1;
        }
        None
    }

    /// Consumes white space and this byte.
    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.peek() != Some(byte) {
            return Err(self.unexpected(&format!("`{}`", char::from(byte))));
        }
        self.position += 1;
        Ok(())
    }

    /// Consumes white space and this byte, if it comes next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.position += usize::from(found);
        found
    }

    /// Consumes a string, and returns it with its quotes.
    #[inline]
    pub(super) fn string(&mut self) -> Result<&'a [u8], Fault> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("a string"));
        }
        let start = self.position;
        self.skip_string()?;
        Ok(&self.bytes[start..self.position])
    }

    /// Consumes any value, and returns its raw bytes, which are never empty.
    #[inline]
    pub(super) fn value(&mut self) -> Result<&'a [u8], Fault> {
        let first = self.peek();
        let start = self.position;
        match first {
            Some(b'"') => self.skip_string()?,
            Some(b'{' | b'[') => self.skip_container()?,
            Some(byte) if is_word(byte) => {
                while self.bytes.get(self.position).is_some_and(|byte| is_word(*byte)) {
                    self.position += 1;
                }
            }
            _ => return Err(self.unexpected("a value")),
        }
        Ok(&self.bytes[start..self.position])
    }

    /// From the opening quote to after the closing one.
    #[inline]
    fn skip_string(&mut self) -> Result<(), Fault> {
        let mut position = self.position + 1;
        while let Some(&byte) = self.bytes.get(position) {
            match byte {
                b'"' => {
                    self.position = position + 1;
                    return Ok(());
                }
                b'\\' => position += 2,
                // A raw line feed ends the line, whatever it is in.
                0..0x20 => {
                    self.position = position;
                    return Err(self.unexpected("the end of a string"));
                }
                _ => position += 1,
            }
        }
        self.position = self.bytes.len();
        Err(self.unexpected("the end of a string"))
    }

    /// From the opening bracket to after the closing one.
    fn skip_container(&mut self) -> Result<(), Fault> {
        // One bit for each open bracket, the innermost lowest: 1 for an object.
        let (mut open, mut depth) = (0_u32, 0);
        while let Some(&byte) = self.bytes.get(self.position) {
            match byte {
                b'"' => {
                    self.skip_string()?;
                    continue;
                }
                b'{' | b'[' => {
                    if depth == DEEPEST {
                        let detail = format!("brackets are nested more than {DEEPEST} deep");
                        return Err(Fault::new(Reason::TooDeep, detail));
                    }
                    open = open << 1 | u32::from(byte == b'{');
                    depth += 1;
                }
                b'}' | b']' => {
                    if open & 1 != u32::from(byte == b'}') {
                        return Err(self.unexpected("the bracket that closes the open one"));
                    }
                    open >>= 1;
                    depth -= 1;
                    if depth == 0 {
                        self.position += 1;
                        return Ok(());
                    }
                }
                _ => {}
            }
            self.position += 1;
        }
        Err(self.unexpected("a closing bracket"))
    }

    #[cold]
    pub(super) fn unexpected(&self, expected: &str) -> Fault {
        let found = match self.bytes.get(self.position..) {
            None | Some([]) => "the end".to_owned(),
            Some(rest) => format!("`{}`", shown(&rest[..rest.len().min(16)])),
        };
        let byte = self.position.min(self.bytes.len());
        Fault::new(Reason::Syntax, format!("invalid json at byte {byte}: expected {expected}, found={found}"))
    }
}

/// Bytes of numbers, `true`, `false`, `null`, and of words that are not JSON.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_')
}

/// The text of a raw string, with its escapes resolved.
pub(super) fn unquote(raw: &[u8]) -> Result<String, Fault> {
    if simdutf8::basic::from_utf8(raw).is_err() {
        return Err(Fault::new(
            Reason::InvalidUtf8,
            format!("a string is not utf-8, found=`{}`", shown(raw)),
        ));
    }
    sonic_rs::from_slice(raw).map_err(|_| {
        Fault::new(Reason::Syntax, format!("a string has an invalid escape, found=`{}`", shown(raw)))
    })
}

/// Whether a raw value is a number by the grammar of JSON: without leading zeros or plus, and with
/// digits on both sides of a point.
pub(super) fn is_number(raw: &[u8]) -> bool {
    fn digits(raw: &[u8]) -> (usize, &[u8]) {
        let count = raw.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count, &raw[count..])
    }
    let raw = raw.strip_prefix(b"-").unwrap_or(raw);
    let (whole, mut rest) = digits(raw);
    if whole == 0 || (whole > 1 && raw[0] == b'0') {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let (count, after) = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = after;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"-").or(exponent.strip_prefix(b"+")).unwrap_or(exponent);
        let (count, after) = digits(exponent);
        if count == 0 {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn extents() {
        let cases: &[(&str, Option<&str>)] = &[
            (" 12.5e3 ,", Some("12.5e3")),
            ("\n\"a\\\"b\" x", Some("\"a\\\"b\"")),
            ("\"\\\\\"\"", Some("\"\\\\\"")),
            ("{\"a\":[1,{\"}\":\"]\"}]}}", Some("{\"a\":[1,{\"}\":\"]\"}]}")),
            ("NaN]", Some("NaN")),
            ("-Infinity,", Some("-Infinity")),
            ("[1}", None),
            ("[1", None),
            ("\"a", None),
            ("\"a\\", None),
            ("\"a\nb\"", None),
            ("", None),
            (",", None),
        ];
        for (text, expected) in cases {
            let found = Scanner::new(text.as_bytes()).value().ok();
            assert_eq!(found, expected.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        for (depth, accepted) in [(1, true), (32, true), (33, false), (1_000_000, false)] {
            let text = "[".repeat(depth) + &"]".repeat(depth);
            assert_eq!(Scanner::new(text.as_bytes()).value().is_ok(), accepted, "depth {depth}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut scanner = Scanner::new(&bytes);
            let _ = scanner.value();
            prop_assert!(scanner.unexpected("").detail.len() < 1_000);
        }

        #[test]
        fn strings_round_trip(text in any::<String>()) {
            let raw = serde_json::to_string(&text).unwrap();
            let followed = format!("{raw}\"");
            let found = Scanner::new(followed.as_bytes()).string().unwrap();
            prop_assert_eq!(found, raw.as_bytes());
            prop_assert_eq!(unquote(found).unwrap(), text);
        }

        #[test]
        fn numbers_as_serde_json_has_them(text in "[-+0-9.eE]{1,8}") {
            // Ignored values are checked for their grammar, and not for their range.
            let valid = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_number(text.as_bytes()), valid);
        }
    }
}
