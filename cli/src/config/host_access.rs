//! What executions have of their hosts: settings that must fit each other.

use std::path::Path;

use abax_actors::{HostAccess, Identities, MountRule};
use abax_runtime::container::HostUser;
use anyhow::{Context as _, bail};

use super::Settings;

/// What the settings of one section say of it.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) identities_file: Option<&'a Path>,
    pub(super) home: Option<&'a str>,
    pub(super) mounts: Option<&'a [String]>,
    pub(super) privileged_mounts: Option<&'a [String]>,
}

impl Settings {
    /// What the operator lets executions have of their hosts.
    ///
    /// # Errors
    ///
    /// A mount that is none, or a user that no execution may be.
    pub(crate) fn host_access(&self) -> anyhow::Result<HostAccess> {
        let service = &self.service;
        let wanted = Wanted {
            uid: service.uid,
            gid: service.gid,
            identities_file: service.identities_file.as_deref(),
            home: service.home.as_deref(),
            mounts: Some(&service.mounts),
            privileged_mounts: Some(&service.privileged_mounts),
        };
        wanted.or(HostAccess::default(), "service")
    }
}

impl Wanted<'_> {
    /// True where nothing is said.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(
            self,
            Self {
                uid: None,
                gid: None,
                identities_file: None,
                home: None,
                mounts: None,
                privileged_mounts: None
            }
        )
    }

    /// This, and `other` where it says nothing; `section` is where it stands.
    ///
    /// # Errors
    ///
    /// A mount that is none, or a user that no execution may be.
    pub(super) fn or(self, other: HostAccess, section: &str) -> anyhow::Result<HostAccess> {
        let identities = match self.identities_file {
            // A section that says one user for all does not mean another's list.
            None => other.identities.filter(|_| self.uid.is_none()),
            Some(path) => {
                let may_be = |uid, gid| HostUser::new(uid, gid).is_ok();
                let identities = Identities::of_file(path, may_be);
                Some(identities.with_context(|| format!("{section}.identities_file"))?)
            }
        };
        let user = match (self.uid, self.gid) {
            (None, None) => other.user,
            (Some(uid), Some(gid)) => {
                HostUser::new(uid, gid)
                    .with_context(|| format!("{section}.uid and {section}.gid"))?;
                Some((uid, gid))
            }
            _ => bail!("{section}.uid and {section}.gid need each other"),
        };
        let rules = |name: &str, texts: Option<&[String]>, other: Vec<MountRule>| {
            let Some(texts) = texts else { return Ok(other) };
            let parsed: anyhow::Result<Vec<MountRule>> = texts
                .iter()
                .map(|text| MountRule::parse(text).with_context(|| format!("{section}.{name}")))
                .collect();
            parsed
        };
        Ok(HostAccess {
            user,
            identities,
            home: self.home.map(str::to_owned).or(other.home),
            mounts: rules("mounts", self.mounts, other.mounts)?,
            privileged_mounts: rules(
                "privileged_mounts",
                self.privileged_mounts,
                other.privileged_mounts,
            )?,
        })
    }
}
