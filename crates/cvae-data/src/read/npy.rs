//! NumPy's array file: a magic number, a header that is a Python dictionary, and the values.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::path::Path;

use super::array::{ArrayReader, Element, Header, Kind};
use super::bytes::{Input, bad_magic};
use super::{Meta, RowReader};
use crate::error::{DataError, HeaderFault};

const MAGIC: &[u8] = b"\x93NUMPY";

/// No real header is longer: NumPy writes 118 bytes for an array of numbers.
const MAX_HEADER: usize = 1 << 16;

/// Opens an npy file.
pub(super) fn open(path: &Path) -> Result<(Meta, Box<dyn RowReader>), DataError> {
    let mut input = Input::open(path)?;
    let header = read_header(&mut input)?;
    let (meta, reader) = ArrayReader::new(input, "npy", &header)?;
    Ok((meta, Box::new(reader)))
}

fn read_header(input: &mut Input) -> Result<Header, DataError> {
    let fail = |path: &Path, fault| DataError::BadHeader { path: path.to_path_buf(), format: "npy", fault };
    let mut start = Vec::new();
    input.read(8, &mut start)?;
    if !start.starts_with(MAGIC) {
        return Err(bad_magic(input.path(), "an npy", &start));
    }
    let length_bytes = match start.get(MAGIC.len()) {
        Some(1) => 2,
        Some(2 | 3) => 4,
        Some(_) => return Err(fail(input.path(), HeaderFault::Version)),
        None => return Err(fail(input.path(), HeaderFault::Short)),
    };
    let mut length = Vec::new();
    if input.read(length_bytes, &mut length)? < length_bytes {
        return Err(fail(input.path(), HeaderFault::Short));
    }
    // Little-endian, two or four bytes.
    let length = length.iter().rev().fold(0usize, |value, &byte| value << 8 | usize::from(byte));
    if length > MAX_HEADER {
        return Err(fail(input.path(), HeaderFault::TooLong));
    }
    let mut text = Vec::new();
    if input.read(length, &mut text)? < length {
        return Err(fail(input.path(), HeaderFault::Short));
    }
    let fields = std::str::from_utf8(&text)
        .map_err(|_| HeaderFault::Syntax)
        .and_then(parse)
        .map_err(|fault| fail(input.path(), fault))?;
    let path = input.path().to_path_buf();
    let Some(element) = element(&fields.descr) else {
        return Err(DataError::UnsupportedType { path, dtype: fields.descr });
    };
    // One axis alone is contiguous in either order.
    if fields.fortran_order && fields.shape.len() > 1 {
        return Err(DataError::FortranOrder { path });
    }
    Ok(Header { element, shape: fields.shape })
}

/// The element of a type string such as `<f4`.
fn element(descr: &str) -> Option<Element> {
    let kind = match descr.get(1..)? {
        "u1" => Kind::U8,
        "i1" => Kind::I8,
        "u2" => Kind::U16,
        "i2" => Kind::I16,
        "u4" => Kind::U32,
        "i4" => Kind::I32,
        "u8" => Kind::U64,
        "i8" => Kind::I64,
        "f4" => Kind::F32,
        "f8" => Kind::F64,
        _ => return None,
    };
    let big_endian = match descr.get(..1)? {
        "<" | "|" => false,
        ">" => true,
        _ => return None,
    };
    Some(Element { kind, big_endian })
}

