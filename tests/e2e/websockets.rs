//! WebSockets through the gateway: byte for byte what the server says without it, whatever the client does.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use portcullis_tests::client::Client;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::pki::{Authority, Files, Use};
use portcullis_tests::raw::RawOrigin;
use portcullis_tests::tls::Dialer;
use portcullis_tests::tunnel::{Connect, handshake, switched};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message};

use crate::upgrades::ROUTES;

/// A server that sends back every message, as the library it is made of sees fit.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(stream: TcpStream) {
    let limits = WebSocketConfig::default().max_message_size(Some(32 << 20)).max_frame_size(Some(32 << 20));
    let Ok(mut socket) = tungstenite::accept_with_config(stream, Some(limits)) else { return };
    loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => _ = socket.send(message),
            Ok(_) => {}
            Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_)) => return,
            // What the library answers to a frame that is wrong is for the next reads and writes to bring out.
            Err(_) => {
                let _sent = socket.close(None).and_then(|()| socket.flush());
                let _closed = socket.get_ref().shutdown(Shutdown::Write);
                return;
            }
        }
    }
}

/// A client's frame. The mask is no secret here, and always the same, so that what comes back is always the same.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | u8::try_from(len).unwrap()),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// Set in the first byte of a message's last frame.
const LAST: u8 = 0x80;

fn close(code: u16, why: &str) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), why.as_bytes()].concat())
}

/// What a client does, and whether the server's answer to it ends in good order.
fn conversations() -> Vec<(String, Vec<u8>)> {
    let bye = close(1000, "bye");
    let with_bye = |frames: &[Vec<u8>]| [&frames.concat()[..], &bye].concat();
    let mut all = vec![
        ("nothing but the end".to_owned(), Vec::new()),
        ("immediate close".to_owned(), frame(CLOSE, b"")),
        (
            "ping between fragments".to_owned(),
            with_bye(&[frame(0x01, b"one "), frame(PING, b"now"), frame(LAST, b"two")]),
        ),
        ("pong nobody asked for".to_owned(), with_bye(&[frame(PONG, b"x"), frame(TEXT, b"after")])),
        ("ping as long as it may be".to_owned(), with_bye(&[frame(PING, &[7; 125])])),
        ("ping that is too long".to_owned(), with_bye(&[frame(PING, &[7; 126])])),
        ("character split across frames".to_owned(), with_bye(&[frame(0x01, b"\xe2\x82"), frame(LAST, b"\xac")])),
        ("character that never ends".to_owned(), with_bye(&[frame(0x01, b"\xe2\x82"), frame(LAST, b"x")])),
        ("text that is none".to_owned(), with_bye(&[frame(TEXT, b"\xff\xfe")])),
        ("a hundred fragments".to_owned(), {
            let mut frames = vec![frame(0x02, b"0")];
            frames.extend((1..99).map(|n| frame(0x00, &[n; 3])));
            frames.push(frame(LAST, b""));
            with_bye(&frames)
        }),
        ("end of nothing".to_owned(), with_bye(&[frame(LAST, b"x")])),
        ("message inside a message".to_owned(), with_bye(&[frame(0x01, b"one"), frame(TEXT, b"two")])),
        ("reserved bit".to_owned(), with_bye(&[frame(TEXT | 0x40, b"x")])),
        ("reserved opcode".to_owned(), with_bye(&[frame(0x83, b"x")])),
        ("fragmented ping".to_owned(), with_bye(&[frame(0x09, b"x")])),
        ("without a mask".to_owned(), [&[TEXT, 1, b'x'][..], &bye].concat()),
        ("message after close".to_owned(), [bye.clone(), frame(TEXT, b"late")].concat()),
        ("close of one byte".to_owned(), frame(CLOSE, b"x")),
        ("half a frame".to_owned(), frame(TEXT, b"never complete")[..9].to_vec()),
        ("what looks like HTTP".to_owned(), b"GET / HTTP/1.1\r\nhost: test\r\n\r\n".to_vec()),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 3000, 4999, 0, 999, 1004, 1005, 1006, 5000] {
        all.push((format!("close {code}"), close(code, "why")));
    }
    for size in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20, 16 << 20] {
        let payload: Vec<u8> = (0_u8..=255).cycle().take(size).collect();
        all.push((format!("{size} bytes"), with_bye(&[frame(BINARY, &payload)])));
    }
    all
}

