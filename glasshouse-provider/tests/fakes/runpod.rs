//! RunPod's REST API v2 as its document describes it: pods that boot over time, logs as events, a catalogue, billing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::machines::Machines;
use super::server::{Asked, Fake, broken, clock, json as answer, lock};

/// How pods behave.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    pub(crate) provisioning: Duration,
    pub(crate) starting: Duration,
    /// From running until there is a public port.
    pub(crate) ports: Duration,
    /// For this long a fresh pod is neither found nor listed.
    pub(crate) hidden: Duration,
    /// For this long a deleted pod is still there.
    pub(crate) lingers: Duration,
    /// It exits this long after it came to run.
    pub(crate) exits: Option<Duration>,
    /// This status from the start, for ever.
    pub(crate) stuck: Option<&'static str>,
    /// What the catalogue has is taken by the time that it is asked for.
    pub(crate) taken: bool,
    /// Whether it gets a machine.
    pub(crate) placed: bool,
    /// The first pod of all ends as soon as it was to run.
    pub(crate) first_exits: bool,
    /// Instead of the catalogue's price.
    pub(crate) cost: Option<f64>,
    /// Instead of what was asked for.
    pub(crate) gpus: Option<usize>,
    pub(crate) public_address: bool,
    /// How far its clock is ahead.
    pub(crate) hours_off: i64,
    /// Every other reading of a log breaks off.
    pub(crate) log_breaks: bool,
    /// Where the public port leads; the port itself is a number of the fake's when absent.
    pub(crate) agent: Option<std::net::SocketAddr>,
}

impl Default for Behaviour {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            provisioning: ms(40),
            starting: ms(40),
            ports: ms(20),
            hidden: Duration::ZERO,
            lingers: ms(30),
            exits: None,
            stuck: None,
            taken: false,
            placed: true,
            first_exits: false,
            cost: None,
            gpus: None,
            public_address: true,
            hours_off: 0,
            log_breaks: false,
            agent: None,
        }
    }
}

struct Pod {
    request: Value,
    born: Instant,
    ended: Option<Instant>,
    stopped: bool,
}

pub(crate) struct RunPod {
    pods: Mutex<BTreeMap<String, Pod>>,
    next: Mutex<u64>,
    behaviour: Mutex<Behaviour>,
    logs: Arc<Mutex<Vec<(u64, String)>>>,
    readings: Mutex<u32>,
    capacity: Mutex<bool>,
    /// What pods really are, where they are anything.
    pub(crate) machines: Option<Machines>,
}

const FIRST_ID: &str = "pod2x";

