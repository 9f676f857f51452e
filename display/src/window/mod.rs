//! The view in a window of the graphical desktop.
//!
//! Nothing is drawn while the picture does not change. Whether it did is polled, up to 60 times
//! a second while things happen and a few times a second while they do not, so that an idle
//! guest costs next to nothing.

mod canvas;
mod focus;
mod keymap;

use crate::scale::{Scaling, place, proportions};
use crate::source::{Command, Frame, InputSink, ScreenSource, VmStatus};
use crate::{DisplayError, Options};
use canvas::Canvas;
use focus::{Action, Focus};
use std::sync::Arc;
use std::time::{Duration, Instant};
use winit::application::ApplicationHandler;
use winit::dpi::PhysicalSize;
use winit::event::{DeviceEvent, DeviceId, ElementState, MouseButton, MouseScrollDelta, WindowEvent};
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop};
use winit::window::{CursorGrabMode, Fullscreen, Window, WindowId};

/// Between two looks at the picture while it changes or somebody types.
const BUSY_POLL: Duration = Duration::from_micros(16_667);
/// The same after a while without either.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// The same while the VM stands still or the window cannot be seen.
const STILL_POLL: Duration = Duration::from_millis(200);
/// How long after the last change or key things count as happening.
const BUSY_TIME: Duration = Duration::from_secs(1);
/// Between two looks at the VM's status.
const STATUS_POLL: Duration = Duration::from_millis(250);

/// Width that a new window should have at least, if the picture can be enlarged to it.
const GOOD_WIDTH: u32 = 640;
/// Size of the window before the first picture: that of an 80x25 text screen.
const FIRST_SIZE: (u32, u32) = (720, 400);
const SMALLEST_SIZE: (u32, u32) = (160, 100);
/// Pixels of a touchpad's scrolling that count as one notch of a wheel.
const PIXELS_PER_NOTCH: f64 = 40.0;

/// Shows the virtual PC in a window until it is closed or the VM ends.
///
/// # Errors
/// [`DisplayError`].
pub fn run(
    source: &mut dyn ScreenSource,
    input: &mut dyn InputSink,
    options: &Options,
) -> Result<(), DisplayError> {
    let event_loop =
        EventLoop::new().map_err(|error| DisplayError::NoDisplayServer { reason: reason_of(&error) })?;
    let mut viewer = Viewer::new(source, input, *options);
    event_loop.run_app(&mut viewer).map_err(|error| DisplayError::WindowSystem(error.to_string()))?;
    match viewer.error {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The error without the place in the library's source that it starts with.
fn reason_of(error: &winit::error::EventLoopError) -> String {
    let text = error.to_string();
    let reason = text
        .rsplit_once(".rs:")
        .map_or(text.as_str(), |(_, rest)| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':'));
    reason.trim().trim_end_matches('.').to_owned()
}

/// What belongs to the window while it is open.
struct Open {
    // The canvas draws on the window: it is dropped first.
    canvas: Canvas,
    window: Arc<Window>,
    /// The size asked for last; another one was chosen by the person.
    own_size: (u32, u32),
}

/// Movement and buttons of the mouse.
#[derive(Default)]
struct Mouse {
    captured: bool,
    buttons: u8,
    /// What has not made up a whole count yet: right, up, towards the person.
    rest: [f64; 3],
    copies: Copies,
}

/// How often each raw event comes.
///
/// An X server sends raw events to those that watch the root window and to the one that holds
/// the pointer; who does both, as the window library does, gets everything twice, and nothing
/// in the events tells. The release of the button whose press captured the mouse is one event
/// for certain: as often as it comes, so often come the others.
#[derive(Default)]
struct Copies {
    releases: u32,
    counting: bool,
    motions: u32,
}

impl Copies {
    /// The mouse was captured by pressing a button.
    fn start(&mut self) {
        *self = Self { counting: true, ..Self::default() };
    }

    fn button(&mut self, state: ElementState) {
        match state {
            ElementState::Pressed => self.counting = false,
            ElementState::Released if self.counting => {
                self.releases = self.releases.saturating_add(1);
            }
            ElementState::Released => {}
        }
    }

    /// Whether this motion is not the copy of one that came before.
    fn is_new_motion(&mut self) -> bool {
        self.motions = self.motions.wrapping_add(1) % self.releases.max(1);
        self.motions == 0
    }
}

struct Viewer<'a> {
    source: &'a mut dyn ScreenSource,
    input: &'a mut dyn InputSink,
    options: Options,
    open: Option<Open>,
    frame: Frame,
    /// Number of the picture in `frame`.
    shown: Option<u64>,
    status: VmStatus,
    title: String,
    focus: Focus,
    mouse: Mouse,
    visible: bool,
    last_activity: Instant,
    next_poll: Instant,
    next_status: Instant,
    error: Option<DisplayError>,
}