#[test]
fn a_websocket_over_tls_says_what_one_in_the_clear_does() {
    let (authority, files, origin) = (Authority::new("test"), Files::default(), echo());
    files.put_pair("a", &authority.issue(&["a.test"], Use::Server));
    let tls = format!(r#"certificates: [{{ cert: "{}", key: "{}" }}]"#, files.text("a.pem"), files.text("a.key"));
    let text = format!("listeners: {{ main: {{ bind: \"127.0.0.1:0\", tls: {{ {tls} }} }} }}\n{ROUTES}");
    let gateway = Gateway::start(&text, &[("origin", &origin), ("filters", &"[]")]);
    let mut client = Dialer::new(&authority).offering(&["http/1.1"]).connect(gateway.address(), "a.test");
    client.send(handshake("/ws/a", "").replace("host: test", "host: a.test"));
    assert_eq!(client.0.head().unwrap().status(), 101);
    // The second is when a connection that is no tunnel would rest.
    for pause in [0, 2200] {
        thread::park_timeout(Duration::from_millis(pause));
        client.0.write(frame(BINARY, b"over tls")).unwrap();
        assert_eq!(client.0.exactly(10).unwrap(), b"\x82\x08over tls");
    }
    client.0.write(close(1000, "")).unwrap();
    assert_eq!(client.0.exactly(4).unwrap(), b"\x88\x02\x03\xe8");
}

/// Everything the server says until it closes.
fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut client = Client::connect(address);
    client.send(handshake("/ws/a", ""));
    assert_eq!(client.0.head().unwrap().status(), 101);
    let mut stream = client.0.stream().try_clone().unwrap();
    let bytes = bytes.to_vec();
    let writing = thread::spawn(move || {
        // The server may close before it has read it all.
        let _sent = stream.write_all(&bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    });
    let all = client.0.rest();
    writing.join().unwrap();
    all
}

#[test]
fn whatever_a_client_does_it_gets_the_servers_own_answer() {
    let address = echo();
    let gateways = ["[]", "[{ plugin: probe, config: \"headers upper@request_body upper@response_body\" }]"]
        .map(|filters| Gateway::start(ROUTES, &[("origin", &address), ("filters", &filters)]));
    for (what, bytes) in conversations() {
        let direct = answer(address, &bytes);
        for gateway in &gateways {
            let through = answer(gateway.address(), &bytes);
            assert!(through == direct, "{what}: {} bytes through the gateway, {} without", through.len(), direct.len());
        }
        // What the server sends back of a message is as large as the message, so that not everything compared is empty.
        assert!(!what.contains("fragments") || direct.len() > 7, "{what}: {direct:?}");
    }
}

#[test]
fn over_http2_too_it_gets_the_servers_own_answer() {
    let address = echo();
    let gateway = Gateway::start(ROUTES, &[("origin", &address), ("filters", &"[]")]);
    let connect = Connect::to(gateway.address()).unwrap();
    // A client that leaves in the middle has nothing to compare over a stream: what is complete does.
    for (what, bytes) in conversations().into_iter().filter(|(_, bytes)| bytes.len() < 2 << 20) {
        let direct = answer(address, &bytes);
        let (.., tunnel) = connect.ask("websocket", "/ws/a", &[("sec-websocket-version", "13")]).unwrap();
        let mut tunnel = tunnel.unwrap_or_else(|refused| panic!("{what}: {refused:?}"));
        tunnel.offer(bytes);
        let through = tunnel.rest();
        assert!(through == direct, "{what}: {} bytes over HTTP/2, {} without", through.len(), direct.len());
    }
}

#[test]
fn a_client_and_a_server_that_others_wrote_understand_each_other() {
    let address = echo();
    let gateway = Gateway::start(ROUTES, &[("origin", &address), ("filters", &"[]")]);
    let stream = TcpStream::connect(gateway.address()).unwrap();
    let url = format!("ws://{}/ws/a", gateway.address());
    let (mut socket, response) = tungstenite::client(url, stream).unwrap();
    assert_eq!(response.status(), 101);
    for message in [Message::text("grüße"), Message::binary(vec![0; 100_000]), Message::text("")] {
        socket.send(message.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), message);
    }
    socket.send(Message::Ping(b"are you there"[..].into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong(b"are you there"[..].into()));
    socket.close(None).unwrap();
    assert!(matches!(socket.read(), Ok(Message::Close(_))));
    assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));
}

#[test]
fn extensions_and_subprotocols_are_agreed_end_to_end() {
    let origin = RawOrigin::start(|wire, _| {
        let Ok(head) = wire.head() else { return };
        let offered =
            head.all("sec-websocket-extensions").join("+") + "|" + &head.all("sec-websocket-protocol").join("+");
        let chosen =
            "sec-websocket-extensions: permessage-deflate; server_no_context_takeover\r\nsec-websocket-protocol: b\r\n";
        let _sent = wire.write(switched(&format!("{chosen}x-offered: {offered}\r\n")));
    });
    let gateway = Gateway::start(ROUTES, &[("origin", &origin), ("filters", &"[]")]);
    let mut client = gateway.client();
    let offer =
        "sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\nsec-websocket-protocol: a, b\r\n";
    client.send(handshake("/ws/a", offer));
    let head = client.0.head().unwrap();
    assert_eq!(head.get("x-offered"), Some("permessage-deflate; client_max_window_bits|a, b"));
    assert_eq!(head.all("sec-websocket-extensions"), ["permessage-deflate; server_no_context_takeover"]);
    assert_eq!(head.all("sec-websocket-protocol"), ["b"]);
}
