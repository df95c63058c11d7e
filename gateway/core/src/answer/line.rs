//! Lines of heads, chunk sizes and trailers, and the fields in them.

/// What is wrong with the bytes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LineError {
    /// LF without CR.
    BareLf,
    /// CR without LF.
    BareCr,
    /// NUL.
    Nul,
    /// Another control character.
    Control,
    /// It is longer than there is room for.
    TooLong,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldError {
    /// It goes on with the field before it (`obs-fold`, RFC 9112 §5.2).
    Folded,
    /// It has no name, or one with characters that no name has; spaces before the colon among them.
    Name,
}

/// Cuts bytes into lines that end with CRLF. A line that came in pieces is put together here.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    kept: Vec<u8>,
    /// What is kept has been given out.
    given: bool,
}

impl Lines {
    /// Takes the next line off `input`, without its CRLF. `None`: it is not complete, and all of `input` has been kept.
    ///
    /// A line has at most `limit` bytes.
    ///
    /// # Errors
    /// When the line, as far as it came, has bytes that no line has.
    pub fn next<'a, 'b: 'a>(&'a mut self, input: &mut &'b [u8], limit: usize) -> Result<Option<&'a [u8]>, LineError> {
        if std::mem::take(&mut self.given) {
            self.kept.clear();
        }
        let (line, rest) = match (self.kept.last().copied(), first_control(input)) {
            // The line was cut between CR and LF.
            (Some(b'\r'), _) => match input.split_first() {
                Some((b'\n', rest)) => {
                    self.kept.pop();
                    (&[][..], rest)
                }
                Some(_) => return Err(LineError::BareCr),
                None => return Ok(None),
            },
            (_, None) => return self.keep(std::mem::take(input), limit),
            (_, Some(at)) => match input.split_at(at) {
                (line, [b'\r', b'\n', rest @ ..]) => (line, rest),
                (_, [b'\r']) => return self.keep(std::mem::take(input), limit.saturating_add(1)),
                (_, [b'\r', ..]) => return Err(LineError::BareCr),
                (_, [b'\n', ..]) => return Err(LineError::BareLf),
                (_, [0, ..]) => return Err(LineError::Nul),
                _ => return Err(LineError::Control),
            },
        };
        if self.kept.len() + line.len() > limit {
            return Err(LineError::TooLong);
        }
        *input = rest;
        if self.kept.is_empty() {
            return Ok(Some(line));
        }
        self.kept.extend_from_slice(line);
        self.given = true;
        Ok(Some(&self.kept))
    }

    /// The line that has begun and is not complete.
    #[must_use]
    pub fn unfinished(&self) -> &[u8] {
        if self.given { &[] } else { &self.kept }
    }

    fn keep(&mut self, piece: &[u8], limit: usize) -> Result<Option<&'static [u8]>, LineError> {
        if self.kept.len() + piece.len() > limit {
            return Err(LineError::TooLong);
        }
        self.kept.extend_from_slice(piece);
        Ok(None)
    }
}

/// Splits a field into its name and its value, without the white space around the value.
///
/// # Errors
/// When it is folded, or its name is none.
pub fn field(line: &[u8]) -> Result<(&[u8], &[u8]), FieldError> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(FieldError::Folded);
    }
    let end = line.iter().position(|byte| !is_token(*byte)).ok_or(FieldError::Name)?;
    match line.split_at(end) {
        (name @ [_, ..], [b':', value @ ..]) => Ok((name, trim(value))),
        _ => Err(FieldError::Name),
    }
}

/// Without spaces and tabs at its ends.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A decimal number: digits and nothing else, as `Content-Length` has it.
#[must_use]
pub fn decimal(digits: &[u8]) -> Option<u64> {
    number(digits, 10)
}

/// A hexadecimal number: digits and nothing else, as a chunk's size.
#[must_use]
pub fn hexadecimal(digits: &[u8]) -> Option<u64> {
    number(digits, 16)
}

