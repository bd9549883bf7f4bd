//! Copied databases and restored backups.

use super::*;

#[test]
fn a_hub_restored_from_an_old_backup_regains_everything() {
    let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
    put(&mut a, 1000, "old", "title", "x");
    sync(&mut a, &mut h);
    sync(&mut b, &mut h);
    let backup = h.store().copy();
    for n in 0..20 {
        put(&mut a, 2000 + n, &format!("a{n}"), "title", "acknowledged");
        inc(&mut b, 2000 + n, "old", 1);
    }
    sync(&mut a, &mut h);
    sync(&mut b, &mut h);
    put(&mut a, 3000, "unsent", "title", "of a");
    put(&mut b, 3000, "unsent", "note", "of b");
    drop(h);
    let mut h = open(backup, 99, Admission::Refuse { drift_ms_max: 60_000 });
    assert_eq!(h.identity().store, StoreId(9), "an authority keeps its store id");
    for n in 0..100 {
        put(&mut h, 4000 + n, &format!("h{n}"), "title", "past the old cursors");
    }
    for _ in 0..2 {
        sync(&mut a, &mut h);
        sync(&mut b, &mut h);
    }
    assert_same(&[&a, &b, &h]);
    for device in [&a, &b, &h] {
        assert_eq!(shows(device, "a19", "title"), text("acknowledged"));
        assert_eq!(shows(device, "unsent", "title"), text("of a"));
        assert_eq!(shows(device, "unsent", "note"), text("of b"));
        assert_eq!(shows(device, "h99", "title"), text("past the old cursors"));
        assert_eq!(shows(device, "old", "views"), Some(Shown::Counter(20)));
    }
    assert_eq!((a.pending_count().unwrap(), b.pending_count().unwrap()), (0, 0));
}

#[test]
fn a_hub_restored_after_a_sync_that_was_cut_anywhere_regains_everything() {
    for case in 0..160 {
        let (met_before, goes_on, cut) = (case % 2 == 1, case % 4 > 1, case / 4);
        let (mut a, mut h) = (device(1), hub(9));
        put(&mut h, 900, "h", "title", "of the hub");
        put(&mut a, 1000, "t", "title", "before they met");
        if met_before {
            sync(&mut a, &mut h);
        }
        let backup = h.store().copy();
        put(&mut a, 2000, "u", "title", "later");
        let (mut client, mut served) = (client(Want::Once), server());
        let now = Millis(100_000);
        let ends = (
            &mut End { replica: &mut a, session: &mut client, now },
            &mut End { replica: &mut h, session: &mut served, now },
        );
        run(ends.0, ends.1, cut).unwrap();
        let mut h = open(backup, 99, Admission::Refuse { drift_ms_max: 60_000 });
        for n in 0..if goes_on { 20 } else { 0 } {
            put(&mut h, 3000 + n, &format!("h{n}"), "title", "past what it had accepted");
        }
        for _ in 0..3 {
            sync(&mut a, &mut h);
        }
        assert_eq!(shows(&h, "t", "title"), text("before they met"), "case {case}");
        assert_eq!(shows(&h, "u", "title"), text("later"), "case {case}");
        assert_same(&[&a, &h]);
    }
}

#[test]
fn a_copied_store_takes_a_new_id_and_no_edit_of_either_is_lost() {
    let (mut a, mut h) = (device(1), hub(9));
    put(&mut a, 1000, "t", "title", "shared");
    sync(&mut a, &mut h);
    inc(&mut a, 1500, "t", 5);
    let mut copy = open(a.store().copy(), 55, Admission::Off);
    let mut a = open(a.into_store(), 66, Admission::Off);
    assert_eq!(copy.id(), a.id());
    put(&mut a, 2000, "t", "title", "original");
    put(&mut copy, 1900, "t", "note", "copy, stamped earlier");
    inc(&mut a, 2001, "t", 10);
    inc(&mut copy, 2001, "t", 100);
    sync(&mut a, &mut h);
    let refused = sync_at(&mut copy, &mut h, 100_000);
    assert_eq!(refused, Err(SessionError::Copied));
    assert_ne!(copy.id(), a.id());
    assert!(copy.poll_events().iter().any(|e| matches!(e, crate::replica::Event::Copied { .. })));
    sync(&mut copy, &mut h);
    sync(&mut a, &mut h);
    assert_same(&[&a, &copy, &h]);
    assert_eq!(shows(&h, "t", "title"), text("original"));
    assert_eq!(shows(&h, "t", "note"), text("copy, stamped earlier"));
    assert_eq!(shows(&h, "t", "views"), Some(Shown::Counter(115)));
}

#[test]
fn a_copied_store_between_peers_takes_a_new_id_and_its_values_count() {
    let (mut a, mut b) = (device(1), device(2));
    put(&mut a, 1000, "t", "title", "shared");
    sync(&mut a, &mut b);
    let mut copy = open(a.store().copy(), 55, Admission::Off);
    let mut a = open(a.into_store(), 66, Admission::Off);
    put(&mut copy, 1900, "u", "title", "by the copy");
    put(&mut a, 2000, "v", "title", "by the original");
    put(&mut a, 2001, "u", "note", "by the original");
    sync(&mut a, &mut b);
    assert_eq!(sync_at(&mut copy, &mut b, 100_000), Err(SessionError::Copied));
    sync(&mut copy, &mut b);
    sync(&mut a, &mut b);
    assert_same(&[&a, &b, &copy]);
    for device in [&a, &b, &copy] {
        assert_eq!(shows(device, "u", "title"), text("by the copy"));
        assert_eq!(shows(device, "u", "note"), text("by the original"));
        assert_eq!(shows(device, "v", "title"), text("by the original"));
    }
}

