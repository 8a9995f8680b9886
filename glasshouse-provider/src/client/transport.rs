//! One request and its answer, with MACs on both, and its repetitions.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use glasshouse_core::fixed::{Digest48, Fixed, Nonce32};
use glasshouse_core::refusal::one_line;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::Endpoint;
use glasshouse_core::transcript::sha384;
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ClientError;
use crate::clock;
use crate::wire::{
    BODY_HEADER, BOOT_HEADER, COUNTER_HEADER, Hello, MAC_HEADER, MAX_PIECE, MacKey, RequestHead, ResponseHead,
    WireCode, WireError,
};

/// Proxies cut requests at 60 to 100 s, so nothing here takes as long.
const TIMEOUT: Duration = Duration::from_secs(55);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Below the time after which the agent closes a connection that says nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(8);
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Larger than any answer of an agent.
const MAX_ANSWER: usize = 3 * MAX_PIECE;
/// Larger than what an agent or a proxy says without a MAC.
const MAX_UNSIGNED: usize = 1 << 16;

/// One call. All of them may be repeated: the agent answers a repeated one like the first time.
pub(super) struct Call {
    pub(super) step: &'static str,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    pub(super) tries: u32,
    pub(super) timeout: Duration,
}

impl Call {
    pub(super) fn new(step: &'static str, method: Method, path: &str) -> Self {
        let path = path.to_owned();
        Self { step, method, path, query: Vec::new(), body: Vec::new(), tries: TRIES, timeout: TIMEOUT }
    }

    pub(super) fn hello(step: &'static str) -> Self {
        Self::new(step, Method::GET, "/v1/hello")
    }

    pub(super) fn query(mut self, name: &'static str, value: String) -> Self {
        self.query.push((name, value));
        self
    }

    pub(super) fn body(self, body: Vec<u8>) -> Self {
        Self { body, ..self }
    }

    pub(super) fn json(self, body: &impl Serialize) -> Self {
        // Messages are structs of strings, numbers and lists of these: they always have a JSON form.
        Self { body: serde_json::to_vec(body).unwrap_or_default(), ..self }
    }
}

pub(super) struct Transport {
    http: Client,
    base: Url,
    key: MacKey,
    counter: AtomicU64,
    /// The agent's process that this client talks to: the first one that answered, and no later one.
    boot: OnceLock<Nonce32>,
}

/// What one try came to.
enum Try {
    Answer(Vec<u8>),
    /// Worth another try.
    Again(ClientError),
    /// Not worth one.
    Never(ClientError),
}

