//! Handshakes of real nodes, in any pieces and with parts missing.

use proptest::prelude::*;

use super::*;
use crate::captured::{Recorded, Step, connections};
use crate::model::{Certificate, Confidence};
use crate::packet::PacketRef;
use crate::wire::Match;

/// The connections of a capture that begin with a ClientHello.
fn recorded(name: &str) -> Vec<Recorded> {
    let mut all = connections(name);
    all.retain(|one| looks_like_client_hello(&one.octets(Side::Initiator)) == Match::Yes);
    all
}

fn play(recorded: &Recorded) -> Session {
    let mut session = Session::new(false);
    for step in &recorded.steps {
        match step {
            Step::Data(at, side, data) => session.handle_data(at, *side, data),
            Step::Close(at, side) => session.handle_close(at, Some(*side)),
        }
    }
    assert_eq!(session.poll_notice(), None);
    session
}

fn only(name: &str) -> Session {
    let all = recorded(name);
    assert_eq!(all.len(), 1, "{name}");
    play(&all[0])
}

fn shown(certificate: &Certificate) -> (CertificateOwner, &str, &str, bool, &str) {
    let Certificate { from, subject, issuer, self_signed, sha256, .. } = certificate;
    (*from, subject, issuer, *self_signed, sha256)
}

#[test]
fn otp_27_is_read_like_otp_25() {
    let session = only("tls12-mutual-otp27.pcap");
    assert_eq!((session.facts().outcome, session.facts().mutual_auth), (TlsOutcome::Ok, Answer::Yes));
}

#[test]
fn tls_12_with_certificates_on_both_sides_is_read_to_the_last_field() {
    let session = only("tls12-mutual-otp25.pcap");
    let facts = session.facts();
    assert_eq!(facts.version.as_deref(), Some("1.2"));
    assert_eq!(facts.cipher.as_deref(), Some("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"));
    assert_eq!(facts.sni.as_deref(), Some("host-b"));
    assert_eq!((facts.client_certificate_requested, facts.mutual_auth), (Answer::Yes, Answer::Yes));
    assert_eq!(facts.mutual_auth_confidence, Confidence::Certain);
    assert_eq!((facts.outcome, facts.distribution_inside), (TlsOutcome::Ok, Answer::Yes));
    let own: Vec<_> = facts.certificates.iter().filter(|certificate| certificate.position == 0).map(shown).collect();
    let (server, client) = (
        "0a1d73ae72fc06d26be2e81d30e0c03201515ea1a9ead1a1200ad6b95b25b072",
        "16714ecf7339a67bf58f8d76d902cb554cd3b31fe8a68ffc273fc1a81dc73a16",
    );
    let issuer = "O=Lab Garden, CN=Lab Garden CA";
    assert_eq!(
        own,
        [
            (CertificateOwner::Server, "CN=host-b, O=Lab Garden", issuer, false, server),
            (CertificateOwner::Client, "CN=host-a, O=Lab Garden", issuer, false, client),
        ]
    );
    assert_eq!(facts.certificates[0].not_before.to_string(), "2026-11-23T03:58:19.000000000Z");
    assert_eq!(facts.certificates[0].not_after.to_string(), "2027-11-23T03:58:19.000000000Z");
    let inner = session.inner().unwrap();
    assert_eq!((inner.initiator_name_len, inner.acceptor_name_len), (Some(10), Some(9)), "web@host-a, db@host-b");
    assert!(session.finished_looking() && session.is_established() && session.is_decided());
}

#[test]
fn tls_12_where_the_server_alone_has_a_certificate_is_not_mutual_for_certain() {
    for (name, self_signed) in [("tls12-serveronly-otp23.pcap", false), ("tls12-selfsigned-otp25.pcap", true)] {
        let session = only(name);
        let facts = session.facts();
        assert_eq!((facts.client_certificate_requested, facts.mutual_auth), (Answer::No, Answer::No), "{name}");
        assert_eq!(facts.mutual_auth_confidence, Confidence::Certain);
        assert_eq!((facts.outcome, facts.distribution_inside), (TlsOutcome::Ok, Answer::Yes));
        assert_eq!(facts.certificates[0].self_signed, self_signed);
        assert!(facts.certificates.iter().all(|certificate| certificate.from == CertificateOwner::Server));
    }
}

#[test]
fn a_certificate_that_the_client_refuses_is_told_with_the_alert() {
    let session = only("tls12-expired-otp25.pcap");
    let facts = session.facts();
    assert_eq!(facts.outcome, TlsOutcome::RefusedByClient);
    assert_eq!(facts.alert.as_deref(), Some("certificate_expired from the client"));
    assert_eq!(facts.client_certificate_requested, Answer::Yes);
    assert_eq!(facts.mutual_auth, Answer::Unknown, "the client never came to it");
    assert_eq!(facts.certificates[0].not_after.to_string(), "2021-01-01T00:00:00.000000000Z");
    assert_eq!(facts.distribution_inside, Answer::Unknown);
}

