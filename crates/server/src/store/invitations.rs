//! Invitations: single use, expiring. The database knows only the hash of the enrol secret.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// A row of `invitations`.
pub struct Invitation {
    /// Whom it invites.
    pub user_id: i64,
    /// Unix s.
    pub expires: i64,
    /// Public key of the device that enrolled by it.
    pub used_by: Option<Vec<u8>>,
    /// Withdrawn by the administrator.
    pub revoked: bool,
}

/// An invitation, with whom it invites.
pub struct Listed {
    /// Row number.
    pub id: i64,
    /// User name.
    pub user: String,
    /// Unix s.
    pub created: i64,
    /// Unix s.
    pub expires: i64,
    /// When a device enrolled by it; Unix s.
    pub used_at: Option<i64>,
    /// Withdrawn by the administrator.
    pub revoked: bool,
}

/// Adds an invitation.
pub async fn add(
    db: &mut AnyConnection,
    user_id: i64,
    enrol_hash: &[u8; 32],
    now: i64,
    expires: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO invitations (user_id, enrol_hash, created, expires) VALUES ($1, $2, $3, $4)",
    )
    .bind(user_id)
    .bind(enrol_hash.as_slice())
    .bind(now)
    .bind(expires)
    .execute(db)
    .await
    .map(|_| ())
}

/// The invitation with that hash.
pub async fn by_hash(
    db: &mut AnyConnection,
    enrol_hash: &[u8; 32],
) -> sqlx::Result<Option<Invitation>> {
    let row = sqlx::query(
        "SELECT user_id, expires, used_by, revoked FROM invitations WHERE enrol_hash = $1",
    )
    .bind(enrol_hash.as_slice())
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        Ok(Invitation {
            user_id: row.try_get("user_id")?,
            expires: row.try_get("expires")?,
            used_by: row.try_get("used_by")?,
            revoked: row.try_get::<i64, _>("revoked")? != 0,
        })
    })
    .transpose()
}

/// Uses an invitation for the first time. This one statement decides between two devices that
/// come with the same link (design 3.3). Returns whether it was still to be had.
pub async fn claim(
    db: &mut AnyConnection,
    enrol_hash: &[u8; 32],
    device_key: &[u8; 32],
    now: i64,
) -> sqlx::Result<bool> {
    let result = sqlx::query(
        "UPDATE invitations SET used_by = $1, used_at = $2
         WHERE enrol_hash = $3 AND used_by IS NULL AND revoked = 0 AND expires > $2",
    )
    .bind(device_key.as_slice())
    .bind(now)
    .bind(enrol_hash.as_slice())
    .execute(db)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// All invitations, newest first.
pub async fn list(db: &mut AnyConnection) -> sqlx::Result<Vec<Listed>> {
    let rows = sqlx::query(
        "SELECT invitations.id, users.name AS user_name, invitations.created, invitations.expires,
                invitations.used_at, invitations.revoked
         FROM invitations JOIN users ON users.id = invitations.user_id
         ORDER BY invitations.id DESC",
    )
    .fetch_all(db)
    .await?;
    rows.iter().map(listed).collect()
}

/// Withdraws an invitation unless a device has used it. Returns it as it was before; `None`: there
/// is none of that number.
pub async fn revoke(db: &mut AnyConnection, id: i64) -> sqlx::Result<Option<Listed>> {
    let row = sqlx::query(
        "SELECT invitations.id, users.name AS user_name, invitations.created, invitations.expires,
                invitations.used_at, invitations.revoked
         FROM invitations JOIN users ON users.id = invitations.user_id WHERE invitations.id = $1",
    )
    .bind(id)
    .fetch_optional(&mut *db)
    .await?;
    sqlx::query("UPDATE invitations SET revoked = 1 WHERE id = $1 AND used_by IS NULL")
        .bind(id)
        .execute(db)
        .await?;
    row.as_ref().map(listed).transpose()
}

fn listed(row: &AnyRow) -> sqlx::Result<Listed> {
    Ok(Listed {
        id: row.try_get("id")?,
        user: row.try_get("user_name")?,
        created: row.try_get("created")?,
        expires: row.try_get("expires")?,
        used_at: row.try_get("used_at")?,
        revoked: row.try_get::<i64, _>("revoked")? != 0,
    })
}
