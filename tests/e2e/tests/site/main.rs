//! What a stranger sees is what nginx shows (A19): whatever is sent to both, the answers are the
//! same, and nothing tells them apart.

#[path = "../hostile/anybody.rs"]
mod anybody;
mod auc;
mod certificate;
mod differential;
mod openings;
mod programs;
mod scene;
mod time_outs;
mod visitor;
