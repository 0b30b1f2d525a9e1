//! A closed loop of gRPC calls: N in flight over C connections, each answer compared with the expected one.
//!
//! Prints one JSON object. One thread: on a small machine the rest belongs to the server.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request};
use serving_native::{Cursor, Field};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

const USAGE: &str = "load --address HOST:PORT --request FILE [--request FILE ...] [--expected FILE] [--connections 1] \
[--in-flight 1] [--seconds 2] [--warm-up 0.3] [--tolerance 0] [--timeout SECONDS] \
[--method /inference.GRPCInferenceService/ModelInfer] [--region FILE --region-offset 0 --region-stride BYTES]";
const WINDOW: u32 = 1 << 30;

/// What the command line says.
struct Options {
    address: String,
    method: String,
    requests: Vec<Bytes>,
    expected: Option<Vec<u8>>,
    connections: usize,
    in_flight: usize,
    seconds: f64,
    warm_up: f64,
    tolerance: f32,
    timeout: Option<String>,
    region: Option<(String, usize, usize)>,
}

/// What was seen by all loops.
#[derive(Default)]
struct Seen {
    latencies: Vec<u64>,
    all: u64,
    close: u64,
    wrong: u64,
    errors: BTreeMap<String, u64>,
}

fn main() {
    let options = read_options();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, drive(options));
}

fn fail(why: &str) -> ! {
    eprintln!("load: {why}");
    std::process::exit(2)
}

fn read_file(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| fail(&format!("{path}: {error}")))
}

/// A gRPC message: a byte of flags, four of length, the message.
fn framed(message: &[u8]) -> Bytes {
    let mut data = BytesMut::with_capacity(message.len() + 5);
    data.put_u8(0);
    data.put_u32(message.len() as u32);
    data.put_slice(message);
    data.freeze()
}

fn read_options() -> Options {
    let mut options = Options {
        address: String::new(),
        method: "/inference.GRPCInferenceService/ModelInfer".into(),
        requests: Vec::new(),
        expected: None,
        connections: 1,
        in_flight: 1,
        seconds: 2.0,
        warm_up: 0.3,
        tolerance: 0.0,
        timeout: None,
        region: None,
    };
    let (mut region, mut offset, mut stride) = (None, 0, 0);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let Some(value) = arguments.next() else { fail(USAGE) };
        let number = || value.parse::<f64>().unwrap_or_else(|_| fail(&format!("{name} {value}: not a number")));
        match name.as_str() {
            "--address" => options.address = value,
            "--method" => options.method = value,
            "--request" => options.requests.push(framed(&read_file(&value))),
            "--expected" => options.expected = Some(read_file(&value)),
            "--connections" => options.connections = number() as usize,
            "--in-flight" => options.in_flight = number() as usize,
            "--seconds" => options.seconds = number(),
            "--warm-up" => options.warm_up = number(),
            "--tolerance" => options.tolerance = number() as f32,
            "--timeout" => options.timeout = Some(format!("{}m", (number() * 1000.0) as u64)),
            "--region" => region = Some(value),
            "--region-offset" => offset = number() as usize,
            "--region-stride" => stride = number() as usize,
            _ => fail(USAGE),
        }
    }
    if options.address.is_empty() || options.requests.is_empty() || options.connections == 0 {
        fail(USAGE)
    }
    options.region = region.map(|path| (path, offset, stride));
    options
}

async fn connect(address: &str) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap_or_else(|error| fail(&format!("{address}: {error}")));
    stream.set_nodelay(true).unwrap();
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(1 << 20)
        .max_send_buffer_size(1 << 30)
        .handshake(stream)
        .await
        .unwrap_or_else(|error| fail(&format!("{address}: no HTTP/2: {error}")));
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    send
}

async fn drive(options: Options) {
    let mut senders = Vec::new();
    for _ in 0..options.connections {
        senders.push(connect(&options.address).await);
    }
    let (options, seen) = (Rc::new(options), Rc::new(RefCell::new(Seen::default())));
    let began = Instant::now() + Duration::from_secs_f64(options.warm_up);
    let until = began + Duration::from_secs_f64(options.seconds);
    let mut loops = Vec::new();
    for slot in 0..options.in_flight {
        let sender = senders[slot % senders.len()].clone();
        loops.push(tokio::task::spawn_local(repeat(slot, sender, options.clone(), seen.clone(), began, until)));
    }
    for one in loops {
        one.await.unwrap();
    }
    report(&options, &mut seen.borrow_mut());
}

