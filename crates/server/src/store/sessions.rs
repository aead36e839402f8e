//! Sessions: at most one open one a device; [`super::tokens`] are what clients know them by.

use std::net::Ipv4Addr;

use sqlx::{AnyConnection, Row};

use super::bytes;

/// Closed and expired sessions are kept this long for the administrator to look at.
const KEPT_S: i64 = 30 * 24 * 3600;

/// A session that is not closed, with whose it is.
pub struct OpenSession {
    /// Session id.
    pub id: [u8; 16],
    /// User name.
    pub user: String,
    /// Device row number.
    pub device_id: i64,
    /// Device name.
    pub device: String,
    /// Inside address.
    pub inner_v4: Option<Ipv4Addr>,
    /// Unix s.
    pub opened: i64,
    /// Unix s.
    pub expires: i64,
}

/// Opens a session in place of any other one of the device. Returns its generation.
pub async fn open(
    db: &mut AnyConnection,
    id: &[u8; 16],
    device_id: i64,
    now: i64,
    expires: i64,
) -> sqlx::Result<i64> {
    sqlx::query("UPDATE sessions SET closed = $1 WHERE device_id = $2 AND closed IS NULL")
        .bind(now)
        .bind(device_id)
        .execute(&mut *db)
        .await?;
    let last = "SELECT MAX(generation) FROM sessions WHERE device_id = $1";
    let last: Option<i64> = sqlx::query_scalar(last).bind(device_id).fetch_one(&mut *db).await?;
    let generation = last.unwrap_or(0) + 1;
    sqlx::query("DELETE FROM sessions WHERE expires < $1")
        .bind(now - KEPT_S)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "INSERT INTO sessions (id, device_id, generation, opened, expires)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id.as_slice())
    .bind(device_id)
    .bind(generation)
    .bind(now)
    .bind(expires)
    .execute(db)
    .await?;
    Ok(generation)
}

/// A session goes on with a new connection.
pub async fn resume(
    db: &mut AnyConnection,
    id: &[u8; 16],
    generation: i64,
    expires: i64,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE sessions SET generation = $1, expires = $2 WHERE id = $3")
        .bind(generation)
        .bind(expires)
        .bind(id.as_slice())
        .execute(db)
        .await
        .map(|_| ())
}

/// Whether a device has had a session with a later generation than this.
pub async fn any_later(
    db: &mut AnyConnection,
    device_id: i64,
    generation: i64,
) -> sqlx::Result<bool> {
    sqlx::query("SELECT 1 FROM sessions WHERE device_id = $1 AND generation > $2")
        .bind(device_id)
        .bind(generation)
        .fetch_optional(db)
        .await
        .map(|row| row.is_some())
}

/// Closes a session, unless a later connection goes on with it, and notes that its device was here
/// until now.
pub async fn close(
    db: &mut AnyConnection,
    id: &[u8; 16],
    generation: i64,
    now: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE sessions SET closed = $1 WHERE id = $2 AND generation = $3 AND closed IS NULL",
    )
    .bind(now)
    .bind(id.as_slice())
    .bind(generation)
    .execute(&mut *db)
    .await?;
    device_seen(db, id, now).await
}

/// Puts off the end of a session that is in use, and notes that its device is here.
pub async fn extend(
    db: &mut AnyConnection,
    id: &[u8; 16],
    now: i64,
    expires: i64,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE sessions SET expires = $1 WHERE id = $2 AND closed IS NULL")
        .bind(expires)
        .bind(id.as_slice())
        .execute(&mut *db)
        .await?;
    device_seen(db, id, now).await
}

/// Closes the open sessions of a user, of a device, or of a session id; returns their ids.
pub async fn close_all(
    db: &mut AnyConnection,
    of: Of<'_>,
    now: i64,
) -> sqlx::Result<Vec<[u8; 16]>> {
    let query = match of {
        Of::User(id) => sqlx::query(
            "UPDATE sessions SET closed = $1 WHERE closed IS NULL
               AND device_id IN (SELECT id FROM devices WHERE user_id = $2) RETURNING id",
        )
        .bind(now)
        .bind(id),
        Of::Device(id) => sqlx::query(
            "UPDATE sessions SET closed = $1 WHERE closed IS NULL AND device_id = $2 RETURNING id",
        )
        .bind(now)
        .bind(id),
        Of::Session(id) => sqlx::query(
            "UPDATE sessions SET closed = $1 WHERE closed IS NULL AND id = $2 RETURNING id",
        )
        .bind(now)
        .bind(id.as_slice()),
        Of::ExpiredUsers => sqlx::query(
            "UPDATE sessions SET closed = $1 WHERE closed IS NULL AND device_id IN
               (SELECT devices.id FROM devices JOIN users ON users.id = devices.user_id
                WHERE users.expires <= $1) RETURNING id",
        )
        .bind(now),
    };
    query.fetch_all(db).await?.iter().map(|row| bytes(row, "id")).collect()
}

/// Whose sessions are to be closed.
pub enum Of<'a> {
    /// All of the user with that row number.
    User(i64),
    /// That of the device with that row number.
    Device(i64),
    /// The one with that id.
    Session(&'a [u8; 16]),
    /// All of users whose accounts have ended.
    ExpiredUsers,
}

/// Whether users whose accounts have ended have sessions.
pub async fn any_expired(db: &mut AnyConnection, now: i64) -> sqlx::Result<bool> {
    sqlx::query(
        "SELECT 1 FROM users JOIN devices ON devices.user_id = users.id
                             JOIN sessions ON sessions.device_id = devices.id
         WHERE users.expires <= $1 AND sessions.closed IS NULL",
    )
    .bind(now)
    .fetch_optional(db)
    .await
    .map(|row| row.is_some())
}

/// The generation of a device's session that is not closed.
pub async fn generation(db: &mut AnyConnection, device_id: i64) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar("SELECT generation FROM sessions WHERE device_id = $1 AND closed IS NULL")
        .bind(device_id)
        .fetch_optional(db)
        .await
}

/// Sessions neither closed nor expired, oldest first.
pub async fn list_open(db: &mut AnyConnection, now: i64) -> sqlx::Result<Vec<OpenSession>> {
    let rows = sqlx::query(
        "SELECT sessions.id, users.name AS user_name, devices.id AS device_id,
                devices.name AS device_name, devices.inner_v4, sessions.opened, sessions.expires
         FROM sessions JOIN devices ON devices.id = sessions.device_id
                       JOIN users ON users.id = devices.user_id
         WHERE sessions.closed IS NULL AND sessions.expires > $1
         ORDER BY sessions.opened, user_name",
    )
    .bind(now)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(OpenSession {
                id: bytes(row, "id")?,
                user: row.try_get("user_name")?,
                device_id: row.try_get("device_id")?,
                device: row.try_get("device_name")?,
                inner_v4: super::devices::address(row)?,
                opened: row.try_get("opened")?,
                expires: row.try_get("expires")?,
            })
        })
        .collect()
}

async fn device_seen(db: &mut AnyConnection, session_id: &[u8; 16], now: i64) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE devices SET last_seen = $1
         WHERE id = (SELECT device_id FROM sessions WHERE id = $2) AND last_seen < $1",
    )
    .bind(now)
    .bind(session_id.as_slice())
    .execute(db)
    .await
    .map(|_| ())
}
