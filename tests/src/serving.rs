//! A router on a port of loopback.

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::background;

/// Dropping it ends it.
#[derive(Debug)]
pub struct Serving {
    url: String,
    task: JoinHandle<()>,
}

impl Serving {
    /// Answers on a free port from now on.
    pub fn start(router: Router) -> Self {
        let listener = background::wait_for(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = background::handle().spawn(async move {
            axum::serve(listener, router).await.expect("serving has no end and no error");
        });
        Self { url, task }
    }

    /// `http://host:port`, without a path.
    pub fn url(&self) -> String {
        self.url.clone()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}
