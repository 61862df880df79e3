//! What an operator decides for single tenants, where it differs from the rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::mount::HostAccess;
use crate::permission::Tenant;

/// What holds in one tenant; what is not given is as everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantSettings {
    /// The base URL at which its users and executions reach the service, without a
    /// slash at its end.
    pub api_server: Option<String>,
    /// What its actors have as `token` when they do not say.
    pub default_token: Option<bool>,
    /// Whether its executions get an access token where their actors ask for one.
    pub issues_tokens: Option<bool>,
    /// How long its logs are kept when the actor does not say.
    pub log_expiry: Option<Duration>,
    /// The longest time for which its actors may have their logs kept.
    pub log_expiry_ceiling: Option<Duration>,
    /// What its executions have of their hosts.
    pub host_access: Option<HostAccess>,
}

/// The settings of all tenants that have some. A clone is another handle of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantsSettings(Arc<BTreeMap<Tenant, TenantSettings>>);

impl FromIterator<(Tenant, TenantSettings)> for TenantsSettings {
    fn from_iter<I: IntoIterator<Item = (Tenant, TenantSettings)>>(all: I) -> Self {
        Self(Arc::new(all.into_iter().collect()))
    }
}

impl TenantsSettings {
    /// The tenants that have settings of their own, and these.
    pub fn iter(&self) -> impl Iterator<Item = (&Tenant, &TenantSettings)> {
        self.0.iter()
    }

    /// What `tenant` has of its own, by `setting`; else `everywhere`.
    pub fn of<T>(
        &self,
        tenant: &Tenant,
        setting: impl FnOnce(&TenantSettings) -> Option<T>,
        everywhere: T,
    ) -> T {
        self.0.get(tenant).and_then(setting).unwrap_or(everywhere)
    }

    /// Where users and executions of `tenant` reach the service; `everywhere` is where
    /// those of the others do.
    #[must_use]
    pub fn api_server<'a>(&'a self, tenant: &Tenant, everywhere: &'a str) -> &'a str {
        self.0.get(tenant).and_then(|own| own.api_server.as_deref()).unwrap_or(everywhere)
    }

    /// Whether executions of `tenant` get access tokens.
    #[must_use]
    pub fn issues_tokens(&self, tenant: &Tenant) -> bool {
        self.of(tenant, |own| own.issues_tokens, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_own_and_of_the_rest_what_is_everywhere() {
        let own = TenantSettings {
            api_server: Some("https://lab.example.org".to_owned()),
            issues_tokens: Some(false),
            ..TenantSettings::default()
        };
        let lab = Tenant::new("LAB");
        let all: TenantsSettings = [(lab.clone(), own)].into_iter().collect();
        let other = Tenant::new("OTHER");
        assert_eq!(all.api_server(&lab, "http://e"), "https://lab.example.org");
        assert_eq!(all.api_server(&other, "http://e"), "http://e");
        assert!(!all.issues_tokens(&lab) && all.issues_tokens(&other));
        assert!(all.of(&lab, |own| own.default_token, true));
    }
}