#[test]
fn a_server_hello_that_was_captured_behind_the_clients_answer_is_still_waited_for() {
    let recorded = recorded("tls13-mutual-otp25.pcap").remove(0);
    let of = |wanted: Side| move |step: &&Step| matches!(step, Step::Data(_, side, _) if *side == wanted);
    let server = recorded.steps.iter().filter(of(Side::Acceptor));
    let mut session = Session::new(false);
    for step in recorded.steps.iter().filter(of(Side::Initiator)).take(2).chain(server) {
        assert!(!session.finished_looking() || session.facts().version.is_some());
        let Step::Data(at, side, data) = step else { continue };
        session.handle_data(at, *side, data);
    }
    assert_eq!(session.facts().version.as_deref(), Some("1.3"));
}

#[test]
fn tls_13_is_judged_by_its_record_lengths() {
    let cases = [
        ("tls13-mutual-otp25.pcap", Answer::Yes),
        ("tls13-mutual-otp27.pcap", Answer::Yes),
        ("tls13-serveronly-otp25.pcap", Answer::No),
    ];
    for (name, mutual) in cases {
        let session = only(name);
        let facts = session.facts();
        assert_eq!(facts.version.as_deref(), Some("1.3"), "{name}");
        assert_eq!(facts.cipher.as_deref(), Some("TLS_AES_256_GCM_SHA384"));
        assert_eq!((facts.client_certificate_requested, facts.mutual_auth), (mutual, mutual), "{name}");
        assert_eq!(facts.mutual_auth_confidence, Confidence::Likely);
        assert_eq!((facts.outcome, facts.distribution_inside), (TlsOutcome::Ok, Answer::Yes), "{name}");
        assert!(facts.certificates.is_empty());
        let inner = session.inner().unwrap();
        assert_eq!((inner.initiator_name_len, inner.acceptor_name_len), (Some(10), Some(9)), "{name}");
    }
}

#[test]
fn a_hello_to_a_node_in_clear_meets_no_tls() {
    let session = only("tls-meets-cleartext-otp25.pcap");
    assert_eq!(session.facts().outcome, TlsOutcome::NotTls);
    assert_eq!(session.facts().sni.as_deref(), Some("host-a"));
    let answers = connections("tls-meets-cleartext-otp25.pcap");
    assert!(answers.iter().any(|one| looks_like_alert(&one.octets(Side::Acceptor)) == Match::Yes));
}

#[test]
fn a_wrong_cookie_inside_tls_shows_in_both_versions() {
    for name in ["tls12-cookie-wrong-otp25.pcap", "tls13-cookie-wrong-otp27.pcap"] {
        let session = only(name);
        let facts = session.facts();
        assert_eq!((facts.outcome, facts.distribution_inside), (TlsOutcome::BadCookie, Answer::Yes), "{name}");
        assert_eq!(facts.mutual_auth, Answer::Yes);
        assert_eq!(session.inner().map(|inner| inner.outcome), Some(HandshakeOutcome::BadCookie));
    }
}

#[test]
fn a_client_without_the_certificate_that_the_server_wants_is_refused() {
    let cases = [
        ("tls12-no-client-cert-otp25.pcap", Confidence::Certain, "handshake_failure from the server"),
        ("tls13-no-client-cert-otp25.pcap", Confidence::Likely, "encrypted alert from the server"),
    ];
    for (name, confidence, alert) in cases {
        let session = only(name);
        let facts = session.facts();
        assert_eq!((facts.client_certificate_requested, facts.mutual_auth), (Answer::Yes, Answer::No), "{name}");
        assert_eq!((facts.mutual_auth_confidence, facts.outcome), (confidence, TlsOutcome::RefusedByServer), "{name}");
        assert_eq!((facts.alert.as_deref(), facts.distribution_inside), (Some(alert), Answer::Unknown), "{name}");
    }
}

#[test]
fn a_hello_retry_request_hides_nothing() {
    for (name, mutual) in [("tls13-retry-otp25.pcap", Answer::Yes), ("tls13-retry-serveronly-otp27.pcap", Answer::No)] {
        let session = only(name);
        let facts = session.facts();
        assert_eq!((facts.mutual_auth, facts.outcome), (mutual, TlsOutcome::Ok), "{name}");
        assert_eq!((facts.version.as_deref(), facts.sni.as_deref()), (Some("1.3"), Some("host-b")));
    }
}

