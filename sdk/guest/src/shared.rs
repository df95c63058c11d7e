//! Shared data: one typed value that all workers see, changed by compare-and-swap.

use std::fmt;
use std::marker::PhantomData;

use portcullis_abi::Status;

use crate::sys;

/// Each lost race means that another worker got through, so this many in a row are no chance.
const MAX_TRIES: usize = 32;

/// A type that can be kept in shared data.
///
/// ```
/// use portcullis_sdk::shared::Shared;
/// #[derive(Debug, PartialEq)]
/// struct Pair(u8, u8);
/// impl Shared for Pair {
///     fn to_bytes(&self) -> Vec<u8> {
///         vec![self.0, self.1]
///     }
///     fn from_bytes(bytes: &[u8]) -> Option<Self> {
///         <[u8; 2]>::try_from(bytes).ok().map(|[a, b]| Self(a, b))
///     }
/// }
/// assert_eq!(Pair::from_bytes(&Pair(1, 2).to_bytes()), Some(Pair(1, 2)));
/// ```
pub trait Shared: Sized {
    /// Its bytes.
    fn to_bytes(&self) -> Vec<u8>;
    /// Reads it; nothing if the bytes are not one.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Shared for Vec<u8> {
    fn to_bytes(&self) -> Vec<u8> {
        self.clone()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

impl Shared for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.clone().into_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }
}

impl<const N: usize> Shared for [u8; N] {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Shared for $number {
            fn to_bytes(&self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }

            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_le_bytes)
            }
        })*
    };
}

numbers!(u32, i32, u64, i64, f64);

/// A value of serde's, kept as JSON.
///
/// ```
/// use portcullis_sdk::shared::{Json, Shared};
/// assert_eq!(Json(vec![1, 2]).to_bytes(), b"[1,2]");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: serde::Serialize + serde::de::DeserializeOwned> Shared for Json<T> {
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).unwrap_or_default()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().map(Self)
    }
}

/// A value that all workers share.
///
/// A key belongs to the tenant, whatever its plugin; begin it with the filter's name. Whoever has room for no more forgets
/// what was written longest ago.
///
/// ```
/// # use portcullis_sdk::shared::Cell;
/// fn count_visit(visitor: &str) -> Option<u64> {
///     let visits: Cell<u64> = Cell::new(format!("visits/{visitor}"));
///     visits.update(|seen| Some(seen.unwrap_or(0) + 1)).ok().flatten()
/// }
/// ```
pub struct Cell<T> {
    key: Vec<u8>,
    value: PhantomData<T>,
}

/// A value that was not stored.
///
/// ```
/// # use portcullis_sdk::shared::{Cell, NotStored};
/// fn mark(seen: &Cell<u64>) -> &'static str {
///     match seen.set(&1) {
///         Ok(()) => "marked",
///         Err(NotStored::Contended) => "others were faster",
///         Err(NotStored::Refused) => "there is no room",
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// Others got ahead every time.
    Contended,
    /// The host has no room for it.
    Refused,
}

impl fmt::Display for NotStored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contended => write!(f, "others changed the value {MAX_TRIES} times in a row"),
            Self::Refused => f.write_str("the host does not store the value"),
        }
    }
}

impl std::error::Error for NotStored {}

impl<T: Shared> Cell<T> {
    /// The value under this key.
    ///
    /// ```
    /// use portcullis_sdk::shared::Cell;
    /// let seen: Cell<u64> = Cell::new("seen");
    /// ```
    pub fn new(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), value: PhantomData }
    }

    /// What it is now; nothing if nobody has set it, or to something that is no `T`.
    ///
    /// ```
    /// # use portcullis_sdk::shared::Cell;
    /// fn is_closed() -> bool {
    ///     Cell::<String>::new("maintenance").get().is_some()
    /// }
    /// ```
    #[must_use]
    pub fn get(&self) -> Option<T> {
        let (bytes, _) = sys::shared_data(&self.key).ok()?;
        T::from_bytes(&bytes)
    }

    /// Sets it, whatever it was.
    ///
    /// # Errors
    /// When the host does not take it.
    ///
    /// ```
    /// # use portcullis_sdk::shared::{Cell, NotStored};
    /// fn close(why: &str) -> Result<(), NotStored> {
    ///     Cell::new("maintenance").set(&why.to_owned())
    /// }
    /// ```
    pub fn set(&self, value: &T) -> Result<(), NotStored> {
        sys::set_shared_data(&self.key, &value.to_bytes(), 0).map_err(|_| NotStored::Refused)
    }

    /// Makes a new value of the old one, and tries again when somebody else was faster. `change` may say that nothing is to be
    /// changed. Returns what it was changed to.
    ///
    /// # Errors
    /// When others are always faster, or the host does not take it.
    ///
    /// ```
    /// # use portcullis_sdk::shared::{Cell, NotStored};
    /// fn take(tokens: &Cell<u64>) -> Result<bool, NotStored> {
    ///     Ok(tokens.update(|left| left.unwrap_or(10).checked_sub(1))?.is_some())
    /// }
    /// ```
    pub fn update(&self, mut change: impl FnMut(Option<T>) -> Option<T>) -> Result<Option<T>, NotStored> {
        for _ in 0..MAX_TRIES {
            let (old, cas) = match sys::shared_data(&self.key) {
                Ok((bytes, cas)) => (T::from_bytes(&bytes), cas),
                Err(_) => (None, 0),
            };
            let Some(new) = change(old) else { return Ok(None) };
            match sys::set_shared_data(&self.key, &new.to_bytes(), cas) {
                Ok(()) => return Ok(Some(new)),
                Err(Status::CasMismatch) => {}
                Err(_) => return Err(NotStored::Refused),
            }
        }
        Err(NotStored::Contended)
    }
}

impl<T> fmt::Debug for Cell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cell({})", self.key.escape_ascii())
    }
}
