use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::*;

/// Made by another implementation (cryptography 48 of Python): a token of each algorithm, and the keys.
const TOKENS: &str = include_str!("vectors.txt");
const KEYS: &str = include_str!("vectors.jwks.json");

/// When the tests play.
const NOW: Millis = Millis(1_900_000_000_000);

/// Who signs tokens.
struct Issuer(Ed25519KeyPair);

impl Issuer {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn key(&self, kid: &str) -> serde_json::Value {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key().as_ref());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x })
    }

    fn jwt(&self) -> Jwt {
        Jwt::from_jwks(&json!({ "keys": [self.key("k")] }).to_string()).unwrap()
    }

    fn sign(&self, header: &serde_json::Value, claims: &serde_json::Value) -> String {
        let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes())))
    }

    /// A token with these claims over the usual ones; null takes one out.
    fn token(&self, claims: serde_json::Value) -> String {
        let mut all = json!({ "sub": "ann", "exp": seconds(60) });
        for (name, claim) in claims.as_object().unwrap() {
            all[name] = claim.clone();
        }
        all.as_object_mut().unwrap().retain(|_, claim| !claim.is_null());
        self.sign(&json!({ "alg": "EdDSA", "kid": "k" }), &all)
    }
}

fn seconds(from_now: i64) -> i64 {
    NOW.0 / 1000 + from_now
}

/// Why the token is refused.
fn refused(jwt: &Jwt, token: &str) -> String {
    let denial = jwt.check(token, NOW).unwrap_err();
    assert!(!denial.message.contains(token), "{}", denial.message);
    denial.message
}

#[test]
fn tokens_of_another_implementation_are_taken_and_none_with_one_changed_character_is() {
    let jwt = Jwt::from_jwks(KEYS).unwrap();
    assert_eq!(TOKENS.lines().count(), 3);
    for token in TOKENS.lines() {
        let grant = jwt.check(token, NOW).unwrap();
        let expires = Some(Millis(2_000_000_060_000));
        assert_eq!(grant, Grant { subject: "ann".to_owned(), rank: 7, expires, ..Grant::default() });
        for at in 0..token.len() {
            let mut bytes = token.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(jwt.check(&changed, NOW).is_err(), "character {at} of {token}");
        }
        for cut in 0..token.len() {
            assert!(jwt.check(&token[..cut], NOW).is_err(), "cut at {cut} of {token}");
        }
    }
}

#[test]
fn a_token_without_a_signature_is_refused() {
    let issuer = Issuer::new(1);
    let claims = json!({ "sub": "ann", "exp": seconds(60), "rivus_rank": 255 });
    for alg in ["none", "None", "NONE", ""] {
        let parts = [json!({ "alg": alg, "kid": "k" }), claims.clone()];
        let message = parts.map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        assert!(refused(&issuer.jwt(), &format!("{message}.")).contains("algorithm other than"), "{alg}");
    }
    let empty = issuer.token(json!({}));
    let (message, _) = empty.rsplit_once('.').unwrap();
    assert_eq!(refused(&issuer.jwt(), &format!("{message}.")), "the token's signature is wrong");
    assert_eq!(refused(&issuer.jwt(), message), "the token is no signed JWT");
}

#[test]
fn a_public_key_is_never_taken_for_a_shared_secret() {
    // What an attacker makes of the published key: an HMAC with its bytes as the secret.
    let issuer = Issuer::new(1);
    let header = json!({ "alg": "HS256", "kid": "k" });
    let claims = json!({ "sub": "ann", "exp": seconds(60) });
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, issuer.0.public_key().as_ref());
    let signature = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&secret, message.as_bytes()));
    let forged = format!("{message}.{signature}");
    assert!(refused(&issuer.jwt(), &forged).contains("algorithm other than"));
    // A shared secret in the set is no key either.
    let set = json!({ "keys": [{ "kty": "oct", "kid": "k", "alg": "HS256", "k": "c2VjcmV0" }] });
    assert!(matches!(Jwt::from_jwks(&set.to_string()), Err(SyncError::BadKeys { .. })));
}

