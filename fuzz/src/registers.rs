//! The laws of the join, over registers made of arbitrary bytes.

use rivus_core::clock::{Instant, Stamp};
use rivus_core::id::{Incarnation, ReplicaId};
use rivus_core::register::{Candidate, Register, Saw, Seen};

const VALUES: [&[u8]; 3] = [b"\xf6", b"\xf5", b"\x61a"];
const REPLICAS: usize = 5;

/// Three registers out of the bytes; the join of any of them keeps its laws.
pub fn register_join(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let [a, b, c] = [(); 3].map(|()| register(&mut bytes));
    let (ab, bc) = (a.join(&b), b.join(&c));
    let all = ab.join(&c);
    assert_eq!(ab, b.join(&a), "commutative");
    assert_eq!(all, a.join(&bc), "associative");
    assert_eq!(a.join(&a), a, "idempotent");
    assert_eq!(all.join(&ab), all, "above its parts");
    for joined in [&ab, &bc, &all] {
        assert_eq!(joined.check(), Ok(()), "closed");
    }
    let newest = [&a, &b, &c].map(|register| register.newest().stamp).into_iter().max();
    assert_eq!(Some(all.newest().stamp), newest, "the newest stays");
}

/// The well-formed register nearest to what the bytes say.
fn register(bytes: &mut impl Iterator<Item = u8>) -> Register<'static> {
    let mut byte = || bytes.next().unwrap_or(0);
    let (mut alive, mut seen) = (Vec::new(), Vec::new());
    for number in 1..=REPLICAS as u128 {
        let replica = ReplicaId::from_u128(number);
        let what = byte();
        let instant = Instant { generation: u16::from(what >> 6), time: u64::from(byte() >> 3) };
        match what & 3 {
            0 | 1 => {
                let saw = (what & 4 != 0)
                    .then_some(Saw { incarnation: Incarnation(1), done: u64::from(what >> 5) });
                let value = VALUES[usize::from(what >> 3) % VALUES.len()];
                alive.push(Candidate { stamp: instant.by(replica), rank: what >> 7, saw, value });
            }
            2 => seen.push(Seen { replica, instant }),
            _ => {}
        }
    }
    if alive.is_empty() {
        let stamp = Stamp { generation: 0, time: 9, replica: ReplicaId::default() };
        alive.push(Candidate { stamp, rank: 0, saw: None, value: VALUES[0] });
    }
    alive.sort_by_key(|c| c.stamp);
    let newest = alive[alive.len() - 1].stamp;
    let floor = Instant { generation: u16::from(byte() & 1), time: u64::from(byte() >> 3) };
    let floor = floor.by(ReplicaId::from_u128(u128::from(byte() & 7))).min(newest);
    alive.retain(|c| c.stamp >= floor);
    seen.retain(|s| s.instant.by(s.replica) >= floor && s.instant < newest.instant());
    let register = Register { floor, alive: alive.into(), seen };
    assert_eq!(register.check(), Ok(()));
    register
}
