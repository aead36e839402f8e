//! Devices of users. Each keeps its inside address (A5).

use std::net::Ipv4Addr;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// A row of `devices`.
pub struct Device {
    /// Row number.
    pub id: i64,
    /// The address it had last, unless that was given to another device since.
    pub inner_v4: Option<Ipv4Addr>,
    /// The administrator has removed it: its key stays out.
    pub removed: bool,
}

/// A device in use, with whose it is.
pub struct Listed {
    /// Row number.
    pub id: i64,
    /// User name.
    pub user: String,
    /// Device name.
    pub name: String,
    /// Inside address.
    pub inner_v4: Option<Ipv4Addr>,
    /// Unix s.
    pub created: i64,
    /// Unix s.
    pub last_seen: i64,
}

/// The device of a user with that Ed25519 public key.
pub async fn by_key(
    db: &mut AnyConnection,
    user_id: i64,
    public_key: &[u8; 32],
) -> sqlx::Result<Option<Device>> {
    let row = sqlx::query("SELECT * FROM devices WHERE user_id = $1 AND public_key = $2")
        .bind(user_id)
        .bind(public_key.as_slice())
        .fetch_optional(db)
        .await?;
    row.as_ref()
        .map(|row| {
            let removed = row.try_get::<Option<i64>, _>("removed")?.is_some();
            Ok(Device { id: row.try_get("id")?, inner_v4: address(row)?, removed })
        })
        .transpose()
}

/// The row number of a device in use, by its key and the normalised name of its user.
pub async fn enrolled(
    db: &mut AnyConnection,
    user: &str,
    public_key: &[u8; 32],
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar(
        "SELECT devices.id FROM devices JOIN users ON users.id = devices.user_id
         WHERE users.name = $1 AND devices.public_key = $2 AND devices.removed IS NULL",
    )
    .bind(user)
    .bind(public_key.as_slice())
    .fetch_optional(db)
    .await
}

/// Devices in use, of one user or of all.
pub async fn list(db: &mut AnyConnection, user: Option<&str>) -> sqlx::Result<Vec<Listed>> {
    let rows = sqlx::query(
        "SELECT devices.id, users.name AS user_name, devices.name, devices.inner_v4,
                devices.created, devices.last_seen
         FROM devices JOIN users ON users.id = devices.user_id
         WHERE devices.removed IS NULL AND ($1 IS NULL OR users.name = $1)
         ORDER BY users.name, devices.id",
    )
    .bind(user)
    .fetch_all(db)
    .await?;
    let listed = |row: &AnyRow| {
        Ok(Listed {
            id: row.try_get("id")?,
            user: row.try_get("user_name")?,
            name: row.try_get("name")?,
            inner_v4: address(row)?,
            created: row.try_get("created")?,
            last_seen: row.try_get("last_seen")?,
        })
    };
    rows.iter().map(listed).collect()
}

/// Removes a device: its address is free, its key is remembered so that it stays out. Returns
/// the name of its user; `None`: there is no such device in use.
pub async fn remove(db: &mut AnyConnection, id: i64, now: i64) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(
        "UPDATE devices SET removed = $1, inner_v4 = NULL WHERE id = $2 AND removed IS NULL
         RETURNING (SELECT name FROM users WHERE users.id = devices.user_id)",
    )
    .bind(now)
    .bind(id)
    .fetch_optional(db)
    .await
}

/// Adds a device, still without an address.
pub async fn add(
    db: &mut AnyConnection,
    user_id: i64,
    public_key: &[u8; 32],
    name: &str,
    now: i64,
) -> sqlx::Result<Device> {
    let id = sqlx::query_scalar(
        "INSERT INTO devices (user_id, public_key, name, created, last_seen)
         VALUES ($1, $2, $3, $4, $4) RETURNING id",
    )
    .bind(user_id)
    .bind(public_key.as_slice())
    .bind(name)
    .bind(now)
    .fetch_one(db)
    .await?;
    Ok(Device { id, inner_v4: None, removed: false })
}

/// Gives a device its address, takes it from whoever had it, and notes that the device was here.
pub async fn assign(
    db: &mut AnyConnection,
    id: i64,
    inner_v4: Ipv4Addr,
    now: i64,
) -> sqlx::Result<()> {
    let text = inner_v4.to_string();
    sqlx::query("UPDATE devices SET inner_v4 = NULL WHERE inner_v4 = $1 AND id <> $2")
        .bind(&text)
        .bind(id)
        .execute(&mut *db)
        .await?;
    sqlx::query("UPDATE devices SET inner_v4 = $1, last_seen = $2 WHERE id = $3")
        .bind(&text)
        .bind(now)
        .bind(id)
        .execute(db)
        .await
        .map(|_| ())
}

/// Addresses that devices other than `id` hold.
pub async fn addresses_of_others(db: &mut AnyConnection, id: i64) -> sqlx::Result<Vec<Ipv4Addr>> {
    let rows = sqlx::query("SELECT inner_v4 FROM devices WHERE inner_v4 IS NOT NULL AND id <> $1")
        .bind(id)
        .fetch_all(db)
        .await?;
    rows.iter().filter_map(|row| address(row).transpose()).collect()
}

/// Addresses of devices not seen since `before` and without a valid session, longest unseen first.
pub async fn addresses_unused(
    db: &mut AnyConnection,
    before: i64,
    now: i64,
) -> sqlx::Result<Vec<Ipv4Addr>> {
    let rows = sqlx::query(
        "SELECT inner_v4 FROM devices WHERE inner_v4 IS NOT NULL AND last_seen < $1
           AND NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.device_id = devices.id
                             AND sessions.closed IS NULL AND sessions.expires > $2)
         ORDER BY last_seen, id",
    )
    .bind(before)
    .bind(now)
    .fetch_all(db)
    .await?;
    rows.iter().filter_map(|row| address(row).transpose()).collect()
}

pub(super) fn address(row: &AnyRow) -> sqlx::Result<Option<Ipv4Addr>> {
    let text: Option<String> = row.try_get("inner_v4")?;
    text.map(|text| {
        text.parse().map_err(|error| sqlx::Error::ColumnDecode {
            index: "inner_v4".into(),
            source: Box::new(error),
        })
    })
    .transpose()
}
