//! As much of protobuf's wire form as the ABI uses: some arguments of gRPC calls and foreign functions are small messages.
//!
//! Reading allocates nothing and trusts no number; what is not understood is stepped over, as protobuf asks.

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, a truth or one of an enum.
    Number(u64),
    /// Bytes, text or another message.
    Bytes(&'a [u8]),
    /// A number of fixed size, which nothing here uses.
    Fixed,
}

/// The fields of a message, in their order.
#[derive(Clone, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Those of this message.
    #[must_use]
    pub fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 {
                return Err(Malformed);
            }
            number |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed)?;
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let tag = self.number()?;
        if tag >> 3 == 0 {
            return Err(Malformed);
        }
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = self.number()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed),
        };
        Ok((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Writes a field that is a number, at the end of what takes bytes.
pub fn number(out: &mut impl Extend<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

/// Writes a field that is bytes, text or another message.
pub fn bytes(out: &mut impl Extend<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend(value.iter().copied());
}

fn varint(out: &mut impl Extend<u8>, mut number: u64) {
    while number >= 0x80 {
        out.extend([(number & 0x7f) as u8 | 0x80]);
        number >>= 7;
    }
    out.extend([(number & 0x7f) as u8]);
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn fields_are_read_and_what_is_not_known_is_stepped_over() {
        let message = b"\x08\x96\x01\x12\x07testing\x19abcdefgh\x25abcd\x30\x01";
        let fields: Vec<_> = Fields::of(message).map(Result::unwrap).collect();
        let want = [
            (1, Value::Number(150)),
            (2, Value::Bytes(b"testing")),
            (3, Value::Fixed),
            (4, Value::Fixed),
            (6, Value::Number(1)),
        ];
        assert_eq!(fields, want);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut message = Vec::new();
        number(&mut message, 1, 150);
        bytes(&mut message, 2, b"testing");
        number(&mut message, 3000, u64::MAX);
        assert!(message.starts_with(b"\x08\x96\x01\x12\x07testing"));
        let fields: Vec<_> = Fields::of(&message).map(Result::unwrap).collect();
        assert_eq!(fields, [(1, Value::Number(150)), (2, Value::Bytes(b"testing")), (3000, Value::Number(u64::MAX))]);
    }

    #[test]
    fn what_is_no_message_is_an_error_and_ends() {
        for bytes in [
            &b"\x08"[..],
            b"\x00\x01",
            b"\x12\x05ab",
            b"\x0b",
            b"\x0f\x00",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
        ] {
            let fields: Vec<_> = Fields::of(bytes).collect();
            assert_eq!(fields, [Err(Malformed)], "{bytes:?}");
        }
        assert_eq!(Fields::of(b"").count(), 0);
    }
}
