//! ONNX Runtime's C interface, as far as a server needs it.
//!
//! The wheels have the library without its header. The table of functions only grows, so a function's position in it
//! is fixed for ever.

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::ptr::{null, null_mut};

const API_VERSION: u32 = 16;
const FLOAT: c_int = 1;

const GET_ERROR_MESSAGE: usize = 2;
const CREATE_ENV: usize = 3;
const CREATE_SESSION: usize = 7;
const RUN: usize = 9;
const CREATE_SESSION_OPTIONS: usize = 10;
const SET_INTRA_OP_NUM_THREADS: usize = 24;
const SESSION_GET_INPUT_NAME: usize = 36;
const SESSION_GET_OUTPUT_NAME: usize = 37;
const CREATE_TENSOR_WITH_DATA: usize = 49;
const GET_TENSOR_MUTABLE_DATA: usize = 51;
const GET_DIMENSIONS_COUNT: usize = 61;
const GET_DIMENSIONS: usize = 62;
const GET_TENSOR_SHAPE_ELEMENT_COUNT: usize = 64;
const GET_TENSOR_TYPE_AND_SHAPE: usize = 65;
const CREATE_CPU_MEMORY_INFO: usize = 69;
const GET_ALLOCATOR: usize = 78;
const RELEASE_VALUE: usize = 96;
const RELEASE_TYPE_AND_SHAPE: usize = 99;

type Pointer = *mut c_void;
type Status = Pointer;

#[repr(C)]
struct Base {
    get_api: unsafe extern "C" fn(u32) -> *const *const c_void,
    version: unsafe extern "C" fn() -> *const c_char,
}

/// The library, its environment and what every run needs.
#[derive(Clone, Copy)]
pub struct Runtime {
    api: *const *const c_void,
    env: Pointer,
    memory: Pointer,
}

unsafe impl Send for Runtime {}
unsafe impl Sync for Runtime {}

/// The function at a position of the table.
macro_rules! function {
    ($api:expr, $at:expr, fn($($type:ty),*) $(-> $result:ty)?) => {
        std::mem::transmute::<*const c_void, unsafe extern "C" fn($($type),*) $(-> $result)?>(*$api.add($at))
    };
}

impl Runtime {
    pub fn open(path: &str) -> Runtime {
        unsafe {
            let library = Box::leak(Box::new(libloading::Library::new(path).expect("libonnxruntime")));
            let base: libloading::Symbol<unsafe extern "C" fn() -> *const Base> =
                library.get(b"OrtGetApiBase").expect("OrtGetApiBase");
            let api = ((*base()).get_api)(API_VERSION);
            let runtime = Runtime { api, env: null_mut(), memory: null_mut() };
            let (mut env, mut memory) = (null_mut(), null_mut());
            let name = CString::new("native").unwrap();
            let create_env = function!(api, CREATE_ENV, fn(c_int, *const c_char, *mut Pointer) -> Status);
            runtime.check(create_env(3, name.as_ptr(), &mut env));
            let create_info = function!(api, CREATE_CPU_MEMORY_INFO, fn(c_int, c_int, *mut Pointer) -> Status);
            runtime.check(create_info(0, 0, &mut memory));
            Runtime { api, env, memory }
        }
    }

    fn check(&self, status: Status) {
        if !status.is_null() {
            unsafe {
                let message = function!(self.api, GET_ERROR_MESSAGE, fn(Status) -> *const c_char)(status);
                panic!("ONNX Runtime: {}", CStr::from_ptr(message).to_string_lossy());
            }
        }
    }
}

/// A model with one FP32 input and one FP32 output.
pub struct Session {
    runtime: Runtime,
    session: Pointer,
    input: *const c_char,
    pub output: String,
    output_name: *const c_char,
}

unsafe impl Send for Session {}
unsafe impl Sync for Session {}

