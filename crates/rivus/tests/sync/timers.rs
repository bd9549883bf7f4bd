//! What happens by itself, and when: by a clock that the test moves, against real sockets.

use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

use super::levers::{Hold, Toll, Way};
use super::*;
use rivus::rivus_core::wire::tag;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Stands still but for [`Time::pass`]: as long as this is there the runtime always has something to do, and so does not
/// move its clock to the next timer by itself.
struct Time(JoinHandle<()>);

impl Time {
    fn stop() -> Self {
        tokio::time::pause();
        Self(tokio::spawn(async {
            loop {
                yield_now().await;
            }
        }))
    }

    /// Lets time flow, slowly enough for whatever goes over sockets, until this is so.
    async fn until(&self, mut done: impl FnMut() -> bool) {
        for _ in 0..20_000 {
            if done() {
                return;
            }
            tokio::time::advance(Duration::from_millis(1)).await;
            for _ in 0..200 {
                yield_now().await;
            }
        }
        panic!("20 s were not enough");
    }

    /// Lets so much time pass, step by step, and what is due after each step happen.
    async fn pass(&self, time: Duration, step: Duration) {
        let mut left = time;
        while !left.is_zero() {
            tokio::time::advance(step.min(left)).await;
            left = left.saturating_sub(step);
            settle().await;
        }
    }
}

impl Drop for Time {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Long enough for a connection to be made and for frames to go to and fro, as far as anything is due.
async fn settle() {
    for _ in 0..2000 {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_hub_that_asks_for_an_hour_is_not_dialled_before() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let way = Gateway::to(&served, 1, Some(goaway(Code::RATE, Some(3_600_000)))).await;
    put(&a, "t", "x");
    let time = Time::stop();
    let connection = a.connect(way.remote());
    let states = connection.states();
    time.until(|| states.borrow().phase == Phase::Waiting).await;
    // Neither edits nor levers end the pause.
    put(&a, "t", "y");
    a.set_levers(|levers| levers.batch_edits = 7);
    time.pass(MINUTE * 59, MINUTE).await;
    assert_eq!((way.count(), states.borrow().phase), (1, Phase::Waiting));
    time.pass(MINUTE * 2, MINUTE).await;
    time.until(|| states.borrow().synced).await;
    assert_eq!(way.count(), 2);
    assert!(has(&hub, "t"));
    Ok(())
}

#[tokio::test]
async fn a_sync_by_hand_ends_the_pause_of_a_connection() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let way = Gateway::to(&served, 1, Some(goaway(Code::RATE, Some(3_600_000)))).await;
    let time = Time::stop();
    let connection = a.connect(way.remote());
    let states = connection.states();
    time.until(|| states.borrow().phase == Phase::Waiting).await;
    let round = tokio::spawn({
        let (a, remote) = (a.clone(), way.remote());
        async move { a.sync_once(&remote).await }
    });
    time.until(|| round.is_finished()).await;
    round.await.unwrap().ok()?;
    time.until(|| states.borrow().synced).await;
    assert_eq!(way.count(), 3, "the round by hand, and the connection once more");
    Ok(())
}

#[tokio::test]
async fn a_round_comes_each_period() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let way = Gateway::to(&served, 0, None).await;
    let time = Time::stop();
    a.set_levers(|levers| levers.mode = Mode::Periodic { every: MINUTE * 10 });
    let connection = a.connect(way.remote());
    let states = connection.states();
    time.until(|| states.borrow().phase == Phase::Idle && states.borrow().last_success.is_some()).await;
    for round in 1..4 {
        put(&hub, &format!("h{round}"), "x");
        time.pass(MINUTE * 9, MINUTE).await;
        assert_eq!(way.count(), round, "not before");
        assert!(!has(&a, &format!("h{round}")));
        time.pass(MINUTE + SECOND, MINUTE / 2).await;
        time.until(|| has(&a, &format!("h{round}"))).await;
        time.until(|| states.borrow().phase == Phase::Idle).await;
        assert_eq!(way.count(), round + 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_budget_begins_anew_with_the_next_period() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let way = Gateway::to(&served, 0, None).await;
    for n in 0..30 {
        let text: String = (0..6000).map(|_| rivus::new_id()).collect();
        put(&hub, &format!("h{n:02}"), &text);
    }
    let held = || (0..30).filter(|n| has(&a, &format!("h{n:02}"))).count();
    let time = Time::stop();
    a.set_levers(|levers| levers.budget = Some(Budget { bytes: 200_000, per: MINUTE * 60 }));
    let connection = a.connect(way.remote());
    let states = connection.states();
    let mut periods = vec![0];
    loop {
        time.until(|| states.borrow().synced || states.borrow().why == Some(Why::Budget)).await;
        let (now, dials) = (held(), way.count());
        if states.borrow().synced {
            break;
        }
        assert!(now > periods[periods.len() - 1], "each period brings something: {periods:?}");
        periods.push(now);
        time.pass(MINUTE * 58, MINUTE).await;
        assert_eq!((held(), way.count()), (now, dials), "nothing goes before the period is over");
        // In one step: once it has dialled no time passes.
        time.pass(MINUTE * 3, MINUTE * 3).await;
        time.until(|| held() > now || states.borrow().synced).await;
    }
    assert!(periods.len() > 3 && held() == 30, "{periods:?}");
    assert_eq!(a.status()?.digest, hub.status()?.digest);
    Ok(())
}

#[tokio::test]
async fn a_hub_that_fails_each_time_after_it_went_well_is_dialled_no_more_often_than_the_bucket_allows()
-> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let (counted, target) = (Arc::new(AtomicUsize::new(0)), served.address());
    let dials = Arc::clone(&counted);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut hub = TcpStream::connect(target).await.unwrap();
                let both = tokio::io::copy_bidirectional(&mut socket, &mut hub);
                let _ = timeout(Duration::from_millis(100), both).await;
            });
        }
    });
    let time = Time::stop();
    let _connection = a.connect(Remote::new(&url));
    let (seconds, burst) = (120, 8);
    time.pass(SECOND * seconds, SECOND / 10).await;
    let dials = u32::try_from(dials.load(Ordering::Relaxed)).unwrap();
    // One each two seconds; pauses of at most 400 ms would make it several a second.
    assert!((seconds / 4..=burst + seconds / 2 + 1).contains(&dials), "{dials}");
    Ok(())
}

