//! The least gRPC server over libonnxruntime: it parses, runs and answers, and checks and counts nothing.
//!
//! Usage: ceiling PORT THREADS LIBONNXRUNTIME [NAME=MODEL.onnx ...]. With no model it is an echo: the raw contents of the
//! request are those of the answer.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::RecvStream;
use http::{HeaderMap, HeaderValue, Request, Response};
use serving_native::ort::{Runtime, Session};
use serving_native::{put_bytes, put_varint, Cursor, Field};
use tokio::net::{TcpListener, TcpStream};

type Sessions = Arc<HashMap<Vec<u8>, Session>>;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let mut sessions = HashMap::new();
    if arguments.len() > 4 {
        let runtime = Runtime::open(&arguments[3]);
        for model in &arguments[4..] {
            let (name, path) = model.split_once('=').expect("NAME=MODEL");
            sessions.insert(name.as_bytes().to_vec(), Session::open(runtime, path, 1));
        }
    }
    let threads = arguments[2].parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    runtime.block_on(serve(&arguments[1], Arc::new(sessions)));
}

async fn serve(port: &str, sessions: Sessions) {
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(connection(stream, sessions.clone()));
    }
}

async fn connection(stream: TcpStream, sessions: Sessions) {
    stream.set_nodelay(true).unwrap();
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1 << 24).initial_connection_window_size(1 << 28).max_frame_size(1 << 20);
    builder.max_send_buffer_size(1 << 30);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, sessions.clone()));
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, sessions: Sessions) -> Option<()> {
    let mut body = request.into_body();
    let mut pieces = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        let _ = body.flow_control().release_capacity(piece.len());
        pieces.push(piece);
    }
    let message = infer(&pieces, &sessions)?;
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(head, false).ok()?;
    stream.send_data(message.into(), false).ok()?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers).ok()
}

/// Return the framed answer to a framed request.
fn infer(pieces: &[Bytes], sessions: &Sessions) -> Option<Vec<u8>> {
    let mut message = Cursor::new(pieces);
    message.skip(5)?;
    let (mut model, mut shape, mut raw) = (Vec::new(), Vec::new(), None);
    while let Some(field) = message.field().ok()? {
        match field {
            Field::Bytes(1, mut name) => model = name.to_vec(),
            Field::Bytes(5, mut input) => {
                while let Some(field) = input.field().ok()? {
                    if let Field::Bytes(3, mut dimensions) = field {
                        shape = dimensions.varints();
                    }
                }
            }
            Field::Bytes(7, content) => raw = Some(content),
            _ => {}
        }
    }
    let mut raw = raw?;
    let size = raw.left;
    let first = raw.clone().slice(size);
    let joined;
    // ONNX Runtime wants the tensor in one piece and aligned.
    let data = if first.len() == size && first.as_ptr() as usize % 4 == 0 {
        first
    } else {
        joined = raw.to_vec();
        &joined
    };
    match sessions.get(&model) {
        Some(session) => Some(session.run(data, &shape, |shape, bytes| encode(&model, &session.output, shape, bytes))),
        None => Some(encode(&model, "y", &shape, data)),
    }
}

fn encode(model: &[u8], name: &str, shape: &[i64], bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 128);
    out.extend_from_slice(&[0; 5]);
    put_bytes(&mut out, 1, model);
    put_bytes(&mut out, 2, b"1");
    let (mut output, mut packed) = (Vec::new(), Vec::new());
    put_bytes(&mut output, 1, name.as_bytes());
    put_bytes(&mut output, 2, b"FP32");
    for &dimension in shape {
        put_varint(&mut packed, dimension as u64);
    }
    put_bytes(&mut output, 3, &packed);
    put_bytes(&mut out, 5, &output);
    put_bytes(&mut out, 6, bytes);
    let size = out.len() as u32 - 5;
    out[1..5].copy_from_slice(&size.to_be_bytes());
    out
}