fn number(digits: &[u8], base: u32) -> Option<u64> {
    let add = |sum: u64, digit: &u8| {
        let digit = char::from(*digit).to_digit(base)?;
        sum.checked_mul(base.into())?.checked_add(digit.into())
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

/// Where the first byte is that cannot stand inside a line: a control character other than TAB.
fn first_control(bytes: &[u8]) -> Option<usize> {
    // Eight at a time: almost every byte of a head goes by here, and almost none of them is one.
    let (words, _) = bytes.as_chunks::<8>();
    let clean = words.iter().take_while(|word| !may_have_control(u64::from_le_bytes(**word))).count() * 8;
    let rest = bytes.get(clean..)?;
    rest.iter().position(|byte| byte.is_ascii_control() && *byte != b'\t').map(|at| clean + at)
}

/// Whether one of the eight bytes is below 0x20 (a TAB is, too) or is 0x7f.
fn may_have_control(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    let delete = word ^ (ONES * 0x7f);
    let low = word.wrapping_sub(ONES * 0x20) & !word;
    let zero = delete.wrapping_sub(ONES) & !delete;
    (low | zero) & HIGH != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of the bytes, which arrive in pieces of this size.
    fn cut(bytes: &[u8], size: usize, limit: usize) -> Result<Vec<Vec<u8>>, LineError> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for mut piece in bytes.chunks(size) {
            while !piece.is_empty() {
                if let Some(line) = lines.next(&mut piece, limit)? {
                    found.push(line.to_vec());
                }
            }
        }
        Ok(found)
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let bytes = b"HTTP/1.1 200 OK\r\nx: a\tb \xc3\xa9\r\n\r\nunfinished";
        for size in 1..=bytes.len() {
            let found = cut(bytes, size, 20).unwrap();
            assert_eq!(found, [&b"HTTP/1.1 200 OK"[..], b"x: a\tb \xc3\xa9", b""], "in pieces of {size}");
        }
    }

    #[test]
    fn bytes_that_no_line_has_are_refused_however_they_arrive() {
        for (bytes, want) in [
            (&b"a line\n"[..], LineError::BareLf),
            (b"\n", LineError::BareLf),
            (b"a line\rx", LineError::BareCr),
            (b"a line\r\r\n", LineError::BareCr),
            (b"a\0line", LineError::Nul),
            (b"a long enough line\x0bx", LineError::Control),
            (b"a long enough line\x7fx", LineError::Control),
            (b"0123456789012345678901234\r\n", LineError::TooLong),
            (b"0123456789012345678901234", LineError::TooLong),
        ] {
            for size in 1..=bytes.len() {
                assert_eq!(cut(bytes, size, 24), Err(want), "{bytes:?} in pieces of {size}");
            }
        }
        assert!(cut(b"012345678901234567890123\r\n", 3, 24).is_ok(), "the limit itself is allowed");
    }

    #[test]
    fn every_control_character_is_found_wherever_it_stands() {
        for at in 0..20 {
            for byte in 0..=u8::MAX {
                let mut bytes = [b'a'; 20];
                bytes[at] = byte;
                let want = (byte.is_ascii_control() && byte != b'\t').then_some(at);
                assert_eq!(first_control(&bytes), want, "{byte:#x} at {at}");
            }
        }
    }

    #[test]
    fn fields_have_a_name_and_a_value() {
        for (line, want) in [
            (&b"x-A_b:c"[..], Ok((&b"x-A_b"[..], &b"c"[..]))),
            (b"x: \t c d\t ", Ok((b"x", b"c d"))),
            (b"x:", Ok((b"x", b""))),
            (b" x: y", Err(FieldError::Folded)),
            (b"\tx", Err(FieldError::Folded)),
            (b": y", Err(FieldError::Name)),
            (b"x : y", Err(FieldError::Name)),
            (b"x", Err(FieldError::Name)),
            (b"a b: c", Err(FieldError::Name)),
            (b"caf\xc3\xa9: c", Err(FieldError::Name)),
        ] {
            assert_eq!(field(line), want, "{line:?}");
        }
    }

    #[test]
    fn numbers_are_digits_only() {
        for (text, want) in [("0", Some(0)), ("007", Some(7)), ("18446744073709551615", Some(u64::MAX))] {
            assert_eq!(decimal(text.as_bytes()), want);
        }
        for text in ["", "+1", "-1", "1 ", "0x1", "1,1", "18446744073709551616", "a"] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
        assert_eq!((hexadecimal(b"fF"), hexadecimal(b"10000000000000000"), hexadecimal(b"g")), (Some(255), None, None));
    }
}
