//! `[http]`: the daemon's HTTP server.

use distwatch_engine::detect::Rule;
use serde_json::Value as Json;

use super::{Plain, Section};
use crate::config::Config;
use crate::config::checker::{Checker, Item};
use crate::config::form::{Address, Maybe, PathName, Switch};
use crate::config::key::key;

const KEYS: Plain = Plain {
    name: "http",
    help: "The daemon's HTTP server: metrics, the state of the cluster, the events as they come, and a page that shows them. \
           A change takes a restart.",
    keys: &[
        key!("enabled", Switch, Config.http.enabled, "Whether there is one."),
        key!(
            "listen",
            Address,
            Config.http.listen,
            "Where it listens. Where other hosts can reach it, it takes TLS and a token."
        ),
        key!(
            "tls_certificate",
            Maybe<PathName>,
            Config.http.tls_certificate,
            "Its certificate in PEM form, followed by those that lead to the authority."
        )
        .example(r#""/etc/distwatch/http.pem""#)
        .unset("no TLS"),
        key!("tls_key", Maybe<PathName>, Config.http.tls_key, "The certificate's key in PEM form.")
            .example(r#""/etc/distwatch/http.key""#)
            .unset("no TLS"),
        key!(
            "token_file",
            Maybe<PathName>,
            Config.http.token_file,
            "A file with the token that whoever asks must send (Authorization: Bearer …), of 16 characters at least. The page asks \
             for it. The token is never printed."
        )
        .example(r#""/etc/distwatch/http.token""#)
        .unset("no token is asked for"),
        key!(
            "insecure_off_loopback",
            Switch,
            Config.http.insecure_off_loopback,
            "Lets it listen off loopback without TLS or without a token: whoever can reach it reads the names, addresses and \
             weaknesses of the cluster."
        ),
    ],
};

/// The section: its keys, and what must hold between them.
pub(super) struct Http;

impl Section for Http {
    fn name(&self) -> &'static str {
        KEYS.name()
    }

    fn key_names(&self) -> Vec<&'static str> {
        KEYS.key_names()
    }

    fn read(&self, item: &Item<'_>, config: &mut Config, checker: &mut Checker<'_>) {
        KEYS.read(item, config, checker);
        if let Err(fault) = config.http.check() {
            checker.wrong(item.span(), fault.what, fault.advice);
        }
    }

    fn show(&self, config: &Config, out: &mut String) {
        KEYS.show(config, out);
    }

    fn example(&self, rules: &[&'static Rule], out: &mut String) {
        KEYS.example(rules, out);
    }

    fn schema(&self, rules: &[&'static Rule]) -> Json {
        KEYS.schema(rules)
    }
}