fn job_of(a: &Db, toll: &Toll) -> JoinHandle<Background> {
    let (a, remote) = (a.clone(), toll.remote());
    tokio::spawn(async move { a.run_once(&remote, SECOND * 30).await })
}

#[tokio::test]
async fn a_job_cut_by_its_deadline_after_a_page_is_partial_and_goes_on_there() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let toll = Toll::to(&served).await;
    for n in 0..8 {
        let text: String = (0..6000).map(|_| rivus::new_id()).collect();
        put(&hub, &format!("h{n}"), &text);
    }
    toll.hold(Hold::Beyond(tag::DELTA, 2));
    let time = Time::stop();
    let job = job_of(&a, &toll);
    time.until(|| toll.count(Way::Down, tag::DELTA) >= 2).await;
    time.until(|| has(&a, "h0")).await;
    settle().await;
    time.pass(SECOND * 20, SECOND).await;
    assert!(!job.is_finished());
    time.pass(SECOND * 11, SECOND).await;
    assert_eq!(job.await.unwrap(), Background::Partial);
    // One after which nothing came is a failure.
    let job = job_of(&a, &toll);
    settle().await;
    time.pass(SECOND * 31, SECOND).await;
    assert_eq!(job.await.unwrap(), Background::Failed);
    toll.hold(Hold::Nothing);
    let before = a.status()?.seq;
    let job = job_of(&a, &toll);
    time.until(|| job.is_finished()).await;
    assert_eq!(job.await.unwrap(), Background::NewData);
    assert_eq!(a.status()?.digest, hub.status()?.digest);
    let pages = toll.count(Way::Down, tag::DELTA);
    assert!(before > 0 && pages <= 10, "what had come does not come again: {pages}");
    Ok(())
}
