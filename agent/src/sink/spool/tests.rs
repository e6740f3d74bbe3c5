//! Tests of the spool: what is written is read once and in order, whatever happens in between.

use distwatch_engine::time::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::record::EventType;

const MIB: u64 = 1 << 20;

fn open(dir: &Path) -> (Spool, Opened) {
    Spool::open(dir, MIB).unwrap()
}

fn line(number: usize) -> Vec<u8> {
    format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(number % 700)).into_bytes()
}

fn put(spool: &Spool, numbers: std::ops::Range<usize>) -> u64 {
    let mut encoded = Vec::new();
    for number in numbers.clone() {
        entry::encode(Timestamp::from_nanos(number as i64), EventType::Link, &line(number), &mut encoded);
    }
    spool.append(&encoded, numbers.len() as u64, true).unwrap()
}

fn numbers_of(part: &Part) -> Vec<i64> {
    part.entries.iter().map(|entry| entry.time.as_nanos()).collect()
}

/// Everything that can be read, and that it is whole.
fn take(spool: &Spool, done: bool) -> Vec<i64> {
    let mut taken = Vec::new();
    loop {
        let part = spool.read(50, 16 << 10);
        if part.entries.is_empty() {
            return taken;
        }
        for entry in &part.entries {
            assert_eq!(entry.line, line(entry.time.as_nanos() as usize));
        }
        taken.extend(numbers_of(&part));
        if done {
            spool.done(part.end, part.entries.len() as u64);
        }
    }
}

fn segments(dir: &Path) -> usize {
    numbers(dir).unwrap().len()
}

#[test]
fn what_is_appended_is_read_once_in_order_and_goes_when_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, opened) = open(dir.path());
    assert_eq!(opened, Opened::default());
    for start in (0..1000).step_by(100) {
        assert_eq!(put(&spool, start..start + 100), 0);
    }
    assert!(segments(dir.path()) > 3);
    assert_eq!((spool.waiting(), spool.unread()), (1000, 1000));
    assert_eq!(take(&spool, true), (0..1000).collect::<Vec<_>>());
    assert_eq!((spool.waiting(), spool.unread(), spool.waiting_bytes()), (0, 0, 0));
    spool.save_cursor(false).unwrap();
    assert_eq!(segments(dir.path()), 1, "only the one that is written is left");
    assert_eq!(take(&spool, true), [0_i64; 0]);
}

#[test]
fn what_is_not_done_is_there_after_the_process_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (spool, _) = open(dir.path());
        put(&spool, 0..600);
        let part = spool.read(100, MIB as usize);
        spool.done(part.end, 100);
        spool.save_cursor(false).unwrap();
        // Read and on its way, but never confirmed.
        spool.read(100, MIB as usize);
    }
    let (spool, opened) = open(dir.path());
    assert_eq!(opened.waiting, 500);
    put(&spool, 600..610);
    assert_eq!(take(&spool, true), (100..610).collect::<Vec<_>>());
}

#[test]
fn a_cursor_that_was_lost_means_twice_rather_than_never() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (spool, _) = open(dir.path());
        put(&spool, 0..10);
        let part = spool.read(5, MIB as usize);
        spool.done(part.end, 5);
        spool.save_cursor(false).unwrap();
    }
    fs::write(dir.path().join("cursor"), b"\0\0").unwrap();
    let (spool, opened) = open(dir.path());
    assert!(opened.cursor_lost);
    assert_eq!(take(&spool, true), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let (_spool, _) = open(dir.path());
    assert_eq!(Spool::open(dir.path(), MIB).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn at_the_limit_the_oldest_goes_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    // On its way when the limit is reached: neither lost nor read again.
    put(&spool, 0..100);
    let part = spool.read(30, MIB as usize);
    assert_eq!(numbers_of(&part), (0..30).collect::<Vec<_>>());
    let mut lost = 0;
    for start in (100..5000).step_by(100) {
        lost += put(&spool, start..start + 100);
    }
    assert!(lost > 0);
    spool.done(part.end, 30);
    let rest = take(&spool, true);
    assert_eq!(rest.len() as u64 + lost + 30, 5000);
    assert_eq!(rest, (30 + lost as i64..5000).collect::<Vec<_>>());
    let bytes: u64 = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= MIB + 100_000);
}

