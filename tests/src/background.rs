//! One runtime for everything asynchronous in the harness, so that its users need not be.

use std::future::Future;
use std::sync::{OnceLock, mpsc};

use reqwest::Client;
use tokio::runtime::{Builder, Handle, Runtime};

/// The runtime. Its tasks end with the process.
pub(crate) fn handle() -> &'static Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let start = || {
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("test-servers")
            .enable_all()
            .build()
            .expect("two threads can be started")
    };
    RUNTIME.get_or_init(start).handle()
}

/// Runs a future to its end while this thread waits. Unlike `block_on` it may be called from a
/// thread of another runtime, where it blocks that thread.
///
/// # Panics
/// When the future does.
pub(crate) fn wait_for<F>(future: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (sender, receiver) = mpsc::channel();
    handle().spawn(async move { sender.send(future.await) });
    receiver.recv().expect("the future ended without a panic, which is printed above")
}

/// The client for requests to the servers. One, because each loads the system's certificates;
/// without a pool, because the servers are killed and started again.
pub(crate) fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT
        .get_or_init(|| Client::builder().pool_max_idle_per_host(0).build().expect("no option can be wrong"))
}
