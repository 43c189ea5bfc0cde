//! `/metrics` and `/healthz` over HTTP.
//!
//! Owns a listener that answers a request and closes. What always holds: a peer that sends nothing, too much or nonsense
//! costs one of few places for a few seconds.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use vfring::{Error, Result};

/// How long a peer may take for a request and its answer.
const PEER_LIMIT: Duration = Duration::from_secs(5);
/// Longest request, in bytes.
const LONGEST_REQUEST: usize = 8192;
/// Requests at a time.
const PEERS: usize = 8;
/// Pause after a connection that could not be accepted, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What is answered from.
pub(super) trait Pages: Send + Sync + 'static {
    /// The text of `/metrics`.
    fn metrics(&self) -> impl Future<Output = String> + Send;
    /// Whether the program works; an error is what does not.
    fn health(&self) -> Result<(), String>;
}

/// Listens on `address`, answers until the program ends, and returns where it listens.
pub(super) async fn serve(address: SocketAddr, pages: Arc<impl Pages>) -> Result<SocketAddr> {
    let fail =
        |error| Error::os(format!("listening on {address} for metrics (--metrics names another, or off)"), error);
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    let places = Arc::new(Semaphore::new(PEERS));
    tokio::spawn(async move {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let Ok((peer, _)) = listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let pages = Arc::clone(&pages);
            tokio::spawn(async move {
                let _place = place;
                // A peer that goes or is too slow gets no answer.
                let _ = timeout(PEER_LIMIT, answer(peer, &*pages)).await;
            });
        }
    });
    Ok(bound)
}

async fn answer(mut peer: TcpStream, pages: &impl Pages) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() >= LONGEST_REQUEST || peer.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let line = request.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default();
    const TEXT: &str = "text/plain; charset=utf-8";
    let (status, kind, body) = match (method, path) {
        ("GET", "/metrics") => {
            ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", pages.metrics().await)
        }
        ("GET", "/healthz") => match pages.health() {
            Ok(()) => ("200 OK", TEXT, "ok\n".into()),
            Err(why) => ("503 Service Unavailable", TEXT, format!("{why}\n")),
        },
        ("GET", _) => ("404 Not Found", TEXT, "there are /metrics and /healthz\n".into()),
        _ => ("405 Method Not Allowed", TEXT, "only GET\n".into()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    peer.write_all(format!("{head}{body}").as_bytes()).await?;
    peer.shutdown().await
}
