//! The gateway is a program, not a library: its configuration is taken in as source, at the place
//! in the tree of modules where the gateway has it.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the gateway uses the rest")]
#![allow(unfulfilled_lint_expectations, reason = "they are about a library's public items")]

#[path = "../bodies/config.rs"]
mod body;
#[path = "../../crates/server/src/config/mod.rs"]
mod config;
#[path = "../../crates/server/src/pool.rs"]
mod pool;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
