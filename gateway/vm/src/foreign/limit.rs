//! Several limits of a tenant taken from in one step, or none of them.
//!
//! A limit's state is an entry of the shared data like any other, so a guest that reads and writes them itself, as on hosts without
//! this function, sees the same.

use portcullis_abi::Status;
use portcullis_abi::limit::{Entry, Order, Verdict};
use portcullis_core::time::Time;

use super::Answer;
use crate::shared::Space;

/// The most limits of one order.
const MOST: usize = 64;

pub(super) fn answer(space: &Space, now: Time, arguments: &[u8]) -> Answer {
    let (order, mut rest) = arguments.split_first().ok_or(Status::BadArgument)?;
    let order = match order {
        0 => Order::Take,
        1 => Order::Settle,
        _ => return Err(Status::BadArgument),
    };
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (entry, after) = Entry::read(rest).ok_or(Status::BadArgument)?;
        if entries.len() == MOST || entry.cost < 0 && order == Order::Take {
            return Err(Status::BadArgument);
        }
        entries.push(entry);
        rest = after;
    }
    let verdicts = space.limit(order, &entries, now.as_nanos())?;
    Ok(verdicts.iter().flat_map(Verdict::to_bytes).collect())
}
