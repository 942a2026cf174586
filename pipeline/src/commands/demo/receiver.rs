//! The demo's own web server: where its alerts are delivered, over real HTTP, so that they can be
//! shown.

use anyhow::{Context as _, Result};
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use url::Url;

pub(super) struct Receiver {
    pub(super) url: Url,
    /// Bodies as they were posted.
    pub(super) deliveries: mpsc::Receiver<Value>,
}

impl Receiver {
    /// Listens on a free port of the loopback interface.
    pub(super) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen for webhooks")?;
        let url = Url::parse(&format!("http://{}/alerts", listener.local_addr()?))?;
        let (sender, deliveries) = mpsc::channel(64);
        let routes = Router::new()
            .route("/alerts", post(accept))
            .layer(DefaultBodyLimit::max(1 << 20))
            .with_state(sender);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(Self { url, deliveries })
    }
}

async fn accept(State(sender): State<mpsc::Sender<Value>>, Json(body): Json<Value>) {
    // Nobody looks any more when the demo ends.
    let _ = sender.send(body).await;
}