/// The three entries of the dictionary.
#[derive(Debug, PartialEq, Eq)]
struct Fields {
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

/// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, the entries in any order.
fn parse(text: &str) -> Result<Fields, HeaderFault> {
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    let mut rest = Scanner { rest: text };
    rest.expect("{")?;
    while !rest.accept("}") {
        let key = rest.string()?;
        rest.expect(":")?;
        match key {
            "descr" => descr = Some(rest.descr()?),
            "fortran_order" => fortran_order = Some(rest.boolean()?),
            "shape" => shape = Some(rest.shape()?),
            _ => return Err(HeaderFault::Syntax),
        }
        if !rest.accept(",") {
            rest.expect("}")?;
            break;
        }
    }
    if !rest.rest.trim().is_empty() {
        return Err(HeaderFault::Syntax);
    }
    match (descr, fortran_order, shape) {
        (Some(descr), Some(fortran_order), Some(shape)) => Ok(Fields { descr, fortran_order, shape }),
        _ => Err(HeaderFault::MissingField),
    }
}

/// The text of a header that is still to be read.
struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    /// Skips `token` if it comes next.
    fn accept(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(token) {
            Some(after) => {
                self.rest = after;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), HeaderFault> {
        self.accept(token).then_some(()).ok_or(HeaderFault::Syntax)
    }

    /// A string in single or double quotes, without escapes.
    fn string(&mut self) -> Result<&'a str, HeaderFault> {
        let quote = if self.accept("'") {
            '\''
        } else {
            self.expect("\"")?;
            '"'
        };
        let (text, after) = self.rest.split_once(quote).ok_or(HeaderFault::Syntax)?;
        self.rest = after;
        Ok(text)
    }

    /// A type string; a record type is a list, kept as it is written for the message.
    fn descr(&mut self) -> Result<String, HeaderFault> {
        let rest = self.rest.trim_start();
        if !rest.starts_with('[') {
            return self.string().map(str::to_owned);
        }
        let end = rest.find(']').ok_or(HeaderFault::Syntax)?;
        let (text, after) = rest.split_at(end + 1);
        self.rest = after;
        Ok(text.to_owned())
    }

    fn boolean(&mut self) -> Result<bool, HeaderFault> {
        if self.accept("True") {
            return Ok(true);
        }
        self.expect("False").map(|()| false)
    }

    /// A tuple of sizes: `()`, `(3,)`, `(3, 4)`.
    fn shape(&mut self) -> Result<Vec<u64>, HeaderFault> {
        self.expect("(")?;
        let mut shape = Vec::new();
        while !self.accept(")") {
            let rest = self.rest.trim_start();
            let end = rest.find(|c: char| !c.is_ascii_digit());
            let (digits, after) = rest.split_at(end.ok_or(HeaderFault::Syntax)?);
            if digits.is_empty() {
                return Err(HeaderFault::Syntax);
            }
            shape.push(digits.parse().map_err(|_| HeaderFault::Overflow)?);
            self.rest = after;
            if !self.accept(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_of_numpy_and_of_others_are_read() {
        for text in [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n",
            "{\"shape\":(3,4),\"fortran_order\":False,\"descr\":\"<f4\"}",
        ] {
            let fields = parse(text).unwrap();
            assert_eq!((fields.descr.as_str(), fields.fortran_order), ("<f4", false));
            assert_eq!(fields.shape, [3, 4]);
        }
        let vector = "{'descr': '>i8', 'fortran_order': True, 'shape': (5,), }";
        assert_eq!(parse(vector).unwrap().shape, [5]);
    }

    #[test]
    fn malformed_headers_are_told_apart() {
        for (text, fault) in [
            ("", HeaderFault::Syntax),
            ("{", HeaderFault::Syntax),
            ("{}", HeaderFault::MissingField),
            ("{'descr': '<f4', 'shape': (1, 2)}", HeaderFault::MissingField),
            ("{'descr': '<f4', 'fortran_order': 0, 'shape': (1, 2)}", HeaderFault::Syntax),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2)}", HeaderFault::Syntax),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (1 2)}", HeaderFault::Syntax),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 2)}", HeaderFault::Overflow),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)} x", HeaderFault::Syntax),
        ] {
            assert_eq!(parse(text), Err(fault), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(text in "[{}(),:'\" a-z0-9<\\[\\]]{0,80}") {
            // Any outcome but a panic; a header that is accepted has the three fields.
            if let Ok(fields) = parse(&text) {
                prop_assert!(text.contains("descr") && !fields.descr.contains('\''));
            }
        }
    }
}
