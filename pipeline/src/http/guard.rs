//! Which requests pages of other sites may not make.
//!
//! There is no log-in, so a browser on a machine that reaches the port is a way in for every page
//! that it shows. Two checks, both on heads alone:
//!
//! - *Host*: a page whose name its owner lets point to this machine (DNS rebinding) has the same
//!   origin as the server, and may read everything. Such a request carries that name, so only known
//!   names are answered. An IP address is always fine: a page that was loaded from it came from
//!   here.
//! - *Origin* and *Sec-Fetch-Site*: a browser names the page that asks, so what changes something
//!   must come from a page of this server, or from a program, which names none.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Request, StatusCode, Uri, Version, header};
use sysinfo::System;

use crate::config::HttpConfig;

/// The names that a request may give the server.
#[derive(Debug)]
pub(super) struct Hosts {
    /// The machine's own; other processes call it so.
    machine: Option<String>,
    /// Configured, above all the name that a proxy has.
    allowed: Vec<String>,
}

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) problem: String,
}

impl Refusal {
    fn new(status: StatusCode, problem: impl Into<String>) -> Self {
        Self { status, problem: problem.into() }
    }
}

impl Hosts {
    pub(super) fn of(config: &HttpConfig) -> Self {
        // On loopback nobody else has a reason to use that name.
        let machine = if config.listen.ip().is_loopback() { None } else { System::host_name().ok() };
        let external = config.external_url.as_ref().and_then(|url| url.host_str()).map(str::to_lowercase);
        let allowed = config.allowed_hosts.iter().cloned().chain(external);
        Self { machine: machine.map(|name| name.to_lowercase()), allowed: allowed.collect() }
    }

    /// Whether the request may be answered.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let host = self.host(request)?;
        if request.method().is_safe() {
            return Ok(());
        }
        self.check_page(request.headers(), host.as_ref())
    }

    /// The name that the request gives the server. `None` with HTTP/1.0, which needs none: no
    /// browser sends that.
    fn host<B>(&self, request: &Request<B>) -> Result<Option<Authority>, Refusal> {
        let bad = |problem: &str| Refusal::new(StatusCode::BAD_REQUEST, problem);
        let mut given = request.headers().get_all(header::HOST).iter();
        let host = match (given.next(), given.next()) {
            (Some(host), None) => {
                let authority =
                    Authority::try_from(host.as_bytes()).map_err(|_| bad("`Host` is not a name"))?;
                Some(authority)
            }
            (None, _) if request.version() == Version::HTTP_10 => None,
            (None, _) => return Err(bad("`Host` is missing")),
            (Some(_), Some(_)) => return Err(bad("`Host` is there twice")),
        };
        for name in [host.as_ref(), request.uri().authority()].into_iter().flatten() {
            if !self.is_own(name) {
                let problem = format!(
                    "this server is not known as `{}`: add the name to `allowed_hosts` of [http] if it is meant",
                    name.host()
                );
                return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, problem));
            }
        }
        Ok(host)
    }

    fn is_own(&self, name: &Authority) -> bool {
        if name.as_str().contains('@') {
            return false;
        }
        let host = plain(name);
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        address.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.machine.as_ref() == Some(&host)
            || self.allowed.contains(&host)
    }

    /// Whether the page that asks is one of this server. Programs name none.
    fn check_page(&self, headers: &HeaderMap, host: Option<&Authority>) -> Result<(), Refusal> {
        let refusal =
            || Refusal::new(StatusCode::FORBIDDEN, "another site's page may not change anything here");
        if let Some(site) = headers.get("sec-fetch-site")
            && !matches!(site.as_bytes(), b"same-origin" | b"none")
        {
            return Err(refusal());
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin: Uri = Uri::try_from(origin.as_bytes()).map_err(|_| refusal())?;
        let (Some(scheme), Some(page)) = (origin.scheme_str(), origin.authority()) else {
            return Err(refusal());
        };
        let usual = if scheme == "https" { 443 } else { 80 };
        let port = |name: &Authority| name.port_u16().unwrap_or(usual);
        let is_same = host.is_some_and(|host| plain(host) == plain(page) && port(host) == port(page));
        // A proxy may give its own name away and ask by another.
        if is_same || self.allowed.contains(&plain(page)) { Ok(()) } else { Err(refusal()) }
    }
}

