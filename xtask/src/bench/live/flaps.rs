//! An interface that flaps beside a link that stays.

use super::super::table::Table;

/// Both networks are isolated, so that the links alone are at stake.
const POLICY: &str = "[network]\nisolated = [\"lo\", \"10.77.0.0/24\", \"192.0.2.0/24\"]\n";

/// So many flaps, watched in four ways at once.
pub(super) fn flaps(table: &mut Table, times: usize) {
    let (all, took) = e2e::live::flaps::flap(times, POLICY);
    table.figure("R11", &format!("{times} flaps, one after the other: seconds"), took.as_secs_f64(), "about 60");
    for flapped in all {
        let what = flapped.what;
        if flapped.slowest.as_nanos() > 0 {
            let slowest = flapped.slowest.as_secs_f64() * 1e3;
            table.figure("R11", &format!("{what}: slowest until it is attached again, ms"), slowest, "<= 1000");
        }
        let (grown, backwards) = (flapped.grown(), &flapped.backwards);
        for strange in grown.iter().chain(backwards) {
            eprintln!("{what}: {strange}");
        }
        let counts = [
            ("open files, links, maps or programs more than before", grown.len() as f64),
            ("counters that went back", backwards.len() as f64),
            ("packets lost", flapped.lost as f64),
            ("packets that the books do not account for", flapped.unaccounted as f64),
            ("octets missing of the steady link", flapped.missing as f64),
            ("connections over the flapping interface that were not seen", flapped.unseen as f64),
        ];
        for (about, count) in counts {
            table.figure("R11", &format!("{what}: {about}"), count, "0");
        }
    }
}
