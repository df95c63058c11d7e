//! The ABI by what a client and an origin can observe: one module per section of the reference.
