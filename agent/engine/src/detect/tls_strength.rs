//! TLS that protects less than it should: `weak-tls` and `tls-without-client-certificate`.

use super::{Detector, Family, Findings, Parties, Report, Rule, Span, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody, LinkChange};
use crate::model::{Answer, Severity, Tls};

pub(super) const FAMILY: Family =
    Family { rules: &[&WEAK_TLS, &TLS_WITHOUT_CLIENT_CERTIFICATE], detector: |_| Box::new(TlsStrength) };

static WEAK_TLS: Rule = Rule {
    id: "weak-tls",
    severity: Severity::High,
    off_by_default: false,
    group: group::TRANSPORT,
    raised_when: "The negotiated TLS version is below the policy's minimum (`tls.minimum_version`, 1.2 unless set), or the \
                  cipher suite is broken: NULL, EXPORT, anonymous, RC4, DES or 3DES.",
    rationale: "A broken version or suite gives the look of TLS without its protection: some suites do not encrypt at all, \
                others do not authenticate the server.",
    evidence: "The packet with the server's choice, the version and the cipher suite by its IANA name.",
    remediation: "Name versions and suites in the file that `-ssl_dist_optfile` points to, for `server` and `client`: \
                  `{versions, ['tlsv1.3', 'tlsv1.2']}`. Note that OTP 23 to 27 offer only TLS 1.2 as soon as any other \
                  option is set there and `versions` is not.",
    references: &["G1"],
    options: &[],
};

static TLS_WITHOUT_CLIENT_CERTIFICATE: Rule = Rule {
    id: "tls-without-client-certificate",
    severity: Severity::High,
    off_by_default: false,
    group: group::TRANSPORT,
    raised_when: "The server did not ask for a client certificate, or the client gave none, while the policy requires one. \
                  Up to TLS 1.2 it is read; in TLS 1.3 it is inferred from the number and lengths of the encrypted \
                  records, and said with that confidence.",
    rationale: "Without a client certificate anyone who can reach the port gets as far as the cookie, which is only \
                rudimentary access control. Mutual TLS lets in those who hold a key of the cluster.",
    evidence: "The packet that shows the server's flight without a request, or the client's without a certificate, and the \
               negotiated version.",
    remediation: "In the file that `-ssl_dist_optfile` points to, give the server side `{verify, verify_peer}`, \
                  `{cacertfile, \"ca.pem\"}` and `{fail_if_no_peer_cert, true}`, and the client side a `certfile` and \
                  `keyfile`. Where that is not wanted, set `tls.client_certificate = \"optional\"` in the policy.",
    references: &["G2"],
    options: &[],
};

struct TlsStrength;

impl Detector for TlsStrength {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Link { change, link } = &event.body else { return };
        let Some(tls) = link.tls.as_ref().filter(|_| *change != LinkChange::Closed) else { return };
        if tls.version.is_none() {
            return;
        }
        let parties = Parties::of_link(link, cluster);
        if let Some(fault) = weakness(tls, findings.policy.tls.minimum_version) {
            let reason = format!("the TLS of {parties} is weak: {fault}");
            findings.raise(event, Report::new(&WEAK_TLS, &parties, reason).span(Span::WhileLinkOpen).fact(fault));
        }
        if tls.mutual_auth == Answer::No && findings.policy.tls.client_certificate_required {
            let how = match tls.client_certificate_requested {
                Answer::No => "the server did not ask for a client certificate",
                _ => "the client gave no certificate",
            };
            let report = Report::new(&TLS_WITHOUT_CLIENT_CERTIFICATE, &parties, format!("{parties}: {how}"))
                .confidence(tls.mutual_auth_confidence)
                .span(Span::WhileLinkOpen);
            let version = tls.version.as_deref().unwrap_or("unknown");
            findings.raise(event, report.fact(format!("{how} (TLS {version})")));
        }
    }
}

/// Parts of IANA names of cipher suites that protect nothing, or too little (RFC 9325, section 4.1).
const BROKEN: [&str; 7] = ["_NULL_", "_EXPORT", "_anon_", "_RC4_", "_RC2_", "_DES_", "_3DES_"];

fn weakness(tls: &Tls, minimum: u16) -> Option<String> {
    let version = tls.version.as_deref()?;
    if wire_version(version).is_some_and(|wire| wire < minimum) {
        return Some(format!("version {version} is below the policy's minimum"));
    }
    let cipher = tls.cipher.as_deref()?;
    BROKEN.iter().any(|part| cipher.contains(part)).then(|| format!("cipher suite {cipher} is broken"))
}

/// A version in the contract's words as it stands on the wire.
fn wire_version(text: &str) -> Option<u16> {
    Some(match text {
        "ssl2" | "2.0" => 0x0200,
        "ssl3" | "3.0" => 0x0300,
        "1.0" => 0x0301,
        "1.1" => 0x0302,
        "1.2" => 0x0303,
        "1.3" => 0x0304,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, link, tls};
    use super::*;
    use crate::model::{Confidence, Link, Transport};
    use crate::policy::Policy;

    fn secured(version: &str) -> Link {
        let mut link = link("f1", ("10.77.0.1", None), ("10.77.0.2", None));
        link.transport = Transport::Tls;
        link.tls = Some(Box::new(tls(version)));
        link
    }

    #[test]
    fn a_version_below_the_minimum_or_a_broken_suite_is_weak() {
        let mut bench = Bench::new(Policy::default());
        bench.link(LinkChange::Handshake, &secured("1.2"));
        bench.link(LinkChange::Handshake, &secured("1.3"));
        bench.none("weak-tls");
        bench.link(LinkChange::Handshake, &secured("1.1"));
        assert_eq!(bench.only("weak-tls").severity, Severity::High);

        let mut bench = Bench::new(Policy::default());
        let mut broken = secured("1.2");
        broken.tls.as_mut().unwrap().cipher = Some("TLS_RSA_WITH_3DES_EDE_CBC_SHA".into());
        bench.link(LinkChange::Handshake, &broken);
        bench.only("weak-tls");

        let mut strict = Policy::default();
        strict.tls.minimum_version = 0x0304;
        let mut bench = Bench::new(strict);
        bench.link(LinkChange::Handshake, &secured("1.2"));
        bench.only("weak-tls");
    }

    #[test]
    fn a_missing_client_certificate_is_said_with_its_confidence_unless_it_is_optional() {
        let mut one_sided = secured("1.3");
        let tls = one_sided.tls.as_mut().unwrap();
        tls.mutual_auth = Answer::No;
        tls.mutual_auth_confidence = Confidence::Likely;
        tls.client_certificate_requested = Answer::No;
        let mut bench = Bench::new(Policy::default());
        bench.link(LinkChange::Handshake, &secured("1.3"));
        bench.none("tls-without-client-certificate");
        bench.link(LinkChange::Handshake, &one_sided);
        assert_eq!(bench.only("tls-without-client-certificate").confidence, Confidence::Likely);

        let mut lenient = Policy::default();
        lenient.tls.client_certificate_required = false;
        let mut bench = Bench::new(lenient);
        bench.link(LinkChange::Handshake, &one_sided);
        bench.none("tls-without-client-certificate");
    }
}
