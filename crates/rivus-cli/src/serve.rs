//! `rivus serve` and `rivus health`.

mod grants;
mod limits;
pub(crate) mod settings;
#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rivus::{Hub, HubOptions, Jwt};
use serde::Serialize;

use self::grants::{Told, granted};
use self::limits::limited;
use self::settings::{Serve, WhoRestores};
use crate::args::Global;
use crate::database;
use crate::network::Ends;
use crate::output::{Form, Output};

/// `rivus serve`.
pub(crate) fn serve(global: &Global, serve: &Serve, out: &mut Output) -> Result<()> {
    #[derive(Serialize)]
    struct Started<'s> {
        url: String,
        store: &'s str,
        #[serde(skip_serializing_if = "Option::is_none")]
        admin: Option<SocketAddr>,
    }
    #[derive(Serialize)]
    struct Stopped<'s> {
        stopped: bool,
        changes: u64,
        digest: &'s str,
    }
    refuse_without_port(listen(serve), "--listen")?;
    serve.admin.as_deref().map_or(Ok(()), |address| refuse_without_port(address, "--admin"))?;
    let options = options(serve)?;
    if serve.check_config {
        return check(global, serve, out);
    }
    let db = database::open_or_make(global)?;
    crate::wait(async {
        // Before anybody is told that it runs, so that from then on a signal ends it in order.
        let mut ends = Ends::new()?;
        let hub = db.serve(listen(serve), options).await?;
        let before = db.status()?;
        let (file, url, admin) = (global.db.display(), hub.url(), hub.admin_address());
        let guests = if is_open(serve) { "everybody" } else { "those with a token" };
        let health = admin.map_or(String::new(), |admin| format!(", health at http://{admin}"));
        out.say(
            format_args!("serving {file} at {url} to {guests}{health}; ctrl-c ends it"),
            &Started { url: hub.url(), store: &before.store, admin },
        )?;
        out.flush()?;
        wait_for_the_end(&mut ends, &hub, Form::of(global)).await;
        hub.announce_shutdown();
        let announce = Duration::from_secs(serve.announce.unwrap_or(0).into());
        let in_order = async {
            tokio::time::sleep(announce).await;
            hub.shutdown().await;
        };
        tokio::select! {
            () = in_order => {}
            () = ends.next() => crate::note("told to end twice: connections are cut off", Form::of(global)),
        }
        let after = db.status()?;
        let changes = after.seq.saturating_sub(before.seq);
        let text = format!("stopped after {changes} new changes; digest {}", after.digest);
        Ok(out.say(text, &Stopped { stopped: true, changes, digest: &after.digest })?)
    })
}

/// Reads certificates and keys again when told to, until told to end.
async fn wait_for_the_end(ends: &mut Ends, hub: &Hub, form: Form) {
    let mut reload = Reload::new();
    loop {
        tokio::select! {
            () = ends.next() => return,
            () = reload.next() => match hub.reload() {
                Ok(()) => crate::note("certificates and keys were read again", form),
                Err(error) => crate::note(&format!("not read again: {error}"), form),
            },
        }
    }
}

/// What is asked for, as a hub takes it. Reads certificates and keys.
fn options(serve: &Serve) -> Result<HubOptions> {
    let is_alone = serve.grant.is_empty() && serve.grants.is_empty() && serve.jwt_keys.is_none();
    if is_alone && serve.open != Some(true) && !is_loopback(listen(serve)) {
        let message = "beyond loopback, say who may connect: --grant TOKEN=RANK, --jwt-keys FILE, or --open for everybody";
        return Err(crate::usage(message));
    }
    let mut options = if is_open(serve) { HubOptions::open() } else { HubOptions::closed() };
    for grant in &serve.grant {
        options = match &grant.subject {
            Some(subject) => options.grant_as(subject, &grant.token, grant.rank),
            None => options.grant(&grant.token, grant.rank),
        };
    }
    for (token, grant) in granted(serve, is_open(serve))? {
        options = options.grant_with(token, grant);
    }
    if let Some(WhoRestores(restore)) = &serve.restore {
        options = options.restore(restore.clone());
    }
    for origin in serve.allow_origin.iter().flatten() {
        options = options.allow_origin(origin);
    }
    if serve.peer == Some(true) {
        options = options.as_peer();
    }
    options = match (&serve.tls_cert, &serve.tls_key) {
        (Some(certificate), Some(key)) => options.tls_files(certificate, key)?,
        (None, None) => options,
        _ => return Err(crate::usage("TLS needs both --tls-cert and --tls-key")),
    };
    if let Some(jwt) = jwt(serve)? {
        options = options.jwt(jwt);
    }
    if let Some(admin) = &serve.admin {
        options = options.admin(admin);
    }
    Ok(kept(limited(options, serve)?, serve))
}

/// Has the hub keep its disk, what is deleted, and its end in order.
fn kept(mut options: HubOptions, serve: &Serve) -> HubOptions {
    if let Some(bytes) = serve.disk_free_min {
        options = options.disk_free_min(bytes);
    }
    if let Some(days) = serve.lease {
        options = options.lease(days_of(days));
    }
    if let Some(hours) = serve.collect {
        let every = Duration::from_secs(u64::from(hours) * 60 * 60);
        options = options.collect_every((hours > 0).then_some(every));
    }
    if let Some(days) = serve.grace {
        options = options.grace(days_of(days));
    }
    if let Some(seconds) = serve.drain {
        options = options.drain_max(Duration::from_secs(seconds.into()));
    }
    options
}

