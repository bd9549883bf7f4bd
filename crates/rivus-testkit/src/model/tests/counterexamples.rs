//! The mistakes that merges with a margin of error make, each as the smallest history that shows it.

use std::sync::Arc;

use rivus_core::schema::{Margin, Resolver, Schema};
use rivus_core::value::Value;

use super::super::Shown;
use super::world::{Parcel, World, put};

/// A schema of one field.
fn schema(margin: Margin, resolver: Resolver) -> Arc<Schema> {
    Arc::new(Schema::builder().kind("task", |k| k.value_with("owner", margin, resolver)).build().unwrap())
}

/// Writes, and returns what was written, to be delivered alone.
fn write(world: &mut World, replica: usize, now: i64, value: &str) -> Parcel {
    world.edit_apart(replica, now, &[put("task", "t", "owner", value)]).unwrap()
}

/// Everything that `from` knows, without a session, which would compare schemas.
fn give(world: &mut World, from: usize, to: usize) {
    let parcel = world.pack(from);
    world.unpack(to, &parcel, |_| true);
}

fn owner(world: &World, replica: usize) -> Option<Shown> {
    world.field(replica, "task", "t", "owner")
}

fn text(text: &str) -> Option<Shown> {
    Some(Shown::Value(Value::from(text)))
}

/// The margin as a comparison of two: three winners in three orders.
#[test]
fn symmetric_margin() {
    let schema = schema(Margin::Ms(5), Resolver::Rank);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut world = World::new(Arc::clone(&schema));
        for (number, rank) in [3, 2, 1].into_iter().enumerate() {
            let replica = world.add(rank, Arc::clone(&schema));
            write(&mut world, replica, 1_000 + 4 * number as i64, ["first", "second", "third"][number]);
        }
        let reader = world.add(0, Arc::clone(&schema));
        for from in order {
            give(&mut world, from, reader);
        }
        assert_eq!(owner(&world, reader), text("second"), "in the order {order:?}");
    }
}

/// A write that names only the one before it: what that one had replaced comes back beside it.
#[test]
fn direct_parents() {
    let schema = schema(Margin::Infinite, Resolver::Oldest);
    let mut world = World::new(Arc::clone(&schema));
    let replicas: Vec<_> = (0..4).map(|_| world.add(0, Arc::clone(&schema))).collect();
    let mut written: Vec<Parcel> = Vec::new();
    for (replica, value) in [(0, "first"), (1, "second"), (2, "third")] {
        if replica > 0 {
            world.unpack(replicas[replica], &written[replica - 1], |_| true);
        }
        written.push(write(&mut world, replicas[replica], 1_000, value));
    }
    // The reader gets the third and the first, in this order and back, and the second never.
    for edit in [2, 0, 2, 0] {
        world.unpack(replicas[3], &written[edit], |_| true);
        assert_eq!(owner(&world, replicas[3]), text("third"));
    }
}

/// A margin that readers apply: then what shows depends on who reads.
#[test]
fn reader_side_margin() {
    let wide = schema(Margin::Ms(5), Resolver::Oldest);
    let mut world = World::new(Arc::clone(&wide));
    for (now, value) in [(1_000, "first"), (1_004, "second")] {
        let replica = world.add(0, Arc::clone(&wide));
        write(&mut world, replica, now, value);
    }
    for margin in [Margin::ZERO, Margin::Ms(1), Margin::Ms(5), Margin::Infinite] {
        let reader = world.add(0, schema(margin, Resolver::Oldest));
        give(&mut world, 1, reader);
        give(&mut world, 0, reader);
        assert_eq!(owner(&world, reader), text("first"), "a reader with margin {margin}");
    }
    // One more, exactly the margin newer than the first: its author takes the first out for all.
    let replica = world.add(0, wide);
    write(&mut world, replica, 1_005, "third");
    for reader in 2..6 {
        give(&mut world, replica, reader);
        assert_eq!(owner(&world, reader), text("second"));
    }
}

/// A writer that stamps its own margin alone: what the floor that it knew had ruled out shows again to those who
/// have its write only.
#[test]
fn floor_of_the_state_left_out() {
    let (zero, wide) = (schema(Margin::ZERO, Resolver::Oldest), schema(Margin::Infinite, Resolver::Oldest));
    let mut world = World::new(Arc::clone(&zero));
    let (early, ruling, later) =
        (world.add(0, Arc::clone(&zero)), world.add(0, zero), world.add(0, Arc::clone(&wide)));
    write(&mut world, early, 1_000, "early");
    write(&mut world, ruling, 1_010, "ruling");
    give(&mut world, ruling, later);
    let written = write(&mut world, later, 1_020, "later");
    let reader = world.add(0, wide);
    world.unpack(reader, &written, |_| true);
    give(&mut world, early, reader);
    assert_eq!(owner(&world, reader), text("later"));
}
