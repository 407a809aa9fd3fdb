//! A light reading of Rust source: enough to tell code from comments and text.

/// `source` with the content of comments, strings and characters replaced by spaces; lines stay in place.
///
/// CUDA's C++ follows the same rules closely enough.
pub(crate) fn code(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => comment_end(bytes, at),
            b'"' => string_end(bytes, at + 1),
            b'r' if starts_word(bytes, at) => match raw_string_end(bytes, at + 1) {
                Some(end) => end,
                None => at,
            },
            b'\'' => char_end(bytes, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether the byte at `at` does not continue a word (a raw string may follow `b` or `c`).
fn starts_word(bytes: &[u8], at: usize) -> bool {
    let word = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
    match at.checked_sub(1).map(|before| bytes[before]) {
        None => true,
        Some(b'b' | b'c') => at < 2 || !word(bytes[at - 2]),
        Some(before) => !word(before),
    }
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

/// The end of a block comment; they nest.
fn comment_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The end of a string whose first character is at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of a raw string, `at` being the position after `r`; `None` where there is no raw string.
fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at..].iter().take_while(|byte| **byte == b'#').count();
    if bytes.get(at + hashes) != Some(&b'"') {
        return None;
    }
    let closing: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let start = at + hashes + 1;
    let length = bytes[start..].windows(closing.len()).position(|window| window == closing);
    Some(length.map_or(bytes.len(), |length| start + length + closing.len()))
}

/// The end of a character literal; `None` for a lifetime or label.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let rest = bytes.get(at + 3..)?;
        return rest.iter().position(|byte| *byte == b'\'').map(|length| at + 3 + length + 1);
    }
    let first = std::str::from_utf8(bytes.get(at + 1..)?).ok()?.chars().next()?;
    let close = at + 1 + first.len_utf8();
    (bytes.get(close) == Some(&b'\'')).then_some(close + 1)
}

/// Whether `word` stands in `line` with no letter, digit or underscore on either side.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c == '_' || c.is_alphanumeric();
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part) && !line[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// Names of the variants of `pub enum NAME` in `source`; `None` where there is no such enum.
pub(crate) fn enum_variants(source: &str, name: &str) -> Option<Vec<String>> {
    let code = code(source);
    let start = code.find(&format!("enum {name} {{"))?;
    let body = &code[start + code[start..].find('{')? + 1..];
    let (mut depth, mut variants, mut expecting) = (0usize, Vec::new(), true);
    let mut rest = body;
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        match c {
            '}' if depth == 0 => return Some(variants),
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => expecting = true,
            _ if depth == 0 && expecting && c.is_alphabetic() => {
                length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
                variants.push(rest[..length].to_owned());
                expecting = false;
            }
            _ => {}
        }
        rest = &rest[length..];
    }
    None
}

/// `LeakyRelu` as `leaky_relu`: the rule by which serde names variants in files.
pub(crate) fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for (index, c) in name.chars().enumerate() {
        if c.is_uppercase() && index > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_texts_are_blanked() {
        let source = "let a = \"x // y\"; // z\n/* b /* c */ d */ let e = r#\"f\"g\"#;\nlet h = 'i'; let j: &'k str;";
        let code = code(source);
        for gone in ["x", "z", "b", "d", "f", "g", "i'"] {
            assert!(!code.contains(gone), "{gone} in {code}");
        }
        for kept in ["let a =", "let e =", "let h =", "&'k str"] {
            assert!(code.contains(kept), "{kept} in {code}");
        }
        assert_eq!(code.len(), source.len());
        assert_eq!(code.lines().count(), source.lines().count());
    }

    #[test]
    fn escapes_do_not_end_a_text() {
        assert_eq!(code(r#"f("a\"b", '\'', c)"#).replace(' ', ""), "f(,,c)");
        assert_eq!(code(r"f('\u{7f}', '\\', 'µ', d)").replace(' ', ""), "f(,,,d)");
    }

    #[test]
    fn variants_are_found() {
        let source = "/// An enum.\n#[derive(Debug)]\npub enum Kind {\n /// `A, B`\n First,\n #[serde(rename = \"x\")]\n \
                      SecondOne { field: Vec<(u8, u8)>, other: u8 },\n Third(u8, u16),\n}\nenum Other { Fourth }";
        assert_eq!(enum_variants(source, "Kind").unwrap(), ["First", "SecondOne", "Third"]);
        assert_eq!(enum_variants(source, "Missing"), None);
        assert_eq!(snake_case("SecondOne"), "second_one");
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("a relu, b", "relu"));
        assert!(!has_word("leaky_relu", "relu"));
        assert!(!has_word("relus", "relu"));
    }
}