impl<'a> Viewer<'a> {
    fn new(source: &'a mut dyn ScreenSource, input: &'a mut dyn InputSink, options: Options) -> Self {
        let now = Instant::now();
        Self {
            status: source.status(),
            source,
            input,
            options,
            open: None,
            frame: Frame::default(),
            shown: None,
            title: String::new(),
            focus: Focus::default(),
            mouse: Mouse::default(),
            visible: true,
            last_activity: now,
            next_poll: now,
            next_status: now,
            error: None,
        }
    }

    fn open(&mut self, event_loop: &ActiveEventLoop) -> Result<Open, DisplayError> {
        self.fetch_frame();
        let room = event_loop
            .primary_monitor()
            .or_else(|| event_loop.available_monitors().next())
            .map_or((u32::MAX, u32::MAX), |monitor| monitor.size().into());
        let own_size = self.good_size(room);
        let attributes = Window::default_attributes()
            .with_title(self.current_title())
            .with_inner_size(PhysicalSize::<u32>::from(own_size))
            .with_min_inner_size(PhysicalSize::<u32>::from(SMALLEST_SIZE))
            .with_fullscreen(self.options.full_screen.then_some(Fullscreen::Borderless(None)));
        let window = event_loop
            .create_window(attributes)
            .map_err(|error| DisplayError::NoDisplayServer { reason: error.to_string() })?;
        let window = Arc::new(window);
        Ok(Open { canvas: Canvas::new(&window)?, window, own_size })
    }

    /// The size that suits the picture: a whole multiple, on a screen that has `room`.
    fn good_size(&self, room: (u32, u32)) -> (u32, u32) {
        if !self.frame.is_complete() {
            return FIRST_SIZE;
        }
        let (width, height) = proportions(&self.frame);
        let factor = (GOOD_WIDTH / width.max(1)).max(1);
        let (width, height) = (width.saturating_mul(factor), height.saturating_mul(factor));
        let rect = place((width, height), (width.min(room.0), height.min(room.1)), Scaling::Fit);
        (rect.width, rect.height)
    }

    /// Ends the view with an error.
    fn fail(&mut self, event_loop: &ActiveEventLoop, error: DisplayError) {
        self.error.get_or_insert(error);
        event_loop.exit();
    }

    fn fetch_frame(&mut self) {
        if self.source.changed() != self.shown || self.shown.is_none() {
            self.shown = self.source.frame(&mut self.frame);
            if self.shown.is_none() {
                self.frame = Frame::default();
            }
        }
    }

    fn poll(&mut self, event_loop: &ActiveEventLoop, now: Instant) {
        if now >= self.next_status {
            self.next_status = now + STATUS_POLL;
            self.status = self.source.status();
            if self.status.ended {
                event_loop.exit();
            }
            self.update_title();
        }
        if self.visible && self.source.changed() != self.shown {
            self.last_activity = now;
            if let Some(open) = &self.open {
                open.window.request_redraw();
            }
        }
        let pause = if !self.visible || !self.status.running {
            STILL_POLL
        } else if now.duration_since(self.last_activity) < BUSY_TIME {
            BUSY_POLL
        } else {
            IDLE_POLL
        };
        // A poll that comes late does not make the next one early.
        self.next_poll = (self.next_poll + pause).max(now);
    }

    fn current_title(&self) -> String {
        let hint = if self.mouse.captured { " - Ctrl+Alt releases the mouse" } else { "" };
        format!("{} - VMSim{hint}", self.status.line())
    }

