//! The hosts: who is there, who takes more, who ends.

use std::collections::{HashMap, HashSet};

use super::Service;
use super::health::HOST_ALIVE;
use super::upkeep::{LostBy, Swept};
use crate::error::{Error, Noun};
use crate::host::{Host, HostInfo, HostStatus};
use crate::id::HostId;
use crate::store;

impl Service {
    /// Makes a process known as one that takes executions. It is cordoned where the
    /// last process of its name is.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn register_host(&self, host: HostInfo) -> Result<HostId, Error> {
        let id = HostId::generate();
        self.register_host_as(&id, host).await?;
        Ok(id)
    }

    /// As [`Service::register_host`], for a process that has its id already: it
    /// noted it for its successor, or it was forgotten since nothing was heard of
    /// it for too long ([`super::Renewal::forgotten`]).
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn register_host_as(&self, id: &HostId, host: HostInfo) -> Result<(), Error> {
        let now = self.0.clock.now();
        let id = id.clone();
        self.0
            .store
            .write(move |c| {
                Box::pin(async move { store::hosts::register(c, &id, &host, now).await })
            })
            .await
    }

    /// All hosts that were there within the last day, by name: of each the latest
    /// process, and earlier ones that still run something or were just heard of.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn hosts(&self) -> Result<Vec<Host>, Error> {
        let now = self.0.clock.now();
        let mut c = self.0.store.read().await?;
        let running: HashMap<HostId, u64> =
            store::hosts::running(&mut c).await?.into_iter().collect();
        let mut names = HashSet::new();
        let hosts = store::hosts::all(&mut c).await?.into_iter().map(|stored| {
            let status = match stored.stopped {
                Some(_) => HostStatus::Stopped,
                None if now.since(stored.seen) > HOST_ALIVE => HostStatus::Missing,
                None if stored.draining => HostStatus::Draining,
                None => HostStatus::Working,
            };
            Host {
                running: running.get(&stored.id).copied().unwrap_or(0),
                id: stored.id,
                info: stored.info,
                status,
                cordoned: stored.cordoned,
                clock_offset_us: stored.clock_offset_us,
                registered: stored.registered,
                seen: stored.seen,
            }
        });
        Ok(hosts
            .filter(|host| {
                let latest = names.insert(host.info.name.clone());
                let there = matches!(host.status, HostStatus::Working | HostStatus::Draining);
                latest || there || host.running > 0
            })
            .collect())
    }

    /// Keeps a host from taking more executions; those that it runs go on. Holds
    /// for later processes of the same name too, until [`Service::uncordon`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]: no host of this name was there within the last day.
    pub async fn cordon(&self, name: &str) -> Result<(), Error> {
        self.set_cordoned(name, true).await
    }

    /// Lets a host take executions again.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]: no host of this name was there within the last day.
    pub async fn uncordon(&self, name: &str) -> Result<(), Error> {
        self.set_cordoned(name, false).await?;
        self.0.queue.wake();
        Ok(())
    }

    async fn set_cordoned(&self, name: &str, cordoned: bool) -> Result<(), Error> {
        let wanted = name.to_owned();
        let known = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move { store::hosts::set_cordoned(c, &wanted, cordoned).await })
            })
            .await?;
        if known == 0 {
            return Err(Error::NotFound { noun: Noun::Host, id: name.to_owned() });
        }
        Ok(())
    }

    /// Says that a host takes nothing more and is about to stop.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn drain_host(&self, host: &HostId) -> Result<(), Error> {
        let host = host.clone();
        self.0
            .store
            .write(move |c| Box::pin(async move { store::hosts::set_draining(c, &host).await }))
            .await
    }

    /// Says that a host has stopped.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn stop_host(&self, host: &HostId) -> Result<(), Error> {
        let (host, now) = (host.clone(), self.0.clock.now());
        self.0
            .store
            .write(move |c| Box::pin(async move { store::hosts::set_stopped(c, &host, now).await }))
            .await
    }

    /// Gives back at once what processes had claimed that are `dead`. Only for a
    /// process that knows it, since it holds the lock of the state root that was
    /// theirs; what others had, whatever their name, waits for its lease to end.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn recover(&self, dead: &[HostId]) -> Result<Swept, Error> {
        let mut lost = Vec::new();
        {
            let mut c = self.0.store.read().await?;
            for host in dead {
                lost.extend(store::executions::of_host(&mut c, host).await?);
            }
        }
        let swept = self.give_up_all(lost, LostBy::Successor).await?;
        let (dead, now) = (dead.to_vec(), self.0.clock.now());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    for host in &dead {
                        store::workers::remove_of_host(c, host, now).await?;
                        store::hosts::set_dead(c, host, now).await?;
                    }
                    Ok(())
                })
            })
            .await?;
        Ok(swept)
    }
}