#[test]
fn reading_again_begins_where_it_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    put(&spool, 0..300);
    let part = spool.read(20, MIB as usize);
    spool.done(part.end, 20);
    take(&spool, false);
    spool.rewind();
    assert_eq!(spool.unread(), 280);
    assert_eq!(take(&spool, true), (20..300).collect::<Vec<_>>());
}

#[test]
fn a_record_longer_than_a_batch_goes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    put(&spool, 690..700);
    for bytes in [0, 3, 100] {
        let part = spool.read(10, bytes);
        assert_eq!(part.entries.len(), 1);
    }
}

#[test]
fn damage_in_the_middle_costs_the_rest_of_its_segment_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    for start in (0..1000).step_by(100) {
        put(&spool, start..start + 100);
    }
    let first = path(dir.path(), numbers(dir.path()).unwrap()[0]);
    let file = File::options().write(true).open(first).unwrap();
    file.write_all_at(&[0xff; 3], 5000).unwrap();
    let (mut taken, mut damaged) = (0, 0);
    loop {
        let part = spool.read(50, 16 << 10);
        damaged += part.damaged;
        if part.entries.is_empty() {
            break;
        }
        taken += part.entries.len() as u64;
        spool.done(part.end, part.entries.len() as u64);
    }
    assert!(damaged > 0 && taken > 500);
    assert_eq!(taken + damaged, 1000);
    assert_eq!(spool.waiting(), 0);
}

#[test]
fn what_the_disk_does_not_give_now_is_read_later() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    put(&spool, 0..10);
    let (first, aside) = (path(dir.path(), numbers(dir.path()).unwrap()[0]), dir.path().join("aside"));
    // A folder can be opened and not be read.
    fs::rename(&first, &aside).unwrap();
    fs::create_dir(&first).unwrap();
    let part = spool.read(50, MIB as usize);
    assert_eq!((part.failed.is_some(), part.entries.len(), part.damaged, spool.unread()), (true, 0, 0, 10));
    fs::remove_dir(&first).unwrap();
    fs::rename(&aside, &first).unwrap();
    assert_eq!(take(&spool, true), (0..10).collect::<Vec<_>>());
}

