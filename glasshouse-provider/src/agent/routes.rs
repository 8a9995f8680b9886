//! Paths and their handlers. Every answer is JSON or, where it says so, bytes; every refusal is a [`WireError`].
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use glasshouse_core::fixed::{Blob, Digest48};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::auth::authenticated;
use super::segment::Segment;
use super::serve::{Agent, Ending};
use crate::clock;
use crate::frames::ToSegment;
use crate::wire::{
    AckRequest, Hello, MAX_PIECE, PackageStatus, RecordsPage, SegmentId, SegmentMode, SegmentStatus, StartSegment,
    WireCode, WireError,
};

type Answer<T> = Result<T, WireError>;
type Shared = State<Arc<Agent>>;

pub(super) fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/v1/hello", get(hello))
        .route("/v1/packages/{digest}", get(package).put(append))
        .route("/v1/packages/{digest}/complete", post(complete))
        .route("/v1/segments", post(start))
        .route("/v1/segments/{id}/challenge", post(challenge))
        .route("/v1/segments/{id}/release", post(release))
        .route("/v1/segments/{id}/records", get(records))
        .route("/v1/segments/{id}/ack", post(acknowledge))
        .route("/v1/segments/{id}/command", post(command))
        .route("/v1/segments/{id}/artifacts", get(artifact))
        .route("/v1/shutdown", post(shutdown))
        .fallback(|| async { WireError::new(WireCode::NoSuchPath, "there is no such path") })
        .method_not_allowed_fallback(|| async { WireError::new(WireCode::NoSuchPath, "no such method on this path") })
        // The limits stand in `authenticated`, which has read the body before any handler sees it.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(agent.clone(), authenticated))
        .with_state(agent)
}

impl IntoResponse for WireError {
    fn into_response(self) -> Response {
        refuse(&self)
    }
}

pub(super) fn refuse(error: &WireError) -> Response {
    let mut response = Response::new(Body::from(serde_json::to_vec(error).unwrap_or_default()));
    *response.status_mut() = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn hello(State(agent): Shared) -> Json<Hello> {
    Json(Hello {
        service: "glasshouse-agent".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: agent.launch.name.clone(),
        boot: agent.gatekeeper.boot(),
        pid: std::process::id(),
        boot_millis: clock::boot_micros() / 1000,
        segments: agent.segments.statuses(),
    })
}

async fn package(State(agent): Shared, Path(digest): Path<String>) -> Answer<Json<PackageStatus>> {
    Ok(Json(agent.packages.status(&parse_digest(&digest)?).await))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppendQuery {
    offset: u64,
}

async fn append(
    State(agent): Shared,
    Path(digest): Path<String>,
    query: Result<Query<AppendQuery>, axum::extract::rejection::QueryRejection>,
    body: Bytes,
) -> Answer<Json<PackageStatus>> {
    let Query(AppendQuery { offset }) = query.map_err(malformed)?;
    Ok(Json(agent.packages.append(parse_digest(&digest)?, offset, &body).await?))
}

async fn complete(State(agent): Shared, Path(digest): Path<String>) -> Answer<Json<PackageStatus>> {
    Ok(Json(agent.packages.complete(&parse_digest(&digest)?).await?))
}

async fn start(State(agent): Shared, body: Bytes) -> Answer<Json<SegmentStatus>> {
    let start: StartSegment = parse(&body)?;
    if start.job.is_some() != (start.mode == SegmentMode::Raw) {
        return Err(malformed("a raw segment has its job here, a protected one in its release"));
    }
    let package = agent.packages.file(&start.package).await?;
    let segment = agent.segments.start(&agent.launch, start, package).await?;
    Ok(Json(segment.status()))
}

/// Body and answer are bytes: a challenge, and the evidence.
async fn challenge(State(agent): Shared, Path(id): Path<String>, body: Bytes) -> Answer<Vec<u8>> {
    let segment = find(&agent, &id)?;
    protected(&segment)?;
    Ok(segment.challenge(body.to_vec()).await?.0)
}

/// The body is the release's bytes.
async fn release(State(agent): Shared, Path(id): Path<String>, body: Bytes) -> Answer<Json<SegmentStatus>> {
    let segment = find(&agent, &id)?;
    protected(&segment)?;
    segment.release(body.to_vec()).await?;
    Ok(Json(segment.status()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordsQuery {
    after: Option<u64>,
    wait_millis: Option<u64>,
}

async fn records(
    State(agent): Shared,
    Path(id): Path<String>,
    query: Result<Query<RecordsQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer<Json<RecordsPage>> {
    let Query(query) = query.map_err(malformed)?;
    let segment = find(&agent, &id)?;
    segment.wait_for_records(query.after, Duration::from_millis(query.wait_millis.unwrap_or(0))).await;
    Ok(Json(segment.outbox.page(query.after, &segment.start, segment.pid())))
}

async fn acknowledge(State(agent): Shared, Path(id): Path<String>, body: Bytes) -> Answer<Json<SegmentStatus>> {
    let segment = find(&agent, &id)?;
    let AckRequest { through } = parse(&body)?;
    segment.outbox.acknowledge(through);
    // A segment that has ended has nothing to be told.
    let _ = segment.send(&ToSegment::Ack { through }).await;
    Ok(Json(segment.status()))
}

/// The body is a sealed command, as core encodes it.
async fn command(State(agent): Shared, Path(id): Path<String>, body: Bytes) -> Answer<Json<SegmentStatus>> {
    let segment = find(&agent, &id)?;
    segment.send(&ToSegment::Command(Blob(body.to_vec()))).await?;
    Ok(Json(segment.status()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArtifactQuery {
    name: String,
    offset: u64,
}

/// The answer is bytes: at most a piece, none at the end.
async fn artifact(
    State(agent): Shared,
    Path(id): Path<String>,
    query: Result<Query<ArtifactQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer<Vec<u8>> {
    let Query(query) = query.map_err(malformed)?;
    let segment = find(&agent, &id)?;
    match segment.outbox.artifact(&query.name, query.offset, MAX_PIECE) {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(e)) => Err(WireError::new(WireCode::Machine, format_args!("cannot read the artifact: {e}"))),
        None => Err(WireError::new(WireCode::NoSuchArtifact, "there is no complete artifact of this name")),
    }
}

async fn shutdown(State(agent): Shared) -> Answer<Json<serde_json::Value>> {
    let end = agent.end.clone();
    tokio::spawn(async move {
        // The answer leaves first.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = end.send(Ending::Told("the owner says so".to_owned())).await;
    });
    Ok(Json(serde_json::json!({})))
}

fn find(agent: &Agent, id: &str) -> Answer<Arc<Segment>> {
    let id = SegmentId::new(id).ok_or_else(|| malformed("a segment id is 1 to 64 of a-z, 0-9 and -"))?;
    agent.segments.find(&id)
}

fn protected(segment: &Segment) -> Answer<()> {
    match segment.start.mode {
        SegmentMode::Protected => Ok(()),
        SegmentMode::Raw => Err(WireError::new(WireCode::WrongStep, "a raw segment attests nothing")),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Answer<T> {
    serde_json::from_slice(body).map_err(malformed)
}

fn parse_digest(text: &str) -> Answer<Digest48> {
    Digest48::from_hex(text).ok_or_else(|| malformed("a package is named by 96 lower-case hex digits"))
}

fn malformed(why: impl std::fmt::Display) -> WireError {
    WireError::new(WireCode::Malformed, why)
}
