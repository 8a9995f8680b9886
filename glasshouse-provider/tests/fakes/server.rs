//! What the fakes share: a server on loopback, scripted faults, and a record of every exchange.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::openapi::Exchange;

/// What goes wrong with the next request to an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// This status, and nothing happens.
    Status(u16),
    /// It happens, and this status is the answer; `names_it` puts the id into it.
    HappensBut { status: u16, names_it: bool },
    /// It happens, and the connection breaks in the middle of the answer.
    HappensAndBreaks,
    /// It happens, and the answer never comes to its end.
    HappensUnanswered,
    /// This status with `Retry-After` in seconds, and nothing happens.
    Later(u16, u64),
    /// Too many requests, with or without `Retry-After` in seconds.
    TooMany(Option<u64>),
    /// Too many requests, with the time until which to wait, so many seconds from now by the fake's clock.
    TooManyUntil(u64),
    /// Too many requests, in plain text.
    TooManyText,
    /// A success, and nothing happens.
    Ignored,
    /// A success with text that is no JSON.
    Nonsense,
}

/// One request, taken apart.
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: Vec<String>,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) body: Option<Value>,
}

impl Asked {
    pub(crate) fn segments(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }
}

/// A fake provider.
pub(crate) trait Fake: Send + Sync + 'static {
    /// The key that it accepts.
    const KEY: &'static str;
    /// What a request without that key gets.
    fn unauthorized(&self) -> Response;
    /// Whether it is an address that needs no key, which then must not come with one.
    fn is_open(&self, _asked: &Asked) -> bool {
        false
    }
    /// The key that is good for this one request of an allocation's own, and for nothing else.
    fn own_key(&self, _asked: &Asked) -> Option<String> {
        None
    }
    /// `METHOD endpoint` under which faults are scripted.
    fn endpoint(&self, asked: &Asked) -> String;
    /// Its clock.
    fn now(&self) -> SystemTime;
    /// A refusal in the provider's own form.
    fn problem(&self, status: u16, words: &str) -> Response;
    /// Does what was asked, and gives the answer with the id of what it was about.
    fn serve(&self, asked: &Asked) -> (Response, Option<String>);
    /// An error that all the same names something.
    fn problem_naming(&self, status: u16, id: &str) -> Response;
}

/// A fake at an address. It ends with its runtime.
pub(crate) struct Served<F> {
    pub(crate) fake: Arc<F>,
    pub(crate) address: SocketAddr,
    record: Arc<Record>,
}

#[derive(Default)]
struct Record {
    exchanges: Mutex<Vec<Exchange>>,
    faults: Mutex<BTreeMap<String, VecDeque<Fault>>>,
    times: Mutex<Vec<(String, std::time::Instant)>>,
}

impl<F: Fake> Served<F> {
    pub(crate) async fn start(fake: F) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (fake, record) = (Arc::new(fake), Arc::<Record>::default());
        let state = (fake.clone(), record.clone());
        let router = Router::new().fallback(handle::<F>).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { fake, address, record }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Scripts faults of an endpoint, first one first.
    pub(crate) fn fault(&self, endpoint: &str, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.record.faults).entry(endpoint.to_owned()).or_default().extend(faults);
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        lock(&self.record.exchanges).clone()
    }

    /// How often an endpoint was asked.
    pub(crate) fn count(&self, endpoint: &str) -> usize {
        lock(&self.record.times).iter().filter(|(asked, _)| asked == endpoint).count()
    }

    /// The times between requests to an endpoint.
    pub(crate) fn gaps(&self, endpoint: &str) -> Vec<Duration> {
        let times = lock(&self.record.times);
        let times: Vec<_> = times.iter().filter(|(asked, _)| asked == endpoint).map(|(_, at)| *at).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

/// A clock that is so many hours ahead of this machine's.
pub(crate) fn clock(hours: i64) -> SystemTime {
    let off = Duration::from_secs(hours.unsigned_abs() * 3600);
    if hours < 0 { SystemTime::now() - off } else { SystemTime::now() + off }
}

/// Half of a text, and then the connection breaks.
pub(crate) fn broken(text: &str) -> Body {
    let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
    Body::from_stream(futures_util::stream::iter([Ok(half), Err(std::io::Error::other("scripted"))]))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

pub(crate) fn json(status: u16, value: &Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, "application/json")], value.to_string())
        .into_response()
}

