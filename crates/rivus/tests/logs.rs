//! What is logged of connections. Alone in its process: it listens to all that is logged there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::sync::{Arc, Mutex};

use rivus::{Db, Error, HubOptions, Remote, Schema};

/// All that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_a_connection_says_whose_it_is_and_none_says_a_token() -> Result<(), Error> {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .init();
    let (right, wrong) = ("fd5c1f0a-right", "fd5c1f0a-wrong");
    let (hub, phone) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    let options = HubOptions::closed().grant_as("ann", right, 3);
    let shown = format!("{options:?}");
    let served = hub.serve("127.0.0.1:0", options).await?;
    phone.put("task", "t", [("title", "one".into())])?;
    for token in [right, wrong] {
        let remote = Remote::new(served.url()).token(token);
        assert!(!format!("{remote:?}").contains("fd5c1f0a"));
        let synced = phone.sync(&remote).await;
        assert_eq!(synced.is_ok(), token == right);
        assert!(!format!("{synced:?}").contains("fd5c1f0a"));
    }
    served.shutdown().await;
    let text = log.text();
    assert!(!text.contains("fd5c1f0a") && !shown.contains("fd5c1f0a"), "{text}");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ends = lines.iter().filter(|line| line["fields"]["message"] == "connection ended");
    let spans: Vec<_> = ends.map(|line| line["span"].clone()).collect();
    assert_eq!(spans.len(), 2, "{text}");
    assert!(
        spans.iter().all(|span| span["name"] == "connection" && span["from"].as_str().is_some()),
        "{text}"
    );
    let store = phone.status()?.store;
    assert!(spans.iter().any(|span| span["store"] == store.as_str() && span["subject"] == "ann"), "{text}");
    Ok(())
}
