//! The statements of the guideline that rules refer to: the Erlang Ecosystem Foundation Security Working Group's
//! "Distribution Protocol and EPMD", in short.

use serde_json::{Value as Json, json};

/// A statement of the guideline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What rules and alerts call it.
    pub id: &'static str,
    /// What it asks for.
    pub text: &'static str,
}

/// All statements, in their order.
pub const STATEMENTS: &[Statement] = &[
    Statement { id: "G1", text: "Run distribution over TLS: it authenticates, encrypts and protects what is sent." },
    Statement {
        id: "G2",
        text: "Let TLS clients verify the server (verify_peer with a CA), and servers ask for the client's certificate.",
    },
    Statement {
        id: "G3",
        text: "Do not rely on the cookie: it is a crude access control and stops nobody who sits in the middle.",
    },
    Statement { id: "G4", text: "Distribution in clear shows all that the application sends to whoever can read it." },
    Statement {
        id: "G5",
        text: "Keep strangers out of the cluster: one node that is taken over takes over all the others.",
    },
    Statement {
        id: "G6",
        text: "Keep EPMD off untrusted networks: it tells anyone who asks which nodes there are, and their ports.",
    },
    Statement {
        id: "G7",
        text: "Bind distribution to a network of its own (inet_dist_use_interface); by default it listens everywhere.",
    },
    Statement {
        id: "G8",
        text: "Bind EPMD to chosen addresses (-address, ERL_EPMD_ADDRESS); by default it listens everywhere.",
    },
    Statement { id: "G9", text: "Reach a remote shell through an SSH tunnel or a VPN only." },
    Statement {
        id: "G10",
        text: "A node without peers listens on loopback only, and one that needs no distribution has none.",
    },
    Statement {
        id: "G11",
        text: "Do not join the tiers of an application by distribution: it ends their isolation. Use HTTP or the like.",
    },
];

/// The statement of that id.
#[must_use]
pub fn statement(id: &str) -> Option<&'static Statement> {
    STATEMENTS.iter().find(|statement| statement.id == id)
}

/// References of a rule as JSON: each id with its statement.
#[must_use]
pub(crate) fn with_statements(ids: &[&str]) -> Vec<Json> {
    ids.iter().map(|id| json!({ "id": id, "statement": statement(id).map(|statement| statement.text) })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_refers_to_statements_that_exist() {
        for rule in distwatch_engine::detect::rules() {
            for id in rule.references {
                assert!(statement(id).is_some(), "{} refers to {id}", rule.id);
            }
        }
    }

    #[test]
    fn the_statements_are_numbered_in_their_order() {
        for (number, statement) in (1..).zip(STATEMENTS) {
            assert_eq!(statement.id, format!("G{number}"));
        }
    }
}
