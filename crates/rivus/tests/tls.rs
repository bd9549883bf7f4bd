//! Hubs with certificates, and clients that trust some of them.

#![cfg(feature = "tls")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rivus::{Db, Error, Hub, HubOptions, Remote, Schema, SyncError};

type Result<T = ()> = std::result::Result<T, Error>;

/// An authority that signs certificates.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key for a name, in PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn options(&self, name: &str) -> HubOptions {
        let (certificate, key) = self.sign(name);
        HubOptions::open().tls(certificate.as_bytes(), key.as_bytes()).unwrap()
    }
}

fn open() -> Db {
    Db::memory(Schema::open()).unwrap()
}

fn url(hub: &Hub, scheme: &str, name: &str) -> String {
    format!("{scheme}://{name}:{}", hub.address().port())
}

async fn refused(remote: &Remote) -> SyncError {
    match open().sync(remote).await {
        Err(Error::Sync(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_trusts_the_authority_syncs_and_one_that_does_not_says_what_to_do() -> Result {
    let (ca, other) = (Ca::new(), Ca::new());
    let (hub, phone) = (open(), open());
    let served = hub.serve("127.0.0.1:0", ca.options("localhost")).await?;
    assert!(served.url().starts_with("wss://"));
    phone.put("task", "t", [("title", "over TLS".into())])?;
    let remote = Remote::new(url(&served, "wss", "localhost"));
    phone.sync(&remote.clone().ca(ca.pem.clone())).await?;
    assert!(hub.view("task", "t")?.is_some());
    for wrong in [remote.clone(), remote.clone().ca(other.pem.clone())] {
        let error = refused(&wrong).await;
        assert!(matches!(error, SyncError::Tls { .. }) && error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains("nobody that is trusted here has signed"), "{error}");
    }
    let error = refused(&Remote::new(url(&served, "wss", "127.0.0.1")).ca(ca.pem.clone())).await;
    assert!(error.to_string().contains("certificate is for another name"), "{error}");
    let both = format!("{}{}", other.pem, ca.pem);
    phone.sync(&remote.ca(both)).await?;
    served.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_speaks_tls_to_a_plain_port_or_the_other_way_round_is_told() -> Result {
    let ca = Ca::new();
    let safe = open().serve("127.0.0.1:0", ca.options("localhost")).await?;
    let plain = open().serve("127.0.0.1:0", HubOptions::open()).await?;
    let error = refused(&Remote::new(url(&safe, "ws", "localhost"))).await;
    assert!(error.to_string().contains("this port speaks TLS: connect with wss://"), "{error}");
    let error = refused(&Remote::new(url(&plain, "wss", "localhost")).ca(ca.pem.clone())).await;
    assert!(error.to_string().contains("it speaks no TLS there: connect with ws://"), "{error}");
    for hub in [safe, plain] {
        assert!(
            hub.metrics().contains("rivus_handshakes_failed_total{reason=\"tls\"} 1"),
            "{}",
            hub.metrics()
        );
    }
    Ok(())
}

#[test]
fn a_certificate_that_cannot_be_used_is_found_before_serving() {
    let ca = Ca::new();
    let (certificate, key) = ca.sign("localhost");
    let (_, other) = ca.sign("localhost");
    let why = |certificate: &str, key: &str| {
        HubOptions::open().tls(certificate.as_bytes(), key.as_bytes()).unwrap_err().to_string()
    };
    assert!(why(&certificate, &other).contains("certificate and key cannot be used"));
    assert!(why("", &key).contains("no certificate in PEM"));
    assert!(why(&certificate, &certificate).contains("no key in PEM"));
    let missing = HubOptions::open().tls_files("/no/such.pem", "/no/key.pem").unwrap_err();
    assert!(missing.to_string().contains("/no/such.pem cannot be read"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_no_certificate_is_found_before_anything_is_sent() {
    for (pem, what) in [
        ("", "no certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ""),
    ] {
        let error = refused(&Remote::new("wss://localhost:1").ca(pem)).await;
        assert!(matches!(error, SyncError::BadCertificate { .. }) && !error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_for_new_connections_and_a_broken_one_is_not() -> Result {
    let (old, new) = (Ca::new(), Ca::new());
    let folder = tempfile::tempdir().unwrap();
    let files = [folder.path().join("hub.pem"), folder.path().join("key.pem")];
    let write = |(certificate, key): (String, String)| {
        // Another length as well as another time, whatever the resolution of the clock is.
        std::fs::write(&files[0], format!("{certificate}\n{}", "\n".repeat(certificate.len() % 7))).unwrap();
        std::fs::write(&files[1], key).unwrap();
    };
    write(old.sign("localhost"));
    let options = HubOptions::open().tls_files(Path::new(&files[0]), &files[1])?;
    let served = open().serve("127.0.0.1:0", options).await?;
    let remote = |ca: &Ca| Remote::new(url(&served, "wss", "localhost")).ca(ca.pem.clone());
    open().sync(&remote(&old)).await?;
    std::fs::write(&files[0], "half a certif").unwrap();
    assert!(matches!(served.reload(), Err(SyncError::BadCertificate { .. })));
    open().sync(&remote(&old)).await?;
    write(new.sign("localhost"));
    served.reload()?;
    open().sync(&remote(&new)).await?;
    assert!(matches!(refused(&remote(&old)).await, SyncError::Tls { .. }));
    Ok(())
}

#[cfg(feature = "jwt")]
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_certificate_keeps_no_keys_of_tokens_from_being_read() -> Result {
    const TOKENS: &str = include_str!("../src/net/jwt/vectors.txt");
    const KEYS: &str = include_str!("../src/net/jwt/vectors.jwks.json");
    let ca = Ca::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (certificate, key) = ca.sign("localhost");
    std::fs::write(path("hub.pem"), &certificate).unwrap();
    std::fs::write(path("key.pem"), key).unwrap();
    // Two of the three keys.
    let mut some: serde_json::Value = serde_json::from_str(KEYS).unwrap();
    some["keys"].as_array_mut().unwrap().remove(0);
    std::fs::write(path("jwks.json"), some.to_string()).unwrap();
    let db = Db::builder().schema(Schema::open()).clock(|| rivus::Millis(1_900_000_000_000)).memory()?;
    let options = HubOptions::closed().jwt(rivus::Jwt::from_file(path("jwks.json"))?);
    let served = db.serve("127.0.0.1:0", options.tls_files(path("hub.pem"), path("key.pem"))?).await?;
    let remote = |token: &str| Remote::new(url(&served, "wss", "localhost")).ca(ca.pem.clone()).token(token);
    let mut unknown = Vec::new();
    for token in TOKENS.lines() {
        if open().sync(&remote(token)).await.is_err() {
            unknown.push(token);
        }
    }
    assert_eq!(unknown.len(), 1);
    std::fs::write(path("hub.pem"), "half a certif").unwrap();
    std::fs::write(path("jwks.json"), KEYS).unwrap();
    assert!(matches!(served.reload(), Err(SyncError::BadCertificate { .. })));
    open().sync(&remote(unknown[0])).await?;
    Ok(())
}
