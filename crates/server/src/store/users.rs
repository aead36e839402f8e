//! Users: a name that never changes, and a password hash where they have a password.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// A row of `users`.
pub struct User {
    /// Row number.
    pub id: i64,
    /// Normalised name.
    pub name: String,
    /// Argon2id of the pre-hash, in PHC format; none: enters by invitation only.
    pub password_hash: Option<String>,
    /// A disabled user is refused everywhere.
    pub enabled: bool,
    /// Unix s.
    pub created: i64,
}

/// Adds a user. `None`: the name is taken.
pub async fn add(
    db: &mut AnyConnection,
    name: &str,
    password_hash: Option<&str>,
    now: i64,
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar(
        "INSERT INTO users (name, password_hash, enabled, created) VALUES ($1, $2, 1, $3)
         ON CONFLICT (name) DO NOTHING RETURNING id",
    )
    .bind(name)
    .bind(password_hash)
    .bind(now)
    .fetch_optional(db)
    .await
}

/// The user of that normalised name.
pub async fn by_name(db: &mut AnyConnection, name: &str) -> sqlx::Result<Option<User>> {
    let row = sqlx::query("SELECT * FROM users WHERE name = $1").bind(name).fetch_optional(db);
    row.await?.as_ref().map(user).transpose()
}

/// The user of that row number.
pub async fn by_id(db: &mut AnyConnection, id: i64) -> sqlx::Result<Option<User>> {
    let row = sqlx::query("SELECT * FROM users WHERE id = $1").bind(id).fetch_optional(db);
    row.await?.as_ref().map(user).transpose()
}

/// Sets the password of a user who has none yet; never replaces one.
pub async fn set_first_password(db: &mut AnyConnection, id: i64, hash: &str) -> sqlx::Result<()> {
    sqlx::query("UPDATE users SET password_hash = $1 WHERE id = $2 AND password_hash IS NULL")
        .bind(hash)
        .bind(id)
        .execute(db)
        .await
        .map(|_| ())
}

/// All users by name, each with the number of its devices and when one was last seen.
pub async fn list(db: &mut AnyConnection) -> sqlx::Result<Vec<(User, i64, Option<i64>)>> {
    let rows = sqlx::query(
        "SELECT users.id, users.name, users.password_hash, users.enabled, users.created,
                COUNT(devices.id) AS devices, MAX(devices.last_seen) AS last_seen
         FROM users LEFT JOIN devices ON devices.user_id = users.id
         GROUP BY users.id, users.name, users.password_hash, users.enabled, users.created
         ORDER BY users.name",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((user(row)?, row.try_get("devices")?, row.try_get("last_seen")?)))
        .collect()
}

fn user(row: &AnyRow) -> sqlx::Result<User> {
    Ok(User {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        password_hash: row.try_get("password_hash")?,
        enabled: row.try_get::<i64, _>("enabled")? != 0,
        created: row.try_get("created")?,
    })
}
