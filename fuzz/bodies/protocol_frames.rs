//! Any bytes as what a connection receives, in any pieces. The codec must give frames or a typed
//! error; a frame it gave must come back the same when it is sent again.

use bytes::BytesMut;
use ganger_protocol::kv_fast::{Answer, Command};
use ganger_protocol::watch::WatchValue;
use ganger_protocol::{check_subject, headers, Frame, FrameCodec, Limits, Reference};
use tokio_util::codec::Decoder;

/// A small limit, so that small inputs are beyond it too.
const FRAME_BYTES: usize = 2000;

/// Runs a program: how many bytes come at a time, then the bytes.
pub fn run(program: &[u8]) {
    let Some((&piece, bytes)) = program.split_first() else {
        return;
    };
    let limits = Limits {
        frame_bytes: FRAME_BYTES,
        ..Limits::default()
    };
    let mut codec = FrameCodec::new(&limits);
    let mut received = BytesMut::new();
    for piece in bytes.chunks(usize::from(piece).max(1)) {
        received.extend_from_slice(piece);
        loop {
            match codec.decode(&mut received) {
                Ok(Some(frame)) => look(&frame),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(received.capacity() <= 4 * FRAME_BYTES);
    }
}

fn look(frame: &Frame) {
    let mut wire = BytesMut::new();
    frame.write_to(&mut wire);
    let again = FrameCodec::new(&Limits::default()).decode(&mut wire);
    assert_eq!(again.unwrap().as_ref(), Some(frame));
    assert!(wire.is_empty());
    let parts = [frame.subject(), frame.headers(), frame.payload()].concat();
    assert_eq!(parts, frame.tail.bytes()[..]);

    if let Ok(Some(command)) = Command::of(frame) {
        command.write(frame.head.id, &mut wire).unwrap();
        let again = FrameCodec::new(&Limits::default()).decode(&mut wire);
        let again = again.unwrap().unwrap();
        assert_eq!(Command::of(&again).unwrap(), Some(command));
    }
    let _ = (Answer::of(frame), Reference::from_payload(frame.payload()));
    if let Some(value) = WatchValue::from_tail(&frame.tail) {
        assert_eq!(
            WatchValue::from_tail(&value.to_tail().unwrap()),
            Some(value)
        );
    }
    let _ = check_subject(frame.subject());
    let read: Result<Vec<_>, _> = headers::iter(frame.headers()).collect();
    if let Ok(read) = read {
        let written = headers::encode(&read).unwrap();
        assert!(headers::iter(&written).map(Result::unwrap).eq(read));
    }
}