impl Transport {
    pub(super) fn new(endpoint: &Endpoint, launch_secret: &Secret<32>) -> Result<Self, ClientError> {
        let text = match endpoint {
            Endpoint::Direct(address) => format!("http://{address}"),
            Endpoint::Proxy(url) => url.clone(),
        };
        let bad = |why: String| ClientError::Endpoint { endpoint: text.clone(), why };
        let base = Url::parse(&text).map_err(|e| bad(e.to_string()))?;
        if matches!(endpoint, Endpoint::Proxy(_)) && (base.scheme() != "https" || base.path() != "/") {
            return Err(bad("a proxy's address is https://HOST".to_owned()));
        }
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true);
        if matches!(endpoint, Endpoint::Direct(_)) {
            // The owner's `http_proxy` is for pages: it refuses such ports, which then looks like another agent's answer.
            // Never TLS: the machine's certificates, megabytes for each client, are not read.
            builder = builder.no_proxy().tls_certs_only([]);
        }
        let http = builder.build().map_err(|e| bad(format!("no HTTP client: {}", chain(&e))))?;
        // Above every counter of an owner that was here before, unless the clock went back, which the agent then says.
        let first = clock::wall().0.saturating_mul(1000);
        let (key, counter, boot) = (MacKey::derive(launch_secret), AtomicU64::new(first), OnceLock::new());
        Ok(Self { http, base, key, counter, boot })
    }

    /// The agent's process, once it has answered.
    pub(super) fn boot(&self) -> Option<Nonce32> {
        self.boot.get().copied()
    }

    /// Asks who is there. The first answer says which process of an agent every later request is for; its MAC is over
    /// this very question, so that nobody can give an earlier one.
    pub(super) async fn hello(&self, call: Call) -> Result<Hello, ClientError> {
        let step = call.step;
        let body = self.repeat(&call, self.boot()).await?;
        let hello: Hello = parse(step, &body)?;
        let _ = self.boot.set(hello.boot);
        Ok(hello)
    }

    pub(super) async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let step = call.step;
        parse(step, &self.bytes(call).await?)
    }

    pub(super) async fn bytes(&self, call: Call) -> Result<Vec<u8>, ClientError> {
        let boot = match self.boot() {
            Some(boot) => boot,
            None => {
                let hello = Call { tries: call.tries, timeout: call.timeout, ..Call::hello(call.step) };
                self.hello(hello).await?.boot
            }
        };
        self.repeat(&call, Some(boot)).await
    }

    async fn repeat(&self, call: &Call, boot: Option<Nonce32>) -> Result<Vec<u8>, ClientError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..call.tries {
            match self.once(call, boot).await {
                Try::Answer(body) => return Ok(body),
                Try::Never(error) => return Err(error),
                Try::Again(_) => tokio::time::sleep(pause).await,
            }
            pause = pause.saturating_mul(3);
        }
        match self.once(call, boot).await {
            Try::Answer(body) => Ok(body),
            Try::Again(error) | Try::Never(error) => Err(error),
        }
    }

    async fn once(&self, call: &Call, boot: Option<Nonce32>) -> Try {
        let step = call.step;
        let mut url = self.base.clone();
        url.set_path(&call.path);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let body_digest = sha384(&call.body);
        let head = RequestHead {
            method: call.method.as_str(),
            path: url.path(),
            query: url.query().unwrap_or(""),
            boot: boot.as_ref(),
            counter,
            body: &body_digest,
        };
        let mac = self.key.request(&head);
        let mut request = self
            .http
            .request(call.method.clone(), url.clone())
            .timeout(call.timeout)
            .header(COUNTER_HEADER, counter)
            .header(BODY_HEADER, body_digest.to_string())
            .header(MAC_HEADER, mac.to_string())
            .body(call.body.clone());
        if let Some(boot) = boot {
            request = request.header(BOOT_HEADER, boot.to_string());
        }
        let unreachable =
            |why: String| Try::Again(ClientError::Unreachable { step, at: self.base.authority().to_owned(), why });
        let response = match request.send().await {
            Ok(response) => response,
            Err(e) => return unreachable(chain(&e)),
        };
        let (status, answer_mac) = (response.status(), answer_mac(&response));
        let limit = if answer_mac.is_some() { MAX_ANSWER } else { MAX_UNSIGNED };
        let body = match read_limited(response, limit).await {
            Ok(Some(body)) => body,
            Ok(None) => return Try::Never(ClientError::Nonsense { step, why: "its answer is too large".to_owned() }),
            Err(e) => return unreachable(chain(&e)),
        };
        let head = ResponseHead { request: &mac, status: status.as_u16(), body: &body };
        let authentic = answer_mac.is_some_and(|answer| self.key.check_response(&head, &answer));
        self.judge(step, status, body, authentic)
    }

    fn judge(&self, step: &'static str, status: StatusCode, body: Vec<u8>, authentic: bool) -> Try {
        if authentic && status.is_success() {
            return Try::Answer(body);
        }
        if authentic && let Ok(error) = serde_json::from_slice::<WireError>(&body) {
            // A network may say things twice, or change a body under its head: the next try has a counter of its own.
            let by_the_network = matches!(error.code, WireCode::Replayed | WireCode::Unauthenticated);
            let again = error.code.is_transient() || by_the_network;
            let error = ClientError::Refused { step, error };
            return if again { Try::Again(error) } else { Try::Never(error) };
        }
        // Whatever has no MAC may be one flipped bit of what had one, and must not cost a run more than a lost answer.
        let why = format!("status {}, {} bytes without the agent's MAC", status.as_u16(), body.len());
        Try::Again(if let Some(error) = hearsay(status, &body).filter(|_| !authentic) {
            ClientError::Refused { step, error }
        } else if status.is_server_error() || matches!(status.as_u16(), 404 | 408 | 425 | 429) {
            // A proxy speaks while its agent is not there yet, or is slow.
            ClientError::Unreachable { step, at: self.base.authority().to_owned(), why }
        } else {
            ClientError::Nonsense { step, why }
        })
    }
}

/// What may be taken from an answer without a MAC. The agent puts none on what it says to a stranger, and a proxy on the
/// way can say the same: two codes and a line for people, and never a refusal, which would go into the signed record.
fn hearsay(status: StatusCode, body: &[u8]) -> Option<WireError> {
    let code = match status {
        StatusCode::UNAUTHORIZED => WireCode::Unauthenticated,
        StatusCode::PAYLOAD_TOO_LARGE => WireCode::TooLarge,
        _ => return None,
    };
    let said = serde_json::from_slice::<WireError>(body).map(|error| error.message);
    let said = said.unwrap_or_else(|_| "no reason was given".to_owned());
    Some(WireError::new(code, format_args!("an answer without the agent's MAC says: {}", one_line(&said))))
}

fn parse<T: DeserializeOwned>(step: &'static str, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|e| ClientError::Nonsense { step, why: format!("its JSON: {e}") })
}

fn answer_mac(response: &Response) -> Option<Digest48> {
    Fixed::from_hex(response.headers().get(MAC_HEADER)?.to_str().ok()?)
}

/// The body, or `None` when it is larger than `limit`.
async fn read_limited(mut response: Response, limit: usize) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if body.len().saturating_add(piece.len()) > limit {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(body))
}

/// An error with its causes: the outermost one alone only says that a request failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}
