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
    /// When the account ends, by the gateway's clock; Unix s.
    pub expires: Option<i64>,
}

/// A user with what is known of the user's devices.
pub struct Listed {
    /// The user.
    pub user: User,
    /// Number of devices.
    pub devices: i64,
    /// When one of them was last seen; Unix s.
    pub last_seen: Option<i64>,
}

/// Adds a user, within a transaction. `None`: the name is taken.
pub async fn add(
    db: &mut AnyConnection,
    name: &str,
    password_hash: Option<&str>,
    now: i64,
    expires: Option<i64>,
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar(
        "INSERT INTO users (name, password_hash, enabled, created, expires)
         VALUES ($1, $2, 1, $3, $4) ON CONFLICT (name) DO NOTHING RETURNING id",
    )
    .bind(name)
    .bind(password_hash)
    .bind(now)
    .bind(expires)
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

/// Sets the password of a user.
pub async fn set_password(db: &mut AnyConnection, id: i64, hash: &str) -> sqlx::Result<()> {
    let query = sqlx::query("UPDATE users SET password_hash = $1 WHERE id = $2");
    query.bind(hash).bind(id).execute(db).await.map(|_| ())
}

/// Lets a user in, or no more.
pub async fn set_enabled(db: &mut AnyConnection, id: i64, enabled: bool) -> sqlx::Result<()> {
    let query = sqlx::query("UPDATE users SET enabled = $1 WHERE id = $2");
    query.bind(i64::from(enabled)).bind(id).execute(db).await.map(|_| ())
}

/// Sets when the account ends; `None`: never.
pub async fn set_expires(
    db: &mut AnyConnection,
    id: i64,
    expires: Option<i64>,
) -> sqlx::Result<()> {
    let query = sqlx::query("UPDATE users SET expires = $1 WHERE id = $2");
    query.bind(expires).bind(id).execute(db).await.map(|_| ())
}

/// Removes a user with all devices, invitations and sessions.
pub async fn remove(db: &mut AnyConnection, id: i64) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM users WHERE id = $1").bind(id).execute(db).await.map(|_| ())
}

/// All users by name, or the one of that normalised name.
pub async fn list(db: &mut AnyConnection, name: Option<&str>) -> sqlx::Result<Vec<Listed>> {
    let rows = sqlx::query(
        "SELECT users.id, users.name, users.password_hash, users.enabled, users.created,
                users.expires, COUNT(devices.id) AS devices, MAX(devices.last_seen) AS last_seen
         FROM users LEFT JOIN devices ON devices.user_id = users.id AND devices.removed IS NULL
         WHERE $1 IS NULL OR users.name = $1
         GROUP BY users.id, users.name, users.password_hash, users.enabled, users.created,
                  users.expires
         ORDER BY users.name",
    )
    .bind(name)
    .fetch_all(db)
    .await?;
    let listed = |row: &AnyRow| {
        Ok(Listed {
            user: user(row)?,
            devices: row.try_get("devices")?,
            last_seen: row.try_get("last_seen")?,
        })
    };
    rows.iter().map(listed).collect()
}

fn user(row: &AnyRow) -> sqlx::Result<User> {
    Ok(User {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        password_hash: row.try_get("password_hash")?,
        enabled: row.try_get::<i64, _>("enabled")? != 0,
        created: row.try_get("created")?,
        expires: row.try_get("expires")?,
    })
}
