//! What containers of actors have of their hosts: as whom they run, and which
//! directories they see. The operator says it, no user does.

use serde::{Deserialize, Serialize};

use crate::identity::{Identities, Identity};
use crate::permission::Tenant;

/// What the operator lets containers have of their hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAccess {
    /// The user and group of the hosts as which containers run, but for actors that
    /// keep the image's; none: the image's, who is nobody on the host.
    pub user: Option<(u32, u32)>,
    /// Those who have an own user and home directory there, in place of these.
    pub identities: Option<Identities>,
    /// The home directory of an actor's owner, which mounts may name as
    /// `{tasdir}`; it may name `{username}` and `{tenant_id}` itself.
    pub home: Option<String>,
    /// Mounts of all actors.
    pub mounts: Vec<MountRule>,
    /// Mounts of privileged actors, beside those.
    pub privileged_mounts: Vec<MountRule>,
}

/// A mount before the names of an actor are filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountRule {
    host_path: String,
    container_path: String,
    read_only: bool,
}

/// A directory or file of the hosts that an actor's containers see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorMount {
    /// Where it is on the host.
    pub host_path: String,
    /// Where containers see it.
    pub container_path: String,
    /// `ro`, or `rw`: whether they may write there.
    pub mode: String,
}

impl ActorMount {
    /// Whether containers may only read it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.mode != "rw"
    }
}

/// A text that is no mount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mount: write HOST:CONTAINER:ro or HOST:CONTAINER:rw, both paths from / on")]
pub struct InvalidMount(String);

impl MountRule {
    /// The mount that `text` says, as `HOST:CONTAINER:MODE`.
    ///
    /// # Errors
    ///
    /// [`InvalidMount`]: not of that form, or a path that is not absolute.
    pub fn parse(text: &str) -> Result<Self, InvalidMount> {
        let invalid = || InvalidMount(text.to_owned());
        let parts: Vec<&str> = text.split(':').map(str::trim).collect();
        let [host_path, container_path, mode] = parts[..] else { return Err(invalid()) };
        let is_path = |path: &str| path.starts_with('/') || path.starts_with(HOME);
        // A container's own root is not there to be covered.
        if !is_path(host_path) || !container_path.starts_with('/') || container_path == "/" {
            return Err(invalid());
        }
        let read_only = match mode {
            "ro" => true,
            "rw" => false,
            _ => return Err(invalid()),
        };
        let (host_path, container_path) = (host_path.to_owned(), container_path.to_owned());
        Ok(Self { host_path, container_path, read_only })
    }

    /// The mount of an actor; none where a name cannot be filled in.
    fn fill(&self, names: &Names<'_>) -> Option<ActorMount> {
        Some(ActorMount {
            host_path: names.fill(&self.host_path)?,
            container_path: names.fill(&self.container_path)?,
            mode: if self.read_only { "ro" } else { "rw" }.to_owned(),
        })
    }
}

/// Stands for the home directory of an actor's owner.
const HOME: &str = "{tasdir}";

struct Names<'a> {
    owner: &'a str,
    tenant: &'a Tenant,
    home: Option<&'a str>,
}

impl Names<'_> {
    /// None where a name would lead elsewhere, or is not known.
    fn fill(&self, text: &str) -> Option<String> {
        let mut filled = text.to_owned();
        if filled.contains(HOME) {
            filled = filled.replace(HOME, self.home?);
        }
        for (placeholder, name) in
            [("{username}", self.owner), ("{tenant_id}", self.tenant.as_str())]
        {
            if filled.contains(placeholder) {
                if !is_name(name) {
                    return None;
                }
                filled = filled.replace(placeholder, name);
            }
        }
        Some(filled)
    }
}

/// Whether a name is one step of a path, and no other step than its own.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && !name.contains(['/', '{', '}'])
        && !name.chars().any(char::is_control)
}

impl HostAccess {
    /// As whom the containers of a user's actors run.
    pub(crate) fn user_of(&self, user: &str) -> Option<(u32, u32)> {
        self.identity_of(user).map(|Identity { user, .. }| user).or(self.user)
    }

    /// Who a user is on the hosts in its own name.
    pub(crate) fn identity_of(&self, user: &str) -> Option<Identity> {
        self.identities.as_ref()?.find(user)
    }

    /// The home directory of the owner of an actor.
    pub(crate) fn home_of(&self, owner: &str, tenant: &Tenant) -> Option<String> {
        if let Some(Identity { home, .. }) = self.identity_of(owner) {
            return home;
        }
        Names { owner, tenant, home: None }.fill(self.home.as_deref()?)
    }

    /// The mounts of an actor.
    pub(crate) fn mounts_of(
        &self,
        owner: &str,
        tenant: &Tenant,
        privileged: bool,
    ) -> Vec<ActorMount> {
        let home = self.home_of(owner, tenant);
        let names = Names { owner, tenant, home: home.as_deref() };
        let more = self.privileged_mounts.iter().filter(|_| privileged);
        self.mounts.iter().chain(more).filter_map(|rule| rule.fill(&names)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_have_two_paths_and_a_mode() {
        for (text, valid) in [
            ("/data1:/_abaco_data1:ro", true),
            (" /a : /b : rw ", true),
            ("{tasdir}/x:/home/{username}:rw", true),
            ("/a:/b", false),
            ("/a:/b:r", false),
            ("a:/b:ro", false),
            ("/a:b:ro", false),
            ("/a:/:rw", false),
            ("/a:/b:ro:z", false),
        ] {
            assert_eq!(MountRule::parse(text).is_ok(), valid, "{text}");
        }
    }

    #[test]
    fn names_are_filled_in_where_they_are_one_step_of_a_path() {
        let rules = ["/data:/data:ro", "{tasdir}/own:/home/{username}:rw", "/t/{tenant_id}:/t:ro"];
        let access = HostAccess {
            home: Some("/homes/{tenant_id}/{username}".to_owned()),
            mounts: rules.iter().map(|rule| MountRule::parse(rule).unwrap()).collect(),
            privileged_mounts: vec![MountRule::parse("/run/x.sock:/run/x.sock:rw").unwrap()],
            ..HostAccess::default()
        };
        let filled = |access: &HostAccess, owner: &str, privileged| -> Vec<String> {
            let mounts = access.mounts_of(owner, &Tenant::new("T"), privileged);
            mounts
                .into_iter()
                .map(|m| format!("{}:{}:{}", m.host_path, m.container_path, m.mode))
                .collect()
        };
        let own = "/homes/T/ada/own:/home/ada:rw";
        assert_eq!(filled(&access, "ada", false), ["/data:/data:ro", own, "/t/T:/t:ro"]);
        let privileged = filled(&access, "ada", true);
        assert_eq!(privileged[3..], ["/run/x.sock:/run/x.sock:rw"]);
        for owner in ["..", ".", "", "a/../../etc", "{tasdir}", "a\n"] {
            let found = filled(&access, owner, false);
            assert_eq!(found, ["/data:/data:ro", "/t/T:/t:ro"], "{owner:?}");
        }
        let homeless = HostAccess { home: None, ..access };
        assert_eq!(filled(&homeless, "ada", false), ["/data:/data:ro", "/t/T:/t:ro"]);
    }
}
