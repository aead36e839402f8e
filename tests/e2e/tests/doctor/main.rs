//! `cipherwall doctor` (C8): each test makes one fault, for which its finding has to come first with
//! its remedy. Before and after nothing is found.

mod around;
mod gateway;
mod report;
mod scene;
