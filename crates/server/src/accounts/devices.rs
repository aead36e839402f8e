//! What the administrator does with devices.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{Accounts, ManageError, seconds};
use crate::store::devices;
use crate::store::sessions::{self, Of};

/// A device, as the administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// What `device remove` takes.
    pub id: i64,
    /// User name.
    pub user: String,
    /// Device name.
    pub name: String,
    /// Inside address.
    pub inner_v4: Option<Ipv4Addr>,
    /// Inside IPv6 address.
    pub inner_v6: Option<Ipv6Addr>,
    /// Unix s.
    pub created: u64,
    /// Unix s.
    pub last_seen: u64,
}

impl Accounts {
    /// The devices of a user, or all, by user.
    ///
    /// # Errors
    /// No such user; the database's.
    pub async fn list_devices(&self, user: Option<&str>) -> Result<Vec<DeviceInfo>, ManageError> {
        let user = match user {
            Some(name) => Some(self.user(name).await?.name),
            None => None,
        };
        let list = async {
            devices::list(&mut *self.inner.store.connection().await?, user.as_deref()).await
        };
        let rows = list.await.map_err(|error| self.inner.store.explain(error))?;
        let info = |device: devices::Listed| DeviceInfo {
            id: device.id,
            user: device.user,
            name: device.name,
            inner_v4: device.inner_v4,
            inner_v6: device.inner_v4.map(|v4| self.inner.pool.mirror(v4)),
            created: device.created.unsigned_abs(),
            last_seen: device.last_seen.unsigned_abs(),
        };
        Ok(rows.into_iter().map(info).collect())
    }

    /// Removes a device: its sessions end, its address is free, its key stays out. Returns the
    /// user's name and the sessions.
    ///
    /// # Errors
    /// No such device; the database's.
    pub async fn remove_device(
        &self,
        id: i64,
        now: u64,
    ) -> Result<(String, Vec<[u8; 16]>), ManageError> {
        let remove = async {
            let mut tx = self.inner.store.begin().await?;
            let Some(user) = devices::remove(&mut tx, id, seconds(now)).await? else {
                return Ok(None);
            };
            let sessions = sessions::close_all(&mut tx, Of::Device(id), seconds(now)).await?;
            tx.commit().await?;
            Ok(Some((user, sessions)))
        };
        let removed = remove.await.map_err(|error| self.inner.store.explain(error))?;
        removed.ok_or(ManageError::NoDevice(id))
    }
}
