//! All cases, a file for each part of the ABI.
#![allow(clippy::too_many_lines, reason = "these functions are tables, one row after the other")]

pub(crate) mod bodies;
pub(crate) mod buffers;
pub(crate) mod calls;
pub(crate) mod foreign;
pub(crate) mod grpc;
pub(crate) mod headers;
pub(crate) mod integration;
pub(crate) mod life;
pub(crate) mod maps;
pub(crate) mod memory;
pub(crate) mod old;
pub(crate) mod pauses;
pub(crate) mod properties;
pub(crate) mod replies;
pub(crate) mod services;
