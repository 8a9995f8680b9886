//! Messages that two readers could read differently, or that cost a reader more than they should. All are signed by the
//! key that they name, so that only their form can be what refuses them.

use glasshouse_core::protocol::encode;
use glasshouse_core::refusal::Code;

use super::liar::Liar;
use super::world::{World, at};
use super::{Attempt, RefusedBy, Scenario, SuiteError};

pub(super) const ALL: &[&Scenario] = &[
    &Scenario {
        name: "duplicate JSON key",
        attacker: "a runtime signs evidence that names its claims twice, first false, then true",
        refused_by: RefusedBy::Gate,
        expected: Code::MESSAGE_DUPLICATE_KEY,
        run: |world| {
            rewritten(world, |text| {
                let begin = text.find("\"claims\":").unwrap_or_default();
                let end = text.find(",\"timestamp\":").unwrap_or_default();
                let claims = text.get(begin..end).unwrap_or_default();
                let false_claims = claims.replacen("\"ready\"", "\"training\"", 1);
                text.replacen(claims, &format!("{false_claims},{claims}"), 1)
            })
        },
    },
    &Scenario {
        name: "oversized message",
        attacker: "a runtime sends well-formed evidence with two megabytes of container id",
        refused_by: RefusedBy::Gate,
        expected: Code::MESSAGE_TOO_LARGE,
        run: |world| {
            let huge = "a".repeat(2 << 20);
            Liar::tells(world, |story| story.claims.container.value = huge)
        },
    },
    &Scenario {
        name: "deeply nested message",
        attacker: "a runtime signs evidence whose GPU list is a hundred thousand lists deep",
        refused_by: RefusedBy::Gate,
        expected: Code::MESSAGE_TOO_DEEP,
        run: |world| {
            let deep = format!("\"gpus\":{}{}", "[".repeat(100_000), "]".repeat(100_000));
            rewritten(world, |text| text.replacen("\"gpus\":[]", &deep, 1))
        },
    },
    &Scenario {
        name: "unknown field",
        attacker: "a runtime signs evidence with a field that the protocol does not have",
        refused_by: RefusedBy::Gate,
        expected: Code::MESSAGE_MALFORMED,
        run: |world| rewritten(world, |text| text.replacen("\"gpus\":[]", "\"gpus\":[],\"verified\":true", 1)),
    },
];

/// Sends the truth with its text rewritten before it is signed.
fn rewritten(world: &World, rewrite: impl FnOnce(&str) -> String) -> Result<Attempt, SuiteError> {
    let liar = Liar::new(world)?;
    let mut owner = world.owner()?;
    let message = encode(&liar.message(&liar.truth(&owner.challenge(at(0))?)?)?);
    let text = String::from_utf8(message).map_err(|_| SuiteError::Unfit("messages are text"))?;
    let other = rewrite(&text);
    if other == text {
        return Err(SuiteError::Unfit("the text to rewrite is not in the message"));
    }
    let result = owner.evidence(&liar.sign_bytes(other.as_bytes()), at(0));
    world.judge(&owner, result, 0)
}
