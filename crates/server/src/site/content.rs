//! What the site shows: the page of a web server that was just installed, or a folder.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;

use super::{
    answer::Answer,
    body::{Body, Part},
    filter, mime,
    proxy::Proxy,
    request::{BodyLength, Request},
    uri,
};

/// The largest body that a visitor may announce, in bytes, as with nginx.
const BODY_MAX: u64 = 1 << 20;
/// Pages for a folder, the first one that is there.
const INDEX: [&str; 3] = ["index.html", "index.htm", "index.nginx-debian.html"];
/// Debian's nginx shows this one until it is configured.
const WELCOME: &[u8] = include_bytes!("welcome.html");

/// What the site shows.
pub(super) enum Content {
    /// The page of a web server that was just installed, at this time (Unix s).
    Welcome {
        installed: i64,
    },
    Folder(PathBuf),
    Proxy(Proxy),
}

impl Content {
    /// That page, as old as this file.
    pub(super) fn welcome(as_old_as: &Path) -> Self {
        let modified = std::fs::metadata(as_old_as).and_then(|metadata| metadata.modified());
        let since =
            modified.unwrap_or_else(|_| SystemTime::now()).duration_since(SystemTime::UNIX_EPOCH);
        let installed = since.map_or(0, |since| since.as_secs());
        Content::Welcome { installed: i64::try_from(installed).unwrap_or_default() }
    }

    /// A folder.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn folder(root: &Path) -> io::Result<Self> {
        std::fs::read_dir(root)?;
        Ok(Content::Folder(root.to_owned()))
    }

    /// Whether a request announces a larger body than anybody takes.
    pub(super) fn is_too_large(length: BodyLength) -> bool {
        matches!(length, BodyLength::Known(length) if length > BODY_MAX)
    }

    /// Whether bodies of requests are anybody's business.
    pub(super) fn takes_bodies(&self) -> bool {
        matches!(self, Content::Proxy(_))
    }

    /// The answer to a request that is in order.
    pub(super) async fn answer(self: &Arc<Self>, request: &Request, length: BodyLength) -> Answer {
        if Content::is_too_large(length) {
            return Answer::page(413, request);
        }
        let found = match &**self {
            Content::Welcome { installed } => welcome(request, *installed),
            Content::Folder(_) => self.clone().look_up(request).await,
            Content::Proxy(_) => Found::Status(500),
        };
        match found {
            Found::File(answer) => filter::finish(*answer, request),
            Found::Status(status) => filter::finish(Answer::page(status, request), request),
            Found::Folder(location) => Answer::moved(location, request),
        }
    }

    /// The same for [a content that takes bodies](Self::takes_bodies); `body` may be a status
    /// instead.
    pub(super) async fn answer_with_body(
        self: &Arc<Self>,
        request: &Request,
        length: BodyLength,
        body: Result<Vec<u8>, u16>,
    ) -> Answer {
        match (&**self, body) {
            (Content::Proxy(proxy), Ok(body)) => proxy.answer(request, length, &body).await,
            (_, Err(status)) => Answer::page(status, request),
            (Content::Welcome { .. } | Content::Folder(_), Ok(_)) => {
                self.answer(request, length).await
            }
        }
    }

    async fn look_up(self: Arc<Self>, request: &Request) -> Found {
        let (method, path) = (request.method.clone(), request.target.path.clone());
        let args = request.target.args.clone();
        let look_up = move || match &*self {
            Content::Folder(root) => look_up(root, &method, &path, &args),
            Content::Welcome { .. } | Content::Proxy(_) => Found::Status(404),
        };
        tokio::task::spawn_blocking(look_up).await.unwrap_or(Found::Status(500))
    }
}

/// What is at a path.
enum Found {
    File(Box<Answer>),
    /// An error page.
    Status(u16),
    /// A folder whose path has no slash at its end: it belongs there.
    Folder(Vec<u8>),
}

fn welcome(request: &Request, installed: i64) -> Found {
    let path = request.target.path.as_slice();
    let (is_root, is_file) = (path == b"/", path == b"/index.nginx-debian.html");
    match request.method.as_slice() {
        _ if !is_root && !is_file => Found::Status(404),
        b"GET" | b"HEAD" => {
            let body = Body::Bytes(Bytes::from_static(WELCOME));
            Found::File(Box::new(file_answer(
                path_of_index(),
                body,
                WELCOME.len() as u64,
                installed,
            )))
        }
        _ => Found::Status(405),
    }
}

fn path_of_index() -> &'static [u8] {
    INDEX[2].as_bytes()
}

/// 200 with a file.
fn file_answer(path: &[u8], body: Body, length: u64, modified: i64) -> Answer {
    let mut answer = Answer::ok(mime::kind(path), length, body);
    answer.modified = Some(modified);
    (answer.in_ranges, answer.is_file) = (true, true);
    answer.add("ETag", format!("\"{modified:x}-{length:x}\""));
    answer
}

