//! Checks server, organisation and bucket before the first write, so that a typing error in the
//! configuration is notified at start-up and not an hour later.

use serde_json::Value;
use tracing::info;

use super::InfluxConfig;
use super::client::{Client, Reply};
use crate::Error;
use crate::http::cut;

/// Ok when the server is healthy and the bucket exists, created here if that is allowed.
pub(crate) async fn verify(client: &Client, config: &InfluxConfig) -> Result<(), Error> {
    let health = client.health().await?;
    if health.status != 200 {
        let reason = format!("GET /health answered {}", summary(&health));
        return Err(Error::Unavailable {
            place: client.place.clone(),
            reason,
            doubtful: false,
            retry_after: None,
        });
    }

    let buckets = client.buckets().await?;
    match buckets.status {
        200 if first_id(&buckets, "buckets").is_some() => return Ok(()),
        // A bucket that does not exist is an empty list or a 404, depending on the token.
        200 | 404 => {}
        _ => return Err(unexpected(client, "looking up the bucket", &buckets)),
    }

    let organisations = client.organisations().await?;
    if !matches!(organisations.status, 200 | 404) {
        return Err(unexpected(client, "looking up the organisation", &organisations));
    }
    let Some(org_id) = first_id(&organisations, "orgs") else {
        return Err(Error::Config(format!(
            "{} has no such organisation, or the token may not read it: correct the name, or use a token of \
             that organisation org=`{}`",
            client.place, config.org
        )));
    };
    if !config.create_bucket {
        return Err(Error::Config(format!(
            "{} has no such bucket, or the token may not read it: run `influx bucket create --org '{}' --name \
             '{}'`, or allow the sink to create it bucket=`{}`",
            client.place, config.org, config.bucket, config.bucket
        )));
    }

    let created = client.create_bucket(&org_id, config.retention).await?;
    match created.status {
        201 => info!(bucket = config.bucket, "created bucket"),
        // Someone else created it in the meantime, or the token may write but not read it.
        422 | 409 if created.body.contains("already exists") => {}
        _ => return Err(unexpected(client, "creating the bucket", &created)),
    }
    Ok(())
}

fn first_id(reply: &Reply, list: &str) -> Option<String> {
    let json: Value = serde_json::from_str(&reply.body).ok()?;
    json[list][0]["id"].as_str().map(str::to_owned)
}

fn unexpected(client: &Client, doing: &str, reply: &Reply) -> Error {
    let place = format!("{}, {doing},", client.place);
    match reply.status {
        408 | 429 | 500.. => {
            Error::Unavailable { place, reason: summary(reply), doubtful: false, retry_after: None }
        }
        status => Error::Refused { place, status, message: summary(reply) },
    }
}

fn summary(reply: &Reply) -> String {
    let json: Option<Value> = serde_json::from_str(&reply.body).ok();
    match json.as_ref().and_then(|json| json["message"].as_str()) {
        Some(message) => cut(message, 300).to_owned(),
        None => format!("status {}", reply.status),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wiremock::matchers::{method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    #[tokio::test]
    async fn set_up_finds_or_creates_the_bucket_or_says_what_to_do() {
        let empty = json!({ "buckets": [] });
        let org = json!({ "orgs": [{ "id": "o1" }] });
        let cases = [
            (
                "found",
                false,
                [
                    (200, json!({})),
                    (200, json!({"buckets": [{"id": "b1"}]})),
                    (500, json!({})),
                    (500, json!({})),
                ],
                Ok(()),
            ),
            (
                "created",
                true,
                [(200, json!({})), (200, empty.clone()), (200, org.clone()), (201, json!({}))],
                Ok(()),
            ),
            (
                "created by another",
                true,
                [
                    (200, json!({})),
                    (404, json!({})),
                    (200, org.clone()),
                    (422, json!({"message": "bucket with name b&b already exists"})),
                ],
                Ok(()),
            ),
            (
                "not allowed to create",
                false,
                [(200, json!({})), (200, empty.clone()), (200, org.clone()), (500, json!({}))],
                Err(("influx bucket create --org 'o rg' --name 'b&b'", false)),
            ),
            (
                "forbidden to create",
                true,
                [(200, json!({})), (200, empty.clone()), (200, org), (403, json!({"message": "no"}))],
                Err(("creating the bucket, refused: no", false)),
            ),
            (
                "no such organisation",
                true,
                [(200, json!({})), (200, empty), (404, json!({})), (201, json!({}))],
                Err(("org=`o rg`", false)),
            ),
            (
                "bad token",
                true,
                [
                    (200, json!({})),
                    (401, json!({"message": "unauthorized access"})),
                    (401, json!({})),
                    (401, json!({})),
                ],
                Err(("unauthorized access status=`401`", false)),
            ),
            (
                "not healthy",
                true,
                [(503, json!({"message": "starting"})), (200, json!({})), (200, json!({})), (200, json!({}))],
                Err(("starting", true)),
            ),
        ];
        for (name, create_bucket, answers, expected) in cases {
            let server = MockServer::start().await;
            let endpoints = [
                ("GET", "/base/health"),
                ("GET", "/base/api/v2/buckets"),
                ("GET", "/base/api/v2/orgs"),
                ("POST", "/base/api/v2/buckets"),
            ];
            for ((verb, endpoint), (status, body)) in endpoints.into_iter().zip(answers) {
                let answer = ResponseTemplate::new(status).set_body_json(body);
                Mock::given(method(verb)).and(path(endpoint)).respond_with(answer).mount(&server).await;
            }
            let url = format!("{}/base", server.uri()).parse().unwrap();
            let token = "token-secret".to_owned().into();
            let config = InfluxConfig { create_bucket, ..InfluxConfig::new(url, "o rg", "b&b", token) };
            let result = verify(&Client::new(&config).unwrap(), &config).await;
            match (result, expected) {
                (Ok(_), Ok(())) => {}
                (Err(error), Err((text, retryable))) => {
                    assert!(error.to_string().contains(text), "{name}: {error}");
                    assert_eq!(error.retryable(), retryable, "{name}");
                }
                (result, _) => panic!("{name}: {result:?}"),
            }
        }
    }
}
