//! The policies that come with the gateway, doing what their pages in `docs/policies` show: a module for each.

mod aggregate;
mod auth;
mod grpc_json;
mod jq;
mod rate_limit;
mod redis;
mod together;
mod transform;
