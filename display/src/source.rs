//! What a view shows and where its input goes.

use ipc::input::Key;

/// One picture of the monitor. Pixels are `0x00RRGGBB`, row by row, without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `width * height` pixels.
    pub pixels: Vec<u32>,
    /// The characters shown, when the adapter is in a text mode.
    pub text: Option<TextScreen>,
}

impl Frame {
    /// Whether there is a picture, and all its pixels. Views show nothing else: the picture
    /// comes from another process.
    pub fn is_complete(&self) -> bool {
        let pixels = u64::from(self.width) * u64::from(self.height);
        pixels > 0 && pixels == self.pixels.len() as u64
    }
}

/// The characters of a text mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextScreen {
    /// Characters per row.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
    /// `columns * rows` cells: code page 437 character in bits 0-7, VGA attribute in bits 8-15.
    pub cells: Vec<u16>,
    /// Column and row of the cursor, when it is shown.
    pub cursor: Option<(u16, u16)>,
}

impl TextScreen {
    /// Whether there are all the cells.
    pub fn is_complete(&self) -> bool {
        let cells = usize::from(self.columns) * usize::from(self.rows);
        cells > 0 && cells == self.cells.len()
    }

    /// The rows of cells, from the top.
    pub fn lines(&self) -> impl Iterator<Item = &[u16]> {
        // A screen of no columns has no rows either; chunks must not be empty.
        self.cells.chunks(usize::from(self.columns).max(1)).take(usize::from(self.rows))
    }
}

/// How the VM is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmStatus {
    /// The VM's name.
    pub name: String,
    /// Its state in a word or two, such as `running` or `paused`.
    pub state: String,
    /// Whether virtual time passes; pictures change only then.
    pub running: bool,
    /// Speed of virtual time in percent of real time, where it is known.
    pub speed_percent: Option<u32>,
    /// What is wrong with a device process, such as `gpu: restarting`.
    pub trouble: Option<String>,
    /// The VM is gone: the view closes.
    pub ended: bool,
}

impl VmStatus {
    /// Name, state, speed and trouble in a line: `dos - running 100 %`.
    pub fn line(&self) -> String {
        let mut line = format!("{} - {}", self.name, self.state);
        if let (true, Some(percent)) = (self.running, self.speed_percent) {
            line.push_str(&format!(" {percent} %"));
        }
        if let Some(trouble) = &self.trouble {
            line.push_str(&format!(" - {trouble}"));
        }
        line
    }
}

/// Where pictures come from.
pub trait ScreenSource {
    /// Number of the newest picture; a different one each time the picture changed. `None`
    /// before there is any. Called up to 60 times a second: it must be cheap and not wait.
    fn changed(&mut self) -> Option<u64>;

    /// Copies the newest picture into `frame`, whose memory is used again. Returns its number,
    /// or `None` when there is none, and then `frame` is to be ignored.
    fn frame(&mut self, frame: &mut Frame) -> Option<u64>;

    /// How the VM is. Called a few times a second; must not wait.
    fn status(&mut self) -> VmStatus;
}

/// What a person can ask for besides keys and mouse movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Press and release Ctrl+Alt+Del in the guest. No key is down when it is called.
    CtrlAltDel,
    /// The person has closed the view. It is going to return; the guest runs on unless whoever
    /// implements this decides otherwise.
    Closed,
}

/// Where input goes. Nothing here waits or fails: a VM that is gone shows in its status.
pub trait InputSink {
    /// A key went down or up. Each press is followed by one release, without repetitions.
    fn key(&mut self, key: Key, pressed: bool);

    /// The mouse moved, or a button changed; as `ipc::input::HostEvent::Mouse`: `dx` to the
    /// right, `dy` up, `dz` notches towards the person, buttons bit 0 left, 1 right, 2 middle.
    fn mouse(&mut self, dx: i16, dy: i16, dz: i8, buttons: u8);

    /// Anything else.
    fn command(&mut self, command: Command);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_line_tells_speed_only_while_running() {
        let mut status = VmStatus {
            name: "dos".into(),
            state: "running".into(),
            running: true,
            speed_percent: Some(98),
            ..VmStatus::default()
        };
        assert_eq!(status.line(), "dos - running 98 %");
        status.running = false;
        status.state = "paused".into();
        status.trouble = Some("gpu: stopped by a debugger".into());
        assert_eq!(status.line(), "dos - paused - gpu: stopped by a debugger");
    }

    #[test]
    fn incomplete_pictures_are_told_from_complete_ones() {
        let mut frame = Frame { width: 2, height: 2, pixels: vec![0; 4], text: None };
        assert!(frame.is_complete());
        frame.pixels.pop();
        assert!(!frame.is_complete());
        assert!(!Frame::default().is_complete());
        let huge = Frame { width: u32::MAX, height: u32::MAX, pixels: vec![0], text: None };
        assert!(!huge.is_complete());
        let screen = TextScreen { columns: 0, rows: 5, cells: vec![1], cursor: None };
        assert!(!screen.is_complete());
        assert_eq!(screen.lines().count(), 1);
    }
}
