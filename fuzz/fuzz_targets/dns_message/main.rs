//! The gateway is a program, not a library: what reads DNS messages is taken in as source, at the place
//! in the tree of modules where the gateway has it.

#![no_main]

#[path = "../../bodies/dns_message.rs"]
mod body;
mod dns;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