#[test]
fn a_key_is_used_with_its_own_algorithm_only() {
    let issuer = Issuer::new(1);
    let claims = json!({ "sub": "ann", "exp": seconds(60) });
    for alg in ["RS256", "ES256"] {
        let token = issuer.sign(&json!({ "alg": alg, "kid": "k" }), &claims);
        assert_eq!(refused(&issuer.jwt(), &token), "the token names another algorithm than its key has");
    }
}

#[test]
fn a_key_that_is_not_in_the_set_grants_nothing() {
    let (issuer, stranger) = (Issuer::new(1), Issuer::new(2));
    let claims = json!({ "sub": "ann", "exp": seconds(60) });
    let unknown = issuer.sign(&json!({ "alg": "EdDSA", "kid": "other" }), &claims);
    assert!(refused(&issuer.jwt(), &unknown).contains("a key that the hub does not know"));
    assert_eq!(refused(&issuer.jwt(), &stranger.token(json!({}))), "the token's signature is wrong");
    // Without a name there must be no choice.
    let unnamed = issuer.sign(&json!({ "alg": "EdDSA" }), &claims);
    issuer.jwt().check(&unnamed, NOW).unwrap();
    let both = json!({ "keys": [issuer.key("k"), stranger.key("s")] }).to_string();
    assert!(refused(&Jwt::from_jwks(&both).unwrap(), &unnamed).contains("does not say which key"));
}

/// The key set of another algorithm's keys, and those of issuers.
fn set(keys: &[serde_json::Value]) -> Jwt {
    let others: serde_json::Value = serde_json::from_str(KEYS).unwrap();
    let others = others["keys"].as_array().unwrap().iter().filter(|key| key["kty"] != "OKP").cloned();
    let mut all: Vec<_> = others.collect();
    assert!(all.len() >= 2, "EC and RSA");
    all.extend_from_slice(keys);
    Jwt::from_jwks(&json!({ "keys": all }).to_string()).unwrap()
}

#[test]
fn a_key_without_a_name_is_used_where_it_alone_fits_and_where_several_do_none_is() {
    let (one, two) = (Issuer::new(1), Issuer::new(2));
    let claims = json!({ "sub": "ann", "exp": seconds(60) });
    let unnamed = |issuer: &Issuer| {
        let mut key = issuer.key("");
        key.as_object_mut().unwrap().remove("kid");
        key
    };
    let plain = one.sign(&json!({ "alg": "EdDSA" }), &claims);
    let named = one.sign(&json!({ "alg": "EdDSA", "kid": "k" }), &claims);
    // Keys of other algorithms leave a choice no more than keys of other names do.
    for jwt in [set(&[unnamed(&one)]), set(&[unnamed(&one), two.key("other")])] {
        jwt.check(&named, NOW).unwrap();
    }
    set(&[unnamed(&one)]).check(&plain, NOW).unwrap();
    set(&[one.key("k")]).check(&plain, NOW).unwrap();
    // The name goes before.
    set(&[one.key("k"), unnamed(&two)]).check(&named, NOW).unwrap();
    assert_eq!(refused(&set(&[two.key("k"), unnamed(&one)]), &named), "the token's signature is wrong");
    // With a choice nothing is tried out.
    for jwt in [set(&[unnamed(&one), unnamed(&two)]), set(&[unnamed(&one), two.key("other")])] {
        let why = refused(&jwt, &plain);
        assert!(
            why.contains("does not say which key has signed it (kid)") && why.contains("several"),
            "{why}"
        );
    }
    let why = refused(&set(&[unnamed(&one), unnamed(&two)]), &named);
    assert!(why.contains("several of its algorithm have no name"), "{why}");
    assert!(refused(&set(&[two.key("other")]), &named).contains("a key that the hub does not know"));
    assert!(refused(&set(&[]), &plain).contains("a key that the hub does not know"));
}

