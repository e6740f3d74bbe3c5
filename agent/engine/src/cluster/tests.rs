//! What the cluster believes, what it joins, and what it gives up.

use super::*;
use crate::detect::testing::{activity, at, bad_cookie, epmd, established, event, flow_of, ip, link, port_please};
use crate::event::LinkChange;
use crate::model::{EpmdName, Tls};

fn see(cluster: &mut Cluster, link: &Link) {
    let body = EventBody::Link { change: LinkChange::Progress, link: link.clone().into() };
    cluster.handle_event(&event(body, Some(flow_of(link))));
}

fn small(entries: usize) -> Cluster {
    Cluster::new(&Limits { report_entries: entries, ..Limits::default() })
}

#[test]
fn a_link_tells_its_nodes_with_addresses_ports_creations_and_releases() {
    let mut cluster = Cluster::default();
    see(&mut cluster, &established("f1"));
    see(&mut cluster, &established("f1"));
    assert_eq!(cluster.links().len(), 1);
    let db = cluster.node("db@host-b").unwrap();
    assert_eq!((db.addresses.as_slice(), db.dist_ports.as_slice()), ([ip("10.77.0.2")].as_slice(), [41000].as_slice()));
    assert_eq!(db.creations, [1_795_406_314]);
    assert_eq!((db.otp.min, db.otp.max, db.hidden), (Some(25), Some(27), false));
    assert!(cluster.node("web@host-a").unwrap().dist_ports.is_empty());
    assert_eq!(cluster.dist_port_owner(ip("10.77.0.2"), 41000), Some("db@host-b"));
}

#[test]
fn a_name_is_believed_only_when_the_other_side_did() {
    let mut cluster = Cluster::default();
    let mut half = established("f1");
    half.handshake.outcome = HandshakeOutcome::Incomplete;
    half.initiator.node = Some("stuck@host-a".into());
    see(&mut cluster, &half);
    assert!(cluster.node("stuck@host-a").is_none(), "anyone can send a name");
    assert!(cluster.node("db@host-b").is_some(), "it stood in the challenge");
    half.handshake.acceptor_flags = None;
    half.acceptor.node = Some("x@y".into());
    see(&mut cluster, &half);
    assert!(cluster.node("x@y").is_none());
    see(&mut cluster, &bad_cookie("f2"));
    assert!(cluster.node("web@host-a").is_some());
}

#[test]
fn the_peer_of_a_dynamic_name_is_not_hidden() {
    let mut cluster = Cluster::default();
    let mut dynamic = established("f1");
    dynamic.initiator.node = Some("F79064XOSHD6@host-a".into());
    dynamic.handshake.dynamic_name = true;
    dynamic.handshake.initiator_flags = Some(0xF_07DF_7FBC);
    dynamic.handshake.acceptor_flags = Some(0xF_07DF_7FBC);
    see(&mut cluster, &dynamic);
    let node = |name| cluster.node(name).map(|node| (node.hidden, node.dynamic_name)).unwrap();
    assert_eq!(node("F79064XOSHD6@host-a"), (true, true));
    assert_eq!(node("db@host-b"), (false, false));
}

#[test]
fn epmd_and_the_server_name_name_a_node_inside_tls() {
    let mut cluster = Cluster::default();
    let mut names = epmd(EpmdRequest::Names, "10.77.0.1", "10.77.0.2", "", true, "db at 46369");
    if let EventBody::Epmd(exchange) = &mut names.body {
        exchange.names.push(EpmdName { name: "db".into(), port: 41000 });
    }
    cluster.handle_event(&names);
    let mut secured = link("f1", ("10.77.0.1", None), ("10.77.0.2", None));
    secured.transport = Transport::Tls;
    secured.tls = Some(Box::new(Tls::default()));
    assert_eq!(cluster.acceptor_name(&secured), None);
    secured.tls = Some(Box::new(Tls { sni: Some("host-b".into()), ..Tls::default() }));
    see(&mut cluster, &secured);
    assert_eq!(cluster.acceptor_name(&secured), Some(("db@host-b".into(), Confidence::Likely)));
    secured.tls = Some(Box::new(Tls::default()));
    assert_eq!(cluster.acceptor_name(&secured).unwrap().0, "db@host-b", "the host part holds for the address");
    assert!(cluster.is_registered(ip("10.77.0.2"), "db"));
    assert_eq!(cluster.nodes().len(), 0, "an inferred name makes no node");
}

