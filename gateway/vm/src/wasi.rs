//! The WASI functions guests may import: a clock, randomness and two streams that are the log. No files, no sockets, no
//! environment; what asks for them is told there is none (ABI reference §5).
//!
//! Offered as `wasi_snapshot_preview1` and as `wasi_unstable`, which AssemblyScript's modules import. They work at any time,
//! also while the module starts or its allocator runs.

use std::sync::LazyLock;
use std::time::Instant;

use portcullis_abi::{LogLevel, Status};
use portcullis_core::time::nanos;
use wasmtime::{Caller, Linker};

use crate::engine::fill_random;
use crate::failure::Exited;
use crate::guest::{Call, Guest};
use crate::hostcalls::{Answer, hostcalls, wall_clock};

/// The module names guests import these from.
pub(crate) const MODULES: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

/// A WASI error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Errno(u32);

impl Errno {
    const BADF: Self = Self(8);
    /// What the reference host answers for directories.
    const NOTDIR: Self = Self(20);
    const FAULT: Self = Self(21);
    const INVAL: Self = Self(28);
    const IO: Self = Self(29);
    const NOENT: Self = Self(44);
    const NOSYS: Self = Self(52);
    const NOTSUP: Self = Self(58);
}

impl From<Status> for Errno {
    fn from(_: Status) -> Self {
        Self::FAULT
    }
}

impl Answer for Result<(), Errno> {
    fn number(self) -> wasmtime::Result<u32> {
        Ok(self.map_or_else(|errno| errno.0, |()| 0))
    }
}

/// Standard output and standard error, which are the log.
const STREAMS: [(u32, LogLevel); 2] = [(1, LogLevel::Info), (2, LogLevel::Error)];

fn stream(fd: u32) -> Result<LogLevel, Errno> {
    STREAMS.into_iter().find_map(|(stream, level)| (stream == fd).then_some(level)).ok_or(Errno::BADF)
}

/// The most bytes of one write that reach the log; it cuts lines shorter than this.
const LINE_BYTES: usize = 16 << 10;
/// The most pieces of one write, as on Linux: each costs time that the guest's budget sees only afterwards.
const PIECES: u32 = 1024;
/// The most bytes of randomness at once.
const RANDOM_BYTES: u32 = 64 << 10;

/// One line of the log, of all the pieces together.
fn write(guest: &mut Call<'_>, fd: u32, pieces: u32, count: u32, out: u32) -> Result<(), Errno> {
    let level = stream(fd)?;
    if count > PIECES {
        return Err(Errno::INVAL);
    }
    let (mut line, mut total) = (Vec::new(), 0_u32);
    for index in 0..count {
        let piece = index.checked_mul(8).and_then(|offset| pieces.checked_add(offset)).ok_or(Errno::FAULT)?;
        let address = guest.number(piece)?;
        let bytes = guest.read(address, guest.number(piece.checked_add(4).ok_or(Errno::FAULT)?)?)?;
        total = u32::try_from(bytes.len()).ok().and_then(|len| total.checked_add(len)).ok_or(Errno::INVAL)?;
        // A guest can name the same bytes a million times over.
        let room = LINE_BYTES.saturating_sub(line.len());
        line.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
    }
    guest.put(out, total.to_le_bytes())?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    // Rust writes the text and the end of its line separately; the second would be a line of its own.
    if !line.is_empty() {
        guest.say(level, line);
    }
    Ok(())
}

fn clock(id: u32) -> Result<u64, Errno> {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let time = match id {
        0 => wall_clock(),
        1 => nanos(START.elapsed()),
        _ => return Err(Errno::NOTSUP),
    };
    Ok(time)
}

