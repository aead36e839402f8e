//! The readers of HTTP/1.

#[path = "../../../bodies/http1.rs"]
pub(crate) mod body;
#[path = "../../../../crates/server/src/site/http1/chunks.rs"]
mod chunks;
#[path = "../../../../crates/server/src/site/http1/fields.rs"]
mod fields;
#[path = "../../../../crates/server/src/site/http1/line.rs"]
mod line;
#[path = "../../../../crates/server/src/site/http1/reader.rs"]
mod reader;
