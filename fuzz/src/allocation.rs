//! How much memory a piece of work takes: an allocator that counts what each thread has.

#![allow(
    unsafe_code,
    reason = "a global allocator is unsafe by its trait; this one only counts and passes on"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends has no counters any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

// SAFETY: every call is passed on unchanged to the system's allocator, whose promises are then this one's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(signed(size) - signed(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// What the work returns, and by how many bytes the memory of this thread rose above what it was before, at most.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let done = work();
    (done, usize::try_from(PEAK.get() - before).unwrap_or_default())
}

/// As [`peak`], asserting that the work took at most `times` the bytes of its input, and 64 KiB.
pub fn within<T>(times: usize, input: usize, what: &str, work: impl FnOnce() -> T) -> T {
    let (done, peak) = peak(work);
    assert!(peak <= times * input + (64 << 10), "{what}: {peak} bytes of memory for {input} of input");
    done
}

#[test]
fn what_is_taken_and_given_back_is_counted() {
    let ((), taken) = peak(|| drop(vec![0_u8; 1000]));
    assert_eq!(taken, 1000);
    let (kept, taken) = peak(|| vec![0_u8; 500]);
    assert_eq!((kept.len(), taken), (500, 500));
    let caught = std::panic::catch_unwind(|| within(1, 0, "too much", || vec![0_u8; 70_000]));
    assert!(caught.is_err());
}
