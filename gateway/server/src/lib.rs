//! The gateway itself: everything that waits.
//!
//! Operators' files become a [`config::snapshot::Snapshot`]; [`supervisor::start`] makes it a running gateway of workers, each
//! with its own thread, sockets, VMs and connections. What to do with a request is decided in `portcullis-core`, what a guest
//! may do in `portcullis-vm`; here sockets are read and written, and events and effects carried between them.

pub mod admin;
pub mod builtin;
mod bulkhead;
mod callout;
pub mod cli;
mod clock;
mod compile;
pub mod config;
mod copy;
mod decisions;
mod demo;
pub mod diagnostic;
mod durable;
mod export;
mod grpc;
pub mod inherited;
mod life;
mod listener;
mod message;
pub mod modules;
mod plan;
mod regular;
mod request_id;
mod revision;
mod serve;
mod services;
mod sockets;
pub mod supervisor;
mod systemd;
pub mod telemetry;
mod tls;
mod tryout;
mod tunnel;
mod upstream;
mod websocket;
mod worker;
pub mod workshop;
