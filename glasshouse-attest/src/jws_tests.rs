use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { bytes: 8192, depth: 8 };

fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn key() -> Key {
    Key::Ed25519(signing_key().verifying_key().to_bytes().into())
}

/// A token with any header, honestly signed: only the header can be what refuses it.
fn with_header(header: &str) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode("{}"));
    let signature = signing_key().sign(input.as_bytes()).to_bytes();
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn code(token: &str) -> Code {
    verify(token, &key(), LIMITS).unwrap_err().code
}

#[test]
fn rfc_8037_appendix_a4() {
    // The RFC's key and signature; its header lacks typ, so only the signature step applies to it.
    let public = PublicKey32::from_hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").unwrap();
    let input = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = URL_SAFE_NO_PAD
        .decode("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")
        .unwrap();
    check_signature(input, &signature, &Key::Ed25519(public)).unwrap();
}

#[test]
fn signs_and_verifies() {
    let token = sign(br#"{"a":1}"#, &signing_key());
    assert_eq!(verify(&token, &key(), LIMITS).unwrap(), br#"{"a":1}"#);
}

#[test]
fn algorithms_other_than_the_keys() {
    for alg in ["none", "None", "RS256", "ES384", "eddsa", "Ed25519", ""] {
        assert_eq!(code(&with_header(&format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#))), Code::JWT_ALGORITHM, "{alg}");
    }
    assert_eq!(code(&with_header(r#"{"alg":"HS256","typ":"JWT"}"#)), Code::JWT_KEY_CONFUSION);
    // `none` the classical way: no signature at all.
    let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#), URL_SAFE_NO_PAD.encode("{}"));
    assert_eq!(code(&none), Code::JWT_ALGORITHM);
}

#[test]
fn headers_with_anything_else() {
    for header in [
        r#"{"alg":"EdDSA"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"EdDSA","typ":"jwt"}"#,
        r#"{"alg":"EdDSA","typ":"JWT","crit":["b64"],"b64":false}"#,
        r#"{"alg":"EdDSA","typ":"JWT","kid":"1"}"#,
        r#"{"alg":"EdDSA","typ":"JWT","jku":"https://example.org"}"#,
        r#"{"alg":"EdDSA","alg":"EdDSA","typ":"JWT"}"#,
        r#"{"alg":"none","alg":"EdDSA","typ":"JWT"}"#,
        r#"{"alg":7,"typ":"JWT"}"#,
        r#"["EdDSA"]"#,
        "",
    ] {
        assert_eq!(code(&with_header(header)), Code::JWT_MALFORMED, "{header}");
    }
}

#[test]
fn shapes_other_than_three_canonical_parts() {
    let good = sign(b"{}", &signing_key());
    let (head, signature) = good.rsplit_once('.').unwrap();
    // The last of 86 characters carries four unused bits: the next letter decodes to the same bytes in a lax reader.
    let mut lax = signature.to_owned();
    let last = lax.pop().unwrap();
    lax.push(char::from(u8::try_from(last).unwrap() + 1));
    for bad in [
        String::new(),
        "..".to_owned(),
        "...".to_owned(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{good}="),
        format!("{good}=="),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{head}.{lax}"),
        head.to_owned(),
        "a".repeat(LIMITS.bytes + 1),
    ] {
        assert_eq!(code(&bad), Code::JWT_MALFORMED, "{bad}");
    }
}

#[test]
fn payloads_that_two_readers_could_read_differently() {
    for payload in [r#"{"a":1,"a":2}"#, r#"{"a":1}{"b":2}"#, "", "{", &"[".repeat(9), &"[".repeat(4000)] {
        assert_eq!(code(&sign(payload.as_bytes(), &signing_key())), Code::JWT_MALFORMED, "{payload}");
    }
}

#[test]
fn weak_keys_verify_nothing() {
    // The identity: under lax verification R = identity, s = 0 is a signature of every message by it.
    let mut identity = [0; 32];
    identity[0] = 1;
    let input = format!("{}.e30", URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"JWT"}"#));
    let mut signature = [0; 64];
    signature[0] = 1;
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
    let refusal = verify(&token, &Key::Ed25519(identity.into()), LIMITS).unwrap_err();
    assert_eq!(refusal.code, Code::JWT_SIGNATURE);
}

proptest! {
    #[test]
    fn never_panics(token in any::<String>()) {
        prop_assert!(verify(&token, &key(), LIMITS).is_err());
    }

    #[test]
    fn never_panics_on_token_like_text(token in "[A-Za-z0-9_=-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,90}") {
        prop_assert!(verify(&token, &key(), LIMITS).is_err());
    }

    #[test]
    fn one_changed_character_refuses(at: prop::sample::Index, to in "[A-Za-z0-9_.-]") {
        let good = sign(br#"{"eat_nonce":"00","iat":1}"#, &signing_key());
        let at = at.index(good.len());
        let mut changed = good.clone();
        changed.replace_range(at..=at, &to);
        prop_assume!(changed != good);
        prop_assert!(verify(&changed, &key(), LIMITS).is_err());
    }

    #[test]
    fn what_is_signed_comes_back(values in proptest::collection::vec(any::<i64>(), 0..20)) {
        let payload = serde_json::to_vec(&values).unwrap();
        prop_assert_eq!(verify(&sign(&payload, &signing_key()), &key(), LIMITS).unwrap(), payload);
    }
}
