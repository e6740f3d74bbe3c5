//! `[activity]`: what is told of remote actions that are read in clear.

use distwatch_engine::policy::Arguments;

use super::Plain;
use crate::config::Config;
use crate::config::form::{Globs, Word, Words};
use crate::config::key::key;

pub(super) const SECTION: Plain = Plain {
    name: "activity",
    help: "Remote actions that are read in clear.",
    keys: &[
        key!(
            "arguments",
            Word<Arguments>,
            Config.policy.arguments,
            "How much of the arguments of a remote call is printed: \"none\", their \"types\" and sizes, or them in \
             \"full\". They are the application's data: \"full\" carries it into every report."
        ),
        key!(
            "watch",
            Globs,
            Config.policy.watch,
            "Remote calls, as globs over module:function, that the rule `remote-call` reports."
        )
        .example(r#"["ets:*", "mnesia:*"]"#),
    ],
};

impl Words for Arguments {
    const WORDS: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("types", Self::Types), ("full", Self::Full)];
}
