//! Opening the metric store over a write-ahead log whose frames are any bytes behind checksums that hold.

#![no_main]

use daraji::model::{Labels, Sample, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::store::metrics::{MetricOptions, MetricStore};
use daraji_fuzz::{fresh_dir, write_frames};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = fresh_dir();
    write_frames(&dir.path().join("wal"), bytes);
    let now = Timestamp::from_secs(7200);
    let clock = Clock::manual(now);
    let open = || {
        MetricStore::open(dir.path(), MetricOptions::default(), &Disk::real(), &clock)
            .expect("damage never stops the store from opening")
            .0
    };
    let sample = Sample::new(Labels::metric("fuzz", &[]), now, 1.0);
    let count = |store: &MetricStore| {
        let series = store.select(&[], now.millis(), now.millis()).expect("readable").flatten();
        series.filter(|series| series.labels.metric_name() == "fuzz").count()
    };
    let store = open();
    store.append(std::slice::from_ref(&sample)).expect("room for a sample");
    let before = count(&store);
    drop(store);
    assert_eq!(before, count(&open()), "a sample that was acknowledged is gone");
});
