//! Whose the databases are at a hub, after tokens were replaced too.

use serde_json::json;

use super::{Place, Running, lines};

fn hub(place: &Place, grant: &str) -> (Running, String) {
    let arguments = ["--db", "hub.db", "serve", "--listen", "127.0.0.1:0", "--grant", grant];
    let hub = place.start(&arguments);
    let url = hub.next()["url"].as_str().unwrap().to_owned();
    (hub, url)
}

#[test]
fn the_databases_of_a_token_that_was_replaced_are_handed_on() {
    let place = Place::new();
    place.ok(&["--db", "a.db", "put", "task", "t1", "title=x"]);
    let sync = |url: &str, token: &str| ["--db", "a.db", "sync", url, "--token", token].map(str::to_owned);
    let (first, url) = hub(&place, "leaked=0");
    assert_eq!(
        place.ok(&["--db", "hub.db", "accounts"]),
        "no accounts: no database has connected with a token\n"
    );
    place.ok(&sync(&url, "leaked").each_ref().map(String::as_str));
    first.end();
    let (second, url) = hub(&place, "fresh=0:ann");
    let again = sync(&url, "fresh");
    let again = again.each_ref().map(String::as_str);
    assert!(place.fails(1, &again).contains("belongs to another account"));

    let store = place.json(&["--db", "a.db", "status"])["store"].clone();
    let accounts = place.json(&["--db", "hub.db", "accounts"]);
    assert_eq!(accounts["stores"], json!([store]));
    let subject = accounts["subject"].as_str().unwrap();
    assert_ne!(subject, "leaked");
    assert!(
        place.fails(1, &["--db", "hub.db", "disown", "bob"]).contains("nobody has databases here as `bob`")
    );
    assert_eq!(
        place.ok(&["--db", "hub.db", "accounts"]),
        format!("{subject}  has {}\n", store.as_str().unwrap())
    );
    // While the hub runs.
    let told = place.ok(&["--db", "hub.db", "disown", subject]);
    assert_eq!(told, "1 database is nobody's now, and whose token it connects with next\n");
    place.ok(&again);
    let listed = lines(&place.ok(&["--json", "--db", "hub.db", "accounts"]));
    assert_eq!(listed, [json!({ "subject": "ann", "stores": [store] })]);
    second.end();

    // Of the same subject another token will do.
    let (third, url) = hub(&place, "third=0:ann");
    place.ok(&sync(&url, "third").each_ref().map(String::as_str));
    third.end();
}
