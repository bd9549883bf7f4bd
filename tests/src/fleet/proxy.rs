//! A TCP proxy that breaks connections in the ways that networks do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What happens to bytes on their way in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// They pass.
    Flow,
    /// They wait until this changes.
    Stall,
    /// Each piece takes so much longer.
    Delay(Duration),
    /// After so many more the whole connection is gone, in the middle of a frame or not.
    CutAfter(usize),
    /// After so many more this direction ends, as if the sender had closed it; the other goes on.
    CloseAfter(usize),
}

/// The state of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weather {
    /// Whether there is a connection at all: if not, those that were are dropped.
    pub open: bool,
    /// From the client to the hub.
    pub up: Lane,
    /// From the hub to the client.
    pub down: Lane,
}

impl Weather {
    /// Nothing is wrong.
    pub const FAIR: Self = Self { open: true, up: Lane::Flow, down: Lane::Flow };
}

/// One client's link to the hub.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: Arc<Link>,
}

#[derive(Debug)]
struct Link {
    hub: Mutex<Option<SocketAddr>>,
    weather: watch::Sender<Weather>,
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

impl Proxy {
    /// Listens on a free port. The hub is not known yet.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let link = Arc::new(Link { hub: Mutex::new(None), weather: watch::Sender::new(Weather::FAIR) });
        tokio::spawn(accept(listener, Arc::clone(&link)));
        Ok(Self { address, link })
    }

    /// What the client connects to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Where the hub is from now on.
    pub fn lead_to(&self, hub: SocketAddr) {
        *self.link.hub.lock().unwrap_or_else(PoisonError::into_inner) = Some(hub);
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        self.link.weather.send_replace(weather);
    }
}

async fn accept(listener: TcpListener, link: Arc<Link>) {
    while let Ok((client, _)) = listener.accept().await {
        let hub = *link.hub.lock().unwrap_or_else(PoisonError::into_inner);
        let open = link.weather.borrow().open;
        if let Some(hub) = hub.filter(|_| open) {
            tokio::spawn(carry(client, hub, Arc::clone(&link)));
        }
    }
}

/// Carries one connection until it ends or is dropped.
async fn carry(client: TcpStream, hub: SocketAddr, link: Arc<Link>) {
    let Ok(hub) = TcpStream::connect(hub).await else { return };
    let _ = (client.set_nodelay(true), hub.set_nodelay(true));
    let ((from_client, to_client), (from_hub, to_hub)) = (client.into_split(), hub.into_split());
    let mut weather = link.weather.subscribe();
    let both = async {
        // A direction that ends by itself leaves the other; one that is cut ends both.
        tokio::try_join!(
            direct(from_client, to_hub, Way::Up, Arc::clone(&link)),
            direct(from_hub, to_client, Way::Down, Arc::clone(&link))
        )
    };
    tokio::select! {
        _ = both => {}
        _ = weather.wait_for(|weather| !weather.open) => {}
    }
}

/// The connection is cut.
struct Cut;

async fn direct(from: OwnedReadHalf, to: OwnedWriteHalf, way: Way, link: Arc<Link>) -> Result<(), Cut> {
    let (put, pieces) = mpsc::channel(PIECES_MAX);
    let (_, written) = tokio::join!(read(from, put), write(to, pieces, way, link));
    written
}

/// Notes when each piece came, so that pieces that are delayed are so side by side.
async fn read(mut from: OwnedReadHalf, put: mpsc::Sender<(Instant, Vec<u8>)>) {
    loop {
        let mut bytes = vec![0; 16 << 10];
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            () = put.closed() => return,
        };
        let Ok(len @ 1..) = read else { return };
        bytes.truncate(len);
        if put.send((Instant::now(), bytes)).await.is_err() {
            return;
        }
    }
}

async fn write(
    mut to: OwnedWriteHalf,
    mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>,
    way: Way,
    link: Arc<Link>,
) -> Result<(), Cut> {
    let mut weather = link.weather.subscribe();
    let mut passed = 0;
    while let Some((came, piece)) = pieces.recv().await {
        let lane = |weather: &Weather| if way == Way::Up { weather.up } else { weather.down };
        if weather.has_changed().unwrap_or(false) {
            passed = 0;
        }
        let mut now = lane(&weather.borrow_and_update());
        while now == Lane::Stall {
            weather.changed().await.map_err(|_| Cut)?;
            now = lane(&weather.borrow_and_update());
        }
        let len = piece.len();
        let left = match now {
            Lane::CutAfter(bytes) | Lane::CloseAfter(bytes) => bytes.saturating_sub(passed).min(len),
            Lane::Delay(delay) => {
                tokio::time::sleep_until(came + delay).await;
                len
            }
            Lane::Flow | Lane::Stall => len,
        };
        passed += left;
        to.write_all(piece.get(..left).unwrap_or_default()).await.map_err(|_| Cut)?;
        match now {
            Lane::CutAfter(_) if left < len => return Err(Cut),
            Lane::CloseAfter(_) if left < len => break,
            _ => {}
        }
    }
    let _ = to.shutdown().await;
    Ok(())
}

/// How many pieces may be on their way.
const PIECES_MAX: usize = 256;
