//! Compiling where it can hurt nobody: in a child process of the same program, under limits of its own.
//!
//! A module can be made to be dear to compile, and the compiler is a large program that reads what strangers wrote. So the gateway
//! only asks for machine code: wasm goes in, code or a reason comes out. **Invariant:** whatever becomes of the child, the
//! gateway waits for it no longer than [`CompileLimits::wall`], and holds no more of what it says than its limits allow.

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::module::LoadError;

/// The exit code of a child whose compiler refuses the module; the reason is on its standard error.
const REFUSED: i32 = 3;
/// The most bytes of a reason.
const REASON_BYTES: u64 = 4 << 10;

/// How to have a module compiled elsewhere.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// The program, which compiles when it is called with `compile --cpu-seconds=… --memory=…`.
    pub program: PathBuf,
}

/// What compiling one module may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Processor time, in whole seconds.
    pub cpu: Duration,
    /// Bytes of memory.
    pub memory: u64,
}

impl Default for CompileLimits {
    /// Ten times what the largest of ordinary plugins take.
    fn default() -> Self {
        Self { cpu: Duration::from_secs(60), memory: 2 << 30 }
    }
}

impl CompileLimits {
    /// How long the gateway waits: a busy machine gives the child a part of its time only.
    fn wall(&self) -> Duration {
        self.cpu * 5 + Duration::from_secs(10)
    }
}

impl Compiler {
    /// This very program.
    #[must_use]
    pub fn this_program() -> Self {
        // The link stays good when the file has been replaced meanwhile.
        Self { program: PathBuf::from("/proc/self/exe") }
    }

    /// Has it compiled.
    pub(crate) fn compile(&self, wasm: &[u8], limits: &CompileLimits) -> Result<Vec<u8>, LoadError> {
        let broken = |error: io::Error| LoadError::Compiler { reason: error.to_string() };
        let CompileLimits { cpu, memory } = *limits;
        let mut command = Command::new(&self.program);
        command.arg("compile").arg(format!("--cpu-seconds={}", cpu.as_secs())).arg(format!("--memory={memory}"));
        command.env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(broken)?;
        let told = thread::scope(|scope| talk(scope, &mut child, wasm, limits));
        let (code, reason) = match told {
            Ok(told) => told,
            Err(error) => {
                let _gone = child.kill();
                let _reaped = child.wait();
                return Err(error);
            }
        };
        let status = child.wait().map_err(broken)?;
        let said = String::from_utf8_lossy(&reason).trim().to_owned();
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(code),
            (Some(REFUSED), _) => Err(LoadError::Invalid { reason: said }),
            (_, Some(libc::SIGXCPU | libc::SIGKILL)) => Err(LoadError::CompileTime(cpu)),
            // What runs out of memory aborts, or overflows a stack that could not grow.
            (_, Some(libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS)) => Err(LoadError::CompileMemory(memory)),
            _ if said.is_empty() => Err(LoadError::Compiler { reason: format!("it ended with {status}") }),
            _ => Err(LoadError::Compiler { reason: format!("it ended with {status}: {said}") }),
        }
    }
}

/// Hands the module in, and takes what comes out.
fn talk<'s>(
    scope: &'s thread::Scope<'s, '_>,
    child: &mut Child,
    wasm: &'s [u8],
    limits: &CompileLimits,
) -> Result<(Vec<u8>, Vec<u8>), LoadError> {
    let (done, outcome) = mpsc::channel();
    if let (Some(mut input), Some(output), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    {
        scope.spawn(move || {
            // A child that reads no further has its reason.
            let _refused = input.write_all(wasm);
        });
        let memory = limits.memory;
        scope.spawn(move || {
            let (mut code, mut reason) = (Vec::new(), Vec::new());
            let read = output.take(memory).read_to_end(&mut code);
            let read = read.and_then(|_| errors.take(REASON_BYTES).read_to_end(&mut reason));
            let _nobody_waits = done.send(read.map(|_| (code, reason)));
        });
    }
    match outcome.recv_timeout(limits.wall()) {
        Ok(read) => read.map_err(|error| LoadError::Compiler { reason: error.to_string() }),
        Err(_) => {
            // Its ends of the pipes close with it, and so the threads end.
            let _gone = child.kill();
            Err(LoadError::CompileTime(limits.cpu))
        }
    }
}

/// What the child does: compiles what it reads, and writes the code; or says why not, and returns the exit code that means that.
///
/// # Errors
/// When it cannot read or write.
pub fn compile_alone(input: impl io::Read, mut output: impl io::Write, mut errors: impl io::Write) -> io::Result<i32> {
    let mut wasm = Vec::new();
    input.take(crate::bounds::MODULE_BYTES as u64 + 1).read_to_end(&mut wasm)?;
    let compiled = crate::engine::compile_only(&wasm);
    match compiled {
        Ok(code) => output.write_all(&code).and_then(|()| output.flush()).map(|()| 0),
        Err(error) => writeln!(errors, "{}", error.root_cause()).map(|()| REFUSED),
    }
}
