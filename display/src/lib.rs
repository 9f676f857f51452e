//! The display process of VMSim: it shows what the virtual PC's monitor shows, in a window or in
//! a terminal, and passes on what the person types. It also holds what the tools need of the
//! same: screenshots, the screen as text, and typing a text.
//!
//! Where pictures come from and where keys go is behind [`source::ScreenSource`] and
//! [`source::InputSink`]; nothing here knows the guest or its devices. A view may end or crash
//! at any time; the guest does not notice.

pub mod cp437;
pub mod screenshot;
pub mod source;
pub mod terminal;
pub mod text;
pub mod typing;
pub mod window;

mod scale;

pub use scale::Scaling;
use source::{InputSink, ScreenSource};
use std::io;
use thiserror::Error;

/// Where the picture is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// A window of the graphical desktop.
    #[default]
    Window,
    /// The terminal that the process was started in.
    Terminal,
}

/// How the picture is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Window or terminal.
    pub view: View,
    /// How the picture fills the window.
    pub scaling: Scaling,
    /// Whether the window starts full screen.
    pub full_screen: bool,
}

/// Why nothing can be shown.
#[derive(Debug, Error)]
pub enum DisplayError {
    /// No window system, or it refuses us.
    #[error("Cannot reach a display server ({reason}). Without one, use --display terminal")]
    NoDisplayServer {
        /// What the window system library says.
        reason: String,
    },
    /// No way to draw on the window.
    #[error(
        "Cannot find a graphics adapter to draw with ({reason}). \
         Install Mesa's software drivers, or use --display terminal"
    )]
    NoGraphicsAdapter {
        /// What the graphics library says.
        reason: String,
    },
    /// Drawing failed later on.
    #[error("Cannot draw on the window")]
    Drawing(#[source] pixels::Error),
    /// The event loop of the window system ended with an error.
    #[error("The window system failed ({0})")]
    WindowSystem(String),
    /// Not started in a terminal.
    #[error("--display terminal needs a terminal, but {0} is not one")]
    NoTerminal(&'static str),
    /// The terminal failed.
    #[error("Cannot use the terminal")]
    Terminal(#[source] io::Error),
}

/// Shows the virtual PC until the person leaves the view or the VM ends.
///
/// Must be called on the main thread, and at most once with [`View::Window`]: window systems
/// want it so.
///
/// # Errors
/// [`DisplayError`] when the view cannot be opened or breaks.
pub fn run(
    source: &mut dyn ScreenSource,
    input: &mut dyn InputSink,
    options: &Options,
) -> Result<(), DisplayError> {
    match options.view {
        View::Window => window::run(source, input, options),
        View::Terminal => terminal::run(source, input),
    }
}