#[test]
fn a_token_is_good_from_its_beginning_to_its_end_and_clocks_may_differ_a_little() {
    let issuer = Issuer::new(1);
    let jwt = issuer.jwt().leeway(Duration::from_secs(10));
    let until = |exp: serde_json::Value| jwt.check(&issuer.token(json!({ "exp": exp })), NOW);
    assert_eq!(until(json!(seconds(-9))).unwrap().expires, Some(Millis(NOW.0 + 1000)));
    let expired = until(json!(seconds(-10))).unwrap_err();
    assert_eq!(expired, Denial::expired("the token has expired: get a new one"));
    let begins = |nbf: i64| jwt.check(&issuer.token(json!({ "nbf": nbf })), NOW);
    begins(seconds(10)).unwrap();
    assert!(begins(seconds(11)).unwrap_err().message.contains("not valid yet"));
    assert!(until(json!(null)).unwrap_err().message.contains("no end (exp)"));
    assert_eq!(until(json!(seconds(1) as f64 + 0.5)).unwrap().expires, Some(Millis(NOW.0 + 11_500)));
    // A time that is none must not count as absent.
    for wrong in [json!("2000000000"), json!(true), json!([]), json!(1e300)] {
        assert_eq!(until(wrong.clone()).unwrap_err().message, "the token's `exp` is no time", "{wrong}");
        let token = issuer.token(json!({ "nbf": wrong }));
        assert_eq!(refused(&jwt, &token), "the token's `nbf` is no time");
    }
}

#[test]
fn issuer_and_audience_must_be_those_that_are_set() {
    let issuer = Issuer::new(1);
    let jwt = issuer.jwt().issuer("https://id").audience("rivus");
    let good = json!({ "iss": "https://id", "aud": "rivus" });
    jwt.check(&issuer.token(good.clone()), NOW).unwrap();
    jwt.check(&issuer.token(json!({ "iss": "https://id", "aud": ["a", "rivus"] })), NOW).unwrap();
    for wrong in
        [json!("a"), json!(["a", "b"]), json!([]), json!(null), json!({ "rivus": 1 }), json!("rivus2")]
    {
        let mut claims = good.clone();
        claims["aud"] = wrong.clone();
        assert!(refused(&jwt, &issuer.token(claims)).contains("another audience"), "{wrong}");
    }
    for wrong in [json!("https://id/"), json!(null), json!(["https://id"])] {
        let mut claims = good.clone();
        claims["iss"] = wrong.clone();
        assert!(refused(&jwt, &issuer.token(claims)).contains("another issuer"), "{wrong}");
    }
    // A hub that has no name is not meant by a token that names somebody.
    assert!(refused(&issuer.jwt(), &issuer.token(json!({ "aud": "rivus" }))).contains("another audience"));
}

#[test]
fn subject_and_rank_are_what_the_claims_say_or_the_token_is_refused() {
    let issuer = Issuer::new(1);
    let jwt = issuer.jwt();
    let rank = |jwt: &Jwt, claims| jwt.check(&issuer.token(claims), NOW).map(|grant| grant.rank);
    assert_eq!(rank(&jwt, json!({})), Ok(0));
    assert_eq!(rank(&jwt, json!({ "rivus_rank": 255 })), Ok(255));
    assert_eq!(rank(&issuer.jwt().rank_claim("level"), json!({ "rivus_rank": 9, "level": 3 })), Ok(3));
    for wrong in [json!(256), json!(-1), json!("7"), json!(7.5), json!([7])] {
        assert!(refused(&jwt, &issuer.token(json!({ "rivus_rank": wrong }))).contains("0 to 255"));
    }
    for wrong in [json!(null), json!(""), json!(7), json!("x".repeat(256))] {
        assert!(refused(&jwt, &issuer.token(json!({ "sub": wrong }))).contains("no subject (sub)"));
    }
}

#[test]
fn the_scopes_of_a_token_are_listed_in_two_claims() {
    let issuer = Issuer::new(1);
    let jwt = issuer.jwt();
    let rights = |claims| jwt.check(&issuer.token(claims), NOW).unwrap().rights;
    assert_eq!(rights(json!({})), Rights::default());
    let read = Scopes::of(["", "home", "work/*"]).unwrap();
    assert_eq!(rights(json!({ "rivus_read": ["", "home", "work/*"] })), Rights { read, ..Rights::default() });
    assert_eq!(rights(json!({ "rivus_write": [] })), Rights { write: Scopes::none(), ..Rights::default() });
    for claim in ["rivus_read", "rivus_write"] {
        // None of these may pass for everything.
        let null = json!({ "sub": "ann", "exp": seconds(60), claim: null });
        assert!(refused(&jwt, &issuer.sign(&json!({ "alg": "EdDSA", "kid": "k" }), &null)).contains(claim));
        for wrong in [json!("home"), json!([7]), json!(["home", null]), json!({ "home": true })] {
            let why = refused(&jwt, &issuer.token(json!({ claim: wrong })));
            assert_eq!(why, format!("the token's `{claim}` is no list of names of scopes"));
        }
        let why = refused(&jwt, &issuer.token(json!({ claim: ["ho*me"] })));
        assert!(why.starts_with(&format!("the token's `{claim}`: `ho*me` has a * before its end")), "{why}");
    }
}

