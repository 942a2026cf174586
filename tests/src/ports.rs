//! Ports that stay ours while a server is down.

use std::net::TcpListener;
use std::time::Duration;

use rand::Rng;

use crate::wait::wait_until;

/// A loopback port that was free just now.
///
/// Linux gives outgoing connections ports from 32768 on. Those here are below: else, while a server
/// restarts, a client's connection could take its port.
pub(crate) fn free_port() -> u16 {
    for _ in 0..1_000 {
        let port = rand::rng().random_range(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 20000 and 32000 in 1,000 tries");
}

/// Listens on a port of ours.
///
/// Right after its last listener was closed a port can be taken still: a child that another thread
/// is starting has a copy of every open socket until it runs its program.
pub(crate) fn listen(port: u16) -> TcpListener {
    wait_until(Duration::from_secs(10), &format!("port {port}"), || {
        TcpListener::bind(("127.0.0.1", port)).map_err(|error| error.to_string())
    })
}