hostcalls! {
    wasi fn fd_write(guest; fd, pieces, count, out) {
        write(guest, fd, pieces, count, out)
    }

    wasi fn fd_pwrite(guest; fd, pieces, count, offset: i64, out) {
        write(guest, fd, pieces, count, out)
    }

    wasi fn clock_time_get(guest; clock_id, precision: i64, out) {
        Ok(guest.put(out, clock(clock_id)?.to_le_bytes())?)
    }

    wasi fn clock_res_get(guest; clock_id, out) {
        clock(clock_id)?;
        Ok(guest.put(out, 1_u64.to_le_bytes())?)
    }

    wasi fn random_get(guest; address, len) {
        if len > RANDOM_BYTES {
            return Err(Errno::INVAL);
        }
        fill_random(guest.write(address, len)?).map_err(|_| Errno::IO)
    }

    wasi fn environ_sizes_get(guest; out_count, out_size) {
        guest.put(out_count, [0; 4])?;
        Ok(guest.put(out_size, [0; 4])?)
    }

    wasi fn environ_get(_guest; out_addresses, out) {
        Ok(())
    }

    wasi fn args_sizes_get(guest; out_count, out_size) {
        guest.put(out_count, [0; 4])?;
        Ok(guest.put(out_size, [0; 4])?)
    }

    wasi fn args_get(_guest; out_addresses, out) {
        Ok(())
    }

    /// Envoy logs and returns, after which guests run into `unreachable`. This ends the callback here, with the code told.
    void fn proc_exit(_guest; code) {
        Err(wasmtime::Error::new(Exited(code)))
    }

    wasi fn sched_yield(_guest;) {
        Ok(())
    }

    /// Nothing ever happens. An error here ends Go's modules when their collector runs.
    wasi fn poll_oneoff(guest; subscriptions, out, count, out_count) {
        Ok(guest.put(out_count, [0; 4])?)
    }

    wasi fn fd_fdstat_get(guest; fd, out) {
        stream(fd)?;
        guest.write(out, 24)?.fill(0);
        // The rights: to write.
        Ok(guest.put(out.checked_add(8).ok_or(Errno::FAULT)?, 64_u64.to_le_bytes())?)
    }

    wasi fn fd_fdstat_set_flags(_guest; fd, flags) {
        Err(Errno::NOSYS)
    }

    wasi fn fd_fdstat_set_rights(_guest; fd, base: i64, inheriting: i64) {
        stream(fd).map(|_| ())
    }

    wasi fn fd_close(_guest; fd) {
        Ok(())
    }

    wasi fn fd_seek(_guest; fd, offset: i64, whence, out) {
        Ok(())
    }

    wasi fn fd_read(_guest; fd, pieces, count, out) {
        Err(Errno::NOSYS)
    }

    wasi fn fd_pread(_guest; fd, pieces, count, offset: i64, out) {
        Err(Errno::NOSYS)
    }

    /// wasi-libc and Go ask for one directory after another until they hear this.
    wasi fn fd_prestat_get(_guest; fd, out) {
        Err(Errno::BADF)
    }

    wasi fn fd_prestat_dir_name(_guest; fd, path, len) {
        Err(Errno::NOSYS)
    }

    wasi fn fd_filestat_get(_guest; fd, out) {
        Err(Errno::BADF)
    }

    wasi fn fd_filestat_set_size(_guest; fd, size: i64) {
        stream(fd).map(|_| ())
    }

    wasi fn fd_filestat_set_times(_guest; fd, accessed: i64, modified: i64, flags) {
        stream(fd).map(|_| ())
    }

    wasi fn fd_advise(_guest; fd, offset: i64, len: i64, advice) {
        Ok(())
    }

    wasi fn fd_allocate(_guest; fd, offset: i64, len: i64) {
        stream(fd).map(|_| ())
    }

    wasi fn fd_datasync(_guest; fd) {
        stream(fd).map(|_| ())
    }

    wasi fn fd_sync(_guest; fd) {
        stream(fd).map(|_| ())
    }

    wasi fn fd_tell(guest; fd, out) {
        stream(fd)?;
        Ok(guest.put(out, [0; 8])?)
    }

    wasi fn fd_readdir(guest; fd, address, len, cookie: i64, out) {
        guest.put(out, [0; 4])?;
        Err(Errno::NOTDIR)
    }

    wasi fn fd_renumber(_guest; fd, to) {
        stream(fd)?;
        stream(to)?;
        Err(Errno::NOTSUP)
    }

    wasi fn path_open(_guest; fd, dir_flags, path, len, flags, base: i64, inheriting: i64, fd_flags, out) {
        Err(Errno::NOENT)
    }

    wasi fn path_filestat_get(_guest; fd, flags, path, len, out) {
        Err(Errno::NOTSUP)
    }

    wasi fn path_filestat_set_times(_guest; fd, flags, path, len, accessed: i64, modified: i64, which) {
        Err(Errno::NOTSUP)
    }

    wasi fn path_create_directory(_guest; fd, path, len) {
        Err(Errno::NOTSUP)
    }

    wasi fn path_remove_directory(_guest; fd, path, len) {
        Err(Errno::NOTSUP)
    }

    wasi fn path_unlink_file(_guest; fd, path, len) {
        Err(Errno::NOTSUP)
    }

    /// WASI's type; the reference host's lacks one parameter.
    wasi fn path_link(_guest; fd, flags, path, len, to, to_path, to_len) {
        Err(Errno::NOTSUP)
    }

    wasi fn path_readlink(guest; fd, path, len, address, room, out) {
        guest.put(out, [0; 4])?;
        Err(Errno::NOTSUP)
    }

    wasi fn path_rename(_guest; fd, path, len, to, to_path, to_len) {
        Err(Errno::NOTSUP)
    }

    /// WASI's type; the reference host's lacks one parameter.
    wasi fn path_symlink(_guest; path, len, fd, to_path, to_len) {
        Err(Errno::NOTSUP)
    }

    wasi fn sock_accept(_guest; fd, flags, out) {
        Err(Errno::NOTSUP)
    }

    wasi fn sock_recv(_guest; fd, pieces, count, flags, out_len, out_flags) {
        Err(Errno::NOTSUP)
    }

    wasi fn sock_send(_guest; fd, pieces, count, flags, out) {
        Err(Errno::NOTSUP)
    }

    wasi fn sock_shutdown(_guest; fd, how) {
        Err(Errno::NOTSUP)
    }
}
