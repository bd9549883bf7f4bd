//! A hub, three clients and their helpers, as real processes under faults.
//!
//! Processes are killed, paused, and share files with others that write; links break in every way that [`proxy`]
//! knows. Then everything heals, and all must show the same in no time, with nothing acknowledged lost. What happens
//! is drawn from the seed; when it happens to each process is the machine's doing, so a seed may fail only sometimes.

pub mod member;
pub mod process;
pub mod proxy;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use process::Process;
use proxy::{Lane, Proxy, Weather};
use rivus_testkit::random::Random;

/// What a run measured.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Healed {
    /// From the end of the faults until all showed the same.
    pub time: Duration,
    /// How many round trips fit into that time, if the links were slow. Among them are the WebSocket's greeting, the
    /// session's, and those of a connection that still has to be found dead.
    pub trips: Option<f64>,
    /// The same after a blackout that the connections survived.
    pub trips_open: Option<f64>,
    /// Edits that were acknowledged.
    pub acked: usize,
    /// Processes killed.
    pub kills: usize,
    /// Processes paused.
    pub pauses: usize,
    /// Changes of a link's weather.
    pub storms: usize,
}

/// How many clients there are.
const CLIENTS: usize = 3;
/// How many things happen in a run.
const EVENTS: usize = 100;
/// How long bytes take in one direction on a slow link.
const WAY: Duration = Duration::from_millis(80);
/// The same after a blackout: slow enough that what the machine needs hardly counts.
const BLACKOUT_WAY: Duration = Duration::from_millis(200);
/// How many edits a helper makes.
const HELPER_EDITS: &str = "4";
/// How long a process may take for something that it does at once.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a run may take to converge before it is given up; what is asked of it is less.
const GIVE_UP: Duration = Duration::from_secs(30);

struct Client {
    file: PathBuf,
    process: Process,
    proxy: Proxy,
    helpers: Vec<Process>,
}

struct Fleet {
    program: PathBuf,
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    hub: Process,
    clients: Vec<Client>,
    random: Random,
    acked: Vec<String>,
    said: usize,
    /// How long bytes take in one direction once all is healed.
    way: Option<Duration>,
    healed: Healed,
}

/// One run of a seed.
///
/// # Errors
/// What went wrong.
pub fn run(program: &Path, seed: u64) -> Result<Healed> {
    let mut fleet = Fleet::start(program, seed)?;
    for _ in 0..EVENTS {
        fleet.event()?;
    }
    fleet.heal()?;
    fleet.healed.time = fleet.settle()?;
    fleet.check()?;
    if let Some(way) = fleet.way {
        let trips = |time: Duration| time.as_secs_f64() / (2.0 * way.as_secs_f64());
        fleet.healed.trips = Some(trips(fleet.healed.time));
        fleet.blackout()?;
        let time = fleet.settle()?.as_secs_f64();
        fleet.healed.trips_open = Some(time / (2.0 * BLACKOUT_WAY.as_secs_f64()));
        fleet.check()?;
    }
    fleet.healed.acked = fleet.acked.len();
    Ok(fleet.healed)
}

impl Fleet {
    fn start(program: &Path, seed: u64) -> Result<Self> {
        let folder = crate::crash::campaign::folder()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let hub = Process::start(program, &["member"], &folder.path().join("hub.db"))?;
        let mut fleet = Self {
            program: program.to_owned(),
            folder,
            runtime,
            hub,
            clients: Vec::new(),
            random: Random::new(seed),
            acked: Vec::new(),
            said: 0,
            way: None,
            healed: Healed::default(),
        };
        for number in 0..CLIENTS {
            let proxy = fleet.runtime.block_on(Proxy::start())?;
            let file = fleet.folder.path().join(format!("client{number}.db"));
            let process = Process::start(program, &["member", "--connect", &proxy.url()], &file)?;
            fleet.clients.push(Client { file, process, proxy, helpers: Vec::new() });
        }
        fleet.meet_hub()?;
        Ok(fleet)
    }

    /// Leads the links to the hub, once it serves.
    fn meet_hub(&mut self) -> Result<()> {
        let address: SocketAddr = self.hub.hear("serving ", PATIENCE)?.parse()?;
        self.clients.iter().for_each(|client| client.proxy.lead_to(address));
        Ok(())
    }

    /// Something happens.
    fn event(&mut self) -> Result<()> {
        let which = self.random.below(CLIENTS);
        match self.random.below(100) {
            0..45 => self.edit(which),
            45..51 => self.side(which),
            51..55 => self.kill_client(which),
            55..57 => self.kill_hub(),
            57..62 => {
                let paused = !self.client(which)?.process.paused;
                self.healed.pauses += usize::from(paused);
                self.client(which)?.process.pause(paused)
            }
            62..64 => {
                self.healed.pauses += usize::from(!self.hub.paused);
                let paused = !self.hub.paused;
                self.hub.pause(paused)
            }
            64..84 => self.meet_fair_weather(which),
            _ => {
                let weather = self.weather();
                self.healed.storms += 1;
                self.client(which)?.proxy.set(weather);
                Ok(())
            }
        }
    }

    fn client(&mut self, which: usize) -> Result<&mut Client> {
        self.clients.get_mut(which).context("a client")
    }

    /// An edit, and its acknowledgement unless the client is paused.
    fn edit(&mut self, which: usize) -> Result<()> {
        self.said += 1;
        let line = match self.random.below(4) {
            0 => "count".to_owned(),
            1 => format!("put shared{} {}", self.random.below(3), self.said),
            _ => format!("put c{which}-{} {}", self.said, self.said),
        };
        let client = self.client(which)?;
        client.process.say(&line)?;
        if !client.process.paused {
            client.process.hear("acked ", PATIENCE)?;
        }
        Ok(())
    }

