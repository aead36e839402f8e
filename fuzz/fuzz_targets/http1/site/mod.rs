//! As much of the gateway's module as its readers need.

pub(crate) mod http1;
#[path = "../../../../crates/server/src/site/request.rs"]
mod request;
#[path = "../../../../crates/server/src/site/uri.rs"]
mod uri;