#[test]
fn a_restored_peer_is_found_out_by_a_store_that_has_started_over_since() {
    let (mut a, mut b, mut d, mut e) = (device(1), device(2), device(3), device(4));
    put(&mut d, 900, "shared", "title", "before the copy");
    let mut copy = open(d.store().copy(), 55, Admission::Off);
    put(&mut copy, 950, "c", "title", "of the copy");
    sync(&mut copy, &mut e);
    put(&mut a, 1000, "old", "title", "in the backup");
    put(&mut b, 1100, "new", "title", "of b");
    let backup = a.store().copy();
    sync(&mut a, &mut b);
    sync(&mut a, &mut d);
    drop(a);
    let mut a = open(backup, 66, Admission::Off);
    // What d has of a is marked as coming from a, and its cursor into a is gone.
    assert_eq!(sync_at(&mut d, &mut e, 100_000), Err(SessionError::Copied));
    assert_eq!(shows(&d, "new", "title"), text("of b"));
    let (mut s, mut t) = (client(Want::Once), server());
    // The two must not take the same new ids.
    t.options.seeds = seeds(888);
    let now = Millis(100_000);
    let mut one = End { replica: &mut d, session: &mut s, now };
    let found = run(&mut one, &mut End { replica: &mut a, session: &mut t, now }, usize::MAX);
    assert_eq!(found, Err(SessionError::Copied));
    assert_eq!(a.id(), ReplicaId::from_u128(888));
    sync(&mut d, &mut a);
    assert_eq!(shows(&a, "new", "title"), text("of b"));
    assert_same(&[&a, &d]);
}

#[test]
fn a_restored_peer_is_found_out_though_the_first_connection_broke() {
    for frames in 0..6 {
        let (mut a, mut d) = (device(1), device(3));
        put(&mut a, 1000, "old", "title", "in the backup");
        let backup = a.store().copy();
        put(&mut a, 1100, "new", "title", "lost by a");
        sync(&mut a, &mut d);
        d.forget_cursor(a.identity().store).unwrap();
        let mut a = open(backup, 66, Admission::Off);
        let (mut s, mut t) = (client(Want::Once), server());
        let now = Millis(100_000);
        let mut one = End { replica: &mut d, session: &mut s, now };
        let _ = run(&mut one, &mut End { replica: &mut a, session: &mut t, now }, frames);
        for _ in 0..2 {
            let _ = sync_at(&mut d, &mut a, 100_000);
        }
        assert_eq!(shows(&a, "new", "title"), text("lost by a"), "cut after {frames}");
        assert_same(&[&a, &d]);
    }
}

#[test]
fn a_peer_that_was_opened_more_often_than_a_greeting_tells_is_no_stranger() {
    let (mut a, mut d) = (device(1), device(3));
    put(&mut a, 1000, "t", "title", "first");
    sync(&mut d, &mut a);
    let id = a.identity().store;
    for n in 0..40 {
        a = open(a.into_store(), 100 + n, Admission::Off);
        put(&mut a, 2000 + i64::try_from(n).unwrap(), "t", "title", format!("opening {n}"));
    }
    sync(&mut d, &mut a);
    assert_eq!(a.identity().store, id);
    assert_eq!(shows(&d, "t", "title"), text("opening 39"));
    assert_same(&[&a, &d]);
}

#[test]
fn a_restored_backup_is_found_by_a_peer_that_was_restored_itself() {
    let (mut a, mut b, mut c) = (device(1), device(2), device(3));
    let b_backup = b.store().copy();
    put(&mut b, 1000, "t", "title", "from b");
    sync(&mut b, &mut a);
    let a_backup = a.store().copy();
    put(&mut a, 2000, "u", "title", "from a");
    sync(&mut c, &mut a);
    let admission = Admission::Quarantine { drift_ms_max: 60_000 };
    (a, b) = (open(a_backup, 11, admission), open(b_backup, 2, admission));
    assert_eq!(sync_at(&mut c, &mut a, 3000).unwrap_err(), SessionError::Copied);
    sync(&mut c, &mut a);
    // What a was told by b it still knows under its new id.
    let mut ends = (client(Want::Once), server());
    ends.0.options.seeds = seeds(778);
    let now = Millis(4000);
    let mut one = End { replica: &mut b, session: &mut ends.0, now };
    let copied = run(&mut one, &mut End { replica: &mut a, session: &mut ends.1, now }, usize::MAX);
    assert_eq!(copied, Err(SessionError::Copied));
    let events = sync_at(&mut b, &mut a, 5000).unwrap();
    assert!(!events.iter().any(|event| matches!(event, SessionEvent::Diverged { .. })), "{events:?}");
    assert_eq!(shows(&b, "t", "title"), text("from b"));
}
