//! What well-known programs see of both.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::Ran;

use crate::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a program against both and compares what it prints, but for lines that begin with or contain
/// one of `without`.
fn compare(
    scene: &Scene,
    words: impl Fn(&str) -> Vec<String> + Sync,
    input: &str,
    without: &[&str],
) -> Result<String> {
    let run = |to: SocketAddr| -> Result<String> {
        let words = words(&to.to_string());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Ran { stdout, .. } = scene.lab.internet.run_with(&words, input, PATIENCE)?;
        let stdout = stdout.replace(&to.ip().to_string(), "HOST");
        let kept = |line: &&str| !without.iter().any(|part| line.contains(part));
        Ok(stdout.lines().filter(kept).collect::<Vec<_>>().join("\n"))
    };
    let (ours, nginx) = std::thread::scope(|scope| {
        let ours = scope.spawn(|| run(scene.gateway()));
        let nginx = run(scene.nginx());
        (ours.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), nginx)
    });
    let (ours, nginx) = (ours?, nginx?);
    ensure!(!nginx.trim().is_empty(), "{:?} printed nothing", words("HOST"));
    ensure!(ours == nginx, "{:?}\nthe gateway:\n{ours}\n\nnginx:\n{nginx}", words("HOST"));
    Ok(ours)
}

fn split(words: &str) -> Vec<String> {
    words.split(' ').map(str::to_owned).collect()
}

#[test]
fn curl_openssl_and_nghttp_see_the_same() -> Result<()> {
    let scene = Scene::with_folder()?;
    let dates = &["date: ", "Date: "];
    for options in [
        "",
        "--http1.1",
        "--http1.1 --compressed",
        "--compressed",
        "-I",
        "-I --http1.1",
        "-X OPTIONS",
        "-d a=b",
        "-d a=b --http1.1",
        "-r 3-9",
        "-H Host: --http1.1",
        "-0",
        "-0 --no-alpn",
    ] {
        for path in ["/", "/blog/", "/sub", "/nothing", "/style.css", "/empty/"] {
            let words = |host: &str| {
                let url = format!("https://{host}{path}");
                let options = options.split(' ').filter(|option| !option.is_empty());
                let fixed = ["curl", "-s", "-k", "-i", "--max-time", "5", &url];
                fixed.into_iter().chain(options).map(str::to_owned).collect()
            };
            compare(&scene, words, "", dates)?;
        }
    }
    let openssl = |host: &str| split(&format!("openssl s_client -quiet -connect {host}"));
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let seen = compare(&scene, openssl, request, dates)?;
    ensure!(seen.contains("bakery"), "{seen}");
    // what is received, without times: when that is in what is sent is chance
    let nghttp = |host: &str| {
        let script = "nghttp -v -n \"$0\" | sed -n 's/^\\[ *[0-9.]*\\] recv/recv/p'";
        vec!["sh".into(), "-c".into(), script.into(), format!("https://{host}/")]
    };
    let seen = compare(&scene, nghttp, "", dates)?;
    ensure!(seen.contains("recv HEADERS frame"), "{seen}");
    Ok(())
}

#[test]
fn chromium_shows_the_same_page() -> Result<()> {
    let scene = Scene::with_folder()?;
    for path in ["/", "/blog/", "/nothing"] {
        let words = |host: &str| {
            let url = format!("https://{host}{path}");
            let fixed = "chromium --headless --no-sandbox --disable-gpu --ignore-certificate-errors \
                --disable-dev-shm-usage --virtual-time-budget=3000 --dump-dom";
            let name = format!("chromium-{}", host.replace(':', "-"));
            let profile =
                format!("--user-data-dir={}", scene.lab.internet.dir().join(name).display());
            let mut words: Vec<String> = fixed.split_whitespace().map(str::to_owned).collect();
            words.extend([profile, url]);
            words
        };
        let seen = compare(&scene, words, "", &[])?;
        let title = if path == "/" { "corner" } else { "<h1>" };
        ensure!(seen.contains(title), "{path}: {seen}");
    }
    Ok(())
}

#[test]
fn nmap_takes_both_for_nginx() -> Result<()> {
    let scene = Scene::with_welcome()?;
    let words = |host: &str| {
        let host = host.trim_end_matches(":8443");
        split(&format!("nmap -sV -Pn -n -p 8443 --version-intensity 5 {host}"))
    };
    let other = ["Starting Nmap", "Nmap done", "Host is up", "Nmap scan report", "MAC Address"];
    let seen = compare(&scene, words, "", &other)?;
    let line = seen.lines().find(|line| line.starts_with("8443/tcp")).unwrap_or_default();
    ensure!(line.contains("ssl/http") && line.contains("nginx"), "{seen}");
    Ok(())
}
