//! `tidemark health`: asks the process on this machine how it is, for health checks of containers,
//! which have no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::config::Config;

/// Most of an answer that is shown.
const SHOWN_BYTES: usize = 2_000;

#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Ask whether all roles are at work (/readyz), and not only whether the process lives
    /// (/healthz)
    #[arg(long)]
    ready: bool,
    /// How long to wait for the answer
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Returns the process's answer when it is ready.
///
/// # Errors
/// What is not ready, or that nobody answers.
pub async fn ask(config: &Config, args: &HealthArgs) -> Result<String> {
    let path = if args.ready { "readyz" } else { "healthz" };
    let url = format!("http://{}/{path}", own_address(config.http.listen));
    let client = reqwest::Client::builder().timeout(args.timeout).no_proxy().build()?;
    let asking = async {
        let response = client.get(&url).send().await?;
        Ok::<_, reqwest::Error>((response.status(), response.text().await?))
    };
    let (status, mut text) = asking.await.with_context(|| format!("no process answers at {url}"))?;
    text.truncate(text.floor_char_boundary(SHOWN_BYTES));
    if !status.is_success() {
        bail!("{}", text.trim());
    }
    Ok(text.trim().to_owned())
}

/// How a process that listens there is reached from the same machine.
fn own_address(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_listens_everywhere_is_asked_on_loopback() {
        let cases = [
            ("0.0.0.0:7878", "127.0.0.1:7878"),
            ("[::]:7878", "[::1]:7878"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("127.0.0.1:7878", "127.0.0.1:7878"),
        ];
        for (listen, expected) in cases {
            assert_eq!(own_address(listen.parse().expect("an address")).to_string(), expected);
        }
    }
}
