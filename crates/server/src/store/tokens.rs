//! Session tokens: the database knows only their hashes (A4).

use sqlx::{AnyConnection, Row};

use super::bytes;

/// So many tokens of a session are kept that no client has confirmed ...
const UNCONFIRMED_KEPT: i64 = 16;
/// ... and so many retired ones: all of those, and the ones that clients had before.
const RETIRED_KEPT: i64 = 32;

/// What a token stands for.
pub struct Shown {
    /// Session id.
    pub session_id: [u8; 16],
    /// The client has stored a later one.
    pub retired: bool,
    /// That of the session's latest connection.
    pub generation: i64,
    /// Unix s.
    pub expires: i64,
    /// The session is over.
    pub closed: bool,
    /// The device's row number.
    pub device_id: i64,
    /// The device's Ed25519 public key.
    pub device_key: [u8; 32],
    /// Row number of the device's user.
    pub user_id: i64,
}

/// What the token with that hash stands for.
pub async fn find(db: &mut AnyConnection, hash: &[u8; 32]) -> sqlx::Result<Option<Shown>> {
    let row = sqlx::query(
        "SELECT tokens.retired, sessions.id AS session_id, sessions.generation, sessions.expires,
                sessions.closed, devices.id AS device_id, devices.public_key, devices.user_id
         FROM tokens JOIN sessions ON sessions.id = tokens.session_id
                     JOIN devices ON devices.id = sessions.device_id
         WHERE tokens.hash = $1",
    )
    .bind(hash.as_slice())
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        Ok(Shown {
            session_id: bytes(&row, "session_id")?,
            retired: row.try_get::<i64, _>("retired")? != 0,
            generation: row.try_get("generation")?,
            expires: row.try_get("expires")?,
            closed: row.try_get::<Option<i64>, _>("closed")?.is_some(),
            device_id: row.try_get("device_id")?,
            device_key: bytes(&row, "public_key")?,
            user_id: row.try_get("user_id")?,
        })
    })
    .transpose()
}

/// Gives a session one more token.
pub async fn add(
    db: &mut AnyConnection,
    hash: &[u8; 32],
    session_id: &[u8; 16],
    generation: i64,
) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO tokens (hash, session_id, generation) VALUES ($1, $2, $3)")
        .bind(hash.as_slice())
        .bind(session_id.as_slice())
        .bind(generation)
        .execute(db)
        .await
        .map(|_| ())
}

/// Forgets tokens of long ago that no client has confirmed, but not the one in use.
pub async fn prune(
    db: &mut AnyConnection,
    session_id: &[u8; 16],
    in_use: &[u8; 32],
    generation: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM tokens
         WHERE session_id = $1 AND hash <> $2 AND retired = 0 AND generation < $3",
    )
    .bind(session_id.as_slice())
    .bind(in_use.as_slice())
    .bind(generation - UNCONFIRMED_KEPT)
    .execute(db)
    .await
    .map(|_| ())
}

/// Retires the tokens before that of a generation, and forgets those retired long ago.
pub async fn retire_before(
    db: &mut AnyConnection,
    session_id: &[u8; 16],
    generation: i64,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE tokens SET retired = 1 WHERE session_id = $1 AND generation < $2")
        .bind(session_id.as_slice())
        .bind(generation)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "DELETE FROM tokens WHERE session_id = $1 AND retired = 1 AND hash NOT IN
           (SELECT hash FROM tokens WHERE session_id = $1 AND retired = 1
            ORDER BY generation DESC LIMIT $2)",
    )
    .bind(session_id.as_slice())
    .bind(RETIRED_KEPT)
    .execute(db)
    .await
    .map(|_| ())
}