    fn update_title(&mut self) {
        let title = self.current_title();
        if let Some(open) = &self.open
            && title != self.title
        {
            open.window.set_title(&title);
            self.title = title;
        }
    }

    fn redraw(&mut self) -> Result<(), DisplayError> {
        let before = proportions(&self.frame);
        self.fetch_frame();
        if proportions(&self.frame) != before {
            self.suit_window_to_picture();
        }
        if let Some(open) = &mut self.open {
            // The window may have another size already than the last event said; drawing on a
            // surface of the wrong size is refused.
            open.canvas.resize(open.window.inner_size().into())?;
            open.canvas.draw(&self.frame, self.options.scaling);
            open.window.pre_present_notify();
            open.canvas.present()?;
        }
        Ok(())
    }

    /// Gives the window a size for a new video mode, unless the person has chosen one.
    fn suit_window_to_picture(&mut self) {
        let Some(open) = &self.open else { return };
        let size: (u32, u32) = open.window.inner_size().into();
        if open.window.fullscreen().is_some() || size != open.own_size {
            return;
        }
        let monitor = open.window.current_monitor();
        let room = monitor.map_or((u32::MAX, u32::MAX), |monitor| monitor.size().into());
        let own_size = self.good_size(room);
        if let Some(open) = &mut self.open {
            open.own_size = own_size;
            // Answered by a Resized event, or at once; the next drawing asks in any case.
            let _ = open.window.request_inner_size(PhysicalSize::<u32>::from(own_size));
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(key, pressed) => self.input.key(key, pressed),
                Action::Release => self.capture_mouse(false),
                Action::ToggleFullScreen => self.toggle_full_screen(),
                Action::CtrlAltDel => self.input.command(Command::CtrlAltDel),
            }
        }
    }

    fn toggle_full_screen(&self) {
        if let Some(open) = &self.open {
            let next = match open.window.fullscreen() {
                Some(_) => None,
                None => Some(Fullscreen::Borderless(None)),
            };
            open.window.set_fullscreen(next);
        }
    }

    fn capture_mouse(&mut self, capture: bool) {
        if let Some(open) = &self.open
            && capture != self.mouse.captured
        {
            let window = &open.window;
            let grabbed = if capture {
                // Each window system knows only one of the two.
                window
                    .set_cursor_grab(CursorGrabMode::Locked)
                    .or_else(|_| window.set_cursor_grab(CursorGrabMode::Confined))
            } else {
                window.set_cursor_grab(CursorGrabMode::None)
            };
            if let Err(error) = grabbed {
                // Without it, the pointer can leave the window: a nuisance, not a failure.
                tracing::debug!("The pointer cannot be held: {error}");
            }
            window.set_cursor_visible(!capture);
            self.mouse.captured = capture;
            if !capture && self.mouse.buttons != 0 {
                self.mouse.buttons = 0;
                self.input.mouse(0, 0, 0, 0);
            }
            self.mouse.rest = [0.0; 3];
            self.update_title();
        }
    }

    fn mouse_button(&mut self, button: MouseButton, pressed: bool) {
        if !self.mouse.captured {
            // The click that captures is not the guest's.
            if pressed {
                self.focus.capture();
                self.capture_mouse(true);
                self.mouse.copies.start();
            }
            return;
        }
        let bit = match button {
            MouseButton::Left => 1 << 0,
            MouseButton::Right => 1 << 1,
            MouseButton::Middle => 1 << 2,
            _ => return,
        };
        let buttons = if pressed { self.mouse.buttons | bit } else { self.mouse.buttons & !bit };
        // The button of the capturing click goes up here without having gone down.
        if buttons != self.mouse.buttons {
            self.mouse.buttons = buttons;
            self.input.mouse(0, 0, 0, buttons);
        }
    }

    /// Sends the whole counts of a movement and keeps the rest.
    fn mouse_moved(&mut self, right: f64, up: f64, towards: f64) {
        if !self.mouse.captured {
            return;
        }
        let [dx, dy, dz] = std::array::from_fn(|axis| {
            let sum = self.mouse.rest[axis] + [right, up, towards][axis];
            self.mouse.rest[axis] = sum.fract();
            sum.trunc()
        });
        if (dx, dy, dz) != (0.0, 0.0, 0.0) {
            // Conversions from float saturate.
            self.input.mouse(dx as i16, dy as i16, dz as i8, self.mouse.buttons);
        }
    }
}

