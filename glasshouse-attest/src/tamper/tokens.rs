//! Forged tokens inside evidence that is right in everything else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use glasshouse_core::claims::RuntimeState;
use glasshouse_core::evidence::CpuEvidence;
use glasshouse_core::protocol::EvidenceMessage;
use glasshouse_core::refusal::Code;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::liar::Liar;
use super::world::{World, at};
use super::{Attempt, RefusedBy, Scenario, SuiteError};

pub(super) const ALL: &[&Scenario] = &[
    &Scenario {
        name: "JWT alg none",
        attacker: "a runtime sends the right claims with alg none and no signature",
        refused_by: RefusedBy::Gate,
        expected: Code::JWT_ALGORITHM,
        run: |world| {
            forge(world, |_, payload| {
                let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
                Ok(format!("{header}.{payload}."))
            })
        },
    },
    &Scenario {
        name: "JWT key confusion",
        attacker: "a runtime sends the right claims under HS256, with the public key's bytes as the secret",
        refused_by: RefusedBy::Gate,
        expected: Code::JWT_KEY_CONFUSION,
        run: |world| forge(world, |liar, payload| key_confusion(liar.token_key.verifying_key().as_bytes(), payload)),
    },
    &Scenario {
        name: "JWT changed after signing",
        attacker: "a host takes the honest runtime's signed token and corrects one claim in it",
        refused_by: RefusedBy::Gate,
        expected: Code::JWT_SIGNATURE,
        run: changed_after_signing,
    },
    &Scenario {
        name: "JWT with a duplicate claim",
        attacker: "a runtime signs a token that names its state twice, for readers that take the first or the last",
        refused_by: RefusedBy::Gate,
        expected: Code::JWT_MALFORMED,
        run: |world| {
            Liar::sends(
                world,
                |_| (),
                |message, liar| {
                    let payload =
                        payload_of(message)?.replacen("\"gh_state\":", "\"gh_state\":\"training\",\"gh_state\":", 1);
                    message.cpu = liar.signed_token(payload.as_bytes());
                    Ok(())
                },
            )
        },
    },
    &Scenario {
        name: "evidence from an earlier run",
        attacker: "a runtime puts the token of an earlier, honest session of this allocation into a new message",
        refused_by: RefusedBy::Gate,
        expected: Code::REPORT_DATA_MISMATCH,
        run: |world| {
            let earlier = world.another_session()?;
            let liar = Liar::new(&earlier)?;
            let token = liar.message(&liar.truth(&earlier.owner()?.challenge(at(0))?)?)?.cpu;
            Liar::sends(
                world,
                |_| (),
                |message, _| {
                    message.cpu = token;
                    Ok(())
                },
            )
        },
    },
];

/// Sends the truth with a token that is made anew from its payload, which is in base64url already.
fn forge(
    world: &World,
    make: impl FnOnce(&Liar<'_>, &str) -> Result<String, SuiteError>,
) -> Result<Attempt, SuiteError> {
    Liar::sends(
        world,
        |_| (),
        |message, liar| {
            let token = make(liar, &URL_SAFE_NO_PAD.encode(payload_of(message)?))?;
            if let CpuEvidence::Software { jwt, .. } = &mut message.cpu {
                *jwt = token;
            }
            Ok(())
        },
    )
}

fn key_confusion(secret: &[u8], payload: &str) -> Result<String, SuiteError> {
    let input = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| SuiteError::Unfit("HMAC takes any key"))?;
    mac.update(input.as_bytes());
    Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())))
}

fn changed_after_signing(world: &World) -> Result<Attempt, SuiteError> {
    // The token says truthfully that the runtime trains; the host makes it say `ready`, as the evidence does.
    let lie = |story: &mut super::liar::Story| {
        let mut claims = story.claims.clone();
        claims.state = RuntimeState::Training;
        story.token_claims = Some(claims);
    };
    Liar::sends(world, lie, |message, _| {
        let payload = payload_of(message)?.replacen("\"gh_state\":\"training\"", "\"gh_state\":\"ready\"", 1);
        if let CpuEvidence::Software { jwt, .. } = &mut message.cpu {
            let parts: Vec<_> = jwt.split('.').collect();
            let [header, _, signature] = parts.as_slice() else {
                return Err(SuiteError::Unfit("a token of three parts"));
            };
            *jwt = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(payload));
        }
        Ok(())
    })
}

fn payload_of(message: &EvidenceMessage) -> Result<String, SuiteError> {
    let CpuEvidence::Software { jwt, .. } = &message.cpu else {
        return Err(SuiteError::Unfit("a software token"));
    };
    let payload = jwt.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    payload.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(SuiteError::Unfit("a payload of text"))
}
