//! What the daemon may still do once everything is open.

use e2e::live::{BackEnd, Lab, Node, NodeOptions, Watch};

use crate::{ISOLATED, live};

/// CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF, CAP_DAC_READ_SEARCH: all that a monitor may want.
const ALLOWED: u64 = 1 << 12 | 1 << 13 | 1 << 19 | 1 << 38 | 1 << 39 | 1 << 2;

#[test]
fn it_keeps_no_more_rights_than_it_needs() {
    live!("privileges");
    let mut lab = Lab::new();
    let host = lab.host("b", 2);
    for back_end in BackEnd::ALL {
        let daemon = Watch::new(&host, back_end).policy(ISOLATED).start();
        assert_eq!(daemon.proc_status("NoNewPrivs"), "1", "{}", back_end.name());
        assert_eq!(daemon.proc_status("Seccomp"), "2", "{}: a filter", back_end.name());
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            let held = u64::from_str_radix(&daemon.proc_status(set), 16).expect("a mask");
            assert_eq!(held & !ALLOWED, 0, "{}: {set} is {held:#x}", back_end.name());
        }
        let sandbox = &daemon.status()["sandbox"];
        assert!(!sandbox.is_null(), "status says what holds it");
        daemon.stop();
    }
}

#[test]
fn as_the_unit_file_starts_it_it_captures_judges_and_writes() {
    live!("the rights of the unit file");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    for back_end in BackEnd::ALL {
        let daemon = Watch::new(&b, back_end).policy(ISOLATED).as_service().start();
        let db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
        let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
        web.join(&db.name);
        daemon.alert_about("cleartext-distribution", &db.name);
        assert_eq!(daemon.proc_status("CapEff"), "0000000000000000", "{}", back_end.name());
        assert_eq!(daemon.proc_status("Uid").split_whitespace().next(), Some("65534"), "{}", back_end.name());
        for layer in ["dropped", "landlock", "seccomp"] {
            let state = daemon.status()["sandbox"][layer]["state"].clone();
            assert_eq!(state, "full", "{}: {layer}", back_end.name());
        }
        daemon.stop();
    }
}
