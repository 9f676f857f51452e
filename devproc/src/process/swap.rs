//! One build of a device process takes the place of another one while the guest runs.
//!
//! The newcomer attaches, builds its models, tries the states that its predecessor has committed, says that
//! it is there, and waits (`stand_by`). Only then is the predecessor asked to hand over: between two calls of
//! its models it commits all states, in older versions if the newcomer wants those, and does nothing more
//! (`park`). The newcomer begins as a successor does after a crash. Until it has taken every state,
//! nothing is changed, and the predecessor goes on where it was.

use super::machine::DeviceProcess;
use super::orders::Order;
use super::{BuildContext, Builder, ProcessError};
use crate::device::Device;
use crate::outside::Outside;
use ipc::control::{Control, Request};
use ipc::link::hand_over;
use ipc::machine::MachineConfig;
use ipc::runtime_dir::VmDir;
use ipc::sync::Ordering;

impl DeviceProcess {
    /// Tries the predecessor's states on models made for that. Returns a connection on which the supervisor
    /// can be told that the process is prepared.
    ///
    /// # Errors
    /// [`ProcessError`], when a model does not take its state, or the supervisor is gone.
    pub(super) fn try_out(
        &mut self,
        config: &MachineConfig,
        device: &str,
        build: Builder,
        keeps: bool,
        dir: &VmDir,
    ) -> Result<Control, ProcessError> {
        if keeps {
            let start_unix_seconds = self.shared.panel().start_unix_seconds();
            let outside = Outside::live();
            let context = BuildContext { config, start_unix_seconds, outside: &outside };
            let models =
                build(&context).map_err(|reason| ProcessError::Build { device: device.into(), reason })?;
            let real = std::mem::replace(&mut self.models, models);
            let tried = self.try_states(true);
            self.models = real;
            tried?;
        }
        Control::connect(&dir.socket()).map_err(broken)
    }

    /// Tells the supervisor that the process is prepared, and waits. False when it is to end.
    ///
    /// # Errors
    /// [`ProcessError::Attach`] when the supervisor is gone.
    pub(super) fn stand_by(&mut self, mut control: Control) -> Result<bool, ProcessError> {
        let versions = self.models.iter().map(|model| model.state_version()).collect();
        control.ask(&Request::StandBy { pid: std::process::id(), versions }).map_err(broken)?;
        Ok(self.orders.wait() == Order::TakeOver)
    }

    /// Loads every committed state. A newer version than the model's is passed over if `older_can_be_had`:
    /// the predecessor may be able to give an older one.
    ///
    /// # Errors
    /// [`ProcessError::State`] for the first that is refused.
    pub(super) fn try_states(&mut self, older_can_be_had: bool) -> Result<(), ProcessError> {
        let names = self.shared.layout().model_infos();
        if let Some(info) = names.get(self.models.len()) {
            let reason = "this build has no such model".into();
            return Err(ProcessError::State { model: info.name.clone(), reason });
        }
        for number in 0..self.models.len() {
            let Some(state) = self.shared.layout().states[number].committed() else { continue };
            let model = &mut self.models[number];
            let refused = |reason| ProcessError::State { model: model_name(model.as_ref()), reason };
            let before = names.get(number).map_or("", |info| info.name.as_str());
            if before != model.name() {
                return Err(refused(format!("that build has a model '{before}' in its place")));
            }
            if older_can_be_had && state.version > model.state_version() {
                continue;
            }
            let loaded = model.load(state.version, &state.data);
            loaded.map_err(|error| ProcessError::State {
                model: model_name(model.as_ref()),
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }

    /// Commits all states in `versions` and waits for what comes of it.
    pub(super) fn park(&mut self, versions: &[u16]) -> Order {
        let committed = self.commit_all(|number| versions.get(number).copied().unwrap_or(0));
        let step = if committed { hand_over::PARKED } else { hand_over::CANNOT };
        self.shared.layout().process.hand_over.store(step, Ordering::Release);
        let order = self.orders.wait();
        if committed && order == (Order::GoOn { reload: false }) {
            // What was committed for the other build may be of an older version.
            self.commit_all(|_| 0);
        }
        if !matches!(order, Order::End | Order::GoOn { reload: true }) {
            (0..self.models.len()).for_each(|number| self.give_counters(number));
        }
        order
    }

    /// Commits every state in the version that `wanted` says (0: the model's own). False, and nothing
    /// was committed, when a model cannot do that.
    fn commit_all(&mut self, wanted: impl Fn(usize) -> u16) -> bool {
        for number in 0..self.models.len() {
            self.take_latch(number);
            self.import_counters(number);
        }
        let Self { models, shared, committer, .. } = self;
        let states = models.iter().enumerate().map(|(number, model)| {
            let (own, wanted) = (model.state_version(), wanted(number));
            let mut state = Vec::new();
            // A newer one than its own: the other build imports the older.
            if wanted == 0 || wanted >= own {
                model.save(&mut state);
                return Some((own, state));
            }
            model.save_older(wanted, &mut state).then_some((wanted, state))
        });
        let Some(states) = states.collect::<Option<Vec<_>>>() else { return false };
        for (number, (version, state)) in states.iter().enumerate() {
            committer.commit_as(number, *version, state, shared);
        }
        true
    }
}

fn broken(error: ipc::control::ControlError) -> ProcessError {
    ProcessError::Attach(ipc::setup::AttachError::Control(error))
}

fn model_name(model: &dyn Device) -> String {
    model.name().into()
}
