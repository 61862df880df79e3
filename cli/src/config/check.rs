//! What single settings cannot show: whether they go together.

use super::Settings;

impl Settings {
    /// All that does not go together.
    pub(crate) fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.service.bridge == self.network.bridge {
            problems.push(
                "service.bridge and network.bridge are the same; executions need a bridge of their own"
                    .to_owned(),
            );
        }
        let (ours, theirs) = (self.service.subnet, self.network.subnet);
        if ours.contains(&theirs) || theirs.contains(&ours) {
            problems.push(format!(
                "service.subnet {ours} and network.subnet {theirs} overlap; choose two that do not"
            ));
        }
        if !self.service.queues.iter().any(|queue| queue == "default") {
            problems
                .push("service.queues lacks default, which actors have that name none".to_owned());
        }
        problems
    }
}