#[test]
fn a_token_with_extensions_or_beyond_bounds_is_refused() {
    let issuer = Issuer::new(1);
    let claims = json!({ "sub": "ann", "exp": seconds(60) });
    let critical =
        issuer.sign(&json!({ "alg": "EdDSA", "kid": "k", "crit": ["b64"], "b64": false }), &claims);
    assert!(refused(&issuer.jwt(), &critical).contains("extensions (crit)"));
    let long = issuer.token(json!({ "pad": "x".repeat(TOKEN_BYTES_MAX) }));
    assert_eq!(refused(&issuer.jwt(), &long), "the token is no signed JWT");
    let twice = format!("{}.more", issuer.token(json!({})));
    assert_eq!(refused(&issuer.jwt(), &twice), "the token is no signed JWT");
}

#[test]
fn a_set_that_cannot_be_used_says_which_key_and_why() {
    let why = |keys: serde_json::Value| match Jwt::from_jwks(&json!({ "keys": keys }).to_string()) {
        Err(SyncError::BadKeys { reason }) => reason,
        other => panic!("{other:?}"),
    };
    let key = Issuer::new(1).key("k");
    let with = |name: &str, value: &str| {
        let mut key = key.clone();
        key[name] = value.into();
        key
    };
    assert!(why(json!([with("d", "c2VjcmV0")])).contains("key 0 of the set: it has a private key"));
    assert!(why(json!([key, key])).contains("key 1 of the set has the name of another"));
    assert!(why(json!([with("x", "AAAA")])).contains("`x` has not 32 bytes"));
    assert!(why(json!([with("x", "!")])).contains("`x` is no base64url"));
    for unusable in [with("use", "enc"), with("alg", "ES256"), with("crv", "X25519"), with("kty", "new")] {
        assert!(why(json!([unusable])).contains("no public key for EdDSA"));
    }
    assert!(why(json!([{ "kty": "RSA", "n": "AQAB", "e": "AQAB" }])).contains("at least 2048 bits"));
    assert!(matches!(Jwt::from_jwks("[]"), Err(SyncError::BadKeys { .. })));
    let missing = Jwt::from_file("/no/such.json").unwrap_err().to_string();
    assert!(missing.contains("/no/such.json"), "{missing}");
}

#[test]
fn keys_are_read_again_when_their_file_changes_and_a_broken_file_leaves_the_former_ones() {
    let (old, new) = (Issuer::new(1), Issuer::new(2));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let write = |keys: serde_json::Value| std::fs::write(&path, json!({ "keys": keys }).to_string()).unwrap();
    write(json!([old.key("k")]));
    let jwt = Jwt::from_file(&path).unwrap();
    assert_eq!(jwt.reload(Reread::Changed), Ok(false));
    std::fs::write(&path, "{").unwrap();
    // What could not be read is tried again, whether it has changed since or not.
    for reread in [Reread::Changed, Reread::Changed, Reread::All] {
        assert!(matches!(jwt.reload(reread), Err(SyncError::BadKeys { .. })));
    }
    jwt.check(&old.token(json!({})), NOW).unwrap();
    write(json!([new.key("k"), old.key("former")]));
    assert_eq!(jwt.reload(Reread::Changed), Ok(true));
    assert_eq!((jwt.reload(Reread::Changed), jwt.reload(Reread::All)), (Ok(false), Ok(true)));
    jwt.check(&new.token(json!({})), NOW).unwrap();
    assert_eq!(refused(&jwt, &old.token(json!({}))), "the token's signature is wrong");
}
