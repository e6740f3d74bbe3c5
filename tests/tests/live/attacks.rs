//! Wrong cookies, guessing, and EPMD asked from outside.

use e2e::live::{Lab, Monitors, Node, NodeOptions};
use e2e::text;

use crate::{ISOLATED, live};

#[test]
fn a_wrong_cookie_then_guessing_then_the_right_one() {
    live!("cookies");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let monitors = Monitors::start(&b, ISOLATED);
    let db = Node::start(&b, "db", "letmein", &NodeOptions::default());
    let mut probe = Node::start(&a, "probe", "x", &NodeOptions::flags(&["-hidden"]));
    let mut attempt = |word: &str| {
        probe.ask(&format!("erlang:set_cookie('{}', '{word}')", db.name));
        probe.connect(&db.name)
    };
    assert!(!attempt("admin"));
    monitors.each(|daemon| {
        daemon.link("probe@10.77.0.1", "db@10.77.0.2", "bad_cookie");
        assert_eq!(daemon.alert("bad-cookie")["severity"], "medium");
        assert!(!daemon.rules().contains(&"cookie-guessing".into()), "one failure is no guessing");
    });
    for word in ["password", "erlang", "secret", "cookie", "root", "monster"] {
        assert!(!attempt(word));
    }
    assert!(attempt("letmein"));
    monitors.each(|daemon| {
        assert_eq!(daemon.alert("cookie-guessing")["severity"], "critical");
        assert_eq!(daemon.alert("cookie-guessed")["severity"], "critical");
        daemon.alert("hidden-node");
        let weak = daemon.alert("weak-cookie");
        assert!(
            !daemon.records().iter().any(|record| record.to_string().contains("letmein")),
            "no cookie is printed: {weak}"
        );
    });
    probe.leave("db@10.77.0.2");
    let picture = monitors.agree();
    assert_eq!(picture.links.get("probe@10.77.0.1 -> db@10.77.0.2 cleartext bad_cookie"), Some(&7), "{picture:#?}");
}

#[test]
fn epmd_asked_for_its_names_from_outside() {
    live!("EPMD asked from outside");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    lab.cable([(&a, "wan0", "192.0.2.1/24"), (&b, "wan0", "192.0.2.2/24")]);
    let monitors = Monitors::start(&b, ISOLATED);
    let _db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    let mut outside = Node::undistributed(&a);
    let names = outside.ask("{ok, Names} = erl_epmd:names({192,0,2,2}), length(Names)");
    assert_eq!(names, "1");
    // DUMP, which only a person or an attacker asks for. EPMD closes without an answer: this is not its own host.
    outside.ask(
        "{ok, S} = gen_tcp:connect({192,0,2,2}, 4369, [binary, {active, false}]), gen_tcp:send(S, <<0,1,100>>), \
         {error, closed} = gen_tcp:recv(S, 4, 5000), gen_tcp:close(S)",
    );
    monitors.each(|daemon| {
        daemon.hears("the names", |record| {
            text(&record["epmd"], "request") == "names" && text(&record["epmd"]["client"], "ip") == "192.0.2.1"
        });
        daemon.alert("epmd-exposed");
        daemon.hears("enumeration by DUMP", |record| {
            let finding = &record["alert"];
            text(finding, "rule_id") == "epmd-enumeration" && text(finding, "severity") == "high"
        });
    });
    monitors.agree();
}