impl RunPod {
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        let logs = (0..6).map(|i| (1_780_000_000 + i / 3, format!("line {i}"))).collect();
        Self {
            pods: Mutex::default(),
            next: Mutex::new(1),
            behaviour: Mutex::new(behaviour),
            logs: Arc::new(Mutex::new(logs)),
            readings: Mutex::new(0),
            capacity: Mutex::new(true),
            machines: None,
        }
    }

    /// With processes of this machine for pods; their ports are this machine's.
    pub(crate) fn with_machines(behaviour: Behaviour) -> Self {
        Self { machines: Some(Machines::default()), ..Self::new(behaviour) }
    }

    /// Every pod's container exits, and the pod stays.
    pub(crate) fn exit_all(&self) {
        for id in self.billing() {
            self.machines.iter().for_each(|machines| machines.end(&id));
        }
        self.behave(|behaviour| behaviour.stuck = Some("EXITED"));
    }

    /// Ids of everything that bills, whatever the answers say.
    pub(crate) fn billing(&self) -> Vec<String> {
        let pods = lock(&self.pods);
        pods.iter().filter(|(_, pod)| pod.ended.is_none()).map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut lock(&self.behaviour));
    }

    /// Writes a line of log, at a Unix time.
    pub(crate) fn log(&self, second: u64, line: &str) {
        lock(&self.logs).push((second, line.to_owned()));
    }

    pub(crate) fn sold_out(&self) {
        *lock(&self.capacity) = false;
    }

    /// The request that made a pod.
    pub(crate) fn request(&self, id: &str) -> Value {
        lock(&self.pods)[id].request.clone()
    }

    fn status(&self, id: &str, pod: &Pod, behaviour: &Behaviour) -> &'static str {
        let age = pod.born.elapsed();
        let runs = behaviour.provisioning + behaviour.starting;
        match behaviour.stuck {
            _ if pod.stopped => "EXITED",
            Some(status) => status,
            None if age < behaviour.provisioning => "PROVISIONING",
            None if age < runs => "STARTING",
            None if behaviour.first_exits && id == FIRST_ID => "EXITED",
            None if behaviour.exits.is_some_and(|after| age >= runs + after) => "EXITED",
            None => "RUNNING",
        }
    }

    fn is_shown(&self, pod: &Pod, behaviour: &Behaviour) -> bool {
        pod.born.elapsed() >= behaviour.hidden && pod.ended.is_none_or(|at| at.elapsed() < behaviour.lingers)
    }

    fn show(&self, id: &str, pod: &Pod, behaviour: &Behaviour) -> Value {
        let status = self.status(id, pod, behaviour);
        let (request, age) = (&pod.request, pod.born.elapsed());
        let count = request["gpu"]["count"].as_u64().unwrap_or(1);
        let runs = behaviour.provisioning + behaviour.starting;
        let runtime = if status == "RUNNING" {
            let gpus = behaviour.gpus.unwrap_or(usize::try_from(count).unwrap());
            let mut ports = Vec::new();
            for port in request["ports"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let (inside, kind) = port.split_once('/').unwrap();
                let inside: u16 = inside.parse().unwrap();
                let public = behaviour.public_address && age >= runs + behaviour.ports;
                ports.push(match (kind, public) {
                    ("tcp", true) => {
                        let outside = if self.machines.is_some() { inside } else { 10_000 + (inside % 1000) };
                        let agent = behaviour.agent.unwrap_or(([127, 0, 0, 1], outside).into());
                        json!({ "private": inside, "public": agent.port(), "type": "tcp", "ip": agent.ip().to_string() })
                    }
                    ("tcp", false) => json!({ "private": inside, "public": null, "type": "tcp", "ip": null }),
                    _ => json!({ "private": inside, "public": 60_001, "type": "http", "ip": "100.65.0.1" }),
                });
            }
            let gpus: Vec<Value> = (0..gpus).map(|_| json!({ "util": 0, "memoryUtil": 0 })).collect();
            json!({ "uptime": age.saturating_sub(runs).as_secs(), "gpus": gpus, "ports": ports })
        } else {
            Value::Null
        };
        let price = price(request["cloud"].as_str().unwrap_or("SECURE")) * count as f64;
        let cost = if status == "EXITED" { 0.0 } else { behaviour.cost.unwrap_or(price) };
        let actions = match status {
            "RUNNING" => json!(["stop", "restart", "terminate"]),
            "EXITED" | "ERROR" => json!(["start", "terminate"]),
            _ => json!(["stop", "terminate"]),
        };
        json!({
            "id": id, "name": request["name"], "image": request["image"], "args": "", "disk": request["disk"],
            "ports": request["ports"], "env": request["env"], "registry": null, "status": status, "actions": actions,
            "mounts": {}, "gpu": { "id": request["gpu"]["id"], "count": count },
            "cloud": request["cloud"].as_str().unwrap_or("SECURE"),
            "dataCenterId": (behaviour.placed && age >= behaviour.provisioning / 2).then_some("US-KS-2"),
            "cudaVersion": "12.8", "ssh": { "proxy": null, "direct": null }, "template": null, "cost": cost,
            "locked": false, "globalNetworking": { "enabled": false }, "runtime": runtime,
            "createdAt": time(clock(behaviour.hours_off) - age), "startedAt": null,
            // Fields come and go; nobody may depend on their absence.
            "aFieldOfTomorrow": { "x": [1, null] },
        })
    }

    fn create(&self, body: &Value) -> (Response, Option<String>) {
        let text = |at: &str| body.pointer(at).and_then(Value::as_str);
        let known = ["name", "image", "cloud", "gpu", "disk", "ports", "env", "dataCenterIds"];
        if text("/name").is_none_or(str::is_empty) || text("/image").is_none() || body.pointer("/gpu/id").is_none() {
            return (self.problem(422, "Request validation failed."), None);
        }
        if body.as_object().unwrap().keys().any(|field| !known.contains(&field.as_str())) {
            return (self.problem(422, "Request validation failed."), None);
        }
        if !*lock(&self.capacity) || lock(&self.behaviour).taken {
            let words = "There are no longer any instances available with the requested specifications.";
            return (self.problem(400, words), None);
        }
        let behaviour = lock(&self.behaviour).clone();
        let id = {
            let mut next = lock(&self.next);
            *next += 1;
            format!("pod{next}x")
        };
        let pod = Pod { request: body.clone(), born: Instant::now(), ended: None, stopped: false };
        let shown = self.show(&id, &pod, &behaviour);
        lock(&self.pods).insert(id.clone(), pod);
        if let Some(machines) = &self.machines {
            let env = body["env"].as_object().unwrap().iter();
            let env = env.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
            // As RunPod does of its own.
            let own = [("RUNPOD_POD_ID".to_owned(), id.clone()), ("RUNPOD_API_KEY".to_owned(), own_key(&id))];
            let (logs, hours) = (self.logs.clone(), behaviour.hours_off);
            machines.boot(&id, env.chain(own), move |line| lock(&logs).push((seconds_of(clock(hours)), line)));
        }
        (answer(201, &shown), Some(id))
    }

    fn one(&self, id: &str, then: impl FnOnce(&mut Pod, &Behaviour) -> Response) -> Response {
        let behaviour = lock(&self.behaviour).clone();
        match lock(&self.pods).get_mut(id).filter(|pod| self.is_shown(pod, &behaviour)) {
            Some(pod) => then(pod, &behaviour),
            None => self.problem(404, "resource not found"),
        }
    }

    fn act(&self, id: &str, action: &str) -> Response {
        self.one(id, |pod, behaviour| {
            let status = self.status(id, pod, behaviour);
            match action {
                "terminate" => {
                    pod.ended.get_or_insert_with(Instant::now);
                    self.machines.iter().for_each(|machines| machines.end(id));
                    return StatusCode::NO_CONTENT.into_response();
                }
                "stop" if status != "EXITED" => pod.stopped = true,
                "start" if status == "EXITED" => pod.stopped = false,
                "restart" if status == "RUNNING" => {}
                _ => return self.problem(409, &format!("{action} is not valid while {status}")),
            }
            answer(200, &self.show(id, pod, behaviour))
        })
    }

    /// Resumes at `since`, that second included, and stays open.
    fn stream(&self, asked: &Asked) -> Response {
        let since = asked.query.get("since").map(|since| seconds(since));
        let tail: usize = asked.query.get("tail").map_or(100, |tail| tail.parse().unwrap());
        let container = asked.query.get("source").is_none_or(|source| source == "container");
        let logs = lock(&self.logs);
        let chosen: Vec<_> = match since {
            Some(since) => logs.iter().filter(|(at, _)| *at >= since).collect(),
            None => logs.iter().skip(logs.len().saturating_sub(tail)).collect(),
        };
        let mut text = String::new();
        for (i, (at, line)) in chosen.into_iter().filter(|_| container).enumerate() {
            let ts = time(UNIX_EPOCH + Duration::from_secs(*at));
            let data = json!({ "ts": ts, "source": "container", "line": line });
            text += &format!("id: {ts}/{i:012}\ndata: {data}\n\n");
        }
        let kind = [(header::CONTENT_TYPE, "text/event-stream")];
        let mut readings = lock(&self.readings);
        *readings += 1;
        if lock(&self.behaviour).log_breaks && *readings % 2 == 1 {
            return (kind, broken(&text)).into_response();
        }
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(text))]);
        let open = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        (kind, Body::from_stream(open)).into_response()
    }

    fn catalogue(&self, asked: &Asked) -> Response {
        if asked.query.contains_key("include") != asked.query.contains_key("product") {
            return self.problem(400, "include=AVAILABILITY requires product");
        }
        let count: u64 = asked.query.get("count").map_or(1, |count| count.parse().unwrap());
        let stock = if count <= 8 && *lock(&self.capacity) { "HIGH" } else { "NONE" };
        let gpu = |id: &str, name: &str, memory: u32, factor: f64, manufacturer: &str, stock: &str| {
            json!({
                "id": id, "name": name, "pool": null, "manufacturer": manufacturer, "memory": memory, "secure": true,
                "community": true, "price": { "secure": price("SECURE") * factor, "community": price("COMMUNITY") * factor },
                "maxCount": { "secure": 8, "community": 4 }, "availability": stock,
                "dataCenters": [{ "id": "US-KS-2", "name": "US Kansas 2", "availability": stock }],
            })
        };
        let gpus = json!([
            gpu("NVIDIA GeForce RTX 4090", "RTX 4090", 24, 1.0, "NVIDIA", stock),
            gpu("NVIDIA A100 80GB PCIe", "A100 PCIe", 80, 3.0, "NVIDIA", stock),
            gpu("Tesla V100-SXM2-16GB", "V100", 16, 0.5, "NVIDIA", stock),
            gpu("NVIDIA H100 80GB HBM3", "H100 SXM", 80, 6.0, "NVIDIA", "NONE"),
            gpu("AMD Instinct MI300X OAM", "MI300X", 192, 4.0, "AMD", stock),
        ]);
        answer(200, &json!({ "gpus": gpus }))
    }

    fn bill(&self, asked: &Asked) -> Response {
        let wanted = asked.query.get("podId");
        let now = self.now();
        let (from, to) = (time(now - Duration::from_secs(24 * 3600)), time(now));
        let pods = lock(&self.pods);
        let records: Vec<Value> = pods
            .keys()
            .filter(|id| wanted.is_none_or(|wanted| wanted == *id))
            .map(|id| {
                json!({
                    "startTime": from, "endTime": to, "podId": id,
                    "totalAmount": 0.25, "gpuAmount": 0.2, "cpuAmount": 0.0, "diskAmount": 0.05,
                })
            })
            .collect();
        let totals = json!({ "totalAmount": 0.25, "gpuAmount": 0.2, "cpuAmount": 0.0, "diskAmount": 0.05 });
        let query = json!({
            "startTime": from, "endTime": to, "bucketSize": "day", "podId": wanted,
        });
        let metadata =
            json!({ "query": query, "recordCount": records.len(), "uniquePodCount": records.len(), "totals": totals });
        answer(200, &json!({ "records": records, "metadata": metadata }))
    }
}

