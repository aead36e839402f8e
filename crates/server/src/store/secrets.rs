//! Secrets that all gateways of one database share: the door key, current and previous, and the
//! key that salts are made with (design 3.1). Made when the database is opened for the first time.

use sqlx::AnyConnection;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::bytes;

/// The shared secrets.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secrets {
    /// In every invitation made from now on.
    pub door_key: [u8; 32],
    /// Still accepted.
    pub previous_door_key: Option<[u8; 32]>,
    /// Salts are HMACs by this key.
    pub salt_key: [u8; 32],
}

/// Reads the secrets and makes those that are missing.
pub async fn load_or_make(db: &mut AnyConnection) -> sqlx::Result<Secrets> {
    Ok(Secrets {
        door_key: one_or_make(db, "door-key").await?,
        previous_door_key: one(db, "previous-door-key").await?,
        salt_key: one_or_make(db, "salt-key").await?,
    })
}

async fn one(db: &mut AnyConnection, name: &str) -> sqlx::Result<Option<[u8; 32]>> {
    let row = sqlx::query("SELECT value FROM secrets WHERE name = $1")
        .bind(name)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(|row| bytes(row, "value")).transpose()
}

async fn one_or_make(db: &mut AnyConnection, name: &str) -> sqlx::Result<[u8; 32]> {
    if let Some(there) = one(db, name).await? {
        return Ok(there);
    }
    let mut fresh = [0; 32];
    getrandom::fill(&mut fresh).map_err(|error| sqlx::Error::Io(std::io::Error::from(error)))?;
    // Another process may be doing the same: whoever is first wins, and both read what won.
    sqlx::query(
        "INSERT INTO secrets (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .bind(fresh.as_slice())
    .execute(&mut *db)
    .await?;
    fresh.zeroize();
    one(db, name).await?.ok_or(sqlx::Error::RowNotFound)
}
