//! The guests that nobody here wrote, from the folder that the environment variable
//! `VMSIM_SHARED` names, or `../shared` beside the repository.

use crate::skip::{Missing, skip};
use std::path::PathBuf;

/// Environment variable with the folder that has `guests/` in it.
const SHARED_VARIABLE: &str = "VMSIM_SHARED";

/// The image of a guest; `None`, said on the terminal, where it is not there.
pub fn guest(name: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let shared = std::env::var_os(SHARED_VARIABLE).map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let path = shared.join("guests").join(name);
    if path.is_file() {
        return Some(path);
    }
    skip(&format!("{} is not there (see {SHARED_VARIABLE})", path.display()), Missing::Installable);
    None
}
