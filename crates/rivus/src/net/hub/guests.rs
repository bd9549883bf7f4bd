//! How many connections each address may have, and how fast it may make them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::door::Refusal;

/// Bounds for one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    /// How many connections at once.
    pub(super) connections_max: usize,
    /// How many new ones in a second, in the long run.
    pub(super) per_second: u32,
    /// How many new ones at once, after a quiet time.
    pub(super) burst: u32,
    /// Whether this machine's own addresses are bounded too. A proxy or a tunnel there stands for many.
    pub(super) loopback: bool,
}

/// The addresses that have connections, or had some lately.
pub(super) struct Guests {
    bounds: Bounds,
    addresses: Mutex<BTreeMap<IpAddr, Guest>>,
}

struct Guest {
    open: usize,
    /// When its allowance is whole again: the further ahead, the more of it is used up.
    whole_at: Instant,
}

/// A connection of an address. Dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Place {
    guests: Arc<Guests>,
    /// `None` for an address that is not bounded.
    address: Option<IpAddr>,
}

impl Guests {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, addresses: Mutex::default() })
    }

    /// Takes a place for a new connection.
    pub(super) fn admit(self: &Arc<Self>, from: IpAddr, now: Instant) -> Result<Place, Refusal> {
        if from.to_canonical().is_loopback() && !self.bounds.loopback {
            return Ok(Place { guests: Arc::clone(self), address: None });
        }
        let address = network(from);
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&address) {
            addresses.retain(|_, guest| guest.open > 0 || guest.whole_at > now);
            if addresses.len() >= ADDRESSES_MAX {
                return Err(Refusal::Rate { seconds: 1 });
            }
        }
        let guest = addresses.entry(address).or_insert(Guest { open: 0, whole_at: now });
        let each = Duration::from_secs(1) / self.bounds.per_second.max(1);
        let whole_at = guest.whole_at.max(now) + each;
        let over = whole_at.saturating_duration_since(now).saturating_sub(each * self.bounds.burst.max(1));
        if !over.is_zero() {
            return Err(Refusal::Rate { seconds: over.as_secs() + 1 });
        }
        // An attempt counts, whether there is a place or not.
        guest.whole_at = whole_at;
        if guest.open >= self.bounds.connections_max {
            return Err(Refusal::BusyAddress);
        }
        guest.open += 1;
        Ok(Place { guests: Arc::clone(self), address: Some(address) })
    }
}

impl fmt::Debug for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the addresses: there may be many.
        f.debug_struct("Guests").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut addresses = self.guests.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(guest) = addresses.get_mut(&address) {
            guest.open -= 1;
            if guest.open == 0 && guest.whole_at <= Instant::now() {
                addresses.remove(&address);
            }
        }
    }
}

/// What counts as one address: of IPv6 the 64 bits that are given out together.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// How many addresses are remembered. Beyond them strangers wait until others have gone.
const ADDRESSES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { connections_max: 2, per_second: 2, burst: 4, loopback: false };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_so_many_connections_and_others_are_not_touched() {
        let guests = Guests::new(BOUNDS);
        let now = Instant::now();
        let first = guests.admit(ip("192.0.2.1"), now).unwrap();
        let _second = guests.admit(ip("192.0.2.1"), now).unwrap();
        assert_eq!(guests.admit(ip("192.0.2.1"), now).unwrap_err(), Refusal::BusyAddress);
        guests.admit(ip("192.0.2.2"), now).unwrap();
        drop(first);
        guests.admit(ip("192.0.2.1"), now).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_connects_only_so_fast_and_is_told_when_to_come_again() {
        let guests = Guests::new(BOUNDS);
        let now = Instant::now();
        for _ in 0..4 {
            drop(guests.admit(ip("192.0.2.1"), now).unwrap());
        }
        let refused = guests.admit(ip("192.0.2.1"), now).unwrap_err();
        assert_eq!(refused, Refusal::Rate { seconds: 1 });
        let later = now + Duration::from_millis(500);
        drop(guests.admit(ip("192.0.2.1"), later).unwrap());
        guests.admit(ip("192.0.2.1"), later).unwrap_err();
        for _ in 0..4 {
            drop(guests.admit(ip("192.0.2.1"), now + Duration::from_secs(60)).unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_addresses_of_one_network_of_ipv6_count_as_one_and_mapped_ones_as_ipv4() {
        let guests = Guests::new(BOUNDS);
        let now = Instant::now();
        let _one = guests.admit(ip("2001:db8::1"), now).unwrap();
        let _two = guests.admit(ip("2001:db8::ffff:2"), now).unwrap();
        guests.admit(ip("2001:db8::3"), now).unwrap_err();
        let _other = guests.admit(ip("2001:db8:0:1::1"), now).unwrap();
        let _mapped = guests.admit(ip("::ffff:192.0.2.1"), now).unwrap();
        let _plain = guests.admit(ip("192.0.2.1"), now).unwrap();
        guests.admit(ip("::ffff:192.0.2.1"), now).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn this_machine_is_bounded_only_if_that_is_asked_for() {
        let now = Instant::now();
        let guests = Guests::new(BOUNDS);
        let places: Vec<_> = (0..100).map(|_| guests.admit(ip("127.0.0.1"), now).unwrap()).collect();
        drop(places);
        let guests = Guests::new(Bounds { loopback: true, ..BOUNDS });
        let _places = [0, 1].map(|_| guests.admit(ip("::1"), now).unwrap());
        guests.admit(ip("::1"), now).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_of_addresses_is_bounded_and_forgotten() {
        let guests = Guests::new(BOUNDS);
        let now = Instant::now();
        let address = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        for n in 0..ADDRESSES_MAX {
            drop(guests.admit(address(n + (1 << 24)), now).unwrap());
        }
        assert_eq!(guests.admit(ip("192.0.2.1"), now).unwrap_err(), Refusal::Rate { seconds: 1 });
        guests.admit(ip("192.0.2.1"), now + Duration::from_secs(60)).unwrap();
        assert!(guests.addresses.lock().unwrap().len() <= 1);
    }
}