async fn repeat(
    slot: usize,
    sender: SendRequest<Bytes>,
    options: Rc<Options>,
    seen: Rc<RefCell<Seen>>,
    began: Instant,
    until: Instant,
) {
    let mut builder = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}{}", options.address, options.method))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("user-agent", "serving-load/1");
    if let Some(timeout) = &options.timeout {
        builder = builder.header("grpc-timeout", timeout);
    }
    let template = builder.body(()).unwrap();
    let body = options.requests[slot % options.requests.len()].clone();
    let mut region = options.region.as_ref().zip(options.expected.as_ref()).map(|((path, offset, stride), expected)| {
        Region::open(path, offset + slot * stride, expected.len())
    });
    let mut failures = 0;
    loop {
        let start = Instant::now();
        if start >= until {
            return;
        }
        if let Some(region) = &mut region {
            region.blot();
        }
        let outcome = call(&sender, &template, &body).await;
        let end = Instant::now();
        let checked = outcome.and_then(|pieces| match (&region, &options.expected) {
            (Some(region), Some(expected)) => Ok(region.compare(expected)),
            (None, Some(expected)) => compare(&pieces, expected, options.tolerance),
            _ => Ok(Verdict::Equal),
        });
        let mut seen = seen.borrow_mut();
        seen.all += 1;
        match checked {
            Ok(verdict) => {
                failures = 0;
                seen.close += u64::from(verdict == Verdict::Close);
                seen.wrong += u64::from(verdict == Verdict::Wrong);
                // By its end: what ends in the window is what the window served.
                if end >= began && end < until {
                    seen.latencies.push((end - start).as_nanos() as u64);
                }
            }
            Err(why) => {
                *seen.errors.entry(why).or_insert(0) += 1;
                drop(seen);
                failures += 1;
                if failures > 100 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

fn status_of(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match text("grpc-status").as_deref() {
        Some("0") => Ok(()),
        Some(code) => Err(format!("grpc-status {code}: {}", text("grpc-message").unwrap_or_default())),
        None => Err("no grpc-status".into()),
    }
}

/// Return the message of the answer, in the pieces that it came in.
async fn call(sender: &SendRequest<Bytes>, template: &Request<()>, body: &Bytes) -> Result<Vec<Bytes>, String> {
    let text = |error: h2::Error| error.to_string();
    let mut sender = sender.clone().ready().await.map_err(text)?;
    let (response, mut stream) = sender.send_request(template.clone(), false).map_err(text)?;
    stream.send_data(body.clone(), true).map_err(text)?;
    let response = response.await.map_err(text)?;
    if response.status() != 200 {
        return Err(format!("HTTP {}", response.status()));
    }
    if response.headers().contains_key("grpc-status") {
        status_of(response.headers())?;
    }
    let mut body = response.into_body();
    let mut pieces = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(text)?;
        let _ = body.flow_control().release_capacity(piece.len());
        pieces.push(piece);
    }
    let trailers = body.trailers().await.map_err(text)?.ok_or("no trailers")?;
    status_of(&trailers)?;
    Ok(pieces)
}

#[derive(PartialEq, Clone, Copy)]
enum Verdict {
    Equal,
    Close,
    Wrong,
}

/// The raw contents of a ModelInferResponse, or its typed FP32 contents, which are the same bytes.
fn contents<'a>(pieces: &'a [Bytes]) -> Result<Vec<Cursor<'a>>, &'static str> {
    let mut message = Cursor::new(pieces);
    let size = message.left;
    let mut prefix = [0u8; 5];
    for byte in &mut prefix {
        *byte = *message.slice(1).first().ok_or("an answer without a message")?;
    }
    if prefix[0] != 0 || u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize + 5 != size {
        return Err("the answer's prefix is wrong");
    }
    let (mut raw, mut typed) = (Vec::new(), Vec::new());
    while let Some(field) = message.field()? {
        match field {
            Field::Bytes(6, content) => raw.push(content),
            Field::Bytes(5, mut output) => {
                while let Some(field) = output.field()? {
                    if let Field::Bytes(5, mut tensor) = field {
                        while let Some(field) = tensor.field()? {
                            if let Field::Bytes(6, values) = field {
                                typed.push(values);
                            }
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Ok(if raw.is_empty() { typed } else { raw })
}

fn compare(pieces: &[Bytes], expected: &[u8], tolerance: f32) -> Result<Verdict, String> {
    let mut position = 0;
    let mut equal = true;
    for mut content in contents(pieces)? {
        while equal && content.left > 0 {
            let slice = content.slice(content.left);
            equal = expected.get(position..position + slice.len()) == Some(slice);
            position += slice.len();
        }
    }
    if equal && position == expected.len() {
        return Ok(Verdict::Equal);
    }
    let given: Vec<u8> = contents(pieces)?.iter_mut().flat_map(|content| content.to_vec()).collect();
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    let near = given.len() == expected.len()
        && given.len() % 4 == 0
        && given.chunks(4).zip(expected.chunks(4)).all(|(a, b)| {
            let (a, b) = (number(a), number(b));
            (a - b).abs() <= tolerance * (1.0 + b.abs())
        });
    Ok(if near { Verdict::Close } else { Verdict::Wrong })
}

/// Shared memory in which a server leaves the answer.
///
/// Comparing all of it would take this client as long as the server takes to answer, so only every 16th answer is. Of
/// the others it compares a byte of each page, which it overwrote before at a random place.
struct Region {
    at: *mut u8,
    size: usize,
    calls: u64,
    random: u64,
}

const PAGE: usize = 4096;
const WHOLE_EVERY: u64 = 16;

impl Region {
    fn open(path: &str, offset: usize, size: usize) -> Region {
        use std::os::fd::AsRawFd;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap_or_else(|error| fail(&format!("{path}: {error}")));
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                offset + size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            fail(&format!("{path}: cannot be mapped"))
        }
        let random = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        Region { at: unsafe { (at as *mut u8).add(offset) }, size, calls: 0, random }
    }

    /// A position in each page, the same ones until the next call.
    fn positions(&self) -> impl Iterator<Item = usize> {
        let (mut random, size) = (self.random, self.size);
        (0..size).step_by(PAGE).map(move |page| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            page + (random >> 33) as usize % PAGE.min(size - page)
        })
    }

    /// Overwrite a byte of each page, so that a response that was not written cannot pass.
    fn blot(&mut self) {
        self.calls += 1;
        self.random = self.random.wrapping_mul(2862933555777941757).wrapping_add(3037000493);
        for position in self.positions() {
            unsafe { self.at.add(position).write_volatile(!self.at.add(position).read_volatile()) };
        }
    }

    fn compare(&self, expected: &[u8]) -> Verdict {
        let given = unsafe { std::slice::from_raw_parts(self.at, self.size) };
        let equal = if self.calls % WHOLE_EVERY == 0 {
            given == expected
        } else {
            self.positions().all(|position| given[position] == expected[position])
        };
        if equal { Verdict::Equal } else { Verdict::Wrong }
    }
}

fn report(options: &Options, seen: &mut Seen) {
    let latencies = &mut seen.latencies;
    latencies.sort_unstable();
    let quantile = |part: f64| match latencies.len() {
        0 => "null".into(),
        count => format!("{:.4}", latencies[((count - 1) as f64 * part) as usize] as f64 / 1e6),
    };
    let errors: u64 = seen.errors.values().sum();
    let texts: Vec<String> = seen.errors.iter().map(|(text, count)| format!("{:?}: {count}", text)).collect();
    println!(
        "{{\"requestsPerSecond\": {:.1}, \"p50Ms\": {}, \"p99Ms\": {}, \"answers\": {}, \"answersInAll\": {}, \
         \"close\": {}, \"wrong\": {}, \"errors\": {errors}, \"errorTexts\": {{{}}}}}",
        latencies.len() as f64 / options.seconds,
        quantile(0.5),
        quantile(0.99),
        latencies.len(),
        seen.all,
        seen.close,
        seen.wrong,
        texts.join(", "),
    );
}
