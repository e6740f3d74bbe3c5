//! A long time with calls, and connections that come and go: what grows.

use std::time::{Duration, Instant};

use e2e::live::{BackEnd, Lab, Node, NodeOptions, Watch, lost, unaccounted};

use super::super::table::Table;
use super::tap::POLICY;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);

/// Connections that come and go, a second.
const CHURN: u32 = 10;

/// Calls all the time, and connections that come and go. The slopes are those of the second half, by least squares.
pub(super) fn soak(table: &mut Table, seconds: u64) {
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let mut db = Node::start(&b, "db", "benchmark", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "benchmark", &NodeOptions::default());
    let (mut acceptor, mut initiator) = (Node::undistributed(&b), Node::undistributed(&a));
    let daemons = BackEnd::ALL.map(|back_end| Watch::new(&b, back_end).policy(POLICY).start());
    db.ask("load:serve()");
    web.join(&db.name);
    web.ask(&format!("load:call('{}', 32, 1)", db.name));
    let port = acceptor.ask("crowd:listen()");
    initiator.ask(&format!("crowd:churn({{10,77,0,2}}, {port}, {CHURN})"));
    let begin = Instant::now();
    let mut looks: [Vec<[f64; 3]>; 2] = [Vec::new(), Vec::new()];
    while begin.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(LOOK);
        for (looks, daemon) in looks.iter_mut().zip(&daemons) {
            let files = daemon.open_files() as f64;
            looks.push([begin.elapsed().as_secs_f64() / 3600.0, daemon.mebibytes(), files]);
        }
    }
    let calls: f64 = web.ask("load:stop(0)").parse().unwrap_or(f64::NAN);
    let rate = calls / begin.elapsed().as_secs_f64();
    drop(initiator);
    table.figure("R14", &format!("calls a second for {seconds} s, beside {CHURN} new connections a second"), rate, "");
    for (looks, daemon) in looks.iter().zip(daemons) {
        let name = daemon.back_end().name();
        let half = &looks[looks.len() / 2..];
        let least = half.first().map_or(f64::NAN, |look| look[1]);
        table.figure("R14", &format!("{name}: resident memory after half of it, MiB"), least, "");
        table.figure("R14", &format!("{name}: slope of resident memory, MiB/h"), slope(half, 1), "<= 1 over an hour");
        table.figure("R14", &format!("{name}: slope of open files, 1/h"), slope(half, 2), "0");
        let books = e2e::live::eventually("the books balance", || {
            let books = daemon.status()["capture"].clone();
            (unaccounted(&books) == 0).then_some(books)
        });
        table.figure("R14", &format!("{name}: packets lost"), lost(&books) as f64, "0");
        daemon.stop();
    }
}

/// How much a column grows with the first one.
fn slope(looks: &[[f64; 3]], column: usize) -> f64 {
    let mean = |of: usize| looks.iter().map(|look| look[of]).sum::<f64>() / looks.len() as f64;
    let (time, value) = (mean(0), mean(column));
    let both: f64 = looks.iter().map(|look| (look[0] - time) * (look[column] - value)).sum();
    both / looks.iter().map(|look| (look[0] - time).powi(2)).sum::<f64>()
}
