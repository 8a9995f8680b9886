//! Vast.ai's REST API as its document describes it: asks, instances that load over time, logs at an address, charges.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::machines::Machines;
use super::openapi::Exchange;
use super::server::{Asked, Fake, broken, clock, json as answer, lock};

/// How instances behave.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    /// Without a status.
    pub(crate) scheduling: Duration,
    pub(crate) loading: Duration,
    /// From running until there are ports.
    pub(crate) ports: Duration,
    /// For this long a fresh instance is neither found nor listed.
    pub(crate) hidden: Duration,
    /// For this long a destroyed instance is still there.
    pub(crate) lingers: Duration,
    /// This status from the start, for ever.
    pub(crate) stuck: Option<&'static str>,
    /// The first instance of all ends as soon as it was to run.
    pub(crate) first_exits: bool,
    pub(crate) price: Option<f64>,
    pub(crate) gpus: Option<u32>,
    /// Looks at a log's address before it is there.
    pub(crate) log_looks: u32,
    /// Every other reading of a log breaks off.
    pub(crate) log_breaks: bool,
    /// How far its clock is ahead.
    pub(crate) hours_off: i64,
}

impl Default for Behaviour {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            scheduling: ms(30),
            loading: ms(40),
            ports: ms(20),
            hidden: Duration::ZERO,
            lingers: ms(30),
            stuck: None,
            first_exits: false,
            price: None,
            gpus: None,
            log_looks: 1,
            log_breaks: false,
            hours_off: 0,
        }
    }
}

struct Instance {
    request: Value,
    ask: u64,
    born: Instant,
    ended: Option<Instant>,
}

pub(crate) struct Vast {
    instances: Mutex<BTreeMap<u64, Instance>>,
    behaviour: Mutex<Behaviour>,
    log: Arc<Mutex<Vec<String>>>,
    looks: Mutex<u32>,
    readings: Mutex<u32>,
    page: usize,
    /// What instances really are, where they are anything.
    machines: Option<Machines>,
    pub(crate) address: Mutex<String>,
}

const FIRST_ID: u64 = 4_000_000_000;

