//! Reads a mail as far as the trials look: headers, and the text of each part.
//!
//! Internet Message Format, RFC 5322; MIME, RFC 2045 and 2046; encoded words, RFC 2047. Only UTF-8
//! and its subsets.

/// A part of a mail, its transfer encoding undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Lower case, without parameters: `text/plain`.
    pub content_type: String,
    /// Lines end in `\n`.
    pub text: String,
}

/// A mail as its reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Unfolded, encoded words decoded, in their order.
    pub headers: Vec<(String, String)>,
    /// Innermost parts, in their order; one when the mail is not a multipart.
    pub parts: Vec<Part>,
}

impl Mail {
    /// Reads the bytes between `DATA` and the dot, dots unstuffed.
    ///
    /// # Panics
    /// When it is not a mail, or not UTF-8.
    pub fn parse(data: &[u8]) -> Self {
        let text = std::str::from_utf8(data).expect("a mail in UTF-8").replace("\r\n", "\n");
        let (headers, body) = split(&text);
        let mut parts = Vec::new();
        collect_parts(&headers, body, &mut parts);
        Self { headers, parts }
    }

    /// The value of a header by its name in any case; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        find(&self.headers, name)
    }

    /// The text of the first part of a type; empty when there is none.
    pub fn text(&self, content_type: &str) -> &str {
        self.parts.iter().find(|part| part.content_type == content_type).map_or("", |part| &part.text)
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
}

/// Headers and body of a mail or of one of its parts.
fn split(text: &str) -> (Vec<(String, String)>, &str) {
    // A part without headers begins with the empty line itself.
    let (head, body) = match text.strip_prefix('\n') {
        Some(body) => ("", body),
        None => text.split_once("\n\n").unwrap_or((text, "")),
    };
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in head.lines() {
        if line.starts_with([' ', '\t']) {
            let (_, value) = headers.last_mut().expect("a folded line follows another");
            value.push(' ');
            value.push_str(line.trim_start());
        } else {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header: {line}"));
            headers.push((name.to_owned(), value.trim_start().to_owned()));
        }
    }
    for (_, value) in &mut headers {
        *value = decode_words(value);
    }
    (headers, body)
}

fn collect_parts(headers: &[(String, String)], body: &str, parts: &mut Vec<Part>) {
    let declared = find(headers, "content-type");
    let content_type = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if content_type.starts_with("multipart/") {
        let boundary = declared.split_once("boundary=").expect("a multipart has a boundary").1;
        let boundary = boundary.split(';').next().unwrap_or_default().trim().trim_matches('"');
        // The line break before a boundary belongs to it. What precedes the first and follows the
        // last is not shown.
        let delimited = format!("\n{body}");
        for section in delimited.split(&format!("\n--{boundary}")).skip(1) {
            if section.starts_with("--") {
                break;
            }
            let (headers, body) = split(section.split_once('\n').map_or("", |(_, rest)| rest));
            collect_parts(&headers, body, parts);
        }
        return;
    }
    let text = match find(headers, "content-transfer-encoding").to_ascii_lowercase().as_str() {
        "base64" => String::from_utf8(decode_base64(body)).expect("a part in UTF-8").replace("\r\n", "\n"),
        "quoted-printable" => decode_quoted(&body.replace("=\n", "")),
        _ => body.to_owned(),
    };
    let content_type = if content_type.is_empty() { "text/plain".to_owned() } else { content_type };
    parts.push(Part { content_type, text });
}

/// `=?utf-8?b?…?=` and `=?utf-8?q?…?=`; the space between two of them is not part of the text.
fn decode_words(value: &str) -> String {
    let mut decoded = String::new();
    let mut rest = value;
    let mut after_word = false;
    while let Some(at) = rest.find("=?") {
        let mut fields = rest[at + 2..].splitn(4, '?');
        let word = (fields.next(), fields.next(), fields.next(), fields.next());
        let (Some(_charset), Some(encoding), Some(text), Some(tail)) = word else { break };
        let Some(tail) = tail.strip_prefix('=') else { break };
        let between = &rest[..at];
        if !(after_word && between.trim().is_empty()) {
            decoded.push_str(between);
        }
        if encoding.eq_ignore_ascii_case("b") {
            decoded.push_str(std::str::from_utf8(&decode_base64(text)).expect("a header in UTF-8"));
        } else {
            decoded.push_str(&decode_quoted(&text.replace('_', " ")));
        }
        after_word = true;
        rest = tail;
    }
    decoded.push_str(rest);
    decoded
}

/// `=XX` for a byte, everything else for itself.
fn decode_quoted(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'=' {
            bytes.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(&rest[..2]).expect("two digits after =");
        bytes.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits after ="));
        rest = &rest[2..];
    }
    String::from_utf8(bytes).expect("quoted text in UTF-8")
}

/// RFC 4648, the standard alphabet. Line breaks are skipped.
pub(crate) fn decode_base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut buffer: u32 = 0;
    let mut bits = 0;
    for symbol in text.bytes().filter(|symbol| !symbol.is_ascii_whitespace() && *symbol != b'=') {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => panic!("not base64: {text}"),
        };
        buffer = (buffer << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
        }
    }
    bytes
}