impl ApplicationHandler for Viewer<'_> {
    fn resumed(&mut self, event_loop: &ActiveEventLoop) {
        if self.open.is_none() {
            match self.open(event_loop) {
                Ok(open) => {
                    open.window.request_redraw();
                    self.open = Some(open);
                    self.title = self.current_title();
                }
                Err(error) => self.fail(event_loop, error),
            }
        }
    }

    fn window_event(&mut self, event_loop: &ActiveEventLoop, _id: WindowId, event: WindowEvent) {
        match event {
            WindowEvent::CloseRequested => event_loop.exit(),
            WindowEvent::RedrawRequested => {
                if let Err(error) = self.redraw() {
                    self.fail(event_loop, error);
                }
            }
            WindowEvent::Resized(_) => {
                if let Some(open) = &self.open {
                    open.window.request_redraw();
                }
            }
            WindowEvent::Occluded(hidden) => {
                self.visible = !hidden;
                self.next_poll = Instant::now();
            }
            WindowEvent::Focused(true) => self.focus.capture(),
            WindowEvent::Focused(false) => {
                let actions = self.focus.lost();
                self.act(actions);
                self.capture_mouse(false);
            }
            // Synthetic presses tell of keys that were down before the window had the focus.
            WindowEvent::KeyboardInput { event, is_synthetic, .. } => {
                let pressed = event.state == ElementState::Pressed;
                if let Some(key) = keymap::key_at(event.physical_key)
                    && !(is_synthetic && pressed)
                {
                    // The guest will answer: look for that soon.
                    self.last_activity = Instant::now();
                    self.next_poll = self.next_poll.min(self.last_activity + BUSY_POLL);
                    let actions = self.focus.key(key, pressed);
                    self.act(actions);
                }
            }
            WindowEvent::MouseInput { state, button, .. } => {
                self.mouse_button(button, state == ElementState::Pressed);
            }
            WindowEvent::MouseWheel { delta, .. } => {
                let away = match delta {
                    MouseScrollDelta::LineDelta(_, lines) => f64::from(lines),
                    MouseScrollDelta::PixelDelta(pixels) => pixels.y / PIXELS_PER_NOTCH,
                };
                self.mouse_moved(0.0, 0.0, -away);
            }
            _ => {}
        }
    }

    fn device_event(&mut self, _event_loop: &ActiveEventLoop, _id: DeviceId, event: DeviceEvent) {
        match event {
            DeviceEvent::MouseMotion { delta: (right, down) } if self.mouse.copies.is_new_motion() => {
                self.mouse_moved(right, -down, 0.0);
            }
            DeviceEvent::Button { state, .. } => self.mouse.copies.button(state),
            _ => {}
        }
    }

    fn about_to_wait(&mut self, event_loop: &ActiveEventLoop) {
        let now = Instant::now();
        if now >= self.next_poll {
            self.poll(event_loop, now);
        }
        event_loop.set_control_flow(ControlFlow::WaitUntil(self.next_poll));
    }

    fn exiting(&mut self, _event_loop: &ActiveEventLoop) {
        let actions = self.focus.lost();
        self.act(actions);
        self.capture_mouse(false);
        if !self.status.ended && self.error.is_none() {
            self.input.command(Command::Closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubled_motion_counts_once() {
        let mut copies = Copies::default();
        assert!(copies.is_new_motion() && copies.is_new_motion());
        copies.start();
        copies.button(ElementState::Released);
        copies.button(ElementState::Released);
        copies.button(ElementState::Pressed);
        copies.button(ElementState::Released);
        let new = [(); 6].map(|()| copies.is_new_motion());
        assert_eq!(new.iter().filter(|new| **new).count(), 3);
        copies.start();
        copies.button(ElementState::Released);
        assert!(copies.is_new_motion() && copies.is_new_motion());
    }
}