pub(crate) fn days_of(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 60 * 60)
}

fn jwt(serve: &Serve) -> Result<Option<Jwt>> {
    let Some(keys) = &serve.jwt_keys else {
        if serve.jwt_issuer.is_some() || serve.jwt_audience.is_some() {
            return Err(crate::usage("signed tokens need --jwt-keys"));
        }
        return Ok(None);
    };
    let mut jwt = Jwt::from_file(keys)?;
    if let Some(issuer) = &serve.jwt_issuer {
        jwt = jwt.issuer(issuer);
    }
    if let Some(audience) = &serve.jwt_audience {
        jwt = jwt.audience(audience);
    }
    if let Some(claim) = &serve.jwt_rank_claim {
        jwt = jwt.rank_claim(claim);
    }
    if let Some(seconds) = serve.jwt_leeway {
        jwt = jwt.leeway(Duration::from_secs(seconds.into()));
    }
    Ok(Some(jwt))
}

/// `rivus serve --check-config`: what the options, variables and the file come to.
fn check(global: &Global, serve: &Serve, out: &mut Output) -> Result<()> {
    #[derive(Serialize)]
    struct Checked<'c> {
        sound: bool,
        db: String,
        listen: &'c str,
        admin: Option<&'c str>,
        tls: bool,
        open: bool,
        tokens: usize,
        /// The tokens of the file.
        grants: Vec<Told<'c>>,
        signed_tokens: bool,
    }
    for (address, option) in [(Some(listen(serve)), "--listen"), (serve.admin.as_deref(), "--admin")] {
        if let Some(address) = address {
            let resolved = address.to_socket_addrs();
            resolved
                .map_err(|error| anyhow!("{option} {address} is no address ({error}): give HOST:PORT"))?;
        }
    }
    database::schema(global)?;
    let checked = Checked {
        sound: true,
        db: global.db.display().to_string(),
        listen: listen(serve),
        admin: serve.admin.as_deref(),
        tls: serve.tls_cert.is_some(),
        open: is_open(serve),
        tokens: serve.grant.len() + serve.grants.len(),
        grants: serve.grants.iter().map(Told::new).collect(),
        signed_tokens: serve.jwt_keys.is_some(),
    };
    if out.is_json() {
        return Ok(out.json(&checked)?);
    }
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    writeln!(out, "db             {}", checked.db)?;
    writeln!(out, "listen         {}", checked.listen)?;
    writeln!(out, "admin          {}", checked.admin.unwrap_or("none"))?;
    writeln!(out, "tls            {}", yes(checked.tls))?;
    writeln!(out, "open           {}", yes(checked.open))?;
    writeln!(out, "tokens         {}", checked.tokens)?;
    for (number, grant) in (1..).zip(&checked.grants) {
        writeln!(out, "{:<15}{}", format!("grant {number}"), grant.line())?;
    }
    writeln!(out, "signed tokens  {}", yes(checked.signed_tokens))?;
    Ok(())
}

/// Refuses what can be no address whatever the network says.
fn refuse_without_port(address: &str, option: &str) -> Result<()> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
        _ => Err(crate::usage(&format!(
            "{option} {address} is no address: give HOST:PORT, such as 127.0.0.1:7171"
        ))),
    }
}

fn listen(serve: &Serve) -> &str {
    serve.listen.as_deref().unwrap_or(LISTEN)
}

/// Whether a token is needed.
fn is_open(serve: &Serve) -> bool {
    let is_alone = serve.grant.is_empty() && serve.grants.is_empty() && serve.jwt_keys.is_none();
    serve.open.unwrap_or(is_alone)
}

fn is_loopback(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    host == "localhost" || listen.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}

/// `rivus health`: asks a hub on this machine whether it is ready, for those who watch over processes.
pub(crate) fn health(admin: &str, out: &mut Output) -> Result<ExitCode> {
    #[derive(Serialize)]
    struct Healthy<'h> {
        ready: bool,
        text: &'h str,
    }
    refuse_without_port(admin, "--admin")?;
    let address = admin.to_socket_addrs().ok().and_then(|mut all| all.next());
    let address = address.with_context(|| format!("{admin} is no address: give HOST:PORT"))?;
    let asked = TcpStream::connect_timeout(&address, HEALTH_MAX).and_then(|mut socket| {
        socket.set_read_timeout(Some(HEALTH_MAX))?;
        socket.write_all(b"GET /health/ready HTTP/1.1\r\nHost: hub\r\n\r\n")?;
        let mut answer = String::new();
        socket.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    });
    let answer = asked.with_context(|| format!("nobody tells of a hub's health at {admin}"))?;
    let Some((head, text)) = answer.split_once("\r\n\r\n") else {
        bail!("what answers at {admin} is no hub");
    };
    let (ready, text) = (head.starts_with("HTTP/1.1 200 "), text.trim_end());
    out.say(text, &Healthy { ready, text })?;
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What tells a hub to read certificates and keys again: SIGHUP, where there is one.
struct Reload {
    #[cfg(unix)]
    hangup: Option<tokio::signal::unix::Signal>,
}

impl Reload {
    fn new() -> Self {
        #[cfg(unix)]
        return Self { hangup: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok() };
        #[cfg(not(unix))]
        Self {}
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(hangup) = &mut self.hangup
            && hangup.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// Where to listen unless told otherwise.
const LISTEN: &str = "127.0.0.1:7171";
/// How long a hub may take to say how it is.
const HEALTH_MAX: Duration = Duration::from_secs(5);
/// How much of an answer is read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
