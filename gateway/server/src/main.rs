//! Arguments → configuration → run.

use std::process::ExitCode;

use clap::Parser as _;
use portcullis::cli;

/// Requests allocate much and briefly, on threads that share nothing: the system's allocator is the slower one for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    do_without_huge_pages();
    cli::run(cli::Arguments::parse())
}

/// Has the kernel give small pages only, where it knows others.
///
/// Heaps of threads and memories of VMs are many and small: of pages of 2 MiB most would be empty. They took a third of the memory of a
/// small gateway, and saved no processor time that could be measured.
fn do_without_huge_pages() {
    let [yes, unused]: [libc::c_ulong; 2] = [1, 0];
    // SAFETY: the call reads and writes no memory.
    #[allow(unsafe_code, reason = "no library offers this call")]
    let _fails_where_there_are_none = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, yes, unused, unused, unused) };
}