#[test]
fn https_is_not_taken_for_distribution() {
    let all = recorded("noise-otp25.pcap");
    assert!(!all.is_empty());
    for one in &all {
        let session = play(one);
        let facts = session.facts();
        assert_ne!(facts.distribution_inside, Answer::Yes);
        assert!(matches!(facts.outcome, TlsOutcome::Established), "{facts:?}");
    }
}

#[test]
fn nothing_in_clear_is_taken_for_tls() {
    for name in ["epmd-queries-otp25.pcap", "garbage-on-dist-ports-otp25.pcap", "cookie-monster-otp27.pcap"] {
        for one in connections(name) {
            for side in Side::BOTH {
                let octets = one.octets(side);
                let hello = looks_like_client_hello(&octets);
                let real = octets.starts_with(&[0x16, 3]);
                assert!(hello != Match::Yes || real, "{name}: {octets:?}");
                assert!(looks_like_records(&octets) != Match::Yes || real || octets.starts_with(&[0x15, 3]), "{name}");
            }
        }
    }
}

#[test]
fn the_middle_of_a_connection_is_unseen_and_soon_left_alone() {
    let one = &recorded("tls13-mutual-otp25.pcap")[0];
    let data = one.steps.iter().filter_map(|step| match step {
        Step::Data(at, side, data) => Some((at, *side, data)),
        Step::Close(..) => None,
    });
    let mut session = Session::new(true);
    assert_eq!(session.facts().outcome, TlsOutcome::Unseen);
    for (at, side, data) in data.skip(8).take(1) {
        assert_eq!(looks_like_records(data), Match::Yes);
        session.handle_data(at, side, data);
    }
    assert!(session.finished_looking());
    assert_eq!((session.facts().outcome, session.facts().mutual_auth), (TlsOutcome::Unseen, Answer::Unknown));
    assert_eq!(session.poll_notice(), None);
}

#[test]
fn a_capture_that_begins_with_the_servers_hello_still_tells_most() {
    let one = &recorded("tls12-mutual-otp25.pcap")[0];
    let mut session = Session::new(true);
    for step in one.steps.iter().skip(1) {
        match step {
            Step::Data(at, side, data) => session.handle_data(at, *side, data),
            Step::Close(at, side) => session.handle_close(at, Some(*side)),
        }
    }
    let facts = session.facts();
    assert_eq!((facts.version.as_deref(), facts.sni.as_deref()), (Some("1.2"), None));
    assert_eq!((facts.outcome, facts.mutual_auth), (TlsOutcome::Ok, Answer::Yes));
}

#[test]
fn one_direction_alone_tells_what_it_can() {
    for (side, version, mutual) in
        [(Side::Acceptor, Some("1.2"), Answer::Unknown), (Side::Initiator, None, Answer::Yes)]
    {
        let one = &recorded("tls12-mutual-otp25.pcap")[0];
        let mut session = Session::new(false);
        for step in &one.steps {
            if let Step::Data(at, from, data) = step
                && *from == side
            {
                session.handle_data(at, side, data);
            }
        }
        let facts = session.facts();
        assert_eq!((facts.version.as_deref(), facts.mutual_auth), (version, mutual));
        assert_eq!(facts.client_certificate_requested, Answer::Yes);
        assert_eq!(facts.outcome, TlsOutcome::Established);
    }
}

#[test]
fn a_hole_in_the_servers_flight_makes_no_false_claim() {
    for name in ["tls12-serveronly-otp23.pcap", "tls13-serveronly-otp25.pcap", "tls13-mutual-otp25.pcap"] {
        let one = &recorded(name)[0];
        let mut session = Session::new(false);
        let mut holed = false;
        for step in &one.steps {
            match step {
                Step::Data(at, Side::Acceptor, data) if !holed => {
                    holed = true;
                    session.handle_data(at, Side::Acceptor, &data[..200]);
                    session.handle_gap(at, Side::Acceptor, data.len() as u64 - 200);
                }
                Step::Data(at, side, data) => session.handle_data(at, *side, data),
                Step::Close(at, side) => session.handle_close(at, Some(*side)),
            }
        }
        let facts = session.facts();
        assert!(matches!(facts.outcome, TlsOutcome::Established), "{name}: {:?}", facts.outcome);
        assert_ne!(facts.mutual_auth, Answer::No, "{name}: nothing was proved");
        assert_ne!(facts.distribution_inside, Answer::No, "{name}");
        assert_eq!(session.poll_notice(), None);
    }
}

