//! A client that heeds nothing: what an attacker of a hub is made of.

use anyhow::{Result, bail};
use futures_util::{SinkExt, StreamExt};
use rivus_core::address;
use rivus_core::clock::{Instant, Stamp, ticks};
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Cursor;
use rivus_core::register::{Candidate, Register, Seen};
use rivus_core::value::Value;
use rivus_core::wire::page::RowEncoder;
use rivus_core::wire::{About, FRAME_BYTES_MAX, Frame, Hello, Scoped, Subscribe, tag};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// A connection.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A socket after HELLO under these ids, whoever they belong to.
///
/// # Errors
/// If the hub takes no connection.
pub async fn greet(url: &str, token: Option<&str>, n: u64) -> Result<Socket> {
    greet_of(url, token, n, &schema()?).await
}

/// A socket after HELLO under these ids, to a hub of this schema.
///
/// # Errors
/// If the hub takes no connection.
pub async fn greet_of(url: &str, token: Option<&str>, n: u64, schema: &rivus::Schema) -> Result<Socket> {
    let (mut socket, _) = connect_async(url).await?;
    let replica = ReplicaId::from_u128(u128::from(n));
    let history = [(Incarnation(n), 1)];
    let fingerprint = schema.fingerprint();
    let about = About::new(StoreId(n), [replica].into_iter(), &history, 1, fingerprint, 1_700_000_000_000);
    let token = token.map(str::to_owned);
    let hello = Hello { version_min: 1, version_max: 1, capabilities: 0, about, token, offers: true };
    send(&mut socket, Frame::Hello(hello).encode()).await?;
    Ok(socket)
}

/// The schema of the hubs that are attacked.
///
/// # Errors
/// Never: the schema is sound.
pub fn schema() -> Result<rivus::Schema> {
    Ok(rivus::Schema::builder().kind("task", |kind| kind.open().value("title")).build()?)
}

/// Asks for everything from the start.
#[must_use]
pub fn subscribe() -> Vec<u8> {
    let cursor = Cursor::default();
    let (live, everything) = (true, true);
    Frame::Subscribe(Subscribe { cursor, incarnation: None, live, everything, digest: None }).encode()
}

/// The schema of hubs that have scopes: notes in lists.
///
/// # Errors
/// Never: the schema is sound.
pub fn schema_of_lists() -> Result<rivus::Schema> {
    let note = |kind: rivus::KindBuilder| kind.value("list").scope("list").value("title");
    Ok(rivus::Schema::builder().kind("note", note).build()?)
}

/// A frame of the subscription in this slot, where it is SUBSCRIBE to this scope.
#[must_use]
pub fn scoped(slot: u32, scope: &str, frame: &[u8]) -> Vec<u8> {
    Scoped { slot, scope, frame }.encode()
}

/// Pushes an edit of one note that writes these, each an address with a value, and lies about nothing but who may do so;
/// the first on this connection, under the ids of [`greet`].
#[must_use]
pub fn push_note(n: u64, ms: u64, id: &str, writes: &[(Vec<u8>, Value)]) -> Vec<u8> {
    let stamp = Stamp { generation: 0, time: ticks(ms), replica: ReplicaId::from_u128(u128::from(n)) };
    let values: Vec<_> = writes.iter().map(|(_, value)| value.to_bytes()).collect();
    let registers =
        values.iter().map(|value| Register::plain(Candidate { stamp, rank: 0, saw: None, value }));
    let registers: Vec<_> = registers.collect();
    let mut encoder = RowEncoder::default();
    encoder.start_edit(1, 1);
    encoder.entity("note", id, writes.iter().zip(&registers).map(|((address, _), one)| (&**address, one)));
    encoder.finish_push(0, 1, None)
}

/// A short frame that unpacks to the longest that there is, of a type that whoever does not know it ignores.
///
/// # Errors
/// Never, with enough memory.
pub fn bomb() -> Result<Vec<u8>> {
    let mut frame = vec![0; FRAME_BYTES_MAX];
    frame.first_mut().into_iter().for_each(|first| *first = IGNORED);
    let mut packed = vec![tag::COMPRESSED];
    let mut len = frame.len();
    while len >= 0x80 {
        packed.push(u8::try_from(len & 0x7f)? | 0x80);
        len >>= 7;
    }
    packed.push(u8::try_from(len)?);
    packed.extend(zstd::bulk::compress(&frame, 3)?);
    Ok(packed)
}

/// A type of frames that nobody knows and everybody may ignore.
const IGNORED: u8 = 200;