/// A name as names are compared: in lower case, without port and without the dot of the root.
fn plain(name: &Authority) -> String {
    let host = name.host().to_lowercase();
    host.strip_suffix('.').unwrap_or(&host).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listen: &str, allowed: &[&str]) -> Hosts {
        let config = HttpConfig {
            listen: listen.parse().expect("an address"),
            allowed_hosts: allowed.iter().map(|name| (*name).to_owned()).collect(),
            ..HttpConfig::default()
        };
        Hosts { machine: None, ..Hosts::of(&config) }
    }

    fn status(hosts: &Hosts, method: &str, uri: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        hosts.check(&request).err().map(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn only_known_names_are_answered() {
        let addresses = ["127.0.0.1:7878", "127.0.0.1", "[::1]:7878", "[::1]", "10.1.2.3:80", "192.168.1.7"];
        let local = ["localhost", "localhost:7878", "LocalHost.", "a.localhost:1"];
        let proxy = ["alerts.example", "ALERTS.example:443", "alerts.example."];
        let strange = [
            "evil.example",
            "evil.example:7878",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost@evil.example",
            "evil.example@localhost",
            "127.1",
            "0x7f000001",
            "2130706433",
            "notlocalhost",
            "alerts.example.evil",
            "xalerts.example",
        ];
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            for listen in ["127.0.0.1:7878", "0.0.0.0:7878", "[::]:7878", "10.1.2.3:7878"] {
                let hosts = hosts(listen, &["alerts.example"]);
                for host in addresses.iter().chain(&local).chain(&proxy) {
                    assert_eq!(status(&hosts, method, "/", &[("host", host)]), None, "{host}");
                }
                for host in strange {
                    assert_eq!(status(&hosts, method, "/", &[("host", host)]), Some(421), "{host}");
                }
            }
        }
    }

    #[test]
    fn the_external_urls_host_is_allowed() {
        let external = Some("https://Ops.example/tidemark/".parse().expect("a URL"));
        let config = HttpConfig { external_url: external, ..HttpConfig::default() };
        let hosts = Hosts { machine: None, ..Hosts::of(&config) };
        let page = [("host", "127.0.0.1:7878"), ("origin", "https://ops.example")];
        assert_eq!(status(&hosts, "POST", "/", &page), None);
        assert_eq!(status(&hosts, "GET", "/", &[("host", "ops.example")]), None);
        assert_eq!(status(&hosts, "GET", "/", &[("host", "tidemark.example")]), Some(421));
    }

    #[test]
    fn a_name_in_the_first_line_counts_as_well() {
        let hosts = hosts("127.0.0.1:7878", &[]);
        let local = [("host", "localhost")];
        assert_eq!(status(&hosts, "GET", "http://localhost/", &local), None);
        assert_eq!(status(&hosts, "GET", "http://evil.example/", &local), Some(421));
        assert_eq!(status(&hosts, "GET", "http://localhost/", &[("host", "evil.example")]), Some(421));
        assert_eq!(status(&hosts, "GET", "/", &[]), Some(400));
        assert_eq!(status(&hosts, "GET", "/", &[("host", "localhost"), ("host", "localhost")]), Some(400));
        assert_eq!(status(&hosts, "GET", "/", &[("host", "a b")]), Some(400));
    }

    #[test]
    fn other_sites_pages_change_nothing() {
        let own = ("host", "127.0.0.1:7878");
        let named = ("host", "alerts.example");
        /// Headers, and the status of a refusal.
        type Case<'c> = (&'c [(&'c str, &'c str)], Option<u16>);
        let cases: &[Case<'_>] = &[
            // Programs.
            (&[own], None),
            // Pages of this server.
            (&[own, ("origin", "http://127.0.0.1:7878")], None),
            (&[own, ("origin", "http://127.0.0.1:7878"), ("sec-fetch-site", "same-origin")], None),
            (&[("host", "localhost:7878"), ("origin", "http://localhost:7878")], None),
            (&[own, ("sec-fetch-site", "none")], None),
            // Through a proxy, which keeps the name or gives another.
            (&[named, ("origin", "https://alerts.example"), ("sec-fetch-site", "same-origin")], None),
            (&[("host", "alerts.example:443"), ("origin", "https://alerts.example")], None),
            (&[own, ("origin", "https://alerts.example"), ("sec-fetch-site", "same-origin")], None),
            // Others.
            (&[own, ("origin", "https://evil.example")], Some(403)),
            (&[own, ("origin", "null")], Some(403)),
            (&[own, ("origin", "")], Some(403)),
            (&[own, ("origin", "http://127.0.0.1:3000")], Some(403)),
            (&[own, ("origin", "http://10.0.0.66")], Some(403)),
            (&[own, ("origin", "http://127.0.0.1:7878"), ("sec-fetch-site", "cross-site")], Some(403)),
            (&[own, ("sec-fetch-site", "cross-site")], Some(403)),
            (&[own, ("sec-fetch-site", "same-site")], Some(403)),
            (&[named, ("origin", "https://evil.example")], Some(403)),
            (&[("host", "evil.example"), ("origin", "http://evil.example")], Some(421)),
        ];
        for listen in ["127.0.0.1:7878", "0.0.0.0:7878"] {
            let hosts = hosts(listen, &["alerts.example"]);
            for (headers, expected) in cases {
                for method in ["POST", "PUT", "PATCH", "DELETE"] {
                    assert_eq!(status(&hosts, method, "/x", headers), *expected, "{method} {headers:?}");
                }
            }
            // Reading is refused by the name alone.
            let site = ("sec-fetch-site", "cross-site");
            assert_eq!(status(&hosts, "GET", "/x", &[own, site]), None);
        }
    }
}
