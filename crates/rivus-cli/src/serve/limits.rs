//! What a hub takes: the options for it, and the bounds within which they make sense.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Result;
use rivus::{FRAME_BYTES_LEAST, HubOptions, Limits};

use super::settings::Serve;

/// Has the hub take so much.
///
/// # Errors
/// The first option that is out of its bounds, or two that contradict one another.
pub(super) fn limited(mut options: HubOptions, serve: &Serve) -> Result<HubOptions> {
    check(serve)?;
    let usual = Limits::default();
    options = options.limits(Limits {
        frame_bytes_max: serve.frame_bytes_max.unwrap_or(usual.frame_bytes_max),
        value_bytes_max: serve.value_bytes_max.unwrap_or(usual.value_bytes_max),
        registers_max: serve.registers_max.unwrap_or(usual.registers_max),
        scopes_max: serve.scopes_max.unwrap_or(usual.scopes_max),
        registers_per_second: serve.registers_rate,
    });
    if let Some(seconds) = serve.handshake_max {
        options = options.handshake_max(Duration::from_secs(seconds.into()));
    }
    if let Some(connections) = serve.connections_max {
        options = options.connections_max(connections);
    }
    let address = (serve.address_connections_max, serve.address_rate, serve.address_burst);
    if address != (None, None, None) {
        options =
            options.address_max(address.0.unwrap_or(256), address.1.unwrap_or(16), address.2.unwrap_or(256));
    }
    Ok(options)
}

fn check(serve: &Serve) -> Result<()> {
    let usual = Limits::default();
    let any = 1..=u64::from(u32::MAX);
    let size = |given: Option<usize>| given.map(|given| given as u64);
    let upto = |least: usize, most: usize| least as u64..=most as u64;
    let given: [(&str, Option<u64>, RangeInclusive<u64>); 10] = [
        ("--frame-bytes-max", size(serve.frame_bytes_max), upto(FRAME_BYTES_LEAST, usual.frame_bytes_max)),
        ("--value-bytes-max", size(serve.value_bytes_max), upto(1, usual.value_bytes_max)),
        ("--registers-max", size(serve.registers_max), upto(1, usual.registers_max)),
        ("--scopes-max", size(serve.scopes_max), upto(1, usual.scopes_max)),
        ("--handshake-max", serve.handshake_max.map(u64::from), 1..=HANDSHAKE_MAX_S),
        ("--connections-max", size(serve.connections_max), 1..=CONNECTIONS_MOST),
        ("--address-connections-max", size(serve.address_connections_max), 1..=CONNECTIONS_MOST),
        ("--address-rate", serve.address_rate.map(u64::from), any.clone()),
        ("--address-burst", serve.address_burst.map(u64::from), any.clone()),
        ("--registers-rate", serve.registers_rate.map(u64::from), any),
    ];
    for (option, given, bounds) in given {
        if let Some(given) = given.filter(|given| !bounds.contains(given)) {
            let (least, most) = bounds.into_inner();
            return Err(crate::usage(&format!("{option} {given} is out of bounds: give {least} to {most}")));
        }
    }
    if let (Some(value), Some(frame)) = (serve.value_bytes_max, serve.frame_bytes_max)
        && value > frame
    {
        let message =
            format!("--value-bytes-max {value} does not go into a frame of --frame-bytes-max {frame}");
        return Err(crate::usage(&message));
    }
    Ok(())
}

/// The longest time for a handshake, in seconds: beyond it the silent hold connections that others need.
const HANDSHAKE_MAX_S: u64 = 300;
/// The most connections: beyond it the number is a mistake.
const CONNECTIONS_MOST: u64 = 1 << 20;
