//! What executions have of their hosts: settings that must fit each other.

use abax_actors::{HostAccess, MountRule};
use abax_runtime::container::HostUser;
use anyhow::{Context as _, bail};

use super::Settings;

impl Settings {
    /// What the operator lets executions have of their hosts.
    ///
    /// # Errors
    ///
    /// A mount that is none, or a user that no execution may be.
    pub(crate) fn host_access(&self) -> anyhow::Result<HostAccess> {
        let service = &self.service;
        let rules = |key: &'static str, texts: &[String]| -> anyhow::Result<Vec<MountRule>> {
            texts.iter().map(|text| MountRule::parse(text).context(key)).collect()
        };
        let user = match (service.uid, service.gid) {
            (None, None) => None,
            (Some(uid), Some(gid)) => {
                HostUser::new(uid, gid).context("service.uid and service.gid")?;
                Some((uid, gid))
            }
            _ => bail!("service.uid and service.gid need each other"),
        };
        Ok(HostAccess {
            user,
            home: service.home.clone(),
            mounts: rules("service.mounts", &service.mounts)?,
            privileged_mounts: rules("service.privileged_mounts", &service.privileged_mounts)?,
        })
    }
}
