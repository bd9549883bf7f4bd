use std::pin::Pin;
use std::task::{Context, Waker};

use super::*;

/// An account that has saved up for so long.
async fn rested(turns: &Arc<Turns>, ms: u64) -> Turn {
    let turn = turns.join();
    tokio::time::advance(Duration::from_millis(ms)).await;
    turn
}

fn waits_still(turn: &mut Pin<Box<impl Future<Output = Pass>>>) -> bool {
    turn.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test(start_paused = true)]
async fn who_does_little_goes_at_once_while_the_lane_is_taken() {
    let turns = Turns::new();
    let light = rested(&turns, 2000).await;
    let heavy = turns.join();
    let taken = heavy.come(Size::Short).await;
    let begun = Instant::now();
    let pass = light.come(Size::Short).await;
    assert!(pass.lane.is_none() && taken.lane.is_some());
    light.pay(pass, ms(1));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    heavy.pay(taken, ms(1));
}

#[tokio::test(start_paused = true)]
async fn a_new_account_and_one_that_has_used_up_its_credit_go_through_the_lane() {
    let turns = Turns::new();
    let turn = turns.join();
    assert!(turn.come(Size::Short).await.lane.is_some(), "new");
    // 20 ms of debt are earned in 1,280 ms.
    tokio::time::advance(ms(1281)).await;
    let pass = turn.come(Size::Short).await;
    assert!(pass.lane.is_none());
    turn.pay(pass, ms(500));
    assert!(turn.come(Size::Short).await.lane.is_some(), "in debt");
    tokio::time::advance(ms(6401)).await;
    assert!(turn.come(Size::Short).await.lane.is_none(), "and out of it: debt has an end");
    assert!(turn.come(Size::Full).await.lane.is_some(), "a long turn is nobody's to take at once");
}

#[tokio::test(start_paused = true)]
async fn those_of_one_name_pay_from_one_account() {
    let turns = Turns::new();
    let (mut one, mut two, mut other) = (turns.join(), turns.join(), turns.join());
    one.name("ann");
    two.name("ann");
    other.name("bob");
    tokio::time::advance(ms(5000)).await;
    let pass = one.come(Size::Short).await;
    one.pay(pass, ms(50));
    assert!(two.come(Size::Short).await.lane.is_some());
    assert!(other.come(Size::Short).await.lane.is_none());
}

/// Whatever of their time many take, a third of it all is theirs while somebody else is there.
#[tokio::test(start_paused = true)]
async fn the_lane_stays_empty_for_most_of_the_time_while_others_are_there() {
    let turns = Turns::new();
    let light = rested(&turns, 5000).await;
    let heavy: Vec<Turn> = (0..16).map(|_| turns.join()).collect();
    let begun = Instant::now();
    let mut used = Duration::ZERO;
    for turn in heavy.iter().cycle().take(160) {
        let pass = light.come(Size::Short).await;
        assert!(pass.lane.is_none());
        light.pay(pass, Duration::from_micros(50));
        let pass = turn.come(Size::Short).await;
        assert_eq!(pass.size, Size::Short, "in small pieces");
        tokio::time::advance(ms(11)).await;
        turn.pay(pass, ms(11));
        used += ms(11);
    }
    assert!(begun.elapsed() >= used * 29 / 10, "{used:?} of {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_owes_least_is_next_and_who_has_gone_holds_up_nobody() {
    let turns = Turns::new();
    let (first, much, little, gone) = (turns.join(), turns.join(), turns.join(), turns.join());
    much.account.change(|level| level.paid(ms(50)));
    tokio::time::advance(ms(1000)).await;
    let taken = first.come(Size::Short).await;
    let mut waits = (Box::pin(much.come(Size::Short)), Box::pin(little.come(Size::Short)));
    let mut leaves = Box::pin(gone.come(Size::Short));
    assert!(waits_still(&mut waits.0));
    assert!(waits_still(&mut leaves));
    assert!(waits_still(&mut waits.1));
    first.pay(taken, ms(1));
    // Its turn has come, and it is not there any more.
    drop(leaves);
    assert!(waits_still(&mut waits.0));
    let pass = waits.1.await;
    assert!(waits_still(&mut waits.0));
    little.pay(pass, ms(1));
    much.pay(waits.0.await, ms(1));
    assert!(!turns.with(|lane| lane.is_taken));
}

/// However many come anew, and owe less.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let turns = Turns::new();
    let much = turns.join();
    much.account.change(|level| level.paid(ms(1000)));
    let mut before = turns.join();
    let mut taken = before.come(Size::Short).await;
    let mut waits = Box::pin(much.come(Size::Short));
    assert!(waits_still(&mut waits));
    let mut passed = 0;
    while waits_still(&mut waits) {
        let next = turns.join();
        let mut comes = Box::pin(next.come(Size::Short));
        let is_waiting = waits_still(&mut comes);
        tokio::time::advance(ms(10)).await;
        before.pay(taken, ms(10));
        if !is_waiting || !waits_still(&mut waits) {
            return;
        }
        taken = comes.await;
        before = next;
        passed += 1;
        assert!(passed < 200, "all others come first");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_alone_waits_for_nothing_and_takes_long_turns() {
    let turns = Turns::new();
    let turn = turns.join();
    let begun = Instant::now();
    for _ in 0..100 {
        let pass = turn.come(Size::Short).await;
        assert_eq!(pass.size, Size::Full);
        turn.pay(pass, ms(20));
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
