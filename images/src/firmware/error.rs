//! Why there is no firmware, in one line that says what to do.

use std::path::PathBuf;

/// Why firmware could be neither found nor fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirmwareError {
    /// The user's choice cannot be used.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// What the user gave.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Not on this system, and downloading is off.
    #[error(
        "{what} is not on this system and downloads are off; install its package or pass --firmware FILE"
    )]
    Offline {
        /// What was looked for.
        what: &'static str,
    },
    /// Neither HOME nor XDG_CACHE_HOME is set.
    #[error("No place for downloads: set HOME or XDG_CACHE_HOME, or pass --firmware FILE")]
    NoCache,
    /// A file of the cache could not be written.
    #[error("Could not write {}; free some space or set XDG_CACHE_HOME to another place", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a Debian-like system.
    #[error("No apt-get here to fetch {package} with; install the package {package} or pass --firmware FILE")]
    NoAptGet {
        /// The package.
        package: String,
    },
    /// The package index or the package could not be downloaded.
    #[error(
        "Could not download {package} (no network?); install the package {package} or pass --firmware FILE"
    )]
    Network {
        /// The package.
        package: String,
    },
    /// The distribution has no such package.
    #[error("The package {package} was not found; pass --firmware FILE")]
    NoPackage {
        /// The package.
        package: String,
    },
    /// What was downloaded is not a package.
    #[error("The package {package} is damaged; install the package {package} or pass --firmware FILE")]
    Damaged {
        /// The package.
        package: String,
        /// What was wrong.
        source: std::io::Error,
    },
    /// The package has other content than expected.
    #[error("The package {package} does not hold what is needed; pass --firmware FILE")]
    NotInPackage {
        /// The package.
        package: String,
    },
}
