//! What operators say of single tenants, and of those whose tokens are taken beside
//! the service's own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use abax_actors::{Tenant, TenantSettings, TenantsSettings};
use abax_api::{Issuer, KeySource, PublicKey, Strength, Tenants};
use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::host_access::Wanted;
use super::{Settings, check_certificates};

/// `[service.tenants.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OfTenant {
    public_url: Option<String>,
    default_token: Option<bool>,
    issues_tokens: Option<bool>,
    log_expiry_seconds: Option<u64>,
    log_expiry_ceiling_seconds: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    identities_file: Option<PathBuf>,
    home: Option<String>,
    mounts: Option<Vec<String>>,
    privileged_mounts: Option<Vec<String>>,
}

/// `[api.issuers.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OfIssuer {
    tenants: Vec<String>,
    service_tenants: Option<Vec<String>>,
    issuer: Option<String>,
    audience: Option<String>,
    key_files: Vec<PathBuf>,
    pub(super) jwks_url: Option<String>,
    jwks_fresh_seconds: Option<u64>,
    legacy: bool,
    user_claim: Option<String>,
    tenant_claim: Option<String>,
    roles_claim: Option<String>,
    required_role: Option<String>,
    admins: BTreeSet<String>,
    privileged: BTreeSet<String>,
}

/// How old a key set may be where nothing is said.
const JWKS_FRESH_SECONDS: u64 = 300;

impl OfIssuer {
    fn issuer(&self, name: &str) -> anyhow::Result<Issuer> {
        let keys = match (&self.jwks_url, &*self.key_files) {
            (Some(_), [_, ..]) => bail!("it has both key_files and jwks_url; choose one"),
            (None, []) => bail!("it has neither key_files nor jwks_url; name its keys"),
            (Some(url), []) => {
                let fresh_seconds = self.jwks_fresh_seconds.unwrap_or(JWKS_FRESH_SECONDS);
                KeySource::Set { url: url.clone(), fresh_for: Duration::from_secs(fresh_seconds) }
            }
            (None, files) => {
                let strength = if self.legacy { Strength::Legacy } else { Strength::Today };
                let keys = files.iter().map(|path| {
                    let text = std::fs::read_to_string(path)
                        .with_context(|| format!("could not read {}", path.display()))?;
                    PublicKey::parse(&text, strength).with_context(|| format!("{}", path.display()))
                });
                KeySource::Known(keys.collect::<anyhow::Result<_>>()?)
            }
        };
        let mut issuer = Issuer::new(name, tenants(&self.tenants), keys);
        issuer.service_tenants = self.service_tenants.as_deref().map(tenants);
        issuer.iss.clone_from(&self.issuer);
        issuer.audience.clone_from(&self.audience);
        issuer.legacy = self.legacy;
        issuer.user_claim.clone_from(&self.user_claim);
        issuer.tenant_claim.clone_from(&self.tenant_claim);
        issuer.roles_claim.clone_from(&self.roles_claim);
        issuer.required_role.clone_from(&self.required_role);
        issuer.admins.clone_from(&self.admins);
        issuer.privileged.clone_from(&self.privileged);
        Ok(issuer)
    }
}

/// `*` among the names is any.
fn tenants(names: &[String]) -> Tenants {
    match names.iter().any(|name| name == "*") {
        true => Tenants::Any,
        false => Tenants::These(names.iter().cloned().collect()),
    }
}

impl Settings {
    /// What single tenants have otherwise than the rest.
    ///
    /// # Errors
    ///
    /// As [`Settings::host_access`].
    pub(crate) fn tenants(&self) -> anyhow::Result<TenantsSettings> {
        let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let own = |name: &str, own: &OfTenant| -> anyhow::Result<TenantSettings> {
            let wanted = Wanted {
                uid: own.uid,
                gid: own.gid,
                identities_file: own.identities_file.as_deref(),
                home: own.home.as_deref(),
                mounts: own.mounts.as_deref(),
                privileged_mounts: own.privileged_mounts.as_deref(),
            };
            let host_access = match wanted.is_nothing() {
                true => None,
                false => {
                    let section = format!("service.tenants.{name}");
                    Some(wanted.or(self.host_access()?, &section)?)
                }
            };
            Ok(TenantSettings {
                api_server: own.public_url.as_ref().map(|url| url.trim_end_matches('/').to_owned()),
                default_token: own.default_token,
                issues_tokens: own.issues_tokens,
                log_expiry: seconds(own.log_expiry_seconds),
                log_expiry_ceiling: seconds(own.log_expiry_ceiling_seconds),
                host_access,
            })
        };
        let all: &BTreeMap<String, OfTenant> = &self.service.tenants;
        all.iter().map(|(name, settings)| Ok((Tenant::new(name), own(name, settings)?))).collect()
    }

    /// Puts into `config` whose tokens are taken beside the service's own.
    ///
    /// # Errors
    ///
    /// The first issuer that cannot work, or the CA bundle cannot be read.
    pub(crate) fn trust(&self, config: &mut abax_api::Config) -> anyhow::Result<()> {
        config.ca_pem = self.ca_bundle.as_deref().map(check_certificates).transpose()?;
        for (name, settings) in &self.api.issuers {
            let issuer = settings.issuer(name).with_context(|| format!("api.issuers.{name}"))?;
            config.issuers.push(issuer);
        }
        Ok(())
    }
}
