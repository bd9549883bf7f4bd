//! The join is a least upper bound for any well-formed states, also for ones that no honest replica makes:
//! equal stamps with different content, `seen` of writes that were never made, any floor.

use proptest::prelude::*;

use super::*;

const VALUES: [&[u8]; 3] = [b"", b"a", b"b"];

/// What a state holds of one replica.
#[derive(Clone, Debug)]
struct Slot {
    kind: u8,
    instant: Instant,
    rank: u8,
    value: usize,
    saw: u64,
}

/// The well-formed state that is nearest to the given parts. Every well-formed state over these replicas is
/// reached: parts that already make one are taken as they are.
fn state(slots: &[Slot], floor: Stamp) -> Register<'static> {
    let some_alive = slots.iter().any(|s| s.kind == 2);
    let (mut alive, mut seen): (Vec<Candidate<'static>>, Vec<Seen>) = (Vec::new(), Vec::new());
    for (slot, number) in slots.iter().zip(1..) {
        let replica = ReplicaId::from_u128(number);
        if slot.kind == 2 || (number == 1 && !some_alive) {
            let saw = slot.saw.checked_sub(1).map(|n| Saw { incarnation: Incarnation(n / 2), done: n % 2 });
            let value = VALUES[slot.value];
            alive.push(Candidate { stamp: slot.instant.by(replica), rank: slot.rank, saw, value });
        } else if slot.kind == 1 {
            seen.push(Seen { replica, instant: slot.instant });
        }
    }
    alive.sort_by_key(|c| c.stamp);
    let newest = alive[alive.len() - 1].stamp;
    let floor = floor.min(newest);
    alive.retain(|c| c.stamp >= floor);
    seen.retain(|s| s.instant.by(s.replica) >= floor && s.instant < newest.instant());
    let state = Register { floor, alive: alive.into(), seen };
    assert_eq!(state.check(), Ok(()), "{state:?}");
    state
}

/// The first law that the three break.
fn laws<'a>(a: &Register<'a>, b: &Register<'a>, c: &Register<'a>) -> Result<(), &'static str> {
    let ab = a.join(b);
    let bc = b.join(c);
    let all = ab.join(c);
    let holds = [
        (ab == b.join(a), "commutative"),
        (all == a.join(&bc), "associative"),
        (a.join(a) == *a && all.join(&all) == all, "idempotent"),
        (a.join(&ab) == ab && ab.join(b) == ab && bc.join(&all) == all, "above both"),
        (ab.check().is_ok() && all.check().is_ok(), "closed"),
        (!ab.alive.is_empty() && !all.alive.is_empty(), "never empty"),
        (one_alive_each(&ab) && one_alive_each(&all), "one candidate a replica"),
        (newest(&ab) == newest(a).max(newest(b)), "the newest stays"),
    ];
    holds.into_iter().try_for_each(|(holds, law)| if holds { Ok(()) } else { Err(law) })
}

/// A raised floor drops what is older, wherever it is joined, and nothing else.
fn raised(a: &Register<'_>, b: &Register<'_>) -> Result<(), &'static str> {
    for n in 0..a.alive.len() {
        let raised = a.raised(n);
        let joined = raised.join(b);
        let older = |c: &&Candidate<'_>| c.stamp >= raised.floor;
        let kept: Vec<_> = a.join(b).alive.iter().filter(older).map(|c| c.stamp).collect();
        let holds = [
            (raised.check().is_ok(), "well-formed"),
            (*raised.alive == a.alive[n..], "the oldest go"),
            (a.join(&raised) == raised, "above what it was"),
            (joined == a.join(&raised).join(b), "whoever joins it first"),
            (joined.alive.iter().map(|c| c.stamp).collect::<Vec<_>>() == kept, "of others as well"),
        ];
        holds.into_iter().try_for_each(|(holds, law)| if holds { Ok(()) } else { Err(law) })?;
    }
    if a.raised(a.alive.len()) == *a { Ok(()) } else { Err("one is left at least") }
}

fn one_alive_each(register: &Register<'_>) -> bool {
    let mut replicas: Vec<_> = register.alive.iter().map(|c| c.stamp.replica).collect();
    replicas.sort_unstable();
    replicas.dedup();
    replicas.len() == register.alive.len()
}

fn newest(register: &Register<'_>) -> Option<Stamp> {
    register.alive.iter().map(|c| c.stamp).max()
}

fn any_state() -> impl Strategy<Value = Register<'static>> {
    let instant = || (0..3_u16, 0..3_u64).prop_map(|(generation, time)| Instant { generation, time });
    let slot = (0..3_u8, instant(), 0..2_u8, 0..VALUES.len(), 0..5_u64)
        .prop_map(|(kind, instant, rank, value, saw)| Slot { kind, instant, rank, value, saw });
    let floor = (instant(), 0..=3_u128).prop_map(|(instant, id)| instant.by(ReplicaId::from_u128(id)));
    (prop::array::uniform3(slot), floor).prop_map(|(slots, floor)| state(&slots, floor))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_join_of_any_states_is_their_least_upper_bound(a in any_state(), b in any_state(), c in any_state()) {
        prop_assert_eq!(laws(&a, &b, &c), Ok(()));
        prop_assert_eq!(raised(&a, &b), Ok(()));
    }
}

/// Marsaglia, *Xorshift RNGs* (2003).
struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, end: u8) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u8::try_from((self.0 >> 16) % u64::from(end)).unwrap()
    }

    fn instant(&mut self) -> Instant {
        Instant { generation: u16::from(self.below(4) == 0), time: self.below(4).into() }
    }

    fn state(&mut self) -> Register<'static> {
        let slots = [(); 3].map(|()| Slot {
            kind: [0, 1, 2, 2][usize::from(self.below(4))],
            instant: self.instant(),
            rank: self.below(2),
            value: self.below(3).into(),
            saw: self.below(5).into(),
        });
        let floor = self.instant().by(ReplicaId::from_u128(self.below(4).into()));
        state(&slots, if self.below(3) == 0 { Stamp::LOWEST } else { floor })
    }
}

#[test]
fn the_laws_hold_for_as_many_random_triples_as_asked() {
    let triples = asked("RIVUS_REGISTER_TRIPLES", 300_000);
    let mut random = Xorshift(0x5eed_0f7e_57ab_1e00);
    let (mut plain, mut equal_stamps) = (0, 0);
    for round in 0..triples {
        let before = random.0;
        let (a, b, c) = (random.state(), random.state(), random.state());
        if let Err(law) = laws(&a, &b, &c).and_then(|()| raised(&a, &b)) {
            panic!("not {law}: round {round}, seed {before:#x}\n{a:?}\n{b:?}\n{c:?}");
        }
        plain += usize::from(a.as_plain().is_some());
        let differ = |x: &Candidate<'_>| b.alive.iter().any(|y| x.stamp == y.stamp && x != y);
        equal_stamps += usize::from(a.alive.iter().any(differ));
    }
    println!("{triples} triples; plain: {plain}; one stamp with two contents: {equal_stamps}");
    let is_many = |count: usize| count > triples / 15;
    assert!(is_many(plain) && is_many(triples - plain) && is_many(equal_stamps), "{plain} {equal_stamps}");
}