#[test]
fn actions_alike_are_counted_in_one_entry_and_replies_in_none() {
    let mut cluster = Cluster::default();
    let mut see = |activity| cluster.handle_event(&event(EventBody::Activity(Box::new(activity)), None));
    for count in [1, 3] {
        let mut call = activity(ActivityKind::ErpcCall, Some("os:cmd/1"), Some("erpc"));
        call.count = count;
        call.last_seen = at(i64::try_from(count).unwrap());
        call.flow_id = format!("f{count}");
        see(call);
    }
    see(activity(ActivityKind::ErpcCall, Some("os:cmd/2"), None));
    see(activity(ActivityKind::GenCall, None, Some("kiosk")));
    see(activity(ActivityKind::GenCall, None, Some("ledger")));
    see(activity(ActivityKind::Reply, None, Some("ledger")));
    let counts: Vec<_> = cluster.activity().map(|activity| (activity.count, activity.flow_id.as_str())).collect();
    assert_eq!(counts, [(4, "f1"), (1, "f1"), (1, "f1"), (1, "f1")]);
    assert_eq!(cluster.activity().next().unwrap().last_seen, at(3));
}

#[test]
fn what_never_got_far_makes_room_first_and_is_counted() {
    let mut cluster = small(16);
    see(&mut cluster, &established("open"));
    let mut ended = established("ended");
    ended.closed = Some(at(1));
    see(&mut cluster, &ended);
    for number in 0..100 {
        let mut attempt = link(&format!("a{number}"), ("10.77.0.9", None), ("10.77.0.2", None));
        attempt.closed = Some(at(number));
        attempt.last_seen = at(number);
        see(&mut cluster, &attempt);
        assert!(cluster.links().len() <= 16);
    }
    assert!(cluster.link("open").is_some() && cluster.link("ended").is_some());
    assert!(cluster.link("a0").is_none() && cluster.link("a99").is_some());
    let given_up = cluster.limits_reached()["report_entries"];
    assert_eq!(given_up as usize + cluster.links().len(), 102);
}

#[test]
fn every_table_is_bounded() {
    let mut cluster = small(16);
    for number in 0..200_u16 {
        cluster.handle_event(&port_please("10.77.0.1", "10.77.0.2", &format!("n{number}"), number));
        let mut link = established(&format!("f{number}"));
        link.acceptor.node = Some(format!("n{number}@host-b"));
        link.acceptor.port = number;
        see(&mut cluster, &link);
        let call = activity(ActivityKind::RpcCall, Some(&format!("m:f{number}/0")), None);
        cluster.handle_event(&event(EventBody::Activity(Box::new(call)), None));
    }
    let sizes = [cluster.links().len(), cluster.nodes().len(), cluster.epmd().len(), cluster.activity().len()];
    assert!(sizes.iter().all(|&size| size <= 16), "{sizes:?}");
    assert!(cluster.registered.len() <= 16 && cluster.owners.len() <= 16);
    assert_eq!(cluster.epmd().last().unwrap().name, "n199", "the latest stay");
    assert_eq!(cluster.activity().next().unwrap().mfa.as_deref(), Some("m:f0/0"), "the first actions stay");
}

#[test]
fn a_node_that_restarts_for_ever_keeps_a_bounded_list_of_creations() {
    let mut cluster = Cluster::default();
    for creation in 1..200 {
        let mut link = established("f1");
        link.handshake.acceptor_creation = Some(creation);
        see(&mut cluster, &link);
    }
    assert_eq!(cluster.node("db@host-b").unwrap().creations.len(), PER_NODE);
    assert!(cluster.limits_reached()["report_entries"] > 0);
}
