//! The hub's client against a server on loopback that speaks the two documented endpoints, and against nothing.

#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::StreamExt as _;
use glasshouse_core::fixed::{Digest32, Fixed};
use glasshouse_core::manifest::PublicInput;
use glasshouse_provider::hub::{Hub, HubError, fetch_public};
use sha2::{Digest as _, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Files of one model, and what was asked for.
#[derive(Default)]
struct Fake {
    files: BTreeMap<&'static str, Vec<u8>>,
    /// Bytes after which the next answers break off.
    breaks: Mutex<Vec<usize>>,
    /// What is sent instead of a file.
    forged: Mutex<Option<&'static str>>,
    asked: Mutex<Vec<String>>,
}

fn model() -> Fake {
    let weights = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let files = BTreeMap::from([
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{\"model\":{}}".to_vec()),
        ("tokenizer_config.json", b"{}".to_vec()),
        ("model.safetensors", weights),
        ("README.md", b"not wanted".to_vec()),
    ]);
    Fake { files, ..Fake::default() }
}

async fn listing(
    State(fake): State<Arc<Fake>>,
    Path((owner, name, revision)): Path<(String, String, String)>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let token = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    fake.asked.lock().unwrap().push(format!("{owner}/{name}@{revision} {query:?} {token:?}"));
    if (owner.as_str(), name.as_str()) != ("a", "b") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let siblings: Vec<_> = fake
        .files
        .iter()
        .map(|(name, bytes)| match name.ends_with(".safetensors") {
            true => {
                let sha256 = sha256(bytes).to_string();
                serde_json::json!({"rfilename": name, "size": bytes.len(), "blobId": "x",
                    "lfs": {"sha256": sha256, "size": bytes.len(), "pointerSize": 134}})
            }
            false => serde_json::json!({"rfilename": name, "size": bytes.len(), "blobId": "x"}),
        })
        .collect();
    axum::Json(serde_json::json!({"id": "a/b", "sha": COMMIT, "siblings": siblings})).into_response()
}

async fn file(
    State(fake): State<Arc<Fake>>,
    Path((_, _, commit, name)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    assert_eq!(commit, COMMIT, "only the commit names a file");
    let range = headers.get(header::RANGE).map(|value| value.to_str().unwrap().to_owned());
    fake.asked.lock().unwrap().push(format!("{name} {}", range.clone().unwrap_or_default()));
    let Some(bytes) = fake.files.get(name.as_str()) else { return StatusCode::NOT_FOUND.into_response() };
    let start: usize = range.as_deref().map_or(0, |range| range["bytes=".len()..range.len() - 1].parse().unwrap());
    let mut bytes = bytes[start..].to_vec();
    if *fake.forged.lock().unwrap() == Some(name.as_str()) {
        bytes[0] ^= 1;
    }
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    if let Some(at) = fake.breaks.lock().unwrap().pop() {
        let pieces = [Ok(bytes[..at].to_vec()), Err(std::io::Error::other("broken off"))];
        // What came before the end is on its way by then.
        let slowly = futures_util::stream::iter(pieces).then(|piece| async move {
            if piece.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
            piece
        });
        return (status, Body::from_stream(slowly)).into_response();
    }
    (status, bytes).into_response()
}

fn sha256(bytes: &[u8]) -> Digest32 {
    Fixed(Sha256::digest(bytes).into())
}

async fn serve(fake: Fake) -> (String, Arc<Fake>) {
    let fake = Arc::new(fake);
    let app = Router::new()
        .route("/api/models/{owner}/{name}/revision/{revision}", get(listing))
        .route("/{owner}/{name}/resolve/{commit}/{file}", get(file))
        .with_state(fake.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (endpoint, fake)
}

#[tokio::test]
async fn digests_come_before_weights() {
    let ((endpoint, fake), cache) = (serve(model()).await, tempfile::tempdir().unwrap());
    let hub = Hub::new(&endpoint, cache.path()).unwrap().token("hf_secret");
    let model = hub.resolve("a/b", Some("v1")).await.unwrap();
    assert_eq!(model.commit, COMMIT);
    let names: Vec<_> = model.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    for file in &model.files {
        let bytes = &fake.files[file.name.as_str()];
        assert_eq!((file.sha256, file.bytes), (sha256(bytes), bytes.len() as u64));
        assert_eq!(file.source, format!("{endpoint}/a/b/resolve/{COMMIT}/{}", file.name));
    }
    let asked = fake.asked.lock().unwrap().clone();
    assert_eq!(asked[0], "a/b@v1 {\"blobs\": \"true\"} Some(\"Bearer hf_secret\")");
    assert!(!asked.iter().any(|asked| asked.contains("model.safetensors")), "{asked:?}");
    assert!(!model.folder.join("model.safetensors").exists());
}

#[tokio::test]
async fn a_download_goes_on_where_it_stopped() {
    let ((endpoint, fake), cache) = (serve(model()).await, tempfile::tempdir().unwrap());
    let hub = Hub::new(&endpoint, cache.path()).unwrap();
    let model = hub.resolve("a/b", None).await.unwrap();
    *fake.breaks.lock().unwrap() = vec![100_000];
    let mut seen = Vec::new();
    let folder = hub.download(&model, |at| seen.push((at.file.to_owned(), at.done, at.total))).await.unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), fake.files["model.safetensors"]);
    assert!(seen.contains(&("model.safetensors".to_owned(), 1_200_000, 1_200_000)));
    let asked = |name: &str| {
        let asked = fake.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.starts_with(name)).cloned().collect::<Vec<_>>()
    };
    let ranges = asked("model.safetensors");
    assert_eq!(ranges[0], "model.safetensors bytes=0-");
    assert!(ranges.len() == 2 && ranges[1] != ranges[0], "{ranges:?}");
    // Everything is there and right: nothing is asked for again.
    hub.download(&model, |_| {}).await.unwrap();
    assert_eq!(asked("model.safetensors").len(), 2);
    // A part that another process left is gone on with.
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    std::fs::write(folder.join("model.safetensors.part"), &fake.files["model.safetensors"][..7]).unwrap();
    hub.download(&model, |_| {}).await.unwrap();
    assert_eq!(asked("model.safetensors")[2], "model.safetensors bytes=7-");
    // More breaks than it tries in a row, but each try brought something.
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    *fake.breaks.lock().unwrap() = vec![100_000; 7];
    hub.download(&model, |_| {}).await.unwrap();
    assert_eq!(asked("model.safetensors").len(), 3 + 8);
}