impl Vast {
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        Self {
            instances: Mutex::default(),
            behaviour: Mutex::new(behaviour),
            log: Arc::new(Mutex::new((0..6).map(|i| format!("line {i}")).collect())),
            looks: Mutex::new(0),
            readings: Mutex::new(0),
            page: 2,
            machines: None,
            address: Mutex::default(),
        }
    }

    /// With processes of this machine for instances; their ports are this machine's.
    pub(crate) fn with_machines(behaviour: Behaviour) -> Self {
        Self { machines: Some(Machines::default()), ..Self::new(behaviour) }
    }

    /// Ids of everything that bills, whatever the answers say.
    pub(crate) fn billing(&self) -> Vec<String> {
        let all = lock(&self.instances);
        all.iter().filter(|(_, instance)| instance.ended.is_none()).map(|(id, _)| id.to_string()).collect()
    }

    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut lock(&self.behaviour));
    }

    pub(crate) fn log(&self, line: &str) {
        lock(&self.log).push(line.to_owned());
    }

    pub(crate) fn request(&self, id: &str) -> Value {
        lock(&self.instances)[&id.parse().unwrap()].request.clone()
    }

    fn is_shown(instance: &Instance, behaviour: &Behaviour) -> bool {
        instance.born.elapsed() >= behaviour.hidden && instance.ended.is_none_or(|at| at.elapsed() < behaviour.lingers)
    }

    fn show(&self, id: u64, instance: &Instance, behaviour: &Behaviour) -> Value {
        let age = instance.born.elapsed();
        let runs = behaviour.scheduling + behaviour.loading;
        let status = match behaviour.stuck {
            Some(status) => Value::from(status),
            None if age < behaviour.scheduling => Value::Null,
            None if age < runs => "loading".into(),
            None if behaviour.first_exits && id == FIRST_ID => "exited".into(),
            None => "running".into(),
        };
        let offer = asks().into_iter().find(|offer| offer["id"] == instance.ask).unwrap();
        let (inside, _) = flags(instance.request["env"].as_str().unwrap_or_default());
        let outside = if self.machines.is_some() { inside.as_str() } else { "41234" };
        let ports = if status == "running" && age >= runs + behaviour.ports {
            let open = json!([{ "HostIp": "0.0.0.0", "HostPort": outside }, { "HostIp": "::", "HostPort": outside }]);
            Value::Object([(format!("{inside}/tcp"), open)].into_iter().collect())
        } else {
            Value::Null
        };
        json!({
            "id": id, "actual_status": status, "intended_status": "running", "cur_state": "running",
            "next_state": "running", "label": instance.request["label"], "image_uuid": instance.request["image"],
            "status_msg": null,
            "public_ipaddr": if self.machines.is_some() { "127.0.0.1" } else { "192.0.2.7" }, "gpu_name": offer["gpu_name"],
            "num_gpus": behaviour.gpus.map_or(offer["num_gpus"].clone(), Value::from),
            "dph_total": behaviour.price.map_or(offer["dph_total"].clone(), Value::from), "ports": ports,
            "a_field_of_tomorrow": [null],
        })
    }

    fn create(&self, ask: u64, body: &Value) -> (Response, Option<String>) {
        if body["image"].as_str().is_none_or(str::is_empty) {
            return (self.problem(400, "error 400/3467: Invalid args: image"), None);
        }
        if !asks().iter().any(|offer| offer["id"] == ask) {
            let words = format!("error 404/3603: no_such_ask Instance type by id {ask} is not available.");
            let body = json!({ "success": false, "error": "invalid_args", "msg": words, "ask_id": ask });
            return (answer(404, &body), None);
        }
        let mut all = lock(&self.instances);
        let id = all.last_key_value().map_or(FIRST_ID, |(last, _)| last + 1);
        all.insert(id, Instance { request: body.clone(), ask, born: Instant::now(), ended: None });
        if let Some(machines) = &self.machines {
            let (_, env) = flags(body["env"].as_str().unwrap());
            // As Vast.ai does of its own.
            let key = ("CONTAINER_API_KEY".to_owned(), own_key(&id.to_string()));
            let own = [("CONTAINER_ID".to_owned(), id.to_string()), key];
            let log = self.log.clone();
            machines.boot(&id.to_string(), env.into_iter().chain(own), move |line| lock(&log).push(line));
        }
        (answer(200, &json!({ "success": true, "new_contract": id })), Some(id.to_string()))
    }

    fn list(&self, asked: &Asked) -> Response {
        let filters: Value =
            serde_json::from_str(asked.query.get("select_filters").map_or("{}", String::as_str)).unwrap();
        let after: u64 = asked.query.get("after_token").map_or(0, |token| token.parse().unwrap());
        let behaviour = lock(&self.behaviour).clone();
        let all = lock(&self.instances);
        let fits = |instance: &Instance| {
            filters["label"]["eq"].is_null() || filters["label"]["eq"] == instance.request["label"]
        };
        let shown: Vec<(u64, Value)> = all
            .iter()
            .filter(|(id, instance)| **id > after && Self::is_shown(instance, &behaviour) && fits(instance))
            .map(|(id, instance)| (*id, self.show(*id, instance, &behaviour)))
            .collect();
        let page: Vec<_> = shown.iter().take(self.page).collect();
        let next = (shown.len() > page.len()).then(|| page.last().unwrap().0.to_string());
        answer(
            200,
            &json!({
                "success": true, "instances_found": page.len(), "total_instances": shown.len(), "label_counts": {},
                "next_token": next, "instances": page.iter().map(|(_, instance)| instance).collect::<Vec<_>>(),
            }),
        )
    }

    fn search(&self, body: &Value) -> Response {
        let at_least = |offer: &Value, name: &str| {
            body[name]["gte"].as_f64().is_none_or(|least| offer[name].as_f64().unwrap() >= least)
        };
        let fits = |offer: &&Value| {
            ["gpu_ram", "disk_space", "compute_cap", "cuda_max_good", "direct_port_count"]
                .iter()
                .all(|name| at_least(offer, name))
                && body["num_gpus"]["eq"].as_u64().is_none_or(|count| offer["num_gpus"] == count)
                && body["dph_total"]["lte"].as_f64().is_none_or(|cap| offer["dph_total"].as_f64().unwrap() <= cap)
                && (body["datacenter"]["eq"] != true || offer["hosting_type"] == 1)
        };
        answer(200, &json!({ "offers": asks().iter().filter(fits).collect::<Vec<_>>() }))
    }

    fn bill(&self, asked: &Asked) -> Response {
        let filters: Value = serde_json::from_str(&asked.query["select_filters"]).unwrap();
        if filters["day"]["gte"].is_null() || filters["day"]["lte"].is_null() {
            return self.problem(400, "Must provide both 'day' gte and lte filters for instance charges");
        }
        // The last hour, where it is one that was asked for.
        let end = self.now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let start = end - 3600;
        let is_asked_for =
            filters["day"]["gte"].as_u64().unwrap() <= end && start <= filters["day"]["lte"].as_u64().unwrap();
        let all = lock(&self.instances);
        let charges: Vec<Value> = all
            .keys()
            .filter(|_| is_asked_for)
            .map(|id| {
                json!({
                    "start": start, "end": end, "type": "instance", "source": format!("instance-{id}"),
                    "description": "charges", "amount": 0.125, "metadata": {}, "items": [],
                })
            })
            .collect();
        let count = charges.len();
        answer(200, &json!({ "success": true, "count": count, "total": count, "next_token": null, "results": charges }))
    }
}