impl Session {
    pub fn open(runtime: Runtime, path: &str, threads: c_int) -> Session {
        unsafe {
            let api = runtime.api;
            let (mut options, mut session, mut allocator) = (null_mut(), null_mut(), null_mut());
            runtime.check(function!(api, CREATE_SESSION_OPTIONS, fn(*mut Pointer) -> Status)(&mut options));
            runtime.check(function!(api, SET_INTRA_OP_NUM_THREADS, fn(Pointer, c_int) -> Status)(options, threads));
            let path = CString::new(path).unwrap();
            let create = function!(api, CREATE_SESSION, fn(Pointer, *const c_char, Pointer, *mut Pointer) -> Status);
            runtime.check(create(runtime.env, path.as_ptr(), options, &mut session));
            runtime.check(function!(api, GET_ALLOCATOR, fn(*mut Pointer) -> Status)(&mut allocator));
            let name = |at: usize| {
                let mut text: *mut c_char = null_mut();
                let get = function!(api, at, fn(Pointer, usize, Pointer, *mut *mut c_char) -> Status);
                runtime.check(get(session, 0, allocator, &mut text));
                text as *const c_char
            };
            let (input, output_name) = (name(SESSION_GET_INPUT_NAME), name(SESSION_GET_OUTPUT_NAME));
            let output = CStr::from_ptr(output_name).to_string_lossy().into_owned();
            Session { runtime, session, input, output, output_name }
        }
    }

    /// Run, and give the output's shape and bytes to `take`.
    pub fn run<T>(&self, data: &[u8], shape: &[i64], take: impl FnOnce(&[i64], &[u8]) -> T) -> T {
        unsafe {
            let api = self.runtime.api;
            let (mut input, mut output, mut info) = (null_mut(), null_mut(), null_mut());
            let create = function!(
                api,
                CREATE_TENSOR_WITH_DATA,
                fn(Pointer, *const u8, usize, *const i64, usize, c_int, *mut Pointer) -> Status
            );
            let memory = self.runtime.memory;
            self.runtime.check(create(memory, data.as_ptr(), data.len(), shape.as_ptr(), shape.len(), FLOAT, &mut input));
            let run = function!(
                api,
                RUN,
                fn(
                    Pointer,
                    *const c_void,
                    *const *const c_char,
                    *const Pointer,
                    usize,
                    *const *const c_char,
                    usize,
                    *mut Pointer
                ) -> Status
            );
            self.runtime.check(run(self.session, null(), &self.input, &input, 1, &self.output_name, 1, &mut output));
            let of_value = |at: usize, value: Pointer, result: *mut Pointer| {
                self.runtime.check(function!(api, at, fn(Pointer, *mut Pointer) -> Status)(value, result));
            };
            of_value(GET_TENSOR_TYPE_AND_SHAPE, output, &mut info);
            let (mut rank, mut count) = (0usize, 0usize);
            let number = |at: usize, result: *mut usize| {
                self.runtime.check(function!(api, at, fn(Pointer, *mut usize) -> Status)(info, result));
            };
            number(GET_DIMENSIONS_COUNT, &mut rank);
            number(GET_TENSOR_SHAPE_ELEMENT_COUNT, &mut count);
            let mut given = vec![0i64; rank];
            let dimensions = function!(api, GET_DIMENSIONS, fn(Pointer, *mut i64, usize) -> Status);
            self.runtime.check(dimensions(info, given.as_mut_ptr(), rank));
            let mut bytes = null_mut();
            of_value(GET_TENSOR_MUTABLE_DATA, output, &mut bytes);
            let taken = take(&given, std::slice::from_raw_parts(bytes as *const u8, count * 4));
            function!(api, RELEASE_TYPE_AND_SHAPE, fn(Pointer))(info);
            function!(api, RELEASE_VALUE, fn(Pointer))(output);
            function!(api, RELEASE_VALUE, fn(Pointer))(input);
            taken
        }
    }
}
