//! What the HTTP library is given to read.

use std::io::ErrorKind;

use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const HEAD: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const WISH: &[u8] = b"GET /w HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n";
const CHUNKED: &[u8] = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

/// A client, and what it is read through.
fn pair() -> (DuplexStream, Strict<DuplexStream>, Arc<Answers>) {
    let (client, server) = duplex(1 << 20);
    let answers = Arc::<Answers>::default();
    (client, Strict::new(server, answers.clone()), answers)
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
}

/// What can be read without waiting, with so much room at a time.
async fn ready(strict: &mut Strict<DuplexStream>, room: usize) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    std::future::poll_fn(|cx| {
        loop {
            let mut piece = vec![0; room];
            let mut piece = ReadBuf::new(&mut piece);
            match Pin::new(&mut *strict).poll_read(cx, &mut piece) {
                Poll::Pending => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if piece.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => all.extend_from_slice(piece.filled()),
            }
        }
    })
    .await
    .map(|()| all)
}

#[test]
fn what_passes_is_not_changed_whatever_the_pieces() {
    run(async {
        let bytes = [HEAD, CHUNKED, HEAD].concat();
        for (sent, room) in [(1, 1), (1, 8 << 10), (7, 24), (1000, 24), (1000, 8 << 10)] {
            let (mut client, mut strict, _) = pair();
            let mut got = Vec::new();
            for piece in bytes.chunks(sent) {
                client.write_all(piece).await.unwrap();
                got.extend(ready(&mut strict, room).await.unwrap());
            }
            assert_eq!(got, bytes, "{sent} {room}");
            assert_eq!(strict.held.capacity(), 0, "an idle connection keeps no buffer");
        }
    });
}

#[test]
fn a_head_is_held_back_until_it_is_whole() {
    run(async {
        let (mut client, mut strict, _) = pair();
        client.write_all(&[HEAD, &HEAD[..20]].concat()).await.unwrap();
        assert_eq!(ready(&mut strict, 8 << 10).await.unwrap(), HEAD);
        client.write_all(&HEAD[20..]).await.unwrap();
        assert_eq!(ready(&mut strict, 8 << 10).await.unwrap(), HEAD);
    });
}

#[test]
fn a_refused_head_is_replaced_and_nothing_follows_it() {
    run(async {
        for room in [24, 8 << 10] {
            let (mut client, mut strict, _) = pair();
            client.write_all(&[HEAD, b"GET /b HTTP/1.1\r\nHost: a\r\nx y\r\n\r\n", HEAD].concat()).await.unwrap();
            let stand_in = b"GET /b HTTP/1.1\r\nx-portcullis-refused: space_before_colon\r\n\r\n";
            assert_eq!(ready(&mut strict, room).await.unwrap(), [HEAD, &stand_in[..]].concat());
            client.write_all(HEAD).await.unwrap();
            assert_eq!(ready(&mut strict, room).await.unwrap(), b"");
        }
    });
}

#[test]
fn a_refused_body_ends_in_an_error_that_says_whose_fault_it_is() {
    run(async {
        let (mut client, mut strict, _) = pair();
        client.write_all(&[&CHUNKED[..CHUNKED.len() - 5], b"x\r\n"].concat()).await.unwrap();
        let mut first = vec![0; 8 << 10];
        let mut first = ReadBuf::new(&mut first);
        std::future::poll_fn(|cx| Pin::new(&mut strict).poll_read(cx, &mut first)).await.unwrap();
        assert_eq!(first.filled(), &CHUNKED[..CHUNKED.len() - 5]);
        assert_eq!(ready(&mut strict, 8 << 10).await.unwrap_err().kind(), ErrorKind::InvalidData);
    });
}

#[test]
fn what_follows_a_wish_is_read_when_the_wish_is_answered_and_as_what_it_then_is() {
    run(async {
        for granted in [true, false] {
            let (mut client, mut strict, answers) = pair();
            client.write_all(&[HEAD, WISH, b"\x81\x05hello"].concat()).await.unwrap();
            assert_eq!(ready(&mut strict, 8 << 10).await.unwrap(), [HEAD, WISH].concat());
            answers.answered(false);
            assert_eq!(ready(&mut strict, 8 << 10).await.unwrap(), b"", "that was the answer to the request before");
            answers.answered(granted);
            let stand_in = b"- * HTTP/1.1\r\nx-portcullis-refused: request_line\r\n\r\n";
            let want = if granted { &b"\x81\x05hello"[..] } else { stand_in };
            assert_eq!(ready(&mut strict, 8 << 10).await.unwrap(), want);
            client.write_all(b"\0\x01\n").await.unwrap();
            let want = if granted { &b"\0\x01\n"[..] } else { b"" };
            assert_eq!(ready(&mut strict, 8 << 10).await.unwrap(), want);
        }
    });
}

#[test]
fn whoever_waits_for_an_answer_is_woken_when_it_is_written() {
    run(async {
        let (mut client, mut strict, answers) = pair();
        client.write_all(&[WISH, HEAD].concat()).await.unwrap();
        assert_eq!(ready(&mut strict, 8 << 10).await.unwrap(), WISH);
        answers.answered(false);
        assert!(strict.reader.is_some());
        strict.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert!(strict.reader.is_none());
        assert_eq!(ready(&mut strict, 8 << 10).await.unwrap(), HEAD);
    });
}