#[test]
fn a_server_that_answers_something_else_does_not_speak_tls() {
    let one = &recorded("tls12-mutual-otp25.pcap")[0];
    let mut session = Session::new(false);
    let at = At::default();
    session.handle_data(&at, Side::Initiator, &one.octets(Side::Initiator)[..261]);
    assert!(session.changed());
    session.handle_data(&at, Side::Acceptor, b"HTTP/1.0 400 Bad Request\r\n");
    assert!(session.changed());
    assert_eq!(session.facts().outcome, TlsOutcome::NotTls);
    assert!(session.finished_looking());
}

#[test]
fn a_close_at_once_is_a_refusal_and_a_long_silence_is_no_tls() {
    let hello = &recorded("tls12-mutual-otp25.pcap")[0].octets(Side::Initiator)[..261];
    for (wait, outcome) in [(0, TlsOutcome::RefusedByServer), (7, TlsOutcome::NotTls)] {
        let mut session = Session::new(false);
        session.handle_data(&At::default(), Side::Initiator, hello);
        let at = At { time: Timestamp::from_parts(wait, 0), packet: PacketRef::default(), ..At::default() };
        session.handle_close(&at, Some(Side::Acceptor));
        assert_eq!(session.facts().outcome, outcome);
    }
    let mut session = Session::new(false);
    session.handle_data(&At::default(), Side::Initiator, hello);
    session.handle_close(&At::default(), None);
    assert_eq!(session.facts().outcome, TlsOutcome::Incomplete, "nobody was seen to end it");
}

#[test]
fn alerts_have_the_names_of_the_standard() {
    assert_eq!(alert_name(42), "bad_certificate");
    assert_eq!(alert_name(48), "unknown_ca");
    assert_eq!(alert_name(116), "certificate_required");
    assert_eq!(alert_name(200), "alert 200");
}

/// Everything of a capture in pieces of the given sizes, in the order of the wire.
fn in_pieces(name: &str, sizes: &[usize]) -> String {
    let one = &recorded(name)[0];
    let mut session = Session::new(false);
    let mut sizes = sizes.iter().cycle();
    for step in &one.steps {
        match step {
            Step::Data(at, side, data) => {
                let mut rest = data.as_slice();
                while !rest.is_empty() {
                    let size = sizes.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len());
                    let (front, back) = rest.split_at(size);
                    session.handle_data(at, *side, front);
                    rest = back;
                }
            }
            Step::Close(at, side) => session.handle_close(at, Some(*side)),
        }
    }
    format!("{:?} {:?}", session.facts(), session.inner())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_split_gives_the_same(sizes in prop::collection::vec(1_usize..300, 1..8), which in 0_usize..4) {
        let name = [
            "tls12-mutual-otp25.pcap", "tls12-expired-otp25.pcap", "tls13-mutual-otp27.pcap", "tls13-retry-otp25.pcap",
        ][which];
        prop_assert_eq!(in_pieces(name, &sizes), in_pieces(name, &[usize::MAX]));
    }

    #[test]
    fn hostile_octets_never_panic_and_stay_bounded(
        steps in prop::collection::vec((any::<bool>(), 0_u8..5, prop::collection::vec(any::<u8>(), 0..300)), 0..60),
        mid_stream in any::<bool>(),
    ) {
        let mut session = Session::new(mid_stream);
        let at = At::default();
        for (acceptor, form, octets) in &steps {
            let side = if *acceptor { Side::Acceptor } else { Side::Initiator };
            let length = (octets.len() as u16).to_be_bytes();
            let kinds = [20, 21, 22, 23];
            match form {
                4 => session.handle_gap(&at, side, octets.len() as u64),
                form => {
                    let header = [kinds[usize::from(*form)], 3, 3, length[0], length[1]];
                    session.handle_data(&at, side, &[&header[..], octets].concat());
                }
            }
            prop_assert!(session.memory() < 4 * handshake::MAX_MESSAGE);
        }
        session.handle_close(&at, None);
        prop_assert!(session.finished_looking());
    }

    #[test]
    fn damaged_handshakes_never_panic(place in 0_usize..3000, octet in any::<u8>(), which in 0_usize..2) {
        let one = &recorded(["tls12-mutual-otp25.pcap", "tls13-mutual-otp25.pcap"][which])[0];
        let mut session = Session::new(false);
        let mut seen = 0;
        for step in &one.steps {
            if let Step::Data(at, side, data) = step {
                let mut data = data.clone();
                if let Some(target) = place.checked_sub(seen).and_then(|place| data.get_mut(place)) {
                    *target = octet;
                }
                seen += data.len();
                session.handle_data(at, *side, &data);
            }
        }
        session.handle_close(&At::default(), Some(Side::Initiator));
        prop_assert!(session.memory() < 1 << 20);
    }
}
