//! An origin as a process of its own, for tests that kill it. Answers `ok`, but what asks for `?hold` it never answers.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use portcullis_tests::wire::Wire;

fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    for stream in listener.incoming().map_while(Result::ok) {
        std::thread::spawn(move || serve(stream));
    }
    Ok(())
}

fn serve(stream: TcpStream) {
    let mut wire = Wire::new(stream);
    while let Ok(request) = wire.message() {
        if !request.head.start.contains("?hold")
            && wire.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err()
        {
            return;
        }
    }
}
