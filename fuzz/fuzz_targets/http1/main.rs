//! The gateway is a program, not a library: its web site's readers are taken in as source, at the place
//! in the tree of modules where the gateway has them.

#![no_main]
#![allow(dead_code, reason = "the gateway uses the rest")]

mod site;

libfuzzer_sys::fuzz_target!(|data: &[u8]| site::http1::body::run(data));