impl Fake for RunPod {
    const KEY: &'static str = "rpa_FAKE";

    fn unauthorized(&self) -> Response {
        self.problem(401, "missing bearer token")
    }

    fn now(&self) -> SystemTime {
        clock(lock(&self.behaviour).hours_off)
    }

    fn own_key(&self, asked: &Asked) -> Option<String> {
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("DELETE", ["v2", "pods", id]) => Some(own_key(id)),
            _ => None,
        }
    }

    fn endpoint(&self, asked: &Asked) -> String {
        let place = match asked.segments().as_slice() {
            ["v2", "pods", _] => "pods/id".to_owned(),
            ["v2", "pods", _, what] => format!("pods/{what}"),
            ["v2", rest @ ..] => rest.join("/"),
            other => other.join("/"),
        };
        format!("{} {place}", asked.method)
    }

    fn problem(&self, status: u16, words: &str) -> Response {
        let title = StatusCode::from_u16(status).unwrap().canonical_reason().unwrap_or("Error");
        let body = json!({ "title": title, "status": status, "detail": words });
        let mut response = answer(status, &body);
        response.headers_mut().insert(header::CONTENT_TYPE, "application/problem+json".parse().unwrap());
        response
    }

    fn problem_naming(&self, status: u16, id: &str) -> Response {
        answer(status, &json!({ "title": "Error", "status": status, "detail": "scripted", "podId": id }))
    }

    fn serve(&self, asked: &Asked) -> (Response, Option<String>) {
        let behaviour = lock(&self.behaviour).clone();
        let response = match (asked.method.as_str(), asked.segments().as_slice()) {
            ("POST", ["v2", "pods"]) => return self.create(asked.body.as_ref().unwrap_or(&Value::Null)),
            ("GET", ["v2", "pods"]) => {
                let pods = lock(&self.pods);
                let shown = pods.iter().filter(|(_, pod)| self.is_shown(pod, &behaviour));
                answer(
                    200,
                    &json!({ "pods": shown.map(|(id, pod)| self.show(id, pod, &behaviour)).collect::<Vec<_>>() }),
                )
            }
            ("GET", ["v2", "pods", id]) => self.one(id, |pod, behaviour| answer(200, &self.show(id, pod, behaviour))),
            ("DELETE", ["v2", "pods", id]) => self.act(id, "terminate"),
            ("POST", ["v2", "pods", id, "action"]) => {
                let action = asked.body.as_ref().and_then(|body| body["action"].as_str()).unwrap_or_default();
                self.act(id, action)
            }
            ("GET", ["v2", "pods", id, "logs"]) => self.one(id, |_, _| self.stream(asked)),
            ("GET", ["v2", "catalog", "gpus"]) => self.catalogue(asked),
            ("GET", ["v2", "billing", "pods"]) => self.bill(asked),
            _ => self.problem(405, "The requested method is not allowed for this path."),
        };
        (response, asked.path.get(2).cloned())
    }
}

fn own_key(id: &str) -> String {
    format!("rpa_of_{id}_alone")
}

fn price(cloud: &str) -> f64 {
    if cloud == "SECURE" { 0.5 } else { 0.25 }
}

fn seconds(text: &str) -> u64 {
    seconds_of(humantime::parse_rfc3339(text).unwrap())
}

fn seconds_of(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}