/// Pushes an edit of many entities, the `number`th on this connection, under the ids of [`greet`].
pub fn push(encoder: &mut RowEncoder, n: u64, number: u64, entities: usize) -> Vec<u8> {
    let stamp = Stamp {
        generation: 0,
        time: ticks(1_700_000_000_000 + number),
        replica: ReplicaId::from_u128(u128::from(n)),
    };
    let register = Register::plain(Candidate { stamp, rank: 0, saw: None, value: &[0xf6] });
    encoder.start_edit(number + 1, entities);
    for entity in 0..entities {
        let title = address::field("title");
        encoder.entity("task", &format!("{n}-{entity}"), [(&*title, &register)].into_iter());
    }
    encoder.finish_push(number, 1, None)
}

/// What a pushed edit lies about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// Who made it.
    Replica,
    /// When it was made: in a year.
    Time,
    /// What its author had seen: what nobody has written.
    Context,
    /// How much its author's word weighs.
    Rank,
}

/// Pushes an edit of one register that lies, the first on this connection, under the ids of [`greet`].
#[must_use]
pub fn push_lie(lie: Lie, n: u64, ms: u64) -> Vec<u8> {
    const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
    let author = if lie == Lie::Replica { n + 1 } else { n };
    let ms = if lie == Lie::Time { ms + YEAR_MS } else { ms };
    let stamp = Stamp { generation: 0, time: ticks(ms), replica: ReplicaId::from_u128(u128::from(author)) };
    let only = Candidate { stamp, rank: u8::from(lie == Lie::Rank) * 9, saw: None, value: &[0xf6] };
    let mut register = Register::plain(only);
    if lie == Lie::Context {
        let instant = Instant { generation: 0, time: ticks(ms - 1) };
        register.floor = Stamp::LOWEST;
        register.seen = vec![Seen { replica: ReplicaId::from_u128(7), instant }];
    }
    let mut encoder = RowEncoder::default();
    encoder.start_edit(1, 1);
    encoder.entity("task", "t", [(&*address::field("title"), &register)].into_iter());
    encoder.finish_push(0, 1, None)
}

async fn send(socket: &mut Socket, frame: Vec<u8>) -> Result<()> {
    Ok(socket.send(Message::Binary(frame.into())).await?)
}

/// What is done to a hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Attack {
    /// Bytes that are no frame, on ever new connections.
    Junk,
    /// Asks for everything again and again.
    Pages,
    /// Asks for everything on as many connections as it may have, and never reads any of it.
    Stalls,
    /// Short frames that unpack to long ones.
    Bombs,
    /// Probes.
    Pings,
    /// Edits of many registers, under ids of its own.
    Pushes,
    /// Frames that may be ignored.
    Nothing,
    /// Asks for what tells a difference, which takes the hub a look at all that it has.
    Sketches,
}

impl Attack {
    /// Attacks on one connection, as the `n`th client; says whenever it has sent something.
    ///
    /// # Errors
    /// However the hub ended it.
    pub async fn once(self, url: &str, n: u64, mut sent: impl FnMut()) -> Result<()> {
        let mut socket = greet(url, None, n).await?;
        let mut encoder = RowEncoder::default();
        let bomb = if self == Self::Bombs { bomb()? } else { Vec::new() };
        for number in 0.. {
            match self {
                Self::Junk => {
                    send(&mut socket, vec![9; 200]).await?;
                    sent();
                    while let Some(Ok(_)) = socket.next().await {}
                    bail!("it was ended");
                }
                Self::Pages => {
                    send(&mut socket, subscribe()).await?;
                    if number >= 20 {
                        bail!("a new connection takes more");
                    }
                    // Some read what they get.
                    if n.is_multiple_of(2) {
                        socket.next().await;
                    }
                }
                Self::Stalls => {
                    send(&mut socket, subscribe()).await?;
                    sent();
                    std::future::pending::<()>().await;
                }
                Self::Bombs => send(&mut socket, bomb.clone()).await?,
                Self::Pings => socket.send(Message::Ping(vec![0; 100].into())).await?,
                Self::Pushes => {
                    send(&mut socket, push(&mut encoder, n, number, 500)).await?;
                    // An answer at a time: whoever hears none is soon ended.
                    socket.next().await;
                }
                Self::Nothing => send(&mut socket, vec![IGNORED; 8]).await?,
                Self::Sketches => {
                    send(&mut socket, Frame::AskSketch { count: 64 }.encode()).await?;
                    sent();
                    // What is sent ahead of the answer: the greeting.
                    socket.next().await;
                    socket.next().await;
                    bail!("once is all that there is on one connection");
                }
            }
            sent();
        }
        Ok(())
    }
}
