//! Certificates that are over, soon will be, or prove nothing: `expired-certificate`, `expiring-certificate`,
//! `self-signed-certificate`.

use std::time::Duration;

use super::{Detector, Family, Findings, Parties, Report, Rule, Span, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody, LinkChange};
use crate::model::{Certificate, CertificateOwner, Severity};

pub(super) const FAMILY: Family = Family {
    rules: &[&EXPIRED_CERTIFICATE, &EXPIRING_CERTIFICATE, &SELF_SIGNED_CERTIFICATE],
    detector: |_| Box::new(Certificates),
};

static EXPIRED_CERTIFICATE: Rule = Rule {
    id: "expired-certificate",
    severity: Severity::Medium,
    off_by_default: false,
    group: group::TRANSPORT,
    raised_when: "A certificate in a TLS handshake is outside of its validity at the time of the packet: its end has \
                  passed, or its beginning has not come.",
    rationale: "A peer that verifies refuses it, so the nodes cannot connect. If they connect all the same, the peer does \
                not verify, and then anyone may sit in between.",
    evidence: "The packet, whose certificate it is, its subject, its place in the chain and its dates.",
    remediation: "Renew the certificate. Nodes read the files named in `-ssl_dist_optfile` for each new connection, at the \
                  latest after the PEM cache was emptied (`ssl:clear_pem_cache()`), so no restart is needed.",
    references: &["G2"],
    options: &[],
};

static EXPIRING_CERTIFICATE: Rule = Rule {
    id: "expiring-certificate",
    severity: Severity::Low,
    off_by_default: false,
    group: group::TRANSPORT,
    raised_when: "A certificate in a TLS handshake ends within `tls.expiry_days` (30 unless set).",
    rationale: "On that day the nodes stop connecting to each other, at the next reconnect and not before, which makes the \
                cause hard to see.",
    evidence: "The packet, whose certificate it is, its subject, its place in the chain and the day it ends.",
    remediation: "Renew the certificate and its files in time, then `ssl:clear_pem_cache()` on the node.",
    references: &["G2"],
    options: &[],
};

static SELF_SIGNED_CERTIFICATE: Rule = Rule {
    id: "self-signed-certificate",
    severity: Severity::Medium,
    off_by_default: false,
    group: group::TRANSPORT,
    raised_when: "A node's own certificate in a TLS handshake has itself as issuer.",
    rationale: "A self-signed certificate proves nothing unless the peer pins this very one. Mostly it goes together with \
                `verify_none`, and then anyone can answer in the node's place.",
    evidence: "The packet, whose certificate it is, its subject and its SHA-256.",
    remediation: "Issue the nodes' certificates from a CA of your own and give both sides `{verify, verify_peer}` with its \
                  `cacertfile`.",
    references: &["G2"],
    options: &[],
};

struct Certificates;

impl Detector for Certificates {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Link { change, link } = &event.body else { return };
        let Some(tls) = link.tls.as_ref().filter(|_| *change != LinkChange::Closed) else { return };
        if tls.certificates.is_empty() {
            return;
        }
        let parties = Parties::of_link(link, cluster);
        for certificate in &tls.certificates {
            judge(certificate, event, &parties, findings);
        }
    }
}

fn judge(certificate: &Certificate, event: &Event, parties: &Parties, findings: &mut Findings<'_>) {
    let owner = match certificate.from {
        CertificateOwner::Server => &parties.to,
        CertificateOwner::Client => &parties.from,
    };
    let Certificate { subject, issuer, not_before, not_after, sha256, position, .. } = certificate;
    let place = if *position == 0 { "certificate" } else { "CA certificate" };
    let soon = event.time.plus(days(findings.policy.tls.expiry_days));
    let mut raise = |rule, what: String| {
        let reason = format!("{owner} presents a {place} ({subject}) that {what}");
        let fact = format!(
            "{place} {position} of {owner}: subject {subject}, issuer {issuer}, valid {not_before} to {not_after}, \
             SHA-256 {sha256}"
        );
        // A node has one certificate for all its peers, so the peer is no part of the condition.
        let report = Report::new(rule, parties, reason)
            .key(format!("{} {sha256}", owner.key()))
            .subject(format!("{owner} (seen on {parties})"))
            .span(Span::OncePerLink);
        findings.raise(event, report.fact(fact));
    };
    if *not_after < event.time {
        raise(&EXPIRED_CERTIFICATE, format!("ended at {not_after}"));
    } else if *not_before > event.time {
        raise(&EXPIRED_CERTIFICATE, format!("is valid only from {not_before}"));
    } else if *not_after < soon {
        raise(&EXPIRING_CERTIFICATE, format!("ends at {not_after}"));
    }
    if certificate.self_signed && *position == 0 {
        raise(&SELF_SIGNED_CERTIFICATE, "is signed by itself".to_owned());
    }
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, START, link, port_please, tls};
    use super::*;
    use crate::model::{Link, Transport};
    use crate::policy::Policy;
    use crate::time::Timestamp;

    fn with(from: CertificateOwner, ends_in_days: i64, self_signed: bool) -> Link {
        let day = 86_400;
        let mut link = link("f1", ("10.77.0.1", None), ("10.77.0.2", None));
        link.transport = Transport::Tls;
        let mut tls = tls("1.2");
        tls.sni = Some("host-b".into());
        tls.certificates.push(Certificate {
            from,
            position: 0,
            subject: "CN=host-b".into(),
            issuer: "CN=Lab CA".into(),
            names: vec![],
            not_before: Timestamp::from_parts(START - 1000 * day, 0),
            not_after: Timestamp::from_parts(START + ends_in_days * day, 0),
            self_signed,
            sha256: "00".repeat(32),
        });
        link.tls = Some(Box::new(tls));
        link
    }

    fn bench() -> Bench {
        let mut bench = Bench::new(Policy::default());
        bench.event(port_please("10.77.0.1", "10.77.0.2", "db", 41000));
        bench
    }

    #[test]
    fn a_certificate_that_ended_before_the_packet_is_expired_and_names_its_node() {
        let mut bench = bench();
        bench.link(LinkChange::Progress, &with(CertificateOwner::Server, 400, false));
        bench.none("expired-certificate");
        bench.none("expiring-certificate");
        bench.link(LinkChange::Progress, &with(CertificateOwner::Server, -1, false));
        bench.link(LinkChange::Handshake, &with(CertificateOwner::Server, -1, false));
        let alert = bench.only("expired-certificate");
        assert!(alert.subject.starts_with("db@host-b "), "{}", alert.subject);
        assert_eq!(alert.count, 1);
        bench.none("expiring-certificate");
    }

    #[test]
    fn one_that_ends_within_the_policys_days_is_expiring() {
        let mut bench = bench();
        bench.link(LinkChange::Progress, &with(CertificateOwner::Client, 29, false));
        assert!(bench.only("expiring-certificate").subject.starts_with("10.77.0.1 "));
        bench.none("expired-certificate");
    }

    #[test]
    fn one_that_is_its_own_issuer_is_self_signed() {
        let mut bench = bench();
        bench.link(LinkChange::Progress, &with(CertificateOwner::Server, 400, true));
        assert!(bench.only("self-signed-certificate").subject.starts_with("db@host-b "));
    }
}
