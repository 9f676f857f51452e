//! Publishes what the graphics model shows, often enough and no more.
//!
//! The guest may write video memory without anybody noticing (it is mapped directly), so the
//! model is asked again and again whether its picture changed: 60 times a second while guest
//! code runs, rarely while the vCPU is halted (cursors still blink).

use super::machine::DeviceProcess;
use super::{ProcessError, host::ModelHost, stopwatch};
use crate::device::Frame;
use crate::record::format::{Answer, Call, What};
use crate::record::hash_picture;
use ipc::host_clock::host_nanos;
use ipc::panel::{PanelView, VcpuState};
use ipc::screen::{Screen, TextView};
use ipc::segment::SegmentNames;
use std::time::Duration;

const BUSY_INTERVAL: u64 = 1_000_000_000 / 60;
const IDLE_INTERVAL: u64 = 1_000_000_000 / 8;

/// Publishes one model's picture.
pub struct Painter {
    screen: Screen,
    model: usize,
    frame: Frame,
    last: u64,
    last_activity: u32,
    published: bool,
}

impl Painter {
    /// Opens the screen for model number `model`.
    ///
    /// # Errors
    /// [`ProcessError::Segment`].
    pub fn open(names: &SegmentNames, model: usize) -> Result<Self, ProcessError> {
        Ok(Self {
            screen: Screen::open(&names.screen())?,
            model,
            frame: Frame::default(),
            last: 0,
            last_activity: 0,
            published: false,
        })
    }

    fn interval(&self, panel: &PanelView) -> u64 {
        // While it waits for a device it is not idle.
        let halted = !matches!(panel.vcpu_state(), VcpuState::Running | VcpuState::WaitsForDevice);
        let quiet = panel.vcpu_activity() == self.last_activity;
        if halted && quiet { IDLE_INTERVAL } else { BUSY_INTERVAL }
    }

    /// Has the model draw the next picture afresh.
    pub fn start_afresh(&mut self) {
        self.published = false;
    }

    /// How long nothing needs to be looked at.
    pub fn next_look(&self, panel: &PanelView) -> Duration {
        Duration::from_nanos((self.last + self.interval(panel)).saturating_sub(host_nanos()).max(1))
    }
}

impl DeviceProcess {
    /// Asks the model for a new picture when it is time to.
    pub(super) fn paint_if_due(&mut self) {
        let Self { painter: Some(painter), models, shared, tape, .. } = self else { return };
        let host_now = host_nanos();
        if host_now < painter.last + painter.interval(shared.panel()) {
            return;
        }
        painter.last = host_now;
        painter.last_activity = shared.panel().vcpu_activity();
        let now = shared.clock().now();
        let mut host = ModelHost { shared, model: painter.model, now };
        let (model, force) = (models[painter.model].as_mut(), !painter.published);
        let drew = match tape.recorder() {
            None => model.render(&mut painter.frame, force, &mut host),
            Some(recorder) => {
                let what = What::Render(force);
                recorder.begin(Call { model: painter.model as u8, now: now.0, what });
                let taped = &mut recorder.host(painter.model, &mut host);
                let drew = model.render(&mut painter.frame, force, taped);
                let picture = drew.then(|| hash_picture(&painter.frame));
                recorder.end(painter.model, Answer::default(), picture);
                drew
            }
        };
        stopwatch::add(host_nanos().saturating_sub(host_now), &shared.layout().models[painter.model]);
        // Drawing must not act on the machine.
        shared.effects.clear();
        if !drew {
            return;
        }
        let frame = &painter.frame;
        let text = frame.text.as_ref().map(|t| TextView {
            columns: t.columns,
            rows: t.rows,
            cells: &t.cells,
            cursor: t.cursor,
        });
        painter.published = painter.screen.publish(frame.width, frame.height, &frame.pixels, text);
        if !painter.published {
            tracing::error!("A picture of {} x {} cannot be shown", frame.width, frame.height);
        }
    }
}