/// `try_files $uri $uri/ =404`, with an index and without a list of files.
fn look_up(root: &Path, method: &[u8], path: &[u8], args: &[u8]) -> Found {
    let is_read = matches!(method, b"GET" | b"HEAD" | b"POST");
    let metadata = match metadata(root, path) {
        Ok(metadata) => metadata,
        Err(status) => return Found::Status(status),
    };
    let ends_as_folder = path.ends_with(b"/");
    match (metadata.is_dir(), ends_as_folder) {
        (false, true) => Found::Status(404),
        (true, _) | (false, false) if !is_read => Found::Status(405),
        (true, false) => {
            let mut location = [uri::escape(path), b"/".to_vec()].concat();
            if !args.is_empty() {
                location.push(b'?');
                location.extend_from_slice(args);
            }
            Found::Folder(location)
        }
        (true, true) => {
            let indexes = INDEX.iter().map(|name| [path, name.as_bytes()].concat());
            let found = indexes.map(|path| open(root, method, &path));
            let is_there = |found: &Found| !matches!(found, Found::Status(404));
            found.into_iter().find(is_there).unwrap_or(Found::Status(403))
        }
        (false, false) => open(root, method, path),
    }
}

/// A file's answer.
fn open(root: &Path, method: &[u8], path: &[u8]) -> Found {
    let metadata = match metadata(root, path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Found::Status(404),
        Err(status) => return Found::Status(status),
    };
    if method == b"POST" {
        return Found::Status(405);
    }
    match File::open(on_disk(root, path)) {
        Ok(file) => {
            let (length, modified) = (metadata.len(), metadata.mtime());
            let body = Body::File(Part { file: Arc::new(file), at: 0, left: length });
            Found::File(Box::new(file_answer(path, body, length, modified)))
        }
        Err(error) => Found::Status(status(&error)),
    }
}

/// What is at a path, as far as everybody may read it: a web server would be nobody special.
fn metadata(root: &Path, path: &[u8]) -> Result<Metadata, u16> {
    let path = on_disk(root, path);
    let found = |error: io::Error| status(&error);
    let metadata = std::fs::metadata(&path).map_err(found)?;
    // where links lead to counts as well as where they are; the root is the owner's choice
    let real_root = root.canonicalize().map_err(found)?;
    let real = path.canonicalize().map_err(found)?;
    let top = if real.starts_with(&real_root) { &real_root } else { Path::new("/") };
    let parents = parents(&path, root).chain(parents(&real, top));
    for parent in parents {
        if !is_open(&std::fs::metadata(parent).map_err(found)?) {
            // `try_files` does not tell it from a file that is not there
            return Err(404);
        }
    }
    if is_open(&metadata) { Ok(metadata) } else { Err(403) }
}

/// Whether everybody may read a file, or go through a folder.
fn is_open(metadata: &Metadata) -> bool {
    metadata.mode() & if metadata.is_dir() { 0o001 } else { 0o004 } != 0
}

/// The folders that a path is in, up to `top`.
fn parents<'a>(path: &'a Path, top: &'a Path) -> impl Iterator<Item = &'a Path> {
    path.ancestors().skip(1).take_while(move |parent| parent.starts_with(top))
}

fn on_disk(root: &Path, path: &[u8]) -> PathBuf {
    let relative = path.strip_prefix(b"/").unwrap_or(path);
    root.join(std::ffi::OsStr::from_bytes(relative))
}

fn status(error: &io::Error) -> u16 {
    if error.kind() == io::ErrorKind::PermissionDenied { 403 } else { 404 }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    #[test]
    fn files_are_shown_that_everybody_may_read_wherever_links_lead() {
        let dir = tempfile::tempdir().unwrap();
        let [root, closed, public] = ["site", "closed", "public"].map(|name| dir.path().join(name));
        let allow = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        for folder in [&root, &closed, &public, &root.join("shut"), &closed.join("open")] {
            fs::create_dir_all(folder).unwrap();
            allow(folder, 0o755);
        }
        allow(dir.path(), 0o755);
        let file = |path: &Path, mode| {
            fs::write(path, "x").unwrap();
            allow(path, mode);
        };
        for folder in [&root, &root.join("shut"), &closed, &public] {
            file(&folder.join("a"), 0o644);
            file(&folder.join("b"), 0o600);
        }
        file(&closed.join("open/a"), 0o644);
        symlink("a", root.join("link")).unwrap();
        symlink(closed.join("a"), root.join("out")).unwrap();
        symlink(closed.join("open"), root.join("deep")).unwrap();
        symlink(&public, root.join("public")).unwrap();
        symlink("shut/a", root.join("within")).unwrap();
        for folder in [&root.join("shut"), &closed] {
            allow(folder, 0o700);
        }
        let shown = |path: &str| metadata(&root, path.as_bytes()).map(|_| ());
        for path in ["/", "/a", "/link", "/public", "/public/a"] {
            assert_eq!(shown(path), Ok(()), "{path}");
        }
        assert_eq!([shown("/b"), shown("/public/b")], [Err(403); 2]);
        for path in ["/shut/a", "/within", "/out", "/deep/a", "/nothing"] {
            assert_eq!(shown(path), Err(404), "{path}");
        }
        // a link to the root itself is the owner's choice, too
        let other = dir.path().join("other");
        symlink(&root, &other).unwrap();
        assert!(metadata(&other, b"/a").is_ok());
    }
}
