//! The database: users, devices, invitations, sessions and the secrets shared by all gateways of
//! one database. Only [`crate::accounts`] uses it.
//!
//! Everything goes through sqlx's `Any` driver, with `$1` parameters and SQL that SQLite and
//! PostgreSQL both take, so that the queries of the files in this folder are written once. What
//! differs by database is in this file: how it is opened, how a writing transaction begins, the
//! migrations, and what its error codes mean.

pub mod devices;
mod error;
pub mod invitations;
pub mod secrets;
pub mod sessions;
pub mod tokens;
pub mod users;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{
    Any, AnyConnection, AnyPool, ConnectOptions as _, Connection as _, SqlSafeStr, Transaction,
};

pub use error::StoreError;

/// An open database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    path: PathBuf,
}

impl Store {
    /// Opens the SQLite file at `path`, makes it (readable by root only) if it is missing, checks
    /// it and brings its tables up to date.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn open(path: &Path) -> Result<Store, StoreError> {
        let explain = |error| StoreError::from_sqlx(path, error);
        make_file(path).map_err(|error| StoreError::from_io(path, error))?;
        sqlx::any::install_default_drivers();
        let options = AnyConnectOptions::from_str(&sqlite_url(path)).map_err(explain)?;
        // Statements carry user names, and an administrator is told what matters of them anyway.
        let options = options.disable_statement_logging();
        // By hand and not by the pool, which would try again for seconds whatever is wrong.
        let mut first = AnyConnection::connect_with(&options).await.map_err(explain)?;
        set_up(&mut first).await.map_err(explain)?;
        check(&mut first, path).await?;
        migrator().run(&mut first).await.map_err(|e| StoreError::from_migration(path, e))?;
        first.close().await.map_err(explain)?;

        let pool = AnyPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(10))
            .after_connect(|connection, _| Box::pin(set_up(connection)))
            .connect_lazy_with(options);
        Ok(Store { pool, path: path.to_owned() })
    }

    /// Begins a transaction that is going to write.
    ///
    /// # Errors
    /// Any of the database's.
    pub async fn begin(&self) -> sqlx::Result<Transaction<'static, Any>> {
        // SQLite: take the write lock now. A transaction that reads first and then writes would
        // fail at once, without waiting, if somebody else wrote in between.
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }

    /// A connection for reading, or for one statement.
    ///
    /// # Errors
    /// Any of the database's.
    pub async fn connection(&self) -> sqlx::Result<sqlx::pool::PoolConnection<Any>> {
        self.pool.acquire().await
    }

    /// Says in the administrator's words what went wrong.
    pub fn explain(&self, error: sqlx::Error) -> StoreError {
        StoreError::from_sqlx(&self.path, error)
    }

    /// Finishes what is under way and closes the file, so that its log is merged into it.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Reads the whole file once; it is small, and damage is better found now than in the middle.
async fn check(db: &mut AnyConnection, path: &Path) -> Result<(), StoreError> {
    let verdict = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(db).await;
    let verdict: String = verdict.map_err(|error| StoreError::from_sqlx(path, error))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(StoreError::Corrupt { path: path.to_owned(), detail: verdict })
}

/// Sets up each new connection.
///
/// `synchronous = FULL`, because a power cut right after a revocation or an enrolment must not
/// bring the old state back, and because a gateway writes only a few rows at each log-in.
async fn set_up(connection: &mut AnyConnection) -> sqlx::Result<()> {
    const PRAGMAS: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; \
                           PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;";
    sqlx::raw_sql(PRAGMAS).execute(connection).await.map(|_| ())
}

/// SQLite would make the file with the mode that the umask leaves, and gives its log files the
/// mode of the database.
fn make_file(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(|_| ())
}

