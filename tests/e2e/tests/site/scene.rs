//! A gateway and Debian's nginx that show the same folder.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{GatewayNode, Lab, Process, Programs, address, until};

use crate::visitor::{Opening, Speech, visit};

/// The port of both.
const PORT: u16 = 8443;
/// Of the second nginx, the control.
const CONTROL_PORT: u16 = 8444;

/// What there is to compare.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    gateway: GatewayNode,
    /// They show another site, which they fetch.
    pub(crate) is_fetched: bool,
    _nginx: Process,
}

impl Scene {
    /// Both show a folder of the owner's.
    pub(crate) fn with_folder() -> Result<Scene> {
        let lab = Lab::new()?;
        let root = lab.web.dir().join("site");
        make_folder(&root)?;
        let site = format!("site: {}", root.display());
        let try_files = "location / { try_files $uri $uri/ =404; }";
        Scene::start(lab, &root, &site, try_files)
    }

    /// The gateway shows what it shows by default, and nginx what Debian's does.
    pub(crate) fn with_welcome() -> Result<Scene> {
        let lab = Lab::new()?;
        let root = lab.web.dir().join("site");
        fs::create_dir_all(&root)?;
        let page = Path::new("/usr/share/nginx/html/index.html");
        let copy = root.join("index.nginx-debian.html");
        fs::copy(page, &copy).context("nginx's own page")?;
        let try_files = "location / { try_files $uri $uri/ =404; }";
        let scene = Scene::start(lab, &root, "site: welcome", try_files)?;
        // the built-in page is as old as the configuration
        let config = fs::metadata(scene.gateway.state_dir().join("server.yaml"))?;
        fs::File::options().append(true).open(copy)?.set_modified(config.modified()?)?;
        Ok(scene)
    }

    /// Both fetch the laboratory's web site.
    pub(crate) fn with_proxy() -> Result<Scene> {
        let lab = Lab::new()?;
        let root = lab.web.dir().join("site");
        fs::create_dir_all(&root)?;
        let upstream = format!("http://{}", address::WEB);
        let pass = format!("location / {{ proxy_pass {upstream}; }}");
        Scene::start(lab, &root, &format!("site: {upstream}"), &pass)
    }

    fn start(lab: Lab, root: &Path, site: &str, location: &str) -> Result<Scene> {
        let nginx = start_nginx(&lab, root, location)?;
        let edits = [("site: welcome", site)];
        let gateway = GatewayNode::start_edited(&lab, &Programs::find()?, &edits)?;
        let is_fetched = site.contains("http");
        let scene = Scene { lab, is_fetched, gateway, _nginx: nginx };
        for to in [scene.gateway(), scene.nginx(), scene.control()] {
            scene.on_the_internet(|| {
                until("both sites to answer", Duration::from_secs(10), || {
                    let opening = Opening { speech: Speech::Http1, pieces: vec![b"x\n".to_vec()] };
                    Ok(visit(to, &opening, Duration::from_secs(1)).ok())
                })
            })?;
        }
        Ok(scene)
    }

    pub(crate) fn gateway(&self) -> SocketAddr {
        (address::GATEWAY, PORT).into()
    }

    pub(crate) fn nginx(&self) -> SocketAddr {
        (address::WEB, PORT).into()
    }

    pub(crate) fn control(&self) -> SocketAddr {
        (address::WEB, CONTROL_PORT).into()
    }

    /// Runs something in a thread of the laboratory's internet, from where both are equally far.
    pub(crate) fn on_the_internet<T: Send>(
        &self,
        act: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        let enter = || {
            self.lab.internet.enter_network()?;
            act()
        };
        std::thread::scope(|scope| scope.spawn(enter).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Pages, a folder without an index, one with, files of several kinds and sizes.
fn make_folder(root: &Path) -> Result<()> {
    for folder in ["empty", "sub", "blog"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let page = "<!doctype html>\n<title>Bakery</title>\n<link rel=stylesheet href=/style.css>\n\
        <h1>The bakery at the corner</h1>\n<p>Open from six. <a href=/blog/>News</a>\n\
        <img src=/bread.svg alt=bread>\n";
    let line = "<p>Today there is rye bread, and tomorrow there is none.\n";
    for (name, content) in [
        ("index.html", page.to_owned()),
        ("style.css", "h1 { font-family: serif }\n".repeat(20)),
        (
            "bread.svg",
            "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>\n".to_owned(),
        ),
        ("empty.txt", String::new()),
        ("sub/a.txt", "a\n".to_owned()),
        ("blog/index.html", format!("<h1>News</h1>\n{}", line.repeat(400))),
        ("large.bin", "0123456789abcdef".repeat(6_250)),
    ] {
        fs::write(root.join(name), content)?;
    }
    Ok(())
}

/// Debian's nginx as Debian configures it, with TLS and without its version in what it says.
fn start_nginx(lab: &Lab, root: &Path, location: &str) -> Result<Process> {
    let dir: PathBuf = lab.web.dir().join("reference");
    fs::create_dir_all(&dir)?;
    let path = |name: &str| dir.join(name).display().to_string();
    let subject = format!("/CN={}", address::WEB);
    let (key, certificate) = (path("key.pem"), path("certificate.pem"));
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let words =
        ["openssl", "req", "-x509", "-keyout", &key, "-out", &certificate, "-subj", &subject];
    lab.web.ok(&[&words[..], &new_key].concat())?;
    let (dir_name, root) = (dir.display(), root.display());
    let config = format!(
        "user root; worker_processes 1; daemon off; pid {dir_name}/pid; error_log stderr;
         events {{ worker_connections 768; }}
         http {{
           server_tokens off; access_log off;
           sendfile on; tcp_nopush on; types_hash_max_size 2048;
           include /etc/nginx/mime.types; default_type application/octet-stream;
           ssl_protocols TLSv1.3; ssl_prefer_server_ciphers on; gzip on;
           ssl_certificate {certificate}; ssl_certificate_key {key};
           client_body_temp_path {dir_name}/body; proxy_temp_path {dir_name}/proxy;
           fastcgi_temp_path {dir_name}/fastcgi; uwsgi_temp_path {dir_name}/uwsgi;
           scgi_temp_path {dir_name}/scgi;
           server {{
             listen {PORT} ssl http2; listen {CONTROL_PORT} ssl http2;
             root {root}; index index.html index.htm index.nginx-debian.html; server_name _;
             {location}
           }}
         }}\n"
    );
    let config_path = path("nginx.conf");
    fs::write(&config_path, config)?;
    lab.web.spawn("reference", &["nginx", "-p", &path(""), "-c", &config_path, "-e", "stderr"])
}
