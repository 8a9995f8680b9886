//! Rented machines that are processes of this one: this very executable, in the environment that the create asked for and
//! nothing else, as an image with it as the entry point would run.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use super::server::lock;

#[derive(Default)]
pub(crate) struct Machines(Mutex<BTreeMap<String, Child>>);

impl Machines {
    /// Starts one, whose log goes line by line to `log`.
    pub(crate) fn boot(
        &self,
        id: &str,
        env: impl IntoIterator<Item = (String, String)>,
        log: impl Fn(String) + Send + 'static,
    ) {
        let mut command = Command::new("/proc/self/exe");
        let command = command.env_clear().env("PATH", "/usr/bin:/bin").envs(env);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(log));
        lock(&self.0).insert(id.to_owned(), child);
    }

    /// The container is taken away: nothing in it is asked.
    pub(crate) fn end(&self, id: &str) {
        if let Some(mut child) = lock(&self.0).remove(id) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for child in self.0.get_mut().unwrap().values_mut() {
            let _ = child.kill();
        }
    }
}