async fn handle<F: Fake>(State((fake, record)): State<(Arc<F>, Arc<Record>)>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let url = reqwest::Url::parse(&format!("http://fake{}", parts.uri)).unwrap();
    let asked = Asked {
        method: parts.method.to_string(),
        path: url.path_segments().unwrap().filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        query: url.query_pairs().into_owned().collect(),
        body: (!bytes.is_empty()).then(|| serde_json::from_slice(&bytes).unwrap_or(Value::Null)),
    };
    let key = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let is_own = fake.own_key(&asked).is_some_and(|own| key == Some(&format!("Bearer {own}")));
    let said = String::from_utf8_lossy(&bytes);
    assert!(!said.contains(F::KEY) && !parts.uri.to_string().contains(F::KEY), "the account's key left its owner");
    let endpoint = fake.endpoint(&asked);
    lock(&record.times).push((endpoint.clone(), std::time::Instant::now()));
    let response = if fake.is_open(&asked) {
        assert_eq!(key, None, "the account's key was sent elsewhere");
        return dated(&*fake, answer(&*fake, &asked, None));
    } else if is_own || key == Some(&format!("Bearer {}", F::KEY)) {
        let fault = lock(&record.faults).get_mut(&endpoint).and_then(VecDeque::pop_front);
        answer(&*fake, &asked, fault)
    } else {
        fake.unauthorized()
    };
    keep(&record, asked, url.path(), dated(&*fake, response)).await
}

fn dated<F: Fake>(fake: &F, mut response: Response) -> Response {
    response.headers_mut().insert(header::DATE, httpdate::fmt_http_date(fake.now()).parse().unwrap());
    response
}

fn answer<F: Fake>(fake: &F, asked: &Asked, fault: Option<Fault>) -> Response {
    match fault {
        None => fake.serve(asked).0,
        Some(Fault::Status(status)) => fake.problem(status, "scripted"),
        Some(Fault::Later(status, seconds)) => {
            let mut response = fake.problem(status, "scripted");
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            response
        }
        Some(Fault::HappensBut { status, names_it }) => match fake.serve(asked).1 {
            Some(id) if names_it => fake.problem_naming(status, &id),
            _ => fake.problem(status, "scripted"),
        },
        Some(Fault::HappensAndBreaks) => {
            fake.serve(asked);
            Response::new(broken("{}"))
        }
        Some(Fault::HappensUnanswered) => {
            fake.serve(asked);
            Response::new(Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>()))
        }
        Some(Fault::TooMany(wait)) => {
            let mut response = fake.problem(429, "rate limit exceeded for the minute window");
            if let Some(wait) = wait {
                response.headers_mut().insert(header::RETRY_AFTER, wait.into());
            }
            response
        }
        Some(Fault::TooManyUntil(seconds)) => {
            let mut response = fake.problem(429, "rate limit exceeded for the minute window");
            let until = httpdate::fmt_http_date(fake.now() + Duration::from_secs(seconds));
            response.headers_mut().insert(header::RETRY_AFTER, until.parse().unwrap());
            response
        }
        Some(Fault::TooManyText) => {
            (StatusCode::TOO_MANY_REQUESTS, "API requests too frequent endpoint threshold=4.5").into_response()
        }
        Some(Fault::Ignored) => StatusCode::NO_CONTENT.into_response(),
        Some(Fault::Nonsense) => (StatusCode::OK, "<html>we are back soon</html>").into_response(),
    }
}

/// Records an exchange. Streams are passed on unread.
async fn keep(record: &Record, asked: Asked, path: &str, response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_json = kind.contains("json");
    let (parts, body) = response.into_parts();
    let (answer, body) = if is_json {
        let bytes = axum::body::to_bytes(body, 16 << 20).await.unwrap();
        (serde_json::from_slice(&bytes).ok(), Body::from(bytes))
    } else {
        (None, body)
    };
    lock(&record.exchanges).push(Exchange {
        method: asked.method,
        path: path.to_owned(),
        query: asked.query.into_iter().collect(),
        body: asked.body,
        status: parts.status.as_u16(),
        answer,
    });
    Response::from_parts(parts, body)
}