fn sqlite_url(path: &Path) -> String {
    let mut url = String::from("sqlite://");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

fn migrator() -> Migrator {
    Migrator::with_migrations(migrations())
}

fn migrations() -> Vec<Migration> {
    let migration = |version, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    vec![
        migration(1, "accounts", include_str!("../../migrations/sqlite/0001_accounts.sql")),
        migration(
            2,
            "expiry and removal",
            include_str!("../../migrations/sqlite/0002_expiry_and_removal.sql"),
        ),
        migration(3, "tokens", include_str!("../../migrations/sqlite/0003_tokens.sql")),
    ]
}

/// A fixed-size value out of a BLOB column.
fn bytes<const N: usize>(row: &sqlx::any::AnyRow, column: &str) -> sqlx::Result<[u8; N]> {
    use sqlx::Row as _;
    let value: Vec<u8> = row.try_get(column)?;
    <[u8; N]>::try_from(value).map_err(|value| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: format!("{} bytes instead of {N}", value.len()).into(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn file_and_its_logs_are_for_root_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("odd name #1%.db");
        let store = Store::open(&path).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        users::add(&mut tx, "ada", None, 1, None).await.unwrap();
        tx.commit().await.unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
        }
        store.close().await;
    }

    #[tokio::test]
    async fn opens_again_with_the_settings_we_rely_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cipherwall.db");
        Store::open(&path).await.unwrap().close().await;
        let store = Store::open(&path).await.unwrap();
        let mut connection = store.connection().await.unwrap();
        for (pragma, wanted) in
            [("synchronous", 2_i64), ("foreign_keys", 1), ("busy_timeout", 5000)]
        {
            let sql = sqlx::AssertSqlSafe(format!("PRAGMA {pragma}"));
            let value: i64 = sqlx::query_scalar(sql).fetch_one(&mut *connection).await.unwrap();
            assert_eq!(value, wanted, "{pragma}");
        }
        let mode: String =
            sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await.unwrap();
        assert_eq!(mode, "wal");
    }

    #[tokio::test]
    async fn a_database_of_the_first_version_is_brought_up_to_date_with_all_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cipherwall.db");
        make_file(&path).unwrap();
        let mut first = AnyConnection::connect(&sqlite_url(&path)).await.unwrap();
        set_up(&mut first).await.unwrap();
        let version_1 = migrations().into_iter().take(1).collect();
        Migrator::with_migrations(version_1).run(&mut first).await.unwrap();
        let rows = "INSERT INTO users (id, name, created) VALUES (1, 'ada', 1);
                    INSERT INTO devices (id, user_id, public_key, name, created, last_seen)
                        VALUES (7, 1, zeroblob(32), 'laptop', 1, 1);
                    INSERT INTO sessions (id, device_id, token_hash, opened, expires)
                        VALUES (zeroblob(16), 7, zeroblob(32), 1, 2)";
        sqlx::raw_sql(rows).execute(&mut first).await.unwrap();
        first.close().await.unwrap();

        let store = Store::open(&path).await.unwrap();
        let mut db = store.connection().await.unwrap();
        let users = users::list(&mut db, None).await.unwrap();
        assert_eq!(users.len(), 1);
        assert_eq!((users[0].user.name.as_str(), users[0].user.expires), ("ada", None));
        let session = tokens::find(&mut db, &[0; 32]).await.unwrap().unwrap();
        assert_eq!((session.session_id, session.device_id, session.expires), ([0; 16], 7, 2));
        assert_eq!((session.generation, session.retired, session.closed), (1, false, false));
    }

    #[tokio::test]
    async fn says_corrupt_newer_and_missing_folder_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("garbage.db");
        std::fs::write(&path, vec![0x5a; 8192]).unwrap();
        let error = Store::open(&path).await.err().unwrap();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");

        let path = dir.path().join("newer.db");
        let store = Store::open(&path).await.unwrap();
        let mut connection = store.connection().await.unwrap();
        sqlx::raw_sql("UPDATE _sqlx_migrations SET version = 99 WHERE version = 1")
            .execute(&mut *connection)
            .await
            .unwrap();
        drop(connection);
        store.close().await;
        let error = Store::open(&path).await.err().unwrap();
        assert!(matches!(error, StoreError::Newer { .. }), "{error}");

        let error = Store::open(&dir.path().join("no/such.db")).await.err().unwrap();
        assert!(matches!(error, StoreError::NotWritable { .. }), "{error}");
    }

    #[tokio::test]
    async fn damage_inside_the_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("damaged.db");
        let store = Store::open(&path).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        for n in 0..500 {
            users::add(&mut tx, &format!("user{n:060}"), None, 1, None).await.unwrap();
        }
        tx.commit().await.unwrap();
        store.close().await;
        let mut content = std::fs::read(&path).unwrap();
        let length = content.len();
        content[length / 2..].fill(0xff);
        std::fs::write(&path, content).unwrap();
        let error = Store::open(&path).await.err().unwrap();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }
}
