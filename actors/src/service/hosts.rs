//! The processes that take executions.

use super::Service;
use super::upkeep::{LostBy, Swept};
use crate::error::Error;
use crate::id::HostId;
use crate::store;

/// A process that takes executions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInfo {
    /// The same each time this machine and state root register.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Executions it runs at once.
    pub slots: u32,
}

impl Service {
    /// Makes a process known as one that takes executions.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn register_host(&self, host: HostInfo) -> Result<HostId, Error> {
        let id = HostId::generate();
        let now = self.0.clock.now();
        let registered = id.clone();
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let HostInfo { name, version, slots } = host;
                    store::hosts::insert(c, &registered, &name, &version, slots, now).await
                })
            })
            .await?;
        Ok(id)
    }

    /// Gives back at once what earlier processes of this host had claimed. Only
    /// for a process that knows them dead, since it holds the lock of their state
    /// root; others wait for the leases to end.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn recover(&self, host: &HostId) -> Result<Swept, Error> {
        let lost = {
            let mut c = self.0.store.read().await?;
            store::executions::of_earlier_processes(&mut c, host).await?
        };
        let swept = self.give_up_all(lost, LostBy::Successor).await?;
        let host = host.clone();
        self.0
            .store
            .write(move |c| {
                Box::pin(async move { store::workers::remove_of_earlier_processes(c, &host).await })
            })
            .await?;
        Ok(swept)
    }
}
