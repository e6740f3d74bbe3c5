//! What applications do to one another, in clear: both back ends must tell the same of it.

use e2e::live::{Lab, Monitors, Node, NodeOptions};
use e2e::text;

use crate::{ISOLATED, live};

/// What is done, and the function or target that must be told.
const DONE: [(&str, &str); 12] = [
    ("rpc:call(D, lists, seq, [1, 5])", "lists:seq/2"),
    ("rpc:cast(D, erlang, garbage_collect, [])", "erlang:garbage_collect/0"),
    ("rpc:block_call(D, erlang, statistics, [runtime])", "erlang:statistics/1"),
    ("erpc:call(D, erlang, system_info, [otp_release])", "erlang:system_info/1"),
    ("erpc:cast(D, erlang, phash2, [x])", "erlang:phash2/1"),
    ("P = spawn(D, load, sink, []), exit(P, kill)", "load:sink/0"),
    ("gen_server:call({load, D}, {get, 1})", "load"),
    ("[{load, D} ! {note, N} || N <- lists:seq(1, 20)]", "load"),
    ("rpc:call(D, os, cmd, [\"id\"])", "os:cmd/1"),
    ("rpc:call(D, file, read_file, [\"/etc/debian_version\"])", "file:read_file/1"),
    ("{M, B, F} = code:get_object_code(load), rpc:call(D, code, load_binary, [M, F, B])", "code:load_binary/3"),
    ("rpc:call(D, erlang, get_cookie, [])", "erlang:get_cookie/0"),
];

#[test]
fn both_back_ends_tell_the_same_of_what_applications_do() {
    live!("what applications do");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let monitors = Monitors::start(&b, ISOLATED);
    let mut db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    db.ask("load:serve()");
    web.join(&db.name);
    for (done, _) in DONE {
        web.ask(&format!("D = 'db@10.77.0.2', {done}"));
    }
    // Many packets for one message, and many messages in one packet.
    web.ask("load:volume('db@10.77.0.2', 3, 2000000)");
    web.leave("db@10.77.0.2");
    monitors.each(|daemon| {
        for (done, told) in DONE {
            daemon.hears(done, |record| {
                let activity = &record["activity"];
                text(activity, "mfa") == told || text(activity, "target") == told
            });
        }
        for rule in ["remote-command", "remote-file-access", "remote-code-load", "cookie-on-the-wire"] {
            daemon.alert_about(rule, "web@10.77.0.1 -> db@10.77.0.2");
        }
        let end = daemon.hears("the end of the link", |record| !record["link"]["closed"].is_null());
        assert_eq!(end["link"]["gaps"], 0, "{end}");
        assert!(end["link"]["bytes"]["from_initiator"].as_u64() > Some(6_000_000), "{end}");
    });
    let picture = monitors.agree();
    assert_eq!(picture.links.len(), 1, "{picture:#?}");
}
