//! Functions of the host beyond the ABI, called by name. No host has to have any: a filter that uses one can do without.

use crate::sys;

/// Calls one; nothing where the host has none of this name, or it refuses the argument.
///
/// ```
/// use portcullis_sdk::foreign;
/// fn compressed(text: &[u8]) -> Option<Vec<u8>> {
///     foreign::call("compress", text)
/// }
/// ```
#[must_use]
pub fn call(name: &str, argument: &[u8]) -> Option<Vec<u8>> {
    sys::foreign_function(name, argument).ok()
}
