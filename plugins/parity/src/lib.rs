//! A guest for the parity tests: makes the hostcalls its script names, and logs what they return.
//!
//! It stands on no SDK, since an SDK aborts on statuses that the tests want to see. Its configuration is a label, a line's end,
//! and a script (`script.rs`). Every line it logs begins with the label and `|`, so that a host that runs many of them can have
//! its log taken apart again; the end of each exchange is the line `gone`.

mod callbacks;
mod hostcalls;
mod script;
mod state;
mod steps;