    /// Another process edits the client's file at the same time.
    fn side(&mut self, which: usize) -> Result<()> {
        self.said += 1;
        let (program, name) = (self.program.clone(), format!("h{which}-{}", self.said));
        let client = self.client(which)?;
        // One that waits for a lock that a paused process holds would only wait.
        if !client.process.paused {
            let args = ["side", "--name", &name, "--edits", HELPER_EDITS];
            let helper = Process::start(&program, &args, &client.file)?;
            client.helpers.push(helper);
        }
        Ok(())
    }

    fn kill_client(&mut self, which: usize) -> Result<()> {
        self.healed.kills += 1;
        let program = self.program.clone();
        let client = self.client(which)?;
        let acked = client.process.kill()?;
        client.process =
            Process::start(&program, &["member", "--connect", &client.proxy.url()], &client.file)?;
        self.acked.extend(acked);
        Ok(())
    }

    fn kill_hub(&mut self) -> Result<()> {
        self.healed.kills += 1;
        self.hub.kill()?;
        self.hub = Process::start(&self.program, &["member"], &self.folder.path().join("hub.db"))?;
        self.meet_hub()
    }

    /// The weather clears for one client, and it syncs if it and the hub can.
    fn meet_fair_weather(&mut self, which: usize) -> Result<()> {
        let hub_paused = self.hub.paused;
        let client = self.client(which)?;
        client.proxy.set(Weather::FAIR);
        if client.process.paused || hub_paused {
            return Ok(());
        }
        let until = Instant::now() + PATIENCE;
        // Edits that wait reach the hub.
        while !status(&mut client.process)?.starts_with("0 ") {
            ensure!(Instant::now() < until, "client {which} keeps edits pending in fair weather");
        }
        Ok(())
    }

    fn weather(&mut self) -> Weather {
        if self.random.chance(15, 100) {
            return Weather { open: false, ..Weather::FAIR };
        }
        let (up, down) = (self.lane(), self.lane());
        Weather { open: true, up, down }
    }

    fn lane(&mut self) -> Lane {
        let bytes = self.random.below(400);
        match self.random.below(10) {
            0 | 1 => Lane::Stall,
            2 => Lane::Delay(Duration::from_millis(self.random.below(40) as u64)),
            3..6 => Lane::CutAfter(bytes),
            6 => Lane::CloseAfter(bytes),
            _ => Lane::Flow,
        }
    }

    /// Everything goes on, and nobody edits any more.
    fn heal(&mut self) -> Result<()> {
        self.hub.pause(false)?;
        for client in &mut self.clients {
            client.process.pause(false)?;
            for helper in client.helpers.drain(..) {
                self.acked.extend(helper.end()?);
            }
            // Edits that were said to it while it was paused come first.
            client.process.say("status")?;
            client.process.hear("status ", PATIENCE)?;
        }
        // On every other fleet the links are slow from then on, so that round trips can be told from time.
        self.way = self.random.chance(50, 100).then_some(WAY);
        let lane = self.way.map_or(Lane::Flow, Lane::Delay);
        for client in &mut self.clients {
            client.proxy.set(Weather { open: true, up: lane, down: lane });
        }
        Ok(())
    }

    /// All clients edit while nothing passes, then everything does.
    fn blackout(&mut self) -> Result<()> {
        for which in 0..CLIENTS {
            self.client(which)?.proxy.set(Weather { open: true, up: Lane::Stall, down: Lane::Stall });
            for _ in 0..3 {
                self.edit(which)?;
            }
        }
        let lane = Lane::Delay(BLACKOUT_WAY);
        self.clients.iter().for_each(|c| c.proxy.set(Weather { open: true, up: lane, down: lane }));
        Ok(())
    }

    /// Waits until all show the same.
    fn settle(&mut self) -> Result<Duration> {
        let since = Instant::now();
        loop {
            let hub = status(&mut self.hub)?;
            let mut equal = true;
            for client in &mut self.clients {
                let here = status(&mut client.process)?;
                equal &= here.starts_with("0 0 ") && here == hub;
            }
            if equal {
                return Ok(since.elapsed());
            }
            ensure!(since.elapsed() < GIVE_UP, "not converged after {GIVE_UP:?}: {}", self.differences()?);
        }
    }

    /// Nothing that was acknowledged is lost, anywhere.
    fn check(&mut self) -> Result<()> {
        for client in &mut self.clients {
            self.acked.append(&mut client.process.acked);
        }
        let counts = self.acked.iter().filter(|edit| *edit == "count").count();
        let own = |edit: &&String| edit.starts_with(['c', 'h']) && *edit != "count";
        let own: BTreeSet<&String> = self.acked.iter().filter(own).collect();
        let processes = self.clients.iter_mut().map(|client| &mut client.process).chain([&mut self.hub]);
        for process in processes {
            process.say("dump")?;
            let views: usize = process.hear("views ", PATIENCE)?.parse()?;
            ensure!(views >= counts, "{views} counted, {counts} acknowledged");
            let held = process.hear("held ", PATIENCE)?;
            let held: BTreeSet<&str> = held.split(',').collect();
            for edit in &own {
                ensure!(held.contains(edit.as_str()), "`{edit}` was acknowledged and is lost");
            }
        }
        Ok(())
    }

    fn differences(&mut self) -> Result<String> {
        let mut text = format!("hub {}", status(&mut self.hub)?);
        for client in &mut self.clients {
            text += &format!("; client {}", status(&mut client.process)?);
        }
        Ok(text)
    }
}

/// Pending, rejected, digest.
fn status(process: &mut Process) -> Result<String> {
    process.say("status")?;
    process.hear("status ", PATIENCE)
}