/// Where the document and Vast.ai differ the fake is like Vast.ai: absence is null, and the ports of one instance are what
/// the document has them be in the list, a map. Without these answers the rest can be checked as it is, and every request.
pub(crate) fn answers_as_documented(mut exchanges: Vec<Exchange>) -> Vec<Exchange> {
    for exchange in &mut exchanges {
        let Some(instance) = exchange.answer.as_mut().and_then(|answer| answer.get_mut("instances")) else { continue };
        match instance.as_object_mut() {
            Some(fields) => drop(fields.remove("ports")),
            None => exchange.answer.take_if(|answer| answer["instances"].is_null()).map_or((), drop),
        }
    }
    exchanges
}

/// The published port and the environment out of flags of `docker run`; single quotes hold spaces.
fn flags(text: &str) -> (String, Vec<(String, String)>) {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars().chain([' ']) {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    let of = |flag: &str| {
        let pairs = words.iter().zip(words.iter().skip(1));
        pairs.filter(|(name, _)| *name == flag).map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    let port = of("-p").first().map_or_else(|| "9443".to_owned(), |pair| pair.rsplit(':').next().unwrap().to_owned());
    let split = |pair: String| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    (port, of("-e").into_iter().map(split).collect())
}

fn own_key(id: &str) -> String {
    format!("key_of_{id}_alone")
}

/// What is on offer, in the fields that the document shows.
fn asks() -> Vec<Value> {
    let offer = |id: u64, gpu: &str, count: u32, price: f64, capability: u32, cuda: f64, ports: u32, hosting: u32| {
        json!({
            "id": id, "ask_contract_id": id, "gpu_name": gpu, "num_gpus": count, "dph_total": price,
            "compute_cap": capability, "cuda_max_good": cuda, "direct_port_count": ports, "gpu_ram": 24_576,
            "disk_space": 500.5, "geolocation": "Atlantis, AT", "hosting_type": hosting, "rentable": true,
            "reliability": 0.99, "webpage": null, "inet_down_cost": 0.003, "inet_up_cost": 0.004,
        })
    };
    vec![
        offer(11, "RTX 4090", 1, 0.4, 890, 12.8, 10, 0),
        offer(12, "RTX 4090", 1, 0.5, 890, 12.8, 10, 1),
        offer(13, "Tesla V100", 1, 0.2, 700, 12.2, 0, 0),
        offer(14, "RTX 4090", 2, 0.8, 890, 12.4, 10, 0),
    ]
}

impl Fake for Vast {
    const KEY: &'static str = "vast_FAKE";

    fn unauthorized(&self) -> Response {
        answer(404, &json!({ "success": false, "error": "auth_error", "msg": "Invalid user key" }))
    }

    fn now(&self) -> SystemTime {
        clock(lock(&self.behaviour).hours_off)
    }

    fn is_open(&self, asked: &Asked) -> bool {
        asked.path.first().is_some_and(|first| first == "s3")
    }

    fn own_key(&self, asked: &Asked) -> Option<String> {
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("DELETE", ["api", "v0", "instances", id]) => Some(own_key(id)),
            _ => None,
        }
    }

    fn endpoint(&self, asked: &Asked) -> String {
        let place = match asked.segments().as_slice() {
            ["api", _, "instances", "request_logs", _] => "request_logs/id".to_owned(),
            ["api", _, what, _] => format!("{what}/id"),
            ["api", _, rest @ ..] => rest.join("/"),
            other => other.join("/"),
        };
        format!("{} {place}", asked.method)
    }

    fn problem(&self, status: u16, words: &str) -> Response {
        answer(status, &json!({ "success": false, "error": "invalid_args", "msg": words }))
    }

    fn problem_naming(&self, status: u16, id: &str) -> Response {
        let id: u64 = id.parse().unwrap();
        answer(status, &json!({ "success": false, "error": "server_error", "msg": "scripted", "new_contract": id }))
    }

    fn serve(&self, asked: &Asked) -> (Response, Option<String>) {
        let behaviour = lock(&self.behaviour).clone();
        let body = asked.body.clone().unwrap_or_default();
        let number = |text: &str| text.parse::<u64>().unwrap_or(0);
        let response = match (asked.method.as_str(), asked.segments().as_slice()) {
            ("POST", ["api", "v0", "bundles"]) => self.search(&body),
            ("PUT", ["api", "v0", "asks", ask]) => return self.create(number(ask), &body),
            ("GET", ["api", "v1", "instances"]) => self.list(asked),
            ("GET", ["api", "v0", "instances", id]) => {
                let all = lock(&self.instances);
                let instance = all.get(&number(id)).filter(|instance| Self::is_shown(instance, &behaviour));
                let shown = instance.map(|instance| self.show(number(id), instance, &behaviour));
                // Absence, the way Vast.ai says it.
                answer(200, &json!({ "instances": shown }))
            }
            ("DELETE", ["api", "v0", "instances", id]) => match lock(&self.instances).get_mut(&number(id)) {
                Some(instance) if Self::is_shown(instance, &behaviour) => {
                    instance.ended.get_or_insert_with(Instant::now);
                    self.machines.iter().for_each(|machines| machines.end(id));
                    answer(200, &json!({ "success": true, "msg": "Instance destroyed successfully" }))
                }
                _ => answer(404, &json!({ "success": false, "error": "not_found", "msg": "Instance not found" })),
            },
            ("PUT", ["api", "v0", "instances", "request_logs", id]) => {
                let there = lock(&self.instances).contains_key(&number(id));
                *lock(&self.looks) = 0;
                let url = format!("{}/s3/instance_logs/{id}.log", lock(&self.address));
                match there {
                    true => answer(200, &json!({ "success": true, "result_url": url, "msg": "" })),
                    false => answer(404, &json!({ "error": "invalid_id", "msg": "Invalid instance id." })),
                }
            }
            ("GET", ["s3", ..]) => {
                let mut looks = lock(&self.looks);
                *looks += 1;
                if *looks <= behaviour.log_looks {
                    StatusCode::FORBIDDEN.into_response()
                } else {
                    let mut readings = lock(&self.readings);
                    *readings += 1;
                    let text = lock(&self.log).join("\n") + "\n";
                    match behaviour.log_breaks && *readings % 2 == 1 {
                        true => Response::new(broken(&text)),
                        false => text.into_response(),
                    }
                }
            }
            ("GET", ["api", "v0", "charges"]) => self.bill(asked),
            _ => self.problem(404, "no such page"),
        };
        (response, asked.path.get(3).cloned())
    }
}