#[tokio::test]
async fn what_is_not_what_was_pinned_is_thrown_away() {
    let ((endpoint, fake), cache) = (serve(model()).await, tempfile::tempdir().unwrap());
    let hub = Hub::new(&endpoint, cache.path()).unwrap();
    let model = hub.resolve("a/b", None).await.unwrap();
    *fake.forged.lock().unwrap() = Some("model.safetensors");
    let error = hub.download(&model, |_| {}).await.unwrap_err();
    assert!(matches!(&error, HubError::Digest { file, .. } if file == "model.safetensors"), "{error}");
    let left: Vec<_> = std::fs::read_dir(&model.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("model")), "{left:?}");
    *fake.forged.lock().unwrap() = None;
    hub.download(&model, |_| {}).await.unwrap();
}

#[tokio::test]
async fn an_allocation_fetches_what_its_owner_only_pinned() {
    let ((endpoint, fake), cache) = (serve(model()).await, tempfile::tempdir().unwrap());
    let model = Hub::new(&endpoint, cache.path()).unwrap().resolve("a/b", None).await.unwrap();
    let folder = cache.path().join("there");
    for input in &model.files {
        fetch_public(input, &folder).await.unwrap();
        assert_eq!(std::fs::read(folder.join(&input.name)).unwrap(), fake.files[input.name.as_str()]);
    }
    let file = PublicInput { source: "file".to_owned(), ..model.files[0].clone() };
    assert!(matches!(fetch_public(&file, &cache.path().join("x")).await, Err(HubError::Address { .. })));
}

#[tokio::test]
async fn mistakes_are_named() {
    let ((endpoint, _), cache) = (serve(model()).await, tempfile::tempdir().unwrap());
    let hub = Hub::new(&endpoint, cache.path()).unwrap();
    assert!(matches!(hub.resolve("a/c", None).await, Err(HubError::NotFound { .. })));
    assert!(matches!(hub.resolve("no-model", None).await, Err(HubError::Name { .. })));
    assert!(matches!(hub.resolve("a/b", Some("../x")).await, Err(HubError::Name { .. })));
    assert!(matches!(Hub::new("ftp://x", cache.path()), Err(HubError::Address { .. })));
    let mut lacking = model();
    lacking.files.remove("model.safetensors");
    let (endpoint, _) = serve(lacking).await;
    let error = Hub::new(&endpoint, cache.path()).unwrap().resolve("a/b", None).await.unwrap_err();
    assert!(error.to_string().contains("no safetensors"), "{error}");
}

#[tokio::test]
async fn without_a_network_it_says_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hub = Hub::new(&format!("http://127.0.0.1:{port}"), cache.path()).unwrap();
    let error = hub.resolve("Qwen/Qwen2.5-0.5B", None).await.unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    assert!(error.to_string().contains("give the folder of a model"), "{error}");
}
