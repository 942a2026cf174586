//! Hosts that a receiver's URL must not lead to unless it is allowed: this machine, private
//! networks, and the addresses under which clouds tell a machine its credentials. Otherwise who may
//! write a receiver could have the process post to what only the process can reach.
//!
//! Names are judged by the addresses that are about to be connected to, so that a name whose answer
//! changes gets nowhere. Through a proxy that the environment sets, the proxy resolves names and
//! decides.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;
use url::{Host, Url};

/// Why a URL whose host is an address cannot be used without `allow_private`, and what to do about
/// it.
pub fn private_address(url: &Url) -> Option<String> {
    let address = match url.host()? {
        Host::Ipv4(address) => IpAddr::V4(address),
        Host::Ipv6(address) => IpAddr::V6(address),
        Host::Domain(_) => return None,
    };
    (!is_public(address)).then(|| PrivateAddress { host: address.to_string() }.to_string())
}

/// The host's name leads to addresses that are not allowed.
#[derive(Debug)]
pub(super) struct PrivateAddress {
    host: String,
}

impl fmt::Display for PrivateAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the host is this machine or in a private network; if that is meant, set allow_private = true host=`{}`",
            self.host
        )
    }
}

impl std::error::Error for PrivateAddress {}

/// Resolves names as the system does, and keeps the addresses that anyone can reach.
#[derive(Debug)]
pub(super) struct PublicOnly {
    /// Other names that are asked for are those of proxies.
    host: Option<String>,
}

impl PublicOnly {
    pub(super) fn new(url: &Url) -> Self {
        Self { host: url.host_str().map(str::to_owned) }
    }
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let is_proxy = self.host.as_ref().is_some_and(|own| !own.eq_ignore_ascii_case(&host));
        Box::pin(async move {
            let found: Vec<SocketAddr> = lookup_host((host.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> =
                found.iter().copied().filter(|address| is_proxy || is_public(address.ip())).collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err(Box::new(PrivateAddress { host }) as Box<_>);
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether an address can be one of a host on the internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// The blocks of IANA's registry of special-purpose addresses that are not globally reachable.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        // This network and unspecified, private, loopback.
        (0 | 10 | 127, _, _) => true,
        // Shared by the customers of a carrier (RFC 6598); a cloud has its metadata there.
        (100, 64..=127, _) => true,
        // Link-local, where most clouds have their metadata.
        (169, 254, _) => true,
        (172, 16..=31, _) | (192, 168, _) => true,
        // Protocol assignments, documentation, benchmarks.
        (192, 0, 0 | 2) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113) => true,
        // Multicast, reserved, broadcast.
        (224..=255, _, _) => true,
        _ => false,
    };
    // A public address that answers each machine of one cloud with that machine's configuration.
    !special && address != Ipv4Addr::new(168, 63, 129, 16)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        // Mapped, compatible and translated addresses lead to the one they hold; `::` and `::1` are
        // in here.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(v4(high, low))
        }
        [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // Protocol assignments with Teredo, documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] => false,
        // Global unicast. All others are unique local, link-local, site-local, multicast or not
        // assigned.
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_on_the_internet_is_refused_however_it_is_written() {
        for (host, refused) in [
            ("93.184.216.34", false),
            ("100.63.255.255", false),
            ("100.128.0.1", false),
            ("172.15.0.1", false),
            ("172.32.0.1", false),
            ("192.167.1.1", false),
            ("223.255.255.255", false),
            ("[2606:2800:220:1::1]", false),
            ("[::ffff:93.184.216.34]", false),
            ("[64:ff9b::5db8:d822]", false),
            ("localhost.example", false),
            ("127.0.0.1", true),
            ("127.1", true),
            ("0x7f000001", true),
            ("2130706433", true),
            ("0", true),
            ("10.255.255.255", true),
            ("172.16.0.1", true),
            ("172.31.255.255", true),
            ("192.168.0.1", true),
            ("169.254.169.254", true),
            ("100.64.0.1", true),
            ("100.100.100.200", true),
            ("168.63.129.16", true),
            ("192.0.0.192", true),
            ("224.0.0.1", true),
            ("255.255.255.255", true),
            ("[::]", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("[::ffff:a9fe:a9fe]", true),
            ("[::10.0.0.1]", true),
            ("[64:ff9b::7f00:1]", true),
            ("[2002:7f00:1::]", true),
            ("[2001:0:1::1]", true),
            ("[fc00::1]", true),
            ("[fd00:ec2::254]", true),
            ("[fe80::1]", true),
            ("[febf::1]", true),
            ("[fec0::1]", true),
            ("[ff02::1]", true),
        ] {
            let url = Url::parse(&format!("https://{host}:8443/x")).unwrap();
            let reason = private_address(&url);
            assert_eq!(reason.is_some(), refused, "{host}");
            assert!(reason.is_none_or(|reason| reason.contains("set allow_private = true")), "{host}");
        }
    }

    #[tokio::test]
    async fn names_are_judged_by_their_addresses_and_proxies_are_not() {
        let resolver = PublicOnly::new(&Url::parse("http://LOCALHOST/").unwrap());
        let Err(error) = resolver.resolve("localhost".parse().unwrap()).await else {
            panic!("localhost is this machine")
        };
        assert!(error.downcast_ref::<PrivateAddress>().is_some(), "{error}");
        let resolver = PublicOnly::new(&Url::parse("http://hooks.example/").unwrap());
        let proxy: Vec<_> = resolver.resolve("localhost".parse().unwrap()).await.unwrap().collect();
        assert!(!proxy.is_empty() && proxy.iter().all(|address| address.ip().is_loopback()));
    }
}
