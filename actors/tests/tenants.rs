//! What operators decide for single tenants.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

#[macro_use]
mod fixture;

use std::time::Duration;

use abax_actors::{
    ActorUpdate, Caller, Finish, HostAccess, MountRule, NewActor, NewMessage, Outcome, Role,
    Tenant, TenantSettings, TokenSetting,
};
use fixture::{Engine, Fixture};

on_each_engine!(a_tenant_has_its_own_settings_and_else_those_of_all);

async fn a_tenant_has_its_own_settings_and_else_those_of_all(engine: Engine) {
    let f = Fixture::with(engine, |config| {
        config.api_server = "http://everybody".to_owned();
        let own = TenantSettings {
            api_server: Some("http://lab".to_owned()),
            default_token: Some(true),
            log_expiry: Some(Duration::from_secs(60)),
            log_expiry_ceiling: Some(Duration::from_secs(120)),
            host_access: Some(HostAccess {
                user: Some((1001, 1002)),
                mounts: vec![MountRule::parse("/lab:/data:ro").unwrap()],
                ..HostAccess::default()
            }),
            ..TenantSettings::default()
        };
        config.host_access.mounts = vec![MountRule::parse("/all:/data:rw").unwrap()];
        config.tenants = [(Tenant::new("LAB"), own)].into_iter().collect();
    })
    .await;
    for (tenant, log_ex, server, token, kept) in [
        ("LAB", None, "http://lab", true, 60),
        ("LAB", Some(100_000), "http://lab", true, 120),
        ("ELSE", None, "http://everybody", false, 43_200),
        ("ELSE", Some(100_000), "http://everybody", false, 86_400),
    ] {
        let caller = Caller::new(Tenant::new(tenant), "ada", Role::User);
        let mut new = NewActor::new("busybox");
        new.log_ex = log_ex;
        let actor = f.service.register_actor(&caller, new).await.unwrap();
        assert_eq!(actor.token, TokenSetting::Default(token), "{tenant}");
        let id = actor.id.as_str();
        let sent = f.service.send_message(&caller, id, NewMessage::text("x")).await.unwrap();

        let host = f.host().await;
        let claim = f.claim(&host).await;
        assert!(
            claim.environment.contains(&("_abaco_api_server".to_owned(), server.to_owned())),
            "{tenant}: {:?}",
            claim.environment
        );
        let mut finish = Finish::new(Outcome::Succeeded, "exited with 0");
        finish.output = b"output".to_vec();
        f.service.finish(&claim.key, finish).await.unwrap();
        let logs = async || f.service.logs(&caller, id, sent.id.as_str()).await.unwrap().text();
        f.clock.advance(Duration::from_secs(kept - 1));
        assert_eq!(logs().await, "output", "{tenant} {log_ex:?}");
        f.clock.advance(Duration::from_secs(2));
        assert_eq!(logs().await, "", "{tenant} {log_ex:?}");

        let updated = f.service.update_actor(&caller, id, ActorUpdate::new("busybox")).await;
        for actor in [&actor, &updated.unwrap()] {
            let (user, mount) = match tenant {
                "LAB" => (Some((1001, 1002)), "/lab"),
                _ => (None, "/all"),
            };
            assert_eq!((actor.user, actor.mounts[0].host_path.as_str()), (user, mount), "{tenant}");
        }
    }
}
