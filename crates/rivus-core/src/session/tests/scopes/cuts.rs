//! A device that follows some scopes and a hub, whose processes die at any frame.

use super::super::cuts::{Next, Site, Told, cuts};
use super::*;

fn inc_of(id: &'static str) -> (&'static str, &'static str, Action) {
    ("note", id, Action::Inc { field: "views".to_owned(), by: 1 })
}

/// One more, by a clock that begins anew.
fn counts_on(device: &mut Device) {
    device
        .edit(Millis(0), &[Op::new("note", "a0", Action::Inc { field: "views".to_owned(), by: 1 })])
        .unwrap();
}

/// A device that follows `a` and `b`, with edits in both and between them; the hub has others.
fn build(rights: &Rights) -> (Site, Site) {
    let (mut hub, mut device) = (notes_hub(), Member::new(2, &["a", "b"]));
    for (list, ids) in
        [("a", ["a0", "a1", "a2", "a3"]), ("b", ["b0", "b1", "b2", "b3"]), ("c", ["c0", "c1", "c2", "c3"])]
    {
        for id in ids {
            edit(&mut hub, &[("note", id, note(list, "before")), inc_of(id)]).unwrap();
        }
    }
    device.sync(&mut hub, rights);
    assert_holds(&device.device, &hub, &["a", "b"]);
    let mut device = device.device;
    for n in 0..4 {
        let (here, there) = (format!("h{n}"), format!("t{n}"));
        let list = ["a", "b"][n % 2];
        edit(&mut device, &[("note", &here, note(list, &"h".repeat(30_000)))]).unwrap();
        edit(&mut hub, &[("note", &there, note(list, &"t".repeat(30_000)))]).unwrap();
    }
    for id in ["a0", "b0", "a1", "b1"] {
        edit(&mut device, &[inc_of(id)]).unwrap();
        edit(&mut hub, &[inc_of(id)]).unwrap();
    }
    edit(&mut device, &[("note", "a2", field("list", "b"))]).unwrap();
    edit(&mut device, &[("note", "b2", field("list", "c"))]).unwrap();
    edit(&mut hub, &[("note", "a3", field("list", "b"))]).unwrap();
    edit(&mut hub, &[("note", "b3", field("list", "c"))]).unwrap();
    edit(&mut hub, &[("note", "c3", field("list", "a"))]).unwrap();
    let device =
        Site::new(device, |store, n| reopen_notes(store, n, Admission::Quarantine { drift_ms_max: 60_000 }));
    let hub = Site::new(hub, |store, n| reopen_notes(store, n, Admission::Refuse { drift_ms_max: 60_000 }));
    (device, hub)
}

#[test]
fn who_follows_two_scopes_and_dies_with_its_hub_at_any_frame_loses_nothing_and_counts_nothing_twice() {
    let rights = Rights::default();
    rights.grant_all("member 2", &["a", "b", "c"]);
    let wheres = |of: &Device, id: &str| of.scope_of("note", id).unwrap();
    for want in [Want::Once, Want::Live] {
        let sessions = || {
            let mut client = named("member 2", want);
            client.follow_scopes(["a", "b"].map(str::to_owned)).unwrap();
            client.set_push_edits_max(3);
            [client, guarded(&rights)]
        };
        let ((mut device, mut hub), mut whole) = (build(&rights), Told::default());
        whole.connect([&mut device, &mut hub], sessions(), usize::MAX, Next::Unmade);
        assert_eq!((whole.judged, whole.duplicate), (10, 0));
        for cut in cuts(whole.frames.len()) {
            let when = format!("{want:?}, cut after {cut:?}");
            let (mut device, mut hub) = build(&rights);
            let told = Told::cut_twice([&mut device, &mut hub], sessions, cut, counts_on);
            let (device, hub) = (device.device, hub.device);
            assert_holds(&device, &hub, &["a", "b"]);
            assert_eq!(device.pending_count(), Ok(0), "{when}");
            for (id, list) in [("a2", "b"), ("b2", "c"), ("a3", "b"), ("b3", "c"), ("c3", "a")] {
                assert_eq!(wheres(&hub, id), list, "{when}: {id}");
            }
            for id in ["a0", "b0", "a1", "b1"] {
                let view = hub.view("note", id).unwrap().unwrap();
                let count = if id == "a0" { 5 } else { 3 };
                assert_eq!(view.fields["views"], Shown::Counter(count), "{when}: {id}");
            }
            for n in 0..4 {
                let shown = title(&hub, &format!("h{n}"));
                assert_eq!(shown, Some("h".repeat(30_000)), "{when}: h{n}");
            }
            assert_eq!((told.judged, told.joined), (12, whole.joined), "{when}");
            assert!(told.verified, "{when}");
        }
    }
}