#[test]
fn what_is_written_after_damage_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    put(&spool, 0..10);
    let first = path(dir.path(), numbers(dir.path()).unwrap()[0]);
    File::options().write(true).open(first).unwrap().write_all_at(&[0xff; 3], BEGINNING).unwrap();
    assert_eq!(spool.read(50, MIB as usize).damaged, 10);
    put(&spool, 10..15);
    assert_eq!(take(&spool, true), (10..15).collect::<Vec<_>>());
    assert_eq!(spool.waiting(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The end of a segment is cut at any octet, or garbage follows it, as a crash of the machine leaves it.
    #[test]
    fn a_torn_tail_costs_only_what_was_torn(cut in 0_u64..3000, garbage in prop::collection::vec(any::<u8>(), 0..40)) {
        let dir = tempfile::tempdir().unwrap();
        let whole = {
            let (spool, _) = open(dir.path());
            put(&spool, 0..20);
            spool.waiting_bytes() + BEGINNING
        };
        let file = path(dir.path(), numbers(dir.path()).unwrap()[0]);
        let length = whole.saturating_sub(cut);
        let handle = File::options().write(true).open(&file).unwrap();
        handle.set_len(length).unwrap();
        handle.write_all_at(&garbage, length).unwrap();
        let (spool, opened) = open(dir.path());
        let taken = take(&spool, true);
        prop_assert_eq!(&taken, &(0..taken.len() as i64).collect::<Vec<_>>());
        let kept: usize = (0..taken.len()).map(|number| entry::size(line(number).len())).sum();
        let next = entry::size(line(taken.len()).len());
        prop_assert!(kept as u64 + BEGINNING <= length.max(BEGINNING));
        prop_assert!(taken.len() == 20 || kept + next > length.saturating_sub(BEGINNING) as usize);
        let expected = length + garbage.len() as u64 - if length >= BEGINNING { BEGINNING + kept as u64 } else { 0 };
        prop_assert_eq!(opened.torn_bytes, expected);
        put(&spool, 0..3);
        prop_assert_eq!(take(&spool, true), [0, 1, 2]);
    }
}

#[test]
fn a_start_reads_no_more_than_the_ends_however_much_waits() {
    /// Three gigabytes, of which nothing is on the disk: reading them would find nothing but damage.
    const SEGMENTS: u64 = 800;
    const LARGE: u64 = 4 * MIB;
    let dir = tempfile::tempdir().unwrap();
    let done = {
        let (spool, _) = open(dir.path());
        put(&spool, 0..100);
        let part = spool.read(60, MIB as usize);
        spool.done(part.end, part.entries.len() as u64);
        spool.save_cursor(false).unwrap();
        part.entries.len() as u64
    };
    let sparse: Vec<Segment> =
        (10..10 + SEGMENTS).map(|number| Segment { number, bytes: LARGE, records: 1000, read: 0, done: 0 }).collect();
    for segment in &sparse {
        File::create(path(dir.path(), segment.number)).unwrap().set_len(LARGE).unwrap();
    }
    finished::replace(dir.path(), sparse.iter()).unwrap();
    for _ in 0..2 {
        let (spool, opened) = Spool::open(dir.path(), u64::MAX).unwrap();
        assert_eq!(opened, Opened { waiting: 100 - done + SEGMENTS * 1000, ..Opened::default() });
        assert_eq!(spool.read(1, 1).entries.len(), 1, "what was written by the first run");
    }
    // One that is not as long as it was is read, and found to be nothing.
    File::options().write(true).open(path(dir.path(), 12)).unwrap().set_len(LARGE / 2).unwrap();
    let (spool, opened) = Spool::open(dir.path(), u64::MAX).unwrap();
    assert_eq!((opened.waiting, opened.torn_bytes), (100 - done + (SEGMENTS - 1) * 1000, LARGE / 2));
    assert_eq!(take(&spool, true).len() as u64, 100 - done, "what is there is read");
    drop(spool);
}

#[test]
fn finished_segments_are_known_to_the_next_run_and_the_file_about_them_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    let mut under_way = VecDeque::new();
    // A segment each round, and the server three of them behind.
    for round in 0..600 {
        put(&spool, round * 200..(round + 1) * 200);
        let part = spool.read(200, MIB as usize);
        under_way.push_back((part.end, part.entries.len() as u64));
        if under_way.len() > 3
            && let Some((end, records)) = under_way.pop_front()
        {
            spool.done(end, records);
        }
    }
    spool.save_cursor(false).unwrap();
    let (known, lines) = finished::load(dir.path());
    assert!(lines <= 2 * segments(dir.path()) as u64 + finished::GONE + 1, "{lines}");
    let waiting = spool.waiting();
    let finished: Vec<Segment> = spool.state().segments.iter().rev().skip(1).cloned().collect();
    assert!(finished.len() > 1, "{finished:?}");
    for segment in finished {
        assert_eq!(known[&segment.number], Finished { bytes: segment.bytes, records: segment.records });
    }
    drop(spool);
    let (spool, opened) = open(dir.path());
    assert_eq!(opened, Opened { waiting, ..Opened::default() });
    assert_eq!(take(&spool, true), ((120_000 - waiting as i64)..120_000).collect::<Vec<_>>());
}
